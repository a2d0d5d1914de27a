package served

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/audit"
	"github.com/certanchor/certanchor/internal/sct"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

func publicKey(spki []byte) (*ecdsa.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("not a P-256 key")
	}
	return key, nil
}

// sth is the answer to get-sth, RFC 6962 section 4.3.
type sth struct {
	Size      uint64 `json:"tree_size"`
	Time      int64  `json:"timestamp"`
	Root      []byte `json:"sha256_root_hash"`
	Signature []byte `json:"tree_head_signature"`
}

// fetchCT asks for the heads of an issuance log under the organisation's own key, where they are served.
func (c *comparison) fetchCT(ctx context.Context, b *bridge, l *audit.Log) error {
	prefix := "/logs/" + l.Name
	for _, head := range []struct {
		path  string
		parse func([]byte, *ctKeys) (*claim, error)
	}{{prefix + "/ct/v1/get-sth", parseSTH}, {prefix + "/static/checkpoint", parseStatic}} {
		body, err := b.fetch.get(ctx, head.path, maxNote)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case notFound(err) && b.keys[l.Name] == nil: // not served here
			continue
		case err != nil:
			c.failed(0, b.URL+head.path, caName(l), itIsThere, err)
			continue
		}
		keys := b.keys[l.Name]
		if keys == nil {
			c.add(0, &Difference{Kind: KindSignature, Where: b.URL + head.path, What: caName(l), Found: "a head", Blocks: "a key for it in " + b.URL + "/log_list.json"})
			continue
		}
		cl, err := head.parse(body, keys)
		if err != nil {
			c.add(0, &Difference{Kind: KindSignature, Where: b.URL + head.path, What: caName(l), Found: err.Error(), Blocks: "a head signed by the key in " + b.URL + "/log_list.json"})
			continue
		}
		cl.log, cl.where, cl.bridge, cl.note, cl.key = l.Name, b.URL+head.path, b, body, keys.hex
		cl.by = []string{keys.origin}
		b.Heads++
		c.claimed(cl)
		if cl.kind == kindStatic {
			b.sites = append(b.sites, &site{bridge: b, log: l.Name, prefix: prefix + "/static", size: cl.size, chain: chainOf(l.CA)})
		}
	}
	return nil
}

// chainOf is the chain that every entry of a CA's log has: the certificate the CA was registered with, up to its root.
func chainOf(ca *wire.CARecord) [][]byte { return slices.Concat(ca.Certs[:1], ca.Chain) }

func parseSTH(body []byte, keys *ctKeys) (*claim, error) {
	var h sth
	if err := json.Unmarshal(body, &h); err != nil {
		return nil, err
	}
	if len(h.Root) != sha256.Size || h.Time < 0 {
		return nil, fmt.Errorf("root of %d octets, time %d", len(h.Root), h.Time)
	}
	// What is signed is the same as in a static-ct-api checkpoint.
	cp := tlogproof.Checkpoint{Origin: keys.origin, Size: h.Size, Root: [sha256.Size]byte(h.Root)}
	if !keys.key.Verify([]byte(cp.Text()), append(binary.BigEndian.AppendUint64(nil, uint64(h.Time)), h.Signature...)) {
		return nil, errors.New("signature " + hex.EncodeToString(h.Signature) + ", which does not verify")
	}
	return &claim{kind: kindSTH, size: cp.Size, root: cp.Root, times: []timestamp{{by: keys.origin, at: wire.Millis(h.Time)}}}, nil
}

func parseStatic(body []byte, keys *ctKeys) (*claim, error) {
	n, err := note.Open(body, note.VerifierList(keys.key))
	if err != nil {
		return nil, err
	}
	cp, err := tlogproof.ParseText(n.Text)
	if err != nil {
		return nil, err
	}
	at, err := sct.SignatureTime(n.Sigs[0])
	if err != nil {
		return nil, err
	}
	return &claim{kind: kindStatic, size: cp.Size, root: cp.Root, times: []timestamp{{by: keys.origin, at: at}}}, nil
}

// alarm is a part of what a bridge says at /v1/alarms.
type alarm struct {
	Seen    time.Time `json:"seen"`
	OwnRoot string    `json:"own_root"`
	Note    string    `json:"note"`
}

// fetchAlarms takes the evidence that a bridge has collected: its notes are claims like others.
func (c *comparison) fetchAlarms(ctx context.Context, b *bridge) error {
	const path = "/v1/alarms"
	var alarms []alarm
	err := b.fetch.json(ctx, path, &alarms)
	if ctx.Err() != nil || notFound(err) {
		return ctx.Err()
	}
	if err != nil {
		c.failed(0, b.URL+path, "alarms", itIsThere, err)
		return nil
	}
	for _, a := range alarms {
		cp, n, err := tlogproof.ReadUnverified([]byte(a.Note))
		if err != nil {
			c.note("%s%s: an alarm of %s has no checkpoint: %v", b.URL, path, a.Seen.Format(time.RFC3339), err)
			continue
		}
		var l *audit.Log
		for i := range c.logs {
			if c.logs[i].Origin == cp.Origin {
				l = &c.logs[i]
			}
		}
		by := c.signers(n)
		if l == nil || len(by) == 0 {
			c.note("%s%s: an alarm of %s about %q is signed by nobody who is known; it convicts nobody", b.URL, path, a.Seen.Format(time.RFC3339), cp.Origin)
			continue
		}
		where := fmt.Sprintf("%s%s, of %s", b.URL, path, a.Seen.Format(time.RFC3339))
		c.claimed(&claim{log: l.Name, size: cp.Size, root: cp.Root, where: where, note: []byte(a.Note), by: by})
		if own, err := hex.DecodeString(a.OwnRoot); err == nil && len(own) == sha256.Size {
			c.claimed(&claim{log: l.Name, size: cp.Size, root: [sha256.Size]byte(own), where: where + ", the bridge's own root"})
		}
	}
	return nil
}
