package ca

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/anchor/anchortest"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/oplog"
	"github.com/certanchor/certanchor/network"

	"net/http/httptest"
)

// The child finds in these which step to die at, which directory to work in and which request to make.
const (
	crashEnv    = "CERTANCHOR_CA_CRASH"
	crashDirEnv = "CERTANCHOR_CA_CRASH_DIR"
	crashKey    = "one and only"

	crashSCTsEnv = "CERTANCHOR_CA_CRASH_SCTS" // set: the child's certificate gets an SCT of each of crashFronts fronts
	crashFronts  = 3
)

// Steps beside those of Issue.
const (
	stepSubmitting = "submitting" // the transaction is about to be handed over
	stepCommitted  = "committed"  // it is committed, and the CA does not know
	stepReleased   = "released"   // the requester has its answer

	stepFinalSubmitting = "final submitting" // those of the second transaction
	stepFinalCommitted  = "final committed"
)

func die() {
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		panic(err)
	}
	select {}
}

// mortal kills the process around a transaction.
type mortal struct {
	network.Ledger
	at   string
	sent atomic.Int64
}

func (m *mortal) Submit(ctx context.Context, function string, arg []byte) (network.Receipt, error) {
	if function == wire.FnAnchorOperators { // at the start, before there is anything to die for
		return m.Ledger.Submit(ctx, function, arg)
	}
	first := m.sent.Add(1) == 1
	if m.at == stepSubmitting || m.at == stepFinalSubmitting && !first {
		die()
	}
	r, err := m.Ledger.Submit(ctx, function, arg)
	if m.at == stepCommitted || m.at == stepFinalCommitted && !first {
		die()
	}
	return r, err
}

// crashChild issues one certificate over HTTP and kills itself at a step. It prints the certificate if it gets that far.
func crashChild(at string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(3)
		}
	}
	dir := os.Getenv(crashDirEnv)
	node, err := openNode(dir)
	fail(err)
	if url := os.Getenv(crashCRLEnv); url != "" {
		fail(crashCRLChild(at, dir, url, node))
	}
	key, err := LoadKey(dir, []byte(testPassphrase))
	fail(err)
	cfg := Config{Dir: dir, Key: key, bulkChunk: crashChunk, Log: slog.New(slog.DiscardHandler), step: func(s string) {
		if s == at {
			die()
		}
	}}
	fronts := new(panel)
	if os.Getenv(crashSCTsEnv) != "" {
		fronts, err = newPanel(dir, crashFronts)
		fail(err)
		fronts.configure(&cfg)
	}
	server, err := New(cfg, &mortal{Ledger: node.Connect(wire.RoleOperator), at: at})
	fail(err)
	fronts.server.Store(server)
	if id := os.Getenv(crashDualEnv); id != "" {
		fail(crashDualChild(dir, server, id))
	}
	hs := httptest.NewServer(server.Handler())
	client, err := caapi.New(caapi.Config{URL: hs.URL, TokenFile: filepath.Join(dir, OperatorTokenFile)})
	fail(err)
	if os.Getenv(crashBulkEnv) != "" {
		fail(crashBulk(dir, hs.URL))
	}
	csr, err := os.ReadFile(filepath.Join(dir, "request.pem"))
	fail(err)
	cert, err := client.Issue(context.Background(), caapi.IssueRequest{CSR: string(csr), Profile: "server", Supersedes: os.Getenv(crashOldEnv)}, crashKey)
	fail(err)
	fmt.Print(cert.Certificate)
	die()
}

// TestKilledBetweenAnyTwoSteps: after a restart the certificate is on the ledger once and its requester gets it under the same key,
// or it never existed and the requester gets one now. What was released before the kill is what the requester gets again.
func TestKilledBetweenAnyTwoSteps(t *testing.T) {
	for _, at := range []string{stepRecordedAction, stepChecked, stepSigned, stepJournalled, stepSubmitting, stepCommitted, stepAnchored, stepRecorded, stepReleasing, stepReleased} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			dir, _ := newDir(t)
			csr := newCSR(t, nil)
			if err := keyfile.WriteNew(filepath.Join(dir, "request.pem"), []byte(csr), 0o600); err != nil {
				t.Fatal(err)
			}
			node, err := openNode(dir)
			if err != nil {
				t.Fatal(err)
			}
			register(t, node, dir)
			if err := node.Close(); err != nil {
				t.Fatal(err)
			}
			released := runChild(t, at, dir)

			w := startWorld(t, dir, nil)
			journalled := len(w.server.book.bySerial)
			early := at == stepRecordedAction || at == stepChecked || at == stepSigned
			if early != (journalled == 0) {
				t.Fatalf("%d certificates in the journal", journalled)
			}
			waitFor(t, "resolution", func() bool { return open(w.server) == 0 })
			if got := w.logSize(); got != uint64(journalled) {
				t.Fatalf("%d certificates on the ledger, %d in the journal", got, journalled)
			}
			// The operators' log has the action, and finds out how it ended.
			entries, outcomes := w.told()
			want := "failed: the process ended before anything was signed"
			if !early {
				want = oplog.Done
			}
			if len(entries) != 1 || entries[0].Action != "POST /v1/certificates" || outcomes[entries[0].Seq].Outcome != want {
				t.Fatalf("%+v, want the outcome %q", outcomes[entries[0].Seq], want)
			}
			cert, err := w.client("operator").Issue(t.Context(), caapi.IssueRequest{CSR: csr, Profile: "server"}, crashKey)
			if err != nil {
				t.Fatal(err)
			}
			if got := w.logSize(); got != 1 || cert.LogIndex != 0 {
				t.Fatalf("%d certificates on the ledger after the repetition, index %d", got, cert.LogIndex)
			}
			if at == stepReleased && released != cert.Certificate {
				t.Fatal("the requester gets another certificate than before")
			}
			seen, err := w.client("auditor").Get(t.Context(), cert.Serial)
			if err != nil || seen.Certificate != cert.Certificate || seen.Status.State != "valid" {
				t.Fatalf("%+v, %v", seen, err)
			}
		})
	}
}

