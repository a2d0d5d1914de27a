package ocspbridge_test

import (
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

func TestLifeOfACertificate(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", nil).ready()
	cert := w.issue(1)[0]
	b.until("good", func() (bool, string) { s := b.ask(cert); return s == "good", s })

	b.applied(w.change(wire.StatusChange{Serial: cctest.Serial(t, cert), Op: wire.OpHold, Reason: wire.CertificateHold}))
	held, _ := b.askAll(cert)
	if held == nil || held.Status.String() != "revoked" || held.Reason != int(wire.CertificateHold) {
		t.Errorf("held certificate: %+v, want revoked with certificateHold", held)
	}
	b.applied(w.change(wire.StatusChange{Serial: cctest.Serial(t, cert), Op: wire.OpRelease}))
	b.want(cert, "good")

	bad := wire.MillisOf(w.clock.Now().Add(-time.Hour))
	b.applied(w.change(wire.StatusChange{Serial: cctest.Serial(t, cert), Op: wire.OpRevoke, Reason: wire.KeyCompromise, Invalidity: bad}))
	revoked, _ := b.askAll(cert)
	if revoked == nil || revoked.Status.String() != "revoked" || revoked.Reason != int(wire.KeyCompromise) {
		t.Fatalf("revoked certificate: %+v, want revoked with keyCompromise", revoked)
	}
	if want := w.clock.Now().UTC().Truncate(time.Second); !revoked.RevokedAt.Equal(want) {
		t.Errorf("revoked at %s, want %s", revoked.RevokedAt, want)
	}
	if len(revoked.Extensions) != 1 || revoked.Extensions[0].Id.String() != "2.5.29.24" {
		t.Errorf("extensions %v, want invalidityDate", revoked.Extensions)
	}
}

func TestNeverIssuedIsNotGood(t *testing.T) {
	w := newWorld(t)
	_, never := w.ca.Issue(t) // signed by the CA, but not on the ledger
	stranger := cctest.NewCA(t)
	_, foreign := stranger.Issue(t)
	for setting, want := range map[string]string{ocspbridge.NotIssuedUnauthorized: "unauthorized", ocspbridge.NotIssuedUnknown: "unknown"} {
		t.Run(setting, func(t *testing.T) {
			b := w.start("bridge-"+setting, func(c *ocspbridge.Config) {
				c.Settings = ocspbridge.DefaultSettings()
				c.Settings.NotIssued = setting
			}).ready()
			b.want(never, want)
			if got := b.single(request(t, stranger.Cert, nil, foreign)); got != want {
				t.Errorf("certificate of a foreign CA: %s, want %s", got, want)
			}
		})
	}
}

func TestGoodNeedsFreshView(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", nil).ready()
	cert := w.issue(1)[0]
	b.until("good", func() (bool, string) { s := b.ask(cert); return s == "good", s })
	revoked := w.issue(1)[0]
	b.applied(w.revoke(revoked, wire.Superseded))

	w.clock.Advance(3 * tick) // exactly the limit
	b.want(cert, "good")
	w.clock.Advance(time.Millisecond)
	b.want(cert, "tryLater")
	b.want(revoked, "tryLater") // a hold may have been released, a reason may have changed: nothing is said
	if r := b.Ready(); r.Ready || !strings.Contains(r.Reason, "old, more than 45s") {
		t.Errorf("readiness is %+v", r)
	}
	b.applied(w.tick())
	b.want(cert, "good")
	b.want(revoked, "revoked")
}

func TestBridgeCutOffFromLedgerStopsSayingGood(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", nil).ready()
	cert := w.issue(1)[0]
	b.until("good", func() (bool, string) { s := b.ask(cert); return s == "good", s })

	b.line.set(true)
	r := w.revoke(cert, wire.KeyCompromise)
	for range 3 { // the ledger lives on; the bridge does not see it
		w.clock.Advance(tick)
		w.tick()
	}
	w.clock.Advance(time.Second)
	b.want(cert, "tryLater")

	b.line.set(false)
	b.applied(r)
	b.until("revoked", func() (bool, string) { s := b.ask(cert); return s == "revoked", s })
}

func TestBrokenStreamSilencesAtOnceUntilThePeersHeightIsReached(t *testing.T) {
	w := newWorld(t)
	b := w.startOn("bridge", &faulty{Ledger: w.conn, drops: true}, nil).ready()
	cert := w.issue(1)[0]
	b.until("good", func() (bool, string) { s := b.ask(cert); return s == "good", s })

	b.line.set(true)
	w.revoke(cert, wire.KeyCompromise) // this block ends the stream, and no time passes
	b.until("silent", func() (bool, string) { s := b.ask(cert); return s == "tryLater", s })
	b.line.set(false)
	b.until("revoked", func() (bool, string) {
		w.clock.Advance(10 * time.Millisecond) // lets the retry come due
		s := b.ask(cert)
		if s == "good" {
			t.Fatal("good after the stream broke at the revocation")
		}
		return s == "revoked", s
	})
}

func TestClockSetBackDoesNotMakeAnOldViewFresh(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", nil).ready()
	cert := w.issue(1)[0]
	b.until("good", func() (bool, string) { s := b.ask(cert); return s == "good", s })

	// Tolerated: an organisation dates its transactions as far ahead as peers let it, and this clock is slow.
	w.clock.Advance(-10*time.Second - 9*time.Second)
	single, _ := b.askAll(cert)
	if single == nil || single.ThisUpdate.After(w.clock.Now()) {
		t.Errorf("answer %+v, want one whose thisUpdate is not after now, %s", single, w.clock.Now())
	}
	w.clock.Advance(-2 * time.Second)
	b.want(cert, "tryLater")
	if r := b.Ready(); r.Ready || !strings.Contains(r.Reason, "local clock") {
		t.Errorf("readiness is %+v", r)
	}
}

func TestRevokedNeverGoodAgainAfterRestart(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", nil).ready()
	cert := w.issue(1)[0]
	b.until("good", func() (bool, string) { s := b.ask(cert); return s == "good", s })
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	w.revoke(cert, wire.KeyCompromise) // while the bridge is down; its index still has the old record

	restarted := w.startOn("bridge", cutLine(w.conn), nil) // the peer does not answer yet
	for range 50 {
		if got := restarted.ask(cert); got != "tryLater" && got != "revoked" {
			t.Fatalf("after a restart the bridge says %q of a revoked certificate", got)
		}
	}
	restarted.line.set(false)
	restarted.until("revoked", func() (bool, string) {
		w.clock.Advance(10 * time.Millisecond) // lets retries come due
		s := restarted.ask(cert)
		if s == "good" {
			t.Fatal("good after revocation")
		}
		return s == "revoked", s
	})
}

func TestNothingIsAnsweredBeforeThePeersHeightIsReached(t *testing.T) {
	w := newWorld(t)
	cert := w.issue(1)[0]
	first := w.start("bridge", nil).ready()
	first.want(cert, "good")
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	height, err := w.conn.Height(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := w.startOn("bridge", &faulty{Ledger: w.conn, ahead: 1}, nil) // the peer claims a block more than it delivers
	b.until("asked", func() (bool, string) { r := b.Ready().Reason; return strings.Contains(r, "catching up"), r })
	b.want(cert, "tryLater")
	if r := w.tick(); r.Block != height {
		t.Fatalf("tick in block %d, want %d", r.Block, height)
	}
	b.until("good", func() (bool, string) { s := b.ask(cert); return s == "good", s })
}

func TestDeletedIndexIsRebuilt(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(20)
	w.revoke(certs[3], wire.KeyCompromise)
	b := w.start("bridge", nil).ready()
	_, before := b.get("/logs/"+w.ca.ID.String()+"/proof?index=7", nil)
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(w.dir, "bridge", "index")); err != nil {
		t.Fatal(err)
	}
	b = w.start("bridge", nil).ready()
	for i, c := range certs {
		want := "good"
		if i == 3 {
			want = "revoked"
		}
		b.want(c, want)
	}
	if _, after := b.get("/logs/"+w.ca.ID.String()+"/proof?index=7", nil); string(after) != string(before) {
		t.Errorf("proof after the rebuild is\n%s\nbefore it was\n%s", after, before)
	}
}

func TestIndexOfAReplacedLedgerIsRefused(t *testing.T) {
	w := newWorld(t)
	w.issue(3)
	b := w.start("bridge", nil).ready()
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	// Another ledger of the same name and shape, in the place of the first.
	other := newWorld(t)
	other.issue(3)
	old := w.conn
	w.conn = other.conn
	defer func() { w.conn = old }()
	b = w.start("bridge", nil)
	// It has fewer blocks than the index: that may be a peer that is catching up, so the bridge waits, and says nothing.
	b.until("waiting", func() (bool, string) {
		r := b.Ready().Reason
		return strings.Contains(r, "has not delivered block 3"), r
	})
	other.issue(1)
	b.until("halted", func() (bool, string) { r := b.Ready().Reason; return strings.Contains(r, "ledger diverges"), r })
	b.wantHealth(http.StatusServiceUnavailable, "halted", "ledger diverges")
	b.want(&x509.Certificate{SerialNumber: w.ca.Cert.SerialNumber}, "tryLater")
	if err := b.stop(); err == nil || !strings.Contains(err.Error(), "block hash") {
		t.Errorf("Run returned %v, want the divergence", err)
	}
}
