package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/deploy"
	"github.com/certanchor/certanchor/test-network/nettest"
)

// TestRestoredCAGoesOn: a CA is backed up while it runs, goes on, and loses its disk. Restored from the older backup it knows every certificate that
// the ledger has, goes on issuing, and its operators' log tells what it lacks; neither an old copy nor the disk that comes back can go on with it.
func TestRestoredCAGoesOn(t *testing.T) {
	d := startApart(t)
	c := commands{t: t, exe: nettest.Program(t), dir: t.TempDir()}
	name := deploy.CAName(1)
	keep := func(file string) string { // clients keep their tokens
		data, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(c.dir, filepath.Base(file)), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Join(c.dir, filepath.Base(file))
	}
	c.must("ca", "client", "keeper", "--dir", d.CADir, "--role", "administrator")
	keeper, operator := keep(filepath.Join(d.CADir, "keeper.token")), keep(d.TokenFile())
	for file, text := range map[string]string{"backup.pass": "a passphrase of its own", "req.pem": ""} {
		if text == "" {
			csr, err := newCSR("restored")
			if err != nil {
				t.Fatal(err)
			}
			text = csr
		}
		if err := os.WriteFile(filepath.Join(c.dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	issue := func() caapi.Certificate {
		t.Helper()
		var cert caapi.Certificate
		if err := json.Unmarshal([]byte(c.must("cert", "issue", "--ca-url", d.CAURL, "--token-file", operator, "--csr", "req.pem", "--json")), &cert); err != nil {
			t.Fatal(err)
		}
		return cert
	}
	stop := func() { // in good order: what is left of the log is anchored
		t.Helper()
		if err := syscall.Kill(d.PIDs()[name], syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if d.Running(name) {
				return fmt.Errorf("%s runs", name)
			}
			return nil
		})
	}
	start := func() {
		t.Helper()
		if err := d.Start(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}

	issue()
	running := []string{"ca", "backup", "--ca-url", d.CAURL, "--token-file", keeper}
	eventually(t, func() error {
		_, errs, err := c.run(append(running, "--out", "plain.backup")...)
		if err != nil {
			return fmt.Errorf("%w: %s", err, errs)
		}
		return nil
	})
	if _, errs, err := c.run(append(running[:len(running):len(running)], "--out", "plain.backup")...); err == nil || !strings.Contains(errs, "exists") {
		t.Fatalf("a backup was written over: %v %s", err, errs)
	}
	if _, errs, err := c.run("ca", "backup", "--ca-url", d.CAURL, "--token-file", operator, "--out", "x.backup"); err == nil || !strings.Contains(errs, "role") {
		t.Fatalf("an operator made a backup: %v %s", err, errs)
	}
	withKey := c.must(append(running[:len(running):len(running)], "--dir", d.CADir, "--out", "key.backup", "--with-key", "--backup-passphrase-file", "backup.pass")...)
	if !strings.Contains(withKey, "wrapped") {
		t.Fatal(withKey)
	}
	if out := c.must("ca", "restore", "plain.backup", "--check"); !strings.Contains(out, "is whole") || !strings.Contains(out, "none") {
		t.Fatal(out)
	}

	later := []caapi.Certificate{issue(), issue()}
	c.must("cert", "revoke", later[0].Serial, "--ca-url", d.CAURL, "--token-file", operator, "--reason", "superseded")
	stop()
	start() // an anchored head that the backup lacks, and records after it
	later = append(later, issue())
	if err := d.Kill(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	lost := d.CADir + ".lost"
	if err := os.Rename(d.CADir, lost); err != nil {
		t.Fatal(err)
	}

	// An old copy that nobody has marked does nothing.
	restore := []string{"ca", "restore", "key.backup", "--dir", d.CADir, "--with-key", "--backup-passphrase-file", "backup.pass"}
	c.must(restore...)
	if err := os.Remove(filepath.Join(d.CADir, "restored")); err != nil {
		t.Fatal(err)
	}
	refuses := func(what string) {
		t.Helper()
		if err := d.Launch(name); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			_, errs, err := c.run("cert", "issue", "--ca-url", d.CAURL, "--token-file", operator, "--csr", "req.pem", "--json")
			if err == nil {
				return fmt.Errorf("%s issued a certificate", what)
			}
			if !strings.Contains(errs, "certanchor ca restored") {
				return fmt.Errorf("it says: %s", errs)
			}
			return nil
		})
		if err := d.Kill(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	refuses("an old copy")
	if _, errs, err := c.run(restore...); err == nil || !strings.Contains(errs, "never writes over a CA") {
		t.Fatalf("restored over a CA: %v %s", err, errs)
	}
	c.must("ca", "restored", "--dir", d.CADir)
	start()
	for _, l := range later {
		if out := c.must("cert", "show", l.Serial, "--ca-url", d.CAURL, "--token-file", operator, "--json"); !strings.Contains(out, l.Serial) {
			t.Errorf("%s: %s", l.Serial, out)
		}
	}
	if again := issue(); again.LogIndex <= later[2].LogIndex || again.Serial == later[0].Serial {
		t.Errorf("the next certificate is %+v", again)
	}
	stop()

	socket := filepath.Join(d.Dir, "ledger.sock")
	audit := []string{"audit", "operators", "--dir", d.CADir, "--socket", socket}
	if out, errs, err := c.run(audit...); err == nil || !strings.Contains(errs, "RECORDS ARE LOST") || !strings.Contains(out, "generation 1") {
		t.Errorf("the audit: %v\n%s%s", err, out, errs)
	}
	out := c.must(append(audit, "--known-gap", "1", "--action", "revocations", "--json")...)
	var report struct {
		Compared    bool `json:"compared_with_ledger"`
		Gaps        []struct{ Anchored int }
		Differences []any
		Records     []struct{ Actor, Outcome string }
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || !report.Compared || len(report.Gaps) != 1 || report.Gaps[0].Anchored == 0 || len(report.Differences) != 0 || len(report.Records) != 0 {
		t.Errorf("%+v, %v\n%s", report, err, out)
	}

	// The disk that was thought lost: its log is complete, and yet not the ledger's any more.
	if err := os.Rename(d.CADir, d.CADir+".restored"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(lost, d.CADir); err != nil {
		t.Fatal(err)
	}
	if _, errs, err := c.run(audit...); err == nil || !strings.Contains(errs, "generation 1, record 0: missing") {
		t.Errorf("the audit of the old disk: %v %s", err, errs)
	}
	refuses("the old disk")
}
