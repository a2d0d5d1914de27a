// Package policytest is a consortium with keys, for tests.
package policytest

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/cosign"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/policy"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// Org is an organisation with its keys. They follow from its name, so test data can be made again.
type Org struct {
	policy.Org
	Log      note.Signer
	Cosigner *cosign.Signer
}

// Consortium is organisations and their policy.
type Consortium struct {
	Orgs   []*Org
	Policy *policy.Policy
}

// New makes a consortium of the given organisations with version 1 of a policy. now dates cosignatures.
func New(t testing.TB, channel string, quorum int, maxAge time.Duration, now func() time.Time, mspIDs ...string) *Consortium {
	t.Helper()
	c := &Consortium{}
	var orgs []policy.Org
	for _, id := range mspIDs {
		o := NewOrg(t, channel, id, "", now)
		c.Orgs, orgs = append(c.Orgs, o), append(orgs, o.Org)
	}
	var err error
	if c.Policy, err = policy.New(channel, 1, quorum, maxAge, orgs...); err != nil {
		t.Fatal(err)
	}
	return c
}

// NewOrg makes an organisation. Another salt gives it other keys.
func NewOrg(t testing.TB, channel, mspID, salt string, now func() time.Time) *Org {
	t.Helper()
	name := lognames.Key(channel, mspID)
	seed := sha256.Sum256([]byte("log " + salt + name))
	pub, ok := ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)
	if !ok {
		t.Fatal("not an Ed25519 key")
	}
	vkey, err := note.NewEd25519VerifierKey(name, pub)
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(append([]byte(name+"\n\x01"), pub...)) // C2SP signed-note, Signature types
	skey := "PRIVATE+KEY+" + name + "+" + hex.EncodeToString(hash[:4]) + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, seed[:]...))
	log, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	cosigner, err := cosign.NewSigner(lognames.Cosigner(channel, mspID), sum("cosigner "+salt+name), now)
	if err != nil {
		t.Fatal(err)
	}
	return &Org{Org: policy.Org{MSPID: mspID, LogKey: vkey, CosignerKey: cosigner.VKey()}, Log: log, Cosigner: cosigner}
}

func sum(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return h[:]
}

// Checkpoint returns the checkpoint of log at a size, signed by the log key of orgs[0] and cosigned by all of orgs, in canonical order.
func Checkpoint(t testing.TB, log merklelog.Log, origin string, size uint64, orgs ...*Org) []byte {
	t.Helper()
	root, err := merklelog.RootAt(log, size)
	if err != nil {
		t.Fatal(err)
	}
	cp := tlogproof.Checkpoint{Origin: origin, Size: size, Root: root}
	signers := []note.Signer{orgs[0].Log}
	for _, o := range orgs {
		signers = append(signers, o.Cosigner)
	}
	signed, err := cp.Sign(signers...)
	if err != nil {
		t.Fatal(err)
	}
	_, n, err := tlogproof.ReadUnverified(signed)
	if err != nil {
		t.Fatal(err)
	}
	if signed, err = tlogproof.Assemble(n.Text, n.UnverifiedSigs...); err != nil {
		t.Fatal(err)
	}
	return signed
}
