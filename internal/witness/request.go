// Package witness is C2SP tlog-witness between organisations: each cosigns the others' checkpoints (and its own), and each asks all the
// others. It differs from a public witness in one thing: it holds the whole ledger, so it cosigns only a root that it has recomputed
// from its own organisation's log, whatever proof comes with it. A signed root that is not the own one is evidence of a split view.
package witness

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	// Path of the one call, below a witness's submission prefix.
	Path = "/add-checkpoint"

	// MaxRequest bounds a request: 63 hashes, and a checkpoint with the signatures of many organisations.
	MaxRequest = 64 << 10

	sizeType = "text/x.tlog.size" // content type of a 409 that tells the recorded size
	maxProof = 63                 // C2SP tlog-witness: more lines MUST NOT be sent
)

// request is the body of an add-checkpoint.
type request struct {
	old        uint64
	proof      [][sha256.Size]byte
	checkpoint []byte // signed note
}

func (r *request) marshal() []byte {
	b := strconv.AppendUint([]byte("old "), r.old, 10)
	b = append(b, '\n')
	for i := range r.proof {
		b = append(base64.StdEncoding.AppendEncode(b, r.proof[i][:]), '\n')
	}
	return append(append(b, '\n'), r.checkpoint...)
}

// parseRequest reads a body. The checkpoint is not looked at.
func parseRequest(body []byte) (*request, error) {
	head, checkpoint, ok := bytes.Cut(body, []byte("\n\n"))
	if !ok {
		return nil, errors.New("request: must have an empty line before the checkpoint (C2SP tlog-witness, add-checkpoint)")
	}
	lines := strings.Split(string(head), "\n")
	value, ok := strings.CutPrefix(lines[0], "old ")
	if !ok {
		return nil, fmt.Errorf("request: first line is %.100q: must be \"old\" and a size", lines[0])
	}
	old, err := parseSize(value)
	if err != nil {
		return nil, fmt.Errorf("request: old %w", err)
	}
	lines = lines[1:]
	if len(lines) > maxProof {
		return nil, fmt.Errorf("request: %d proof lines: must be at most %d", len(lines), maxProof)
	}
	r := &request{old: old, checkpoint: checkpoint}
	for i, line := range lines {
		hash, err := base64.StdEncoding.Strict().DecodeString(line)
		// The decoder skips carriage returns.
		if err != nil || len(hash) != sha256.Size || len(line) != base64.StdEncoding.EncodedLen(sha256.Size) {
			return nil, fmt.Errorf("request: proof line %d is %.100q: must be a SHA-256 hash in base64", i+1, line)
		}
		r.proof = append(r.proof, [sha256.Size]byte(hash))
	}
	return r, nil
}

// parseSize: ASCII decimal with no leading zeroes.
func parseSize(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("size is %.100q: must be a decimal number without leading zeroes", s)
	}
	return n, nil
}
