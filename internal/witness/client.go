package witness

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/cosign"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// Witness is who can be asked for a cosignature.
type Witness interface {
	// Name is the cosigner key's.
	Name() string

	// Add returns a verified cosignature of a signed checkpoint of log. Errors: *AheadError when the witness has cosigned more than the
	// checkpoint covers: only a larger one will do. Others may pass.
	Add(ctx context.Context, checkpoint []byte, log merklelog.Log) (note.Signature, error)
}

// AheadError tells that a witness has cosigned a larger checkpoint of the log already.
type AheadError struct {
	Witness string
	Size    uint64 // that it has cosigned
}

func (e *AheadError) Error() string {
	return fmt.Sprintf("witness %s has cosigned size %d already", e.Witness, e.Size)
}

const (
	maxAnswer   = 16 << 10
	maxAttempts = 4 // several organisations submit to a witness: the recorded size may move between attempts

	// maxSkew is how far ahead a cosignature's time may be. One from far ahead would look fresh for as long.
	maxSkew = 5 * time.Minute
)

// Remote is another organisation's witness, over HTTP. It is safe for concurrent use; its fields must not change.
type Remote struct {
	URL  string // submission prefix
	Key  note.Verifier
	HTTP *http.Client
	Now  func() time.Time

	mu    sync.Mutex
	sizes map[string]uint64 // by origin: what it has cosigned, as far as known; saves a request
}

// Name implements Witness.
func (r *Remote) Name() string { return r.Key.Name() }

// Add implements Witness. A 409 is answered by proving from the size it tells, a few times.
func (r *Remote) Add(ctx context.Context, checkpoint []byte, log merklelog.Log) (note.Signature, error) {
	cp, n, err := tlogproof.ReadUnverified(checkpoint)
	if err != nil {
		return note.Signature{}, err
	}
	old := r.known(cp.Origin)
	if old > cp.Size {
		old = cp.Size // what is remembered may be of a witness that began again
	}
	for range maxAttempts {
		sig, size, err := r.post(ctx, cp, n.Text, old, checkpoint, log)
		if err != nil {
			return note.Signature{}, fmt.Errorf("witness %s: %w", r.Name(), err)
		}
		if size == nil {
			r.remember(cp.Origin, cp.Size)
			return sig, nil
		}
		r.remember(cp.Origin, *size)
		if *size > cp.Size {
			return note.Signature{}, &AheadError{Witness: r.Name(), Size: *size}
		}
		if *size == old {
			return note.Signature{}, fmt.Errorf("witness %s: answers 409 to old size %d with that same size", r.Name(), old)
		}
		old = *size
	}
	return note.Signature{}, fmt.Errorf("witness %s: its recorded size changed in each of %d attempts", r.Name(), maxAttempts)
}

// post sends one request. It returns the size when the witness answers 409 with one.
func (r *Remote) post(ctx context.Context, cp *tlogproof.Checkpoint, text string, old uint64, checkpoint []byte, log merklelog.Log) (note.Signature, *uint64, error) {
	path, err := merklelog.Consistency(log, old, cp.Size)
	if err != nil {
		return note.Signature{}, nil, err
	}
	body := (&request{old: old, proof: path, checkpoint: checkpoint}).marshal()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(r.URL, "/")+Path, bytes.NewReader(body))
	if err != nil {
		return note.Signature{}, nil, err
	}
	req.Header.Set("Content-Type", tlogproof.ContentType)
	resp, err := r.HTTP.Do(req)
	if err != nil {
		return note.Signature{}, nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return note.Signature{}, nil, err
	}
	switch {
	case len(answer) > maxAnswer:
		return note.Signature{}, nil, fmt.Errorf("answer is longer than %d octets", maxAnswer)
	case resp.StatusCode == http.StatusOK:
		sig, err := r.verify(text, answer)
		return sig, nil, err
	case resp.StatusCode == http.StatusConflict && resp.Header.Get("Content-Type") == sizeType:
		size, err := parseSize(strings.TrimSuffix(string(answer), "\n"))
		if err != nil {
			return note.Signature{}, nil, fmt.Errorf("409: %w", err)
		}
		return note.Signature{}, &size, nil
	}
	return note.Signature{}, nil, fmt.Errorf("HTTP status %d: %.300q", resp.StatusCode, answer)
}

// verify finds the witness's cosignature in an answer. C2SP tlog-witness: the client MUST ignore any cosignatures from unknown keys.
func (r *Remote) verify(text string, lines []byte) (note.Signature, error) {
	n, err := note.Open([]byte(text+"\n"+string(lines)), note.VerifierList(r.Key))
	if err != nil {
		return note.Signature{}, fmt.Errorf("cosignature: %w", err)
	}
	// The lines could begin a longer text of their own.
	if n.Text != text {
		return note.Signature{}, errors.New("cosignature: answer must be signature lines and nothing else")
	}
	t, err := cosign.Time(n.Sigs[0])
	if err != nil {
		return note.Signature{}, err
	}
	if now := r.Now(); t.After(now.Add(maxSkew)) {
		return note.Signature{}, fmt.Errorf("cosignature: its time %v is after now, %v", t, now.UTC())
	}
	return n.Sigs[0], nil
}

func (r *Remote) known(origin string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sizes[origin]
}

func (r *Remote) remember(origin string, size uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sizes == nil {
		r.sizes = map[string]uint64{}
	}
	r.sizes[origin] = size
}

// Local is an organisation's own witness: its cosignature counts in the quorum too, and follows the same rules.
type Local struct{ Server *Server }

// Name implements Witness.
func (l Local) Name() string { return l.Server.cfg.Signer.Name() }

// Add implements Witness.
func (l Local) Add(ctx context.Context, checkpoint []byte, log merklelog.Log) (note.Signature, error) {
	cp, _, err := tlogproof.ReadUnverified(checkpoint)
	if err != nil {
		return note.Signature{}, err
	}
	var old uint64
	for range maxAttempts {
		path, err := merklelog.Consistency(log, old, cp.Size)
		if err != nil {
			return note.Signature{}, err
		}
		sig, err := l.Server.add(ctx, (&request{old: old, proof: path, checkpoint: checkpoint}).marshal())
		var no *refusal
		if !errors.As(err, &no) || no.size == nil {
			return sig, err
		}
		if old = *no.size; old > cp.Size {
			return note.Signature{}, &AheadError{Witness: l.Name(), Size: old}
		}
	}
	return note.Signature{}, fmt.Errorf("witness %s: its recorded size changed in each of %d attempts", l.Name(), maxAttempts)
}

// signature is raw, made by s, as a signature line has it.
func signature(s note.Signer, raw []byte) note.Signature {
	line := append(binary.BigEndian.AppendUint32(nil, s.KeyHash()), raw...)
	return note.Signature{Name: s.Name(), Hash: s.KeyHash(), Base64: base64.StdEncoding.EncodeToString(line)}
}
