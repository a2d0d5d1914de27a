package ocspbridge_test

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/policy"
	"github.com/certanchor/certanchor/network"
)

// verdict gets a bundle of cert from b as a relying party does, and verifies it offline.
func (b *bridge) verdict(p *client.Policy, cert *x509.Certificate) (*client.Verdict, error) {
	b.w.t.Helper()
	data, err := (&client.Client{LogURL: b.url}).FetchBundle(b.w.t.Context(), cert, b.w.ca.Cert)
	if err != nil {
		return nil, err
	}
	return client.VerifyBundle(p, cert, data, b.w.clock.Now())
}

func loadPolicy(t testing.TB, file []byte, fingerprint string) *client.Policy {
	t.Helper()
	p, err := client.LoadPolicy(file, fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestBundleShowsWhatTheLedgerSays(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(5)
	w.integrate() // the CA
	w.nextTick()
	c := newConsortium(w, 2, mspID, "Org2MSP")
	one, two := c.start(0).ready(), c.start(1).ready()
	p := loadPolicy(t, c.trust.File, c.trust.Policy.Fingerprint())

	pre, _, final := w.ca.Precert(t)
	ruledDER, ruled := final(cctest.SCTList())
	w.clock.Advance(time.Minute) // alone in its minute
	from := wire.MillisOf(w.clock.Now())
	w.submit(wire.FnIssue, w.ca.IssueArg(pre))
	w.submit(wire.FnIssue, w.ca.IssueArg(ruledDER))
	w.clock.Advance(time.Minute)
	to := wire.MillisOf(w.clock.Now())
	w.tick()

	w.change(wire.StatusChange{Serial: cctest.Serial(t, certs[1]), Op: wire.OpHold, Reason: wire.CertificateHold})
	w.revoke(certs[2], wire.KeyCompromise)
	w.submit(wire.FnRevoke, w.ca.RevokeArg(t, channel, certs[3].Raw, wire.Superseded, w.clock.Now()))
	admin := w.node.Connect(wire.RoleAdministrator)
	for _, arg := range [][]byte{
		w.ca.QuorumArg(cctest.Serial(t, certs[4]), wire.CessationOfOperation), w.ca.RuleArg(1, from, to, wire.PrivilegeWithdrawn),
	} {
		if _, err := admin.Submit(t.Context(), wire.FnDecide, arg); err != nil {
			t.Fatal(err)
		}
	}
	// Twice: as leaves that are newer than the map, and in the map.
	for where, step := range []func() network.Receipt{w.integrate, w.nextTick} {
		r := step()
		one.applied(r)
		two.applied(r)
		for _, tc := range []struct {
			cert   *x509.Certificate
			status client.Status
			by     string
			reason string
		}{
			{certs[0], client.Good, "", ""},
			{certs[1], client.Revoked, "ca", "certificateHold"},
			{certs[2], client.Revoked, "ca", "keyCompromise"},
			{certs[3], client.Revoked, "holder", "superseded"},
			{certs[4], client.Revoked, "quorum", "cessationOfOperation"},
			{ruled, client.Revoked, "rule 1", "privilegeWithdrawn"},
		} {
			for _, b := range []*bridge{one, two} {
				v, err := b.verdict(p, tc.cert)
				if err != nil {
					t.Errorf("step %d, %s: %v", where, tc.by, err)
					continue
				}
				if v.Status != tc.status || strings.Join(v.By, " ") != tc.by || v.Reason != tc.reason || len(v.StatusCosigners) != 2 || len(v.LogCosigners) != 2 {
					t.Errorf("step %d, %s: verdict is %+v", where, tc.by, v)
				}
			}
		}
	}
	for path, want := range map[string]int{
		"/v1/bundle/" + w.ca.ID.String() + "/" + cctest.Serial(t, certs[0]).String(): 200,
		"/v1/bundle/" + w.ca.ID.String() + "/77":                                     404,
		"/v1/bundle/" + strings.Repeat("0", 64) + "/77":                              404,
		"/v1/bundle/" + w.ca.ID.String() + "/zz":                                     400,
		"/v1/bundle/zz/77":                                                           400,
		"/logs/" + w.ca.ID.String() + "/bundle?serial=77":                            404,
	} {
		if code, body := one.get(path, nil); code != want {
			t.Errorf("%s: %d, want %d: %s", path, code, want, body)
		}
	}
}

// A bundle is not given while it would say better than what the bridge knows.
func TestBundleWaitsForTheStatusLog(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	b := w.start("bridge", nil).ready()
	_, file := b.get("/policy", nil)
	signed, err := policy.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p := loadPolicy(t, file, signed[0].Policy.Fingerprint())
	w.integrate()
	b.applied(w.nextTick())
	if v, err := b.verdict(p, cert); err != nil || v.Status != client.Good {
		t.Fatalf("verdict %+v, %v", v, err)
	}
	b.applied(w.revoke(cert, wire.KeyCompromise))
	type result struct {
		v   *client.Verdict
		err error
	}
	asked := make(chan result, 1)
	go func() {
		v, err := b.verdict(p, cert)
		asked <- result{v, err}
	}()
	w.integrate()
	if r := <-asked; r.err != nil || r.v.Status != client.Revoked {
		t.Errorf("verdict %+v, %v", r.v, r.err)
	}
}

func TestBundleOfALonePrecertificateIsRefusedToNobody(t *testing.T) {
	w := newWorld(t)
	pre, precert, final := w.ca.Precert(t)
	w.submit(wire.FnIssue, w.ca.IssueArg(pre))
	_, cert := final(cctest.SCTList())
	b := w.start("bridge", nil).ready()
	w.integrate()
	b.applied(w.nextTick())
	_, file := b.get("/policy", nil)
	signed, err := policy.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if precert.SerialNumber.Cmp(cert.SerialNumber) != 0 {
		t.Fatal("serial numbers differ")
	}
	if v, err := b.verdict(loadPolicy(t, file, signed[0].Policy.Fingerprint()), cert); err != nil || v.Status != client.Good {
		t.Errorf("verdict %+v, %v", v, err)
	}
	var st struct {
		Precertificate, Certificate *struct{ Index uint64 }
		LogIndex                    uint64 `json:"log_index"`
	}
	b.get("/v1/status/"+w.ca.ID.String()+"/"+cctest.Serial(t, cert).String(), &st)
	if st.Certificate != nil || st.Precertificate == nil || st.Precertificate.Index != st.LogIndex {
		t.Errorf("status is %+v", st)
	}
}
