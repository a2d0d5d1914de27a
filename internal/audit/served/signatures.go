package served

import (
	"encoding/base64"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/audit"
	"github.com/certanchor/certanchor/internal/cosign"
	"github.com/certanchor/certanchor/internal/policy"
)

// signatures judges a checkpoint's signatures under the policy. It returns the times of cosignatures, and who has signed.
func (c *comparison) signatures(where string, l *audit.Log, n *note.Note) (times []timestamp, by []string) {
	if c.Policy == nil {
		return nil, nil
	}
	differ := func(kind, found, must string) {
		c.add(0, &Difference{Kind: kind, Where: where, What: caName(l) + ", signatures", Found: found, Blocks: must})
	}
	servers, cosigners := 0, 0
	logKeys, cosignerKeys := c.Policy.LogKeys(), c.Policy.Cosigners()
	for _, s := range n.UnverifiedSigs {
		key := find(slices.Concat(logKeys, cosignerKeys), s)
		if key == nil {
			differ(KindForeign, c.whose(n, s), fmt.Sprintf("only keys of the policy's version %d sign", c.Policy.Version()))
			continue
		}
		if !verifies(key, n, s) {
			differ(KindSignature, fmt.Sprintf("signature of %s, which does not verify", s.Name), "signatures verify")
			continue
		}
		by = append(by, s.Name)
		if find(logKeys, s) != nil {
			servers++
			continue
		}
		cosigners++
		at, err := cosign.Time(s)
		if err != nil {
			differ(KindSignature, err.Error(), "a cosignature (C2SP tlog-cosignature)")
			continue
		}
		times = append(times, timestamp{by: s.Name, at: millis(at), skew: skew})
	}
	if servers == 0 {
		differ(KindSignature, "no signature of an organisation's log key", "the serving organisation signs")
	}
	if q := c.Policy.Quorum(); cosigners < q {
		differ(KindSignature, fmt.Sprintf("cosignatures of %d organisations", cosigners), fmt.Sprintf("the policy wants %d", q))
	}
	return times, by
}

// signers returns the names of keys whose signature verifies, under this or an earlier version of the policy.
func (c *comparison) signers(n *note.Note) (names []string) {
	if c.Policy == nil {
		return nil
	}
	for _, p := range append([]*policy.Policy{c.Policy}, c.older...) {
		for _, s := range n.UnverifiedSigs {
			key := find(slices.Concat(p.LogKeys(), p.Cosigners()), s)
			if key != nil && verifies(key, n, s) && !slices.Contains(names, s.Name) {
				names = append(names, s.Name)
			}
		}
	}
	return names
}

// whose names the key of a signature that the policy does not have.
func (c *comparison) whose(n *note.Note, s note.Signature) string {
	name := fmt.Sprintf("signature of %s (key %08x)", s.Name, s.Hash)
	for _, p := range c.older {
		if key := find(slices.Concat(p.LogKeys(), p.Cosigners()), s); key != nil {
			if !verifies(key, n, s) {
				return name + ", which does not verify"
			}
			return fmt.Sprintf("%s, a valid one by a key that version %d of the policy had and version %d has not: it was revoked", name, p.Version(), c.Policy.Version())
		}
	}
	return name + ", a key that no version of the policy has"
}

func find(keys []note.Verifier, s note.Signature) note.Verifier {
	for _, k := range keys {
		if k.Name() == s.Name && k.KeyHash() == s.Hash {
			return k
		}
	}
	return nil
}

func verifies(key note.Verifier, n *note.Note, s note.Signature) bool {
	const keyHash = 4
	raw, err := base64.StdEncoding.DecodeString(s.Base64)
	return err == nil && len(raw) > keyHash && key.Verify([]byte(n.Text), raw[keyHash:])
}