// TestKilledBetweenAnyTwoStepsWithSCTs: the same with a precertificate. One that is on the ledger is finished, whatever is lost on the way: there is
// one certificate of it, and what was signed before the kill, if that is in the journal, is what is released.
func TestKilledBetweenAnyTwoStepsWithSCTs(t *testing.T) {
	steps := []string{
		stepChecked, stepSigned, stepJournalled, stepSubmitting, stepCommitted, stepAnchored, stepRecorded, stepStamped, stepStampsRecorded, stepFinalSigned,
		stepFinalJournalled, stepFinalSubmitting, stepFinalCommitted, stepFinalAnchored, stepFinalRecorded, stepReleasing, stepReleased,
	}
	for _, at := range steps {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			dir, _ := ctDir(t, crashFronts)
			csr := newCSR(t, nil)
			if err := keyfile.WriteNew(filepath.Join(dir, "request.pem"), []byte(csr), 0o600); err != nil {
				t.Fatal(err)
			}
			node, err := openNode(dir)
			if err != nil {
				t.Fatal(err)
			}
			register(t, node, dir)
			if err := node.Close(); err != nil {
				t.Fatal(err)
			}
			released := runChild(t, at, dir, crashSCTsEnv+"=1")
			if (released != "") != (at == stepReleased) {
				t.Fatal("the child came past the step")
			}
			before, stamps, signed := journalled(t, dir)
			if i := slices.Index(steps, at); (before != nil) != (i >= slices.Index(steps, stepJournalled)) || (stamps != nil) != (i >= slices.Index(steps, stepStampsRecorded)) ||
				(signed != nil) != (i >= slices.Index(steps, stepFinalJournalled)) {
				t.Fatalf("the journal has precertificate %t, SCTs %t, certificate %t", before != nil, stamps != nil, signed != nil)
			}
			w, p := ctStart(t, dir, crashFronts, nil)
			waitFor(t, "resolution", func() bool { w.server.kickResolver(); return open(w.server) == 0 })
			if got := w.logSize(); got != uint64(2*len(w.server.book.bySerial)) {
				t.Fatalf("%d entries on the ledger for %d in the journal", got, len(w.server.book.bySerial))
			}
			cert, err := w.client("operator").Issue(t.Context(), caapi.IssueRequest{CSR: csr, Profile: "server"}, crashKey)
			if err != nil {
				t.Fatal(err)
			}
			if got := w.logSize(); got != 2 || cert.LogIndex != 1 {
				t.Fatalf("%d entries on the ledger after the repetition, index %d", got, cert.LogIndex)
			}
			if at == stepReleased && released != cert.Certificate {
				t.Fatal("the requester gets another certificate than before")
			}
			der := parsePEM(t, cert.Certificate).Raw
			p.checkSCTs(t, w, der, crashFronts)
			checkPair(t, w, der)
			if !bytes.Contains(der, stamps) {
				t.Error("another SCT list than the one in the journal was embedded")
			}
			if signed != nil && !bytes.Equal(signed, der) {
				t.Error("another certificate than the one in the journal was released")
			}
			if before != nil {
				if err := isCertificateOf(der, before); err != nil {
					t.Error(err)
				}
			}
			seen, err := w.client("auditor").Get(t.Context(), cert.Serial)
			if err != nil || seen.Certificate != cert.Certificate || seen.Status.State != "valid" {
				t.Fatalf("%+v, %v", seen, err)
			}
		})
	}
}

