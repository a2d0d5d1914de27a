package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/certanchor/certanchor/internal/policy"
)

func TestPolicyNamesEveryOrganisationAndWantsMoreThanHalf(t *testing.T) {
	for n, quorum := range map[int]int{1: 1, 2: 2, 3: 2, 4: 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			d := &Deployment{Dir: t.TempDir(), Channel: "certanchor"}
			for i := range n {
				d.Orgs = append(d.Orgs, Org{
					Number: i + 1, MSPID: fmt.Sprintf("Org%dMSP", i+1), URL: fmt.Sprintf("http://127.0.0.1:%d", 1000+i), bridgeDir: filepath.Join(d.Dir, BridgeName(i+1)),
				})
			}
			if err := d.foundConsortium(1100 * time.Millisecond); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(d.PolicyFile())
			if err != nil {
				t.Fatal(err)
			}
			p, err := policy.Load(text, d.PolicyFingerprint())
			if err != nil {
				t.Fatal(err)
			}
			if p.Quorum() != quorum || len(p.Orgs()) != n || p.MaxAge() != 4*time.Second {
				t.Errorf("%d of %d, %v", p.Quorum(), len(p.Orgs()), p.MaxAge())
			}
			for _, org := range d.Orgs {
				s := d.bridgeSection(org, &Options{})
				if len(s.Peers) != n-1 || s.PolicyFingerprint != d.PolicyFingerprint() || s.PublicURL != org.URL {
					t.Errorf("section of %s is %+v", org.MSPID, s)
				}
				for _, peer := range s.Peers {
					if peer.MSPID == org.MSPID || peer.LogKey == "" || peer.CosignerKey == "" || peer.URL == "" {
						t.Errorf("peer of %s is %+v", org.MSPID, peer)
					}
				}
			}
			// Another call finds the keys that are there: the pinned policy stays.
			before := d.PolicyFingerprint()
			if err := d.foundConsortium(1100 * time.Millisecond); err != nil || d.PolicyFingerprint() != before {
				t.Errorf("%v, fingerprint %s, before %s", err, d.PolicyFingerprint(), before)
			}
		})
	}
}
