package interop

import (
	"bytes"
	"testing"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/client"
	"github.com/google/certificate-transparency-go/ctutil"
	"github.com/google/certificate-transparency-go/jsonclient"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/certanchor/certanchor/internal/ctapi/ctapitest"
	"github.com/certanchor/certanchor/internal/sct"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// google is the client of certificate-transparency-go, which verifies each SCT and tree head.
func google(t testing.TB, f *fixture) *client.LogClient {
	t.Helper()
	c, err := client.New(f.base, f.client, jsonclient.Options{PublicKeyDER: f.key.SPKI()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func asn1(chain [][]byte) []ct.ASN1Cert {
	out := make([]ct.ASN1Cert, len(chain))
	for i := range chain {
		out[i].Data = chain[i]
	}
	return out
}

func TestClientsOfRFC6962Work(t *testing.T) {
	f := newFixture(t)
	c := google(t, f)
	ctx := t.Context()
	empty, err := c.GetSTH(ctx)
	if err != nil || empty.TreeSize != 0 {
		t.Fatalf("head of an empty log: %+v, %v", empty, err)
	}
	var before *ct.SignedTreeHead
	for i := range 20 {
		pre := i%2 == 1
		var stamp *ct.SignedCertificateTimestamp
		chain := f.ledger.Chain(t)
		if pre {
			chain = f.ledger.Chain(t, ctapitest.Poison)
			stamp, err = c.AddPreChain(ctx, asn1(chain))
		} else {
			stamp, err = c.AddChain(ctx, asn1(chain))
		}
		if err != nil {
			t.Fatalf("submission %d: %v", i, err)
		}
		if stamp.LogID.KeyID != f.key.ID() {
			t.Errorf("SCT of log %x", stamp.LogID.KeyID)
		}
		head, err := c.GetSTH(ctx)
		if err != nil || head.TreeSize != uint64(i+1) || head.Timestamp < stamp.Timestamp {
			t.Fatalf("head after submission %d: %+v, %v", i, head, err)
		}
		checkIncluded(t, c, asn1(chain), stamp, head, pre)
		if before != nil {
			path, err := c.GetSTHConsistency(ctx, before.TreeSize, head.TreeSize)
			if err != nil {
				t.Fatal(err)
			}
			if err := proof.VerifyConsistency(rfc6962.DefaultHasher, before.TreeSize, head.TreeSize, path, before.SHA256RootHash[:], head.SHA256RootHash[:]); err != nil {
				t.Errorf("%d to %d: %v", before.TreeSize, head.TreeSize, err)
			}
		}
		before = head
	}
}

// checkIncluded proves a submission by its SCT's leaf hash, and reads it back.
func checkIncluded(t *testing.T, c *client.LogClient, chain []ct.ASN1Cert, stamp *ct.SignedCertificateTimestamp, head *ct.SignedTreeHead, pre bool) {
	t.Helper()
	kind := ct.X509LogEntryType
	if pre {
		kind = ct.PrecertLogEntryType
	}
	leaf, err := ct.MerkleTreeLeafFromRawChain(chain, kind, stamp.Timestamp)
	if err != nil {
		t.Fatal(err)
	}
	leaf.TimestampedEntry.Extensions = stamp.Extensions
	hash, err := ct.LeafHashForLeaf(leaf)
	if err != nil {
		t.Fatal(err)
	}
	found, err := c.GetProofByHash(t.Context(), hash[:], head.TreeSize)
	if err != nil {
		t.Fatal(err)
	}
	index := uint64(found.LeafIndex)
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, head.TreeSize, hash[:], found.AuditPath, head.SHA256RootHash[:]); err != nil {
		t.Error(err)
	}
	entry, err := c.GetEntryAndProof(t.Context(), index, head.TreeSize)
	if err != nil {
		t.Fatal(err)
	}
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, head.TreeSize, rfc6962.DefaultHasher.HashLeaf(entry.LeafInput), entry.AuditPath, head.SHA256RootHash[:]); err != nil {
		t.Error(err)
	}
	entries, err := c.GetEntries(t.Context(), int64(index), int64(index))
	if err != nil || len(entries) != 1 {
		t.Fatal(len(entries), err)
	}
	got := entries[0]
	if pre {
		if got.Precert == nil || !bytes.Equal(got.Precert.Submitted.Data, chain[0].Data) {
			t.Error("the precertificate is not the one submitted")
		}
	} else if got.X509Cert == nil || !bytes.Equal(got.X509Cert.Raw, chain[0].Data) {
		t.Error("the certificate is not the one submitted")
	}
	if len(got.Chain) != len(chain)-1 {
		t.Fatalf("chain of %d certificates, want %d", len(got.Chain), len(chain)-1)
	}
	for i := range got.Chain {
		if !bytes.Equal(got.Chain[i].Data, chain[i+1].Data) {
			t.Errorf("chain[%d] is another certificate", i)
		}
	}
}

func TestGetRootsListsWhatChainsMayEndIn(t *testing.T) {
	f := newFixture(t)
	roots, err := google(t, f).GetAcceptedRoots(t.Context())
	if err != nil || len(roots) != 2 || !bytes.Equal(roots[0].Data, f.ledger.Root.DER) || !bytes.Equal(roots[1].Data, f.ledger.CA.DER) {
		t.Fatalf("%d roots, %v: want the self-signed one, then the CA", len(roots), err)
	}
}

// ctutil configures itself from the log list, and checks an SCT and its inclusion as an auditor would.
func TestAuditorsCheckAnSCTFromTheLogList(t *testing.T) {
	f := newFixture(t)
	f.ledger.Fill(t, 9)
	chain := asn1(f.ledger.Chain(t))
	stamp, err := google(t, f).AddChain(t.Context(), chain)
	if err != nil {
		t.Fatal(err)
	}
	info, err := ctutil.NewLogInfo(listedLog(t, f), f.client)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ctx509.ParseCertificate(chain[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	leaf := ct.CreateX509MerkleTreeLeaf(ct.ASN1Cert{Data: cert.Raw}, stamp.Timestamp)
	leaf.TimestampedEntry.Extensions = stamp.Extensions
	if err := info.VerifySCTSignature(*stamp, *leaf); err != nil {
		t.Error(err)
	}
	if index, err := info.VerifyInclusionLatest(t.Context(), *leaf, stamp.Timestamp); err != nil || index != 9 {
		t.Errorf("index %d, %v", index, err)
	}
}

// A tree head is the same whether a client gets it from get-sth or from the static checkpoint.
func TestCheckpointIsTheTreeHead(t *testing.T) {
	f := newFixture(t)
	f.ledger.Fill(t, 5)
	head, err := google(t, f).GetSTH(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text := f.fetch(t, f.base+"/static/checkpoint")
	verifier, err := sct.NewVerifier(f.log.Origin(), f.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := tlogproof.OpenCheckpoint(text, f.log.Origin(), verifier)
	if err != nil || got.Size != head.TreeSize || got.Root != [32]byte(head.SHA256RootHash) {
		t.Errorf("checkpoint %+v, %v; tree head %+v", got, err, head)
	}
	if want := bytes.TrimPrefix([]byte(f.base), []byte("https://")); string(want) != f.log.Origin() {
		t.Errorf("origin is %q, want %q", f.log.Origin(), want)
	}
}