// journalled reads the precertificate, the SCTs and the certificate that a journal has, each nil if there is none.
func journalled(t *testing.T, dir string) (precert, stamps, final []byte) {
	t.Helper()
	cert, _, err := LoadCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	j, err := openJournal(filepath.Join(dir, journalFile), wire.CAIDOf(cert.RawSubjectPublicKeyInfo), slog.New(slog.DiscardHandler), func(r *record, _ position) error {
		switch {
		case r.Kind == kindPrecert && precert == nil:
			precert = r.Cert
		case r.Kind == kindStamped && stamps == nil:
			stamps = r.SCTs
		case r.Kind == kindFinal && final == nil:
			final = r.Cert
		case len(r.Cert) > 0:
			return fmt.Errorf("a second certificate, in a record of kind %d", r.Kind)
		}
		return nil
	})
	if err == nil {
		err = j.close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return precert, stamps, final
}

// open counts the certificates without an outcome, in whoever's hands.
func open(s *Server) int {
	s.book.mu.Lock()
	defer s.book.mu.Unlock()
	n := 0
	for _, e := range s.book.bySerial {
		if e.state == stateSigned {
			n++
		}
	}
	return n
}

func runChild(t *testing.T, at, dir string, env ...string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), crashEnv+"="+at, crashDirEnv+"="+dir)
	cmd.Env = append(cmd.Env, env...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if err == nil || !ok || !st.Signaled() || st.Signal() != syscall.SIGKILL {
		t.Fatalf("the child was not killed: %v\n%s", err, stderr.String())
	}
	return stdout.String()
}

// TestRefusedAfterRestartIsNeverReleased: a certificate was journalled, its submission's fate is unknown, and the ledger then refuses it.
func TestRefusedAfterRestartIsNeverReleased(t *testing.T) {
	dir, _ := newDir(t)
	w := startWorld(t, dir, nil)
	register(t, w.node, dir)
	serial := journalStray(t, w)
	// Nothing is decided until the clock has left every earlier envelope behind.
	w.server.resolveRound(t.Context())
	if open(w.server) != 1 {
		t.Fatal("decided before two ticks had passed")
	}
	if _, err := w.server.Certificate(t.Context(), serial); err == nil {
		t.Fatal("an unresolved certificate was released")
	}
	admin := w.node.Connect(wire.RoleOperator)
	waitFor(t, "refusal", func() bool {
		_, _ = admin.Submit(t.Context(), wire.FnTick, wire.Encode(&wire.TickArg{V: wire.Version})) // one per epoch; others are refused
		w.server.resolveRound(t.Context())
		return open(w.server) == 0
	})
	code, _, b := w.call("GET", caapi.PathCertificates+"/"+serial.String(), "", nil)
	if code != 404 || strings.Contains(string(b), "BEGIN CERTIFICATE") {
		t.Fatalf("%d %s", code, b)
	}
	if w.logSize() != 0 {
		t.Fatal("it is on the ledger")
	}
}

// journalStray puts a certificate of another CA into the journal, as if this CA's ledger did not like what it signed.
func journalStray(t *testing.T, w *world) wire.Serial {
	t.Helper()
	der := selfSignedFor(t)
	serial := wire.Serial{0x42}
	if err := w.server.note(&record{Kind: kindSigned, Serial: serial, Cert: der, Request: make([]byte, 32)}); err != nil {
		t.Fatal(err)
	}
	e := w.server.book.findSerial(serial)
	e.suspect = w.server.now()
	w.server.book.release(e)
	return serial
}

func selfSignedFor(t *testing.T) []byte {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "other")
	res, err := Init(InitOptions{Dir: dir, Subject: testSubject, Passphrase: []byte(testPassphrase), iterations: testIterations})
	if err != nil {
		t.Fatal(err)
	}
	return res.Certificate.Raw
}

// TestWrongIdentityDecidesNothing: after a restart with an identity that may not issue, unresolved certificates stay as they are.
func TestWrongIdentityDecidesNothing(t *testing.T) {
	dir, key := newDir(t)
	w := startWorld(t, dir, nil)
	register(t, w.node, dir)
	w.ledger.Plan(func(string) anchortest.Fault { return anchortest.UnknownCommits })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		waitFor(t, "journalled", func() bool { return open(w.server) == 1 && w.ledger.Sent() > 0 })
		cancel()
	}()
	if _, err := w.server.Issue(ctx, Request{CSR: newCSR(t, nil), Profile: "server"}); err == nil {
		t.Fatal("acknowledged without an answer from the ledger")
	}
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	auditor, err := New(Config{Dir: dir, Key: key, Log: slog.New(slog.DiscardHandler)}, w.node.Connect(wire.RoleAuditor))
	if err != nil {
		t.Fatal(err)
	}
	admin := w.node.Connect(wire.RoleOperator)
	for range 3 {
		tickNext(t, admin)
		auditor.resolveRound(t.Context())
	}
	if open(auditor) != 1 {
		t.Fatalf("a wrong identity settled a certificate: %+v", auditor.book.bySerial)
	}
	if err := auditor.Close(); err != nil {
		t.Fatal(err)
	}
	back, err := New(Config{Dir: dir, Key: key, Log: slog.New(slog.DiscardHandler)}, w.node.Connect(wire.RoleOperator))
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "resolution", func() bool { return open(back) == 0 })
	for _, e := range back.book.bySerial {
		if e.state != stateAnchored {
			t.Fatalf("state %d", e.state)
		}
	}
	if err := back.Close(); err != nil {
		t.Fatal(err)
	}
}

// tickNext moves the ledger's clock by one epoch.
func tickNext(t *testing.T, l network.Ledger) {
	t.Helper()
	waitFor(t, "tick", func() bool {
		_, err := l.Submit(t.Context(), wire.FnTick, wire.Encode(&wire.TickArg{V: wire.Version}))
		return err == nil
	})
}
