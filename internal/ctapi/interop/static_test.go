package interop

import (
	"bytes"
	"testing"

	"filippo.io/sunlight"

	"github.com/certanchor/certanchor/internal/ctapi/ctapitest"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/sct"
)

// Sunlight's client verifies the checkpoint, every tile against it, and the SCT against the entry it names.
func TestClientsOfStaticCTWork(t *testing.T) {
	const n = 600
	f := newFixture(t)
	f.ledger.Fill(t, n)
	c, err := sunlight.NewClient(&sunlight.ClientConfig{
		MonitoringPrefix: f.base + "/static", HTTPClient: f.client, PublicKey: f.key.Public(), UserAgent: "certanchor-test (+https://example.com)",
	})
	if err != nil {
		t.Fatal(err)
	}
	checkpoint, _, err := c.Checkpoint(t.Context())
	if err != nil || checkpoint.N != n || checkpoint.Origin != f.log.Origin() {
		t.Fatalf("%+v, %v", checkpoint, err)
	}
	next := int64(0)
	for i, e := range c.Entries(t.Context(), checkpoint.Tree, 0) {
		if i != next || e.LeafIndex != i {
			t.Fatalf("entry %d with index %d, want %d", i, e.LeafIndex, next)
		}
		next++
		entries, err := f.ledger.Entries(uint64(i), uint64(i)+1)
		if err != nil || !bytes.Equal(e.MerkleTreeLeaf(), entries[0].Leaf) || e.IsPrecert && !bytes.Equal(e.PreCertificate, entries[0].DER) {
			t.Fatalf("entry %d is another one, %v", i, err)
		}
		for k, want := range [][]byte{f.ledger.CA.DER, f.ledger.Root.DER} {
			issuer, err := c.Issuer(t.Context(), e.ChainFingerprints[k])
			if i > 2 {
				break // the same ones
			}
			if err != nil || !bytes.Equal(issuer.Raw, want) {
				t.Errorf("issuer %d: %v", k, err)
			}
		}
	}
	if err := c.Err(); err != nil {
		t.Fatal(err)
	}
	// Sunlight's client leaves out a partial tile's entries while there are full ones: they come when the tile is full.
	if next < n/256*256 {
		t.Errorf("%d entries", next)
	}
	checkSCTs(t, f, c)
}

func checkSCTs(t *testing.T, f *fixture, c *sunlight.Client) {
	t.Helper()
	for _, pre := range []bool{false, true} {
		chain := f.ledger.Chain(t)
		if pre {
			chain = f.ledger.Chain(t, ctapitest.Poison)
		}
		stamp := submit(t, f, chain, pre)
		checkpoint, _, err := c.Checkpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		e, _, err := c.CheckInclusion(t.Context(), checkpoint.Tree, stamp.Marshal())
		if err != nil {
			t.Fatal(err)
		}
		if e.IsPrecert != pre || !pre && !bytes.Equal(e.Certificate, chain[0]) || pre && !bytes.Equal(e.PreCertificate, chain[0]) {
			t.Error("the SCT leads to another entry")
		}
	}
}

// submit makes the SCT as the server does; that over HTTP it is the same is what the tests of RFC 6962 clients show.
func submit(t *testing.T, f *fixture, chain [][]byte, pre bool) *sct.SCT {
	t.Helper()
	entry, err := f.ledger.Submit(t.Context(), chain[0])
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ctleaf.X509(entry.Index, entry.Time, chain[0])
	if pre {
		var tbs []byte
		if tbs, err = ctleaf.PrecertTBS(chain[0]); err == nil {
			leaf, err = ctleaf.Precert(entry.Index, entry.Time, f.ledger.CA.ID, tbs)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	stamp, err := f.key.SignSCT(leaf)
	if err != nil {
		t.Fatal(err)
	}
	return stamp
}
