// Package integration holds tests of whole deployments: real processes, a real Fabric network, and faults.
package integration

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/deploy"
	"github.com/certanchor/certanchor/network"
	testnetwork "github.com/certanchor/certanchor/test-network"
	"github.com/certanchor/certanchor/test-network/nettest"
)

// patience is how long a condition may take to come true after a fault. Nothing here measures speed: make bench does.
const patience = 60 * time.Second

// tickInterval is short, so that faults span several ticks, and long enough that what waits for a new leader is not too old.
const tickInterval = 2 * time.Second

// TestOnFabric breaks one four-organisation network in every way the design says it survives. Each case leaves it whole.
func TestOnFabric(t *testing.T) {
	net := nettest.Start(t, testnetwork.Options{TickInterval: tickInterval})
	d, err := deploy.OnFabric(t.Context(), net, deploy.Options{Dir: filepath.Join(t.TempDir(), "services"), Executable: nettest.Program(t), CRLShards: 4})
	if err != nil {
		t.Fatal(err)
	}
	endWith(t, d)
	operator, err := d.Ledger(t.Context(), 1, testnetwork.Operator)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := operator.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &fabricCase{net: net, d: d, operator: operator}
	for _, c := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"EveryOrganisationAnswersForTheSameCA", f.everyOrganisationAnswers},
		{"EveryOrganisationServesTheSameCRLs", f.sameCRLs},
		{"CRLThatDiffersFromTheLedgerIsRefusedByEveryOrganisation", f.lyingCRL},
		{"CallerOfAnotherOrganisationOrRoleIsRefused", f.strangersAreRefused},
		{"EveryOrganisationTakesSubmissionsAsACTLog", f.submissionsAreForwarded},
		{"SCTsOfThreeOrganisationsAreEmbedded", f.sctsAreEmbedded},
		{"NoStatusChangeIsStarved", f.nobodyIsStarved},
		{"IntegrationIsTakenOverWhenABridgeIsGone", f.integrationIsTakenOver},
		{"BundlesVerifyOfflineWithOneOrganisationAway", f.bundlesVerifyOffline},
		{"IssuingGoesOnWhileAnotherOrganisationsPeerIsFrozen", f.frozen("org3.peer")},
		{"IssuingGoesOnWhileAnotherOrganisationsChaincodeServerIsFrozen", f.frozen("org2.chaincode")},
		{"BridgeWhosePeerIsCutOffStopsSayingGood", f.cutOff},
		{"NothingIsLostWhenTheOCSPBridgeIsKilled", f.killService(deploy.BridgeName(1))},
		{"NothingIsLostWhenAnotherOrganisationsOCSPBridgeIsKilled", f.killService(deploy.BridgeName(2))},
		{"NothingIsLostWhenTheCAIsKilled", f.killService(deploy.CAService)},
		{"NothingIsLostWhenAChaincodeServerIsKilled", f.killNode("org1.chaincode")},
		{"NothingIsLostWhenThePeerIsKilled", f.killNode("org1.peer")},
		{"NothingIsLostWhenTheBFTLeaderIsKilled", f.killLeader},
		{"CommitsResumeWhenTheLeaderFreezesAndThenTheNext", f.leadersFreeze},
		{"ThousandsAreRevokedInOneCall", f.thousandsAtOnce},
		{"IndexIsRebuiltFromBlocks", f.indexRebuilt},
		{"AnOutsideCAIsImported", f.anOutsideCAIsImported},
		{"AuditAgreesWithEveryOrganisation", f.auditAgrees}, // last: of all that has happened
	} {
		if !t.Run(c.name, c.run) {
			return // later cases would only report the damage again
		}
	}
}

type fabricCase struct {
	net      *testnetwork.Network
	d        *deploy.Deployment
	operator network.Ledger // of org1
}

