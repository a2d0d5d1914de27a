package caimport_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor"
	"github.com/certanchor/certanchor/internal/anchor/anchortest"
	"github.com/certanchor/certanchor/internal/caimport"
	"github.com/certanchor/certanchor/internal/caimport/importtest"
	"github.com/certanchor/certanchor/network"
)

// run is one import.
type run struct {
	counts *caimport.Counts
	out    caimport.Outcome
	bad    []*caimport.Bad
	err    error
}

// options of an import in a test.
type options struct {
	ledger    network.Ledger // default the plain one
	state     string         // default a file of its own
	batch     int
	keepGoing bool
	valid     bool
	dryRun    bool
	stop      func(done uint64)
}

func doImport(t testing.TB, l *importtest.Ledger, in caimport.Inputs, o options) *run {
	t.Helper()
	ctx, r := t.Context(), new(run)
	if o.ledger == nil {
		o.ledger = l.Conn
	}
	if o.state == "" {
		o.state = filepath.Join(t.TempDir(), "state.json")
	}
	if o.stop == nil {
		o.stop = func(uint64) {}
	}
	ca, err := caimport.FindAuthority(ctx, o.ledger, l.ID)
	check(t, err)
	plan, err := caimport.NewPlan(ca, in, "", caimport.Options{AssumeValid: o.valid, OnBad: func(b *caimport.Bad) { r.bad = append(r.bad, b) }})
	if err != nil {
		r.err = err
		return r
	}
	state, err := caimport.LoadState(o.state, o.ledger.Channel(), l.ID.String())
	check(t, err)
	if r.counts, r.err = plan.Resume(ctx, state); r.err != nil || r.counts.Bad > 0 && !o.keepGoing {
		return r
	}
	s := &caimport.Submitter{Ledger: o.ledger, CAID: l.ID, BatchItems: o.batch, Patience: time.Minute, DryRun: o.dryRun, Log: importtest.Quiet()}
	if o.keepGoing {
		s.OnRefused = func(b *caimport.Bad) { r.bad = append(r.bad, b) }
	}
	r.out, r.err = caimport.Import(ctx, plan, s, state, o.stop)
	return r
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func clean(t testing.TB, r *run) {
	t.Helper()
	if r.err != nil || len(r.bad) > 0 {
		t.Fatalf("%v, bad %v", r.err, r.bad)
	}
}

func write(t testing.TB, dir, name string, data ...[]byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	check(t, os.WriteFile(path, slices.Concat(data...), 0o600))
	return path
}

func asPEM(ders ...[]byte) []byte {
	var all []byte
	for _, der := range ders {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return all
}

func TestAnOpenSSLCAIsOnTheLedgerAsItIs(t *testing.T) {
	ca := importtest.NewOpenSSL(t)
	ca.Issue(8)
	ca.Issue(1, "-startdate", "20200101000000Z", "-enddate", "20210101000000Z") // 09
	ca.Run("ca", "-config", "ca.cnf", "-updatedb")                              // E
	ca.Revoke("01", "-crl_compromise", "20240101000000Z")
	ca.Revoke("02", "-crl_hold", "holdInstructionReject")
	ca.Revoke("03")
	ca.Revoke("04", "-crl_reason", "superseded")
	check(t, os.Remove(ca.Path("newcerts/04.pem"))) // revoked, and lost
	check(t, os.Remove(ca.Path("newcerts/09.pem"))) // expired, and lost
	l := importtest.NewLedger(t, ca.Cert)

	r := doImport(t, l, caimport.Inputs{Any: []string{ca.Dir}}, options{})
	clean(t, r)
	if c := r.counts; c.Valid != 4 || c.Held != 1 || c.Revoked != 2 || c.SerialOnlyRevoked != 1 || c.LeftOut != 1 || r.out.Changed != 8 {
		t.Fatalf("%+v, %+v", *c, r.out)
	}
	if l.LogSize() != 7 {
		t.Errorf("the log has %d certificates", l.LogSize())
	}
	for serial, want := range map[string]wire.CertRecord{
		"01": {State: wire.CertRevoked, Reason: wire.KeyCompromise, Invalidity: wire.MillisOf(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC))},
		"02": {State: wire.CertHeld, Reason: wire.CertificateHold}, "03": {State: wire.CertRevoked}, "04": {State: wire.CertRevoked, Reason: wire.Superseded},
		"05": {State: wire.CertValid}, "08": {State: wire.CertValid},
	} {
		got := l.Record(serial)
		if got == nil || got.State != want.State || got.Reason != want.Reason || got.Invalidity != want.Invalidity || !got.Imported {
			t.Errorf("%s is %+v", serial, got)
			continue
		}
		if got.SerialOnly() != (serial == "04") || (got.Asserted == 0) != (want.State == wire.CertValid) {
			t.Errorf("%s: serial only %v, asserted %d", serial, got.SerialOnly(), got.Asserted)
		}
	}
	if l.Record("09") != nil {
		t.Error("an expired certificate that nobody has is on the ledger")
	}
	// The same again changes nothing, with or without a state.
	again := doImport(t, l, caimport.Inputs{Any: []string{ca.Dir}}, options{})
	clean(t, again)
	if again.out.Changed != 0 || again.out.Items != 8 || l.LogSize() != 7 {
		t.Errorf("%+v, %d in the log", again.out, l.LogSize())
	}
}

func TestADirectoryAndACRLAreJoined(t *testing.T) {
	ca := importtest.NewOpenSSL(t)
	ca.Issue(5)
	ca.Revoke("02", "-crl_reason", "keyCompromise")
	ca.Revoke("03")
	crl := ca.CRL()
	check(t, os.Remove(ca.Path("newcerts/03.pem")))
	l := importtest.NewLedger(t, ca.Cert)
	in := caimport.Inputs{Certs: []string{ca.Path("newcerts")}}

	// What no source tells is not taken for valid.
	r := doImport(t, l, in, options{})
	if r.err != nil || len(r.bad) != 1 || r.counts.Bad != 4 || r.bad[0].Field != "status" || l.LogSize() != 0 {
		t.Fatalf("%v, bad %v, %d in the log", r.err, r.bad, l.LogSize())
	}
	in.CRLs = []string{crl}
	r = doImport(t, l, in, options{})
	clean(t, r)
	if c := r.counts; c.Valid != 3 || c.Revoked != 1 || c.SerialOnlyRevoked != 1 {
		t.Errorf("%+v", *c)
	}
	if rec := l.Record("02"); rec.State != wire.CertRevoked || rec.Reason != wire.KeyCompromise || rec.SerialOnly() {
		t.Errorf("02 is %+v", rec)
	}
	if rec := l.Record("03"); rec.State != wire.CertRevoked || !rec.SerialOnly() {
		t.Errorf("03 is %+v", rec)
	}
}

// faulty is a directory of certificates with one of each fault among good ones, and a CRL.
func faulty(t *testing.T, ca *cctest.CA) (in caimport.Inputs, good [][]byte) {
	t.Helper()
	dir := t.TempDir()
	other := cctest.NewCA(t)
	forged := cctest.NewCA(t, cctest.WithTemplate(func(c *x509.Certificate) { c.Subject = ca.Cert.Subject }))
	good = ca.IssueMany(t, 5)
	foreign, _ := other.Issue(t)
	fake, _ := forged.Issue(t)
	_, same := ca.Issue(t)
	twin, _ := ca.Issue(t, func(c *x509.Certificate) { c.SerialNumber = same.SerialNumber })
	pre, _, _ := ca.Precert(t)
	write(t, dir, "a.pem", asPEM(good[:3]...), asPEM(good[0]))
	write(t, dir, "b.der", good[3], good[4])
	write(t, dir, "c-foreign.pem", asPEM(foreign))
	write(t, dir, "d-forged.pem", asPEM(fake))
	write(t, dir, "e-twins.pem", asPEM(same.Raw, twin))
	write(t, dir, "f-ca.pem", asPEM(ca.DER))
	write(t, dir, "g-pre.pem", asPEM(pre))
	write(t, dir, "h-junk.pem", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	return caimport.Inputs{Any: []string{dir}}, append(good, same.Raw)
}

func TestNothingIsWrittenWhenAnythingIsWrong(t *testing.T) {
	ca := cctest.NewCA(t)
	l := importtest.NewLedger(t, ca.Cert)
	in, good := faulty(t, ca)
	r := doImport(t, l, in, options{valid: true})
	if r.err != nil || l.LogSize() != 0 || len(r.bad) != 4 || r.counts.Bad != 4 || r.counts.Duplicates != 1 {
		t.Fatalf("%v, %d in the log, %+v, bad %v", r.err, l.LogSize(), *r.counts, r.bad)
	}
	for i, want := range []struct{ file, field string }{
		{"c-foreign.pem:1", "certificate.issuer"}, {"d-forged.pem:1", "certificate.signature"}, {"e-twins.pem:", "certificate.serial"}, {"h-junk.pem:1", "certificate"},
	} {
		if b := r.bad[i]; !strings.Contains(b.Where, want.file) || b.Field != want.field || b.Rule == "" {
			t.Errorf("fault %d is %v, want %v", i, b, want)
		}
	}
	if r.counts.Skipped["precertificate"] != 1 || r.counts.Skipped["certificate of the CA itself or of its chain"] != 1 {
		t.Errorf("passed by: %v", r.counts.Skipped)
	}
	r = doImport(t, l, in, options{valid: true, keepGoing: true})
	if r.err != nil || int(r.out.Changed) != len(good) || int(l.LogSize()) != len(good) {
		t.Errorf("%v, %+v, %d in the log", r.err, r.out, l.LogSize())
	}
}

func TestADryRunAsksTheLedgerAndWritesNothing(t *testing.T) {
	ca := cctest.NewCA(t)
	l := importtest.NewLedger(t, ca.Cert)
	// The ledger takes no responder that lives for years. Nothing but the contract knows.
	long, _ := ca.Issue(t, cctest.Responder(cctest.LeafNotBefore, cctest.LeafNotAfter.Sub(cctest.LeafNotBefore)))
	ders := append(ca.IssueMany(t, 20), long)
	in := caimport.Inputs{Any: []string{write(t, t.TempDir(), "certs.der", ders...)}}
	r := doImport(t, l, in, options{valid: true, dryRun: true, keepGoing: true})
	if r.err != nil || r.out.Changed != 20 || r.out.Refused != 1 || len(r.bad) != 1 || !strings.Contains(r.bad[0].Where, "certs.der, offset") || l.LogSize() != 0 {
		t.Errorf("dry run: %v, %+v, bad %v, %d in the log", r.err, r.out, r.bad, l.LogSize())
	}
	var refused *caimport.Bad
	if r := doImport(t, l, in, options{valid: true}); !errors.As(r.err, &refused) || !strings.Contains(refused.Field, "not_after") {
		t.Errorf("without keeping on: %v", r.err)
	}
	if r := doImport(t, l, in, options{valid: true, keepGoing: true}); r.err != nil || r.out.Refused != 1 || l.LogSize() != 20 {
		t.Errorf("keeping on: %v, %+v, %d in the log", r.err, r.out, l.LogSize())
	}
}

// TestFaultsLoseAndDoubleNothing: whatever becomes of a transaction, every certificate is on the ledger once in the end.
func TestFaultsLoseAndDoubleNothing(t *testing.T) {
	ca := cctest.NewCA(t)
	l := importtest.NewLedger(t, ca.Cert)
	ders := ca.IssueMany(t, 400)
	in := caimport.Inputs{Any: []string{write(t, t.TempDir(), "certs.der", ders...)}}
	faults := []anchortest.Fault{
		anchortest.UnknownCommits, anchortest.None, anchortest.Conflict, anchortest.Conflict, anchortest.UnknownLost, anchortest.UnknownLater, anchortest.None,
		anchortest.Unavailable, anchortest.Mismatch, anchortest.Processed,
	}
	n := 0
	shaky := anchortest.New(l.Conn, func(string) anchortest.Fault {
		n++
		return faults[n%len(faults)]
	})
	r := doImport(t, l, in, options{ledger: shaky, valid: true, batch: 60})
	clean(t, r)
	if int(r.out.Items) != len(ders) || int(l.LogSize()) != len(ders) || n < len(faults) {
		t.Errorf("%+v, %d in the log, after %d transactions", r.out, l.LogSize(), n)
	}
}

// TestImportAndIssuanceOfOneCABothProgress: each append to the CA's log undoes those that were endorsed before it.
func TestImportAndIssuanceOfOneCABothProgress(t *testing.T) {
	ca := cctest.NewCA(t)
	l := importtest.NewLedger(t, ca.Cert)
	orderer := anchortest.NewOrderer(t.Context(), 5*time.Millisecond)
	in := caimport.Inputs{Any: []string{write(t, t.TempDir(), "certs.der", ca.IssueMany(t, 1500)...)}}
	bridge, err := anchor.New(orderer.Connect(l.Conn), ca.ID, anchor.Options{Logger: importtest.Quiet()})
	check(t, err)
	defer bridge.Close()
	ctx, cancel := context.WithCancel(t.Context())
	fresh := ca.IssueMany(t, 500)
	var wg sync.WaitGroup
	var mu sync.Mutex
	issued := 0
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < len(fresh) && ctx.Err() == nil; i += 4 {
				if _, _, err := bridge.Issue(ctx, fresh[i]); err == nil {
					mu.Lock()
					issued++
					mu.Unlock()
				} else if ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	r := doImport(t, l, in, options{ledger: orderer.Connect(l.Conn), valid: true})
	cancel()
	wg.Wait()
	clean(t, r)
	sent, void := orderer.Counts()
	if int(l.LogSize()) < 1500+issued || issued == 0 {
		t.Errorf("%d in the log, %d issued beside", l.LogSize(), issued)
	}
	t.Logf("%d transactions, %d of them void, %d issued beside", sent, void, issued)
}

func TestAnInterruptedImportGoesOnWhereItWas(t *testing.T) {
	ca := cctest.NewCA(t)
	l := importtest.NewLedger(t, ca.Cert)
	dir := t.TempDir()
	ders := ca.IssueMany(t, 300)
	in := caimport.Inputs{Any: []string{write(t, dir, "certs.der", ders...)}}
	state := filepath.Join(dir, "state.json")
	down := anchortest.New(l.Conn, nil)
	sent := 0
	down.Plan(func(string) anchortest.Fault {
		if sent++; sent > 3 {
			return anchortest.Unavailable
		}
		return anchortest.None
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	authority, err := caimport.FindAuthority(ctx, down, l.ID)
	check(t, err)
	plan, err := caimport.NewPlan(authority, in, "", caimport.Options{AssumeValid: true})
	check(t, err)
	st, err := caimport.LoadState(state, l.Conn.Channel(), l.ID.String())
	check(t, err)
	_, err = plan.Resume(ctx, st)
	check(t, err)
	s := &caimport.Submitter{Ledger: down, CAID: l.ID, BatchItems: 50, Patience: time.Nanosecond, Log: importtest.Quiet()}
	if out, err := caimport.Import(ctx, plan, s, st, func(uint64) {}); !errors.Is(err, network.ErrUnavailable) || out.Items != 150 {
		t.Fatalf("%+v, %v", out, err)
	}
	r := doImport(t, l, in, options{state: state, valid: true})
	clean(t, r)
	if r.out.Items != 150 || r.out.Changed != 150 || l.LogSize() != 300 {
		t.Errorf("the second run imported %+v, %d in the log", r.out, l.LogSize())
	}
	// Other contents are another import.
	more, _ := ca.Issue(t)
	write(t, dir, "certs.der", append(ders, more)...)
	r = doImport(t, l, in, options{state: state, valid: true})
	clean(t, r)
	if r.out.Items != 301 || r.out.Changed != 1 || l.LogSize() != 301 {
		t.Errorf("with one more it imported %+v, %d in the log", r.out, l.LogSize())
	}
}

func TestSourcesThatChangeMeanwhileAreNoticed(t *testing.T) {
	ca := cctest.NewCA(t)
	l := importtest.NewLedger(t, ca.Cert)
	dir := t.TempDir()
	ders := ca.IssueMany(t, 5)
	path := write(t, dir, "certs.der", ders...)
	authority, err := caimport.FindAuthority(t.Context(), l.Conn, l.ID)
	check(t, err)
	plan, err := caimport.NewPlan(authority, caimport.Inputs{Any: []string{path}}, "", caimport.Options{AssumeValid: true})
	check(t, err)
	_, err = plan.Check(t.Context(), true)
	check(t, err)
	forged := cctest.NewCA(t, cctest.WithTemplate(func(c *x509.Certificate) { c.Subject = ca.Cert.Subject }))
	fake, _ := forged.Issue(t)
	write(t, dir, "certs.der", append(ders[:4:4], fake)...)
	n := 0
	if err := plan.Each(t.Context(), func(*caimport.Item) error { n++; return nil }); !errors.Is(err, caimport.ErrChanged) || n != 4 {
		t.Errorf("%v after %d", err, n)
	}
}

func TestAnUnreadableWordKeepsACertificateOut(t *testing.T) {
	ca := importtest.NewOpenSSL(t)
	ca.Issue(3)
	crl := ca.CRL() // nothing is on it
	index, err := os.ReadFile(ca.Path("index.txt"))
	check(t, err)
	lines := strings.Split(string(index), "\n")
	f := strings.Split(lines[1], "\t")
	lines[1] = fmt.Sprintf("R\t%s\t261120184243Z,strangeReason\t%s\t%s\t%s", f[1], f[3], f[4], f[5])
	check(t, os.WriteFile(ca.Path("index.txt"), []byte(strings.Join(lines, "\n")), 0o600))
	l := importtest.NewLedger(t, ca.Cert)
	r := doImport(t, l, caimport.Inputs{Any: []string{ca.Dir, crl}}, options{keepGoing: true})
	if r.err != nil || len(r.bad) != 1 || r.counts.Valid != 2 || l.Record("02") != nil {
		t.Errorf("%v, bad %v, %+v, 02 is %+v", r.err, r.bad, *r.counts, l.Record("02"))
	}
}

func TestAFaultyCertificateIsReportedOnceAndItsRevocationKept(t *testing.T) {
	ca := importtest.NewOpenSSL(t)
	ca.Issue(3)
	ca.Revoke("02")
	for _, serial := range []string{"01", "02"} { // the last octet of each is another
		path := ca.Path("newcerts/" + serial + ".pem")
		data, err := os.ReadFile(path)
		check(t, err)
		block, _ := pem.Decode(data)
		block.Bytes[len(block.Bytes)-1] ^= 1
		check(t, os.WriteFile(path, pem.EncodeToMemory(block), 0o600))
	}
	l := importtest.NewLedger(t, ca.Cert)
	r := doImport(t, l, caimport.Inputs{Any: []string{ca.Dir}}, options{keepGoing: true})
	if r.err != nil || len(r.bad) != 2 || r.counts.Bad != 2 || r.counts.Valid != 1 || r.counts.SerialOnlyRevoked != 1 || r.counts.LeftOut != 0 {
		t.Fatalf("%v, bad %v, %+v", r.err, r.bad, *r.counts)
	}
	if rec := l.Record("02"); rec == nil || !rec.SerialOnly() || rec.State != wire.CertRevoked || l.Record("01") != nil {
		t.Errorf("02 is %+v, 01 %+v", rec, l.Record("01"))
	}
}

func TestACAThatIsNotRegisteredIsRefused(t *testing.T) {
	ca, other := cctest.NewCA(t), cctest.NewCA(t)
	l := importtest.NewLedger(t, ca.Cert)
	var we *wire.Error
	if _, err := caimport.FindAuthority(t.Context(), l.Conn, other.ID); !errors.As(err, &we) || we.Code != wire.NotFound || we.Field != "ca_id" {
		t.Errorf("%v", err)
	}
}

func TestAStateOfAnotherCAIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	st, err := caimport.LoadState(path, "one", "ca")
	check(t, err)
	check(t, st.Save(time.Now()))
	for _, c := range []struct{ channel, ca string }{{"two", "ca"}, {"one", "another"}} {
		if _, err := caimport.LoadState(path, c.channel, c.ca); err == nil || !strings.Contains(err.Error(), "--state") {
			t.Errorf("%v", err)
		}
	}
	check(t, os.WriteFile(path, []byte("{"), 0o600))
	if _, err := caimport.LoadState(path, "one", "ca"); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
}