// issue takes one certificate from the CA.
func (f *fabricCase) issue(t *testing.T) *x509.Certificate {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	api, err := f.d.Client()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := newCSR(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	var got *caapi.Certificate
	eventually(t, func() (err error) {
		got, err = api.Issue(ctx, caapi.IssueRequest{CSR: csr, Profile: "server"}, keyFor(csr))
		return err
	})
	block, _ := pem.Decode([]byte(got.Certificate))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (f *fabricCase) everyOrganisationAnswers(t *testing.T) {
	cert := f.issue(t)
	for _, org := range f.d.Orgs {
		awaitOCSP(t, f.d, org, cert, client.Good)
	}
	api, err := f.d.Client()
	if err != nil {
		t.Fatal(err)
	}
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	revoke := caapi.RevokeRequest{Serial: serial.String(), Reason: "keyCompromise"}
	change, acknowledged, err := api.Revoke(t.Context(), revoke)
	if err != nil || !acknowledged {
		t.Fatalf("acknowledged %v, error %v: %s", acknowledged, err, change.Detail)
	}
	// Invariant 2: after the acknowledgement the CA's own organisation does not say good, not even once.
	if a, err := ask(t, f.d.Orgs[0], cert, f.d.CACert); err != nil || a.Status != client.Revoked {
		t.Errorf("after the acknowledgement: %v, %v", a, err)
	}
	for _, org := range f.d.Orgs {
		a := awaitOCSP(t, f.d, org, cert, client.Revoked)
		if a.Reason != "keyCompromise" {
			t.Errorf("%s: reason %s", org.MSPID, a.Reason)
		}
	}
	again, acknowledged, err := api.Revoke(t.Context(), caapi.RevokeRequest{Serial: revoke.Serial, Reason: "superseded"})
	if err != nil || !acknowledged || again.Changed || again.RevocationTime != change.RevocationTime || again.Reason != "keyCompromise" {
		t.Errorf("repeated: %+v, %v; first was %+v", again, err, change)
	}
}

func (f *fabricCase) strangersAreRefused(t *testing.T) {
	cert := f.issue(t)
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	arg := wire.Encode(&wire.SetStatusArg{V: wire.Version, CAID: f.d.CAID(), Changes: []wire.StatusChange{{Serial: serial, Op: wire.OpRevoke, Reason: wire.Superseded}}})
	for _, c := range []struct {
		org      int
		identity string
		field    string
	}{
		{2, testnetwork.Operator, "caller.msp"},
		{1, testnetwork.Auditor, "caller.role"},
		{1, testnetwork.Admin, "caller.role"},
		{1, testnetwork.Nobody, "caller.role"},
	} {
		l, err := f.d.Ledger(t.Context(), c.org, c.identity)
		if err != nil {
			t.Fatal(err)
		}
		_, err = l.Submit(t.Context(), wire.FnSetStatus, arg)
		var refused *wire.Error
		if !network.IsRejected(err) || !errors.As(err, &refused) || refused.Code != wire.PermissionDenied || refused.Field != c.field {
			t.Errorf("org%d %s: got %v, want permission denied for %s", c.org, c.identity, err, c.field)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	awaitOCSP(t, f.d, f.d.Orgs[1], cert, client.Good)
}

// frozen issues and revokes while a node of another organisation answers nothing.
func (f *fabricCase) frozen(node string) func(*testing.T) {
	return func(t *testing.T) {
		if err := f.net.Freeze(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		thaw := func() {
			if err := f.net.Thaw(context.Background(), node); err != nil {
				t.Error(err)
			}
		}
		thawed := false
		defer func() {
			if !thawed {
				thaw()
			}
		}()
		l := startLoad(t, f.d)
		l.awaitMore(t, 20)
		done := l.stop()
		thaw()
		thawed = true
		f.awaitWhole(t)
		checkAcked(t, f.d, done)
	}
}

func (f *fabricCase) cutOff(t *testing.T) {
	cert := f.issue(t)
	org := f.d.Orgs[1]
	awaitOCSP(t, f.d, org, cert, client.Good)
	if err := f.net.Freeze(t.Context(), "org2.peer"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		a, err := ask(t, org, cert, f.d.CACert)
		if !errors.Is(err, client.ErrTryLater) {
			return fmt.Errorf("org2 answers %v, %v", a, err)
		}
		return nil
	})
	// A revocation that it cannot see. When it sees again, it may say good from blocks before the revocation only while
	// these are within the published bound.
	api, err := f.d.Client()
	if err != nil {
		t.Error(err)
	}
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		t.Error(err)
	}
	if _, _, err := api.Revoke(t.Context(), caapi.RevokeRequest{Serial: serial.String(), Reason: "superseded"}); err != nil {
		t.Error(err)
	}
	revoked := awaitOCSP(t, f.d, f.d.Orgs[2], cert, client.Revoked).RevokedAt
	if err := f.net.Thaw(context.Background(), "org2.peer"); err != nil {
		t.Fatal(err)
	}
	const bound = 3*tickInterval + time.Second // OCSP's times are whole seconds
	eventually(t, func() error {
		a, err := ask(t, org, cert, f.d.CACert)
		if err != nil {
			return err
		}
		if a.Status == client.Good && (time.Since(a.ThisUpdate) > bound || a.ThisUpdate.After(revoked)) {
			t.Errorf("org2 said good as of %s at %s, of a certificate revoked at %s", a.ThisUpdate, time.Now(), revoked)
		}
		if a.Status != client.Revoked {
			return fmt.Errorf("org2 answers %s", a.Status)
		}
		return nil
	})
	f.awaitWhole(t)
}

// killService kills a bridge under load and starts it again.
func (f *fabricCase) killService(name string) func(*testing.T) {
	return func(t *testing.T) {
		f.underLoad(t, func() {
			if err := f.d.Kill(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			if err := f.d.Start(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// killNode kills a node of the network under load and starts it again.
func (f *fabricCase) killNode(node string) func(*testing.T) {
	return func(t *testing.T) {
		f.underLoad(t, func() {
			if err := f.net.Kill(t.Context(), node); err != nil {
				t.Fatal(err)
			}
			if err := f.net.Start(t.Context(), node); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func (f *fabricCase) killLeader(t *testing.T) {
	f.killNode(f.leader(t))(t)
}

// underLoad breaks something while certificates are being issued and revoked, and checks everything afterwards.
func (f *fabricCase) underLoad(t *testing.T, breakIt func()) {
	l := startLoad(t, f.d)
	l.awaitMore(t, 10)
	breakIt()
	l.awaitMore(t, 20)
	done := l.stop()
	f.awaitWhole(t)
	checkAcked(t, f.d, done)
}

// leadersFreeze freezes the leader, and when it has caught up again the one that followed it.
func (f *fabricCase) leadersFreeze(t *testing.T) {
	seen := map[string]bool{}
	for range 2 {
		leader := f.leader(t)
		if seen[leader] {
			t.Fatalf("%s leads again", leader)
		}
		seen[leader] = true
		if err := f.net.Freeze(t.Context(), leader); err != nil {
			t.Fatal(err)
		}
		cert := f.issue(t)
		if err := f.net.Thaw(t.Context(), leader); err != nil {
			t.Fatal(err)
		}
		awaitOCSP(t, f.d, f.d.Orgs[1], cert, client.Good)
		// An orderer can be level and not take part yet; until it does, freezing the next one would be a second fault.
		for range 3 {
			f.awaitWhole(t)
		}
	}
}

func (f *fabricCase) leader(t *testing.T) (name string) {
	t.Helper()
	eventually(t, func() (err error) {
		name, err = f.net.Leader(t.Context())
		return err
	})
	return name
}

// awaitWhole returns when every node is healthy, all ledgers are level and every bridge is ready.
func (f *fabricCase) awaitWhole(t *testing.T) {
	t.Helper()
	nettest.Level(t, f.net, func() { f.commit(t) })
	for _, name := range f.d.Names() {
		if err := f.d.AwaitReady(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}

// commit commits a transaction that writes nothing.
func (f *fabricCase) commit(t *testing.T) {
	t.Helper()
	arg := wire.Encode(&wire.ReadArg{V: wire.Version, Keys: []string{wire.ConsortiumKey}})
	eventually(t, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := f.operator.Submit(ctx, wire.FnRead, arg)
		return err
	})
}

func (f *fabricCase) indexRebuilt(t *testing.T) {
	cert := f.issue(t)
	org := f.d.Orgs[1]
	awaitOCSP(t, f.d, org, cert, client.Good)
	name := deploy.BridgeName(2)
	if err := f.d.Kill(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(f.d.Dir, name, "index")); err != nil {
		t.Fatal(err)
	}
	if err := f.d.Start(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	awaitOCSP(t, f.d, org, cert, client.Good)
}

// ask asks one organisation's responder once.
func ask(t *testing.T, org deploy.Org, cert, issuer *x509.Certificate) (*client.Answer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c := client.Client{OCSPURL: org.OCSPURL()}
	return c.Status(ctx, cert, issuer)
}

// awaitOCSP returns an organisation's answer once it is the one awaited.
func awaitOCSP(t *testing.T, d *deploy.Deployment, org deploy.Org, cert *x509.Certificate, want client.Status) *client.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, err := deploy.AwaitStatus(ctx, &client.Client{OCSPURL: org.OCSPURL()}, cert, d.CACert, want)
	if err != nil {
		t.Fatalf("%s: %v", org.MSPID, err)
	}
	return a
}

// eventually repeats fn until it succeeds.
func eventually(t *testing.T, fn func() error) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := fn()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("after %v: %v", patience, err)
		case <-tick.C:
		}
	}
}
