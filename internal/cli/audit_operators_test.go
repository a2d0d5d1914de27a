package cli

import (
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/oplog"
	"github.com/certanchor/certanchor/network/embedded"
)

// loggedCA is the directory of a registered CA with a log of some records, of which all but the last are anchored in the ledger in the second
// directory.
func loggedCA(t *testing.T) (dir, ledger string, id wire.CAID) {
	t.Helper()
	base := t.TempDir()
	dir, ledger = filepath.Join(base, "ca"), filepath.Join(base, "ledger")
	res, err := ca.Init(ca.InitOptions{Dir: dir, Subject: pkix.Name{CommonName: "Logged CA"}, Passphrase: []byte("a passphrase"), Algorithm: keyfile.P256})
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	node, err := embedded.Open(embedded.Options{Dir: ledger, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Register(t.Context(), node.Connect(wire.RoleAdministrator), res.Certificate.Raw, nil, node.MSPID()); err != nil {
		t.Fatal(err)
	}
	l, err := oplog.OpenWith(dir, oplog.Options{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	seq, err := l.Record(oplog.Entry{Actor: "alice", How: "token", Source: "192.0.2.7", Action: "POST /v1/revocations", Target: "0a", Detail: map[string]string{"reason": "superseded"}})
	if err == nil {
		err = l.End(seq, oplog.Done, "", nil)
	}
	if err == nil {
		_, err = l.Record(oplog.Entry{Actor: "bob", How: "token", Action: "POST /v1/certificates", Outcome: "refused: \tno\n"})
	}
	if err != nil {
		t.Fatal(err)
	}
	id = l.CAID()
	h, err := l.Head()
	if err == nil {
		_, err = node.Connect(wire.RoleOperator).Submit(t.Context(), wire.FnAnchorOperators, wire.Encode(&wire.AnchorOperatorsArg{V: wire.Version, CAID: id, Head: h}))
	}
	if err == nil {
		_, err = l.Record(oplog.Entry{Actor: "carol", How: "token", Action: "POST /v1/releases"})
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, ledger, id
}

func TestAuditOfTheOperatorsLog(t *testing.T) {
	dir, ledger, id := loggedCA(t)
	for _, extra := range [][]string{nil, {"--newest"}, {"--file", filepath.Join(dir, "operators", "0.log"), "--ca-id", id.String()}} {
		code, out, errs := runCLI(append([]string{"audit", "operators", "--dir", dir, "--ledger", ledger}, extra...)...)
		if code != exitOK || !strings.Contains(out, "the log is what the ledger has anchored") || !strings.Contains(out, "5 records") || !strings.Contains(out, "agrees with 1 anchored head, up to record 4; 1 not anchored yet") {
			t.Errorf("%q: exit status %d\n%s\n%s", extra, code, out, errs)
		}
	}
	code, out, errs := runCLI("audit", "operators", "--dir", dir)
	if code != exitOK || !strings.Contains(out, "NOT COMPARED WITH A LEDGER") {
		t.Errorf("exit status %d\n%s\n%s", code, out, errs)
	}
	code, out, errs = runCLI("audit", "operators", "--dir", dir, "--ledger", ledger, "--records")
	for _, want := range []string{"alice", "POST /v1/revocations", "0a", "done", `refused: \u{9}no\u{a}`, noOutcome} {
		if code != exitOK || !strings.Contains(out, want) {
			t.Errorf("no %q: exit status %d\n%s\n%s", want, code, out, errs)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--actor", "alice"}, "alice"}, {[]string{"--action", "certificates"}, "bob"}, {[]string{"--since", "24h", "--actor", "carol"}, "carol"},
		{[]string{"--until", "2000-01-01"}, ""}, {[]string{"--since", "2999-01-01T00:00:00Z"}, ""},
	} {
		code, out, errs := runCLI(append([]string{"audit", "operators", "--dir", dir, "--ledger", ledger, "--json"}, c.args...)...)
		var r struct {
			Anchors  int
			Compared bool `json:"compared_with_ledger"`
			Records  []struct{ Actor, Outcome string }
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitOK || !r.Compared || r.Anchors != 1 {
			t.Fatalf("%q: exit status %d, %v\n%s\n%s", c.args, code, err, out, errs)
		}
		if c.want == "" && len(r.Records) != 0 || c.want != "" && (len(r.Records) != 1 || r.Records[0].Actor != c.want) {
			t.Errorf("%q: %+v", c.args, r.Records)
		}
	}
	for _, args := range [][]string{{}, {"--dir", dir, "--since", "yesterday"}, {"--file", "x"}, {"--file", "x", "--ca-id", "zz"}, {"--dir", dir, "--ledger", ledger, "--socket", "s"}} {
		if code, out, errs := runCLI(append([]string{"audit", "operators"}, args...)...); code != exitUsage {
			t.Errorf("%q: exit status %d\n%s\n%s", args, code, out, errs)
		}
	}

	path := filepath.Join(dir, "operators", "0.log")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(data), "alice")
	data[at] = 'A'
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs = runCLI("audit", "operators", "--dir", dir, "--ledger", ledger)
	if code != exitFailure || !strings.Contains(errs, "the first: generation 0, record 1: damaged") || !strings.Contains(out, "1 DIFFERENCE") {
		t.Errorf("exit status %d\n%s\n%s", code, out, errs)
	}
}

func TestBackupAndRestoreOfACAThatDoesNotRun(t *testing.T) {
	dir, ledger, id := loggedCA(t)
	base := filepath.Dir(dir)
	file, pass := filepath.Join(base, "ca.backup"), filepath.Join(base, "pass")
	if err := os.WriteFile(pass, []byte("a passphrase of its own"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := runCLI("ca", "backup", "--dir", dir, "--out", file, "--json")
	var m struct {
		Manifest struct {
			CAID    string   `json:"ca_id"`
			LeftOut []string `json:"left_out"`
		}
	}
	if err := json.Unmarshal([]byte(out), &m); err != nil || code != exitOK || m.Manifest.CAID != id.String() || len(m.Manifest.LeftOut) != 1 || m.Manifest.LeftOut[0] != "ca.key" {
		t.Fatalf("exit status %d, %v\n%s\n%s", code, err, out, errs)
	}
	withKey := filepath.Join(base, "key.backup")
	if code, out, errs := runCLI("ca", "backup", "--dir", dir, "--out", withKey, "--with-key", "--backup-passphrase-file", pass); code != exitOK || !strings.Contains(out, "keys   wrapped") {
		t.Fatalf("exit status %d\n%s\n%s", code, out, errs)
	}
	for _, c := range []struct {
		args []string
		word string
	}{
		{[]string{"backup", "--dir", dir, "--out", file}, "exist"},
		{[]string{"backup", "--out", filepath.Join(base, "x"), "--with-key"}, "--with-key needs --dir"},
		{[]string{"backup", "--out", filepath.Join(base, "x")}, "--dir must name"},
		{[]string{"restore", file, "--dir", dir}, "never writes over a CA"},
		{[]string{"restore", file}, "--dir and --check"},
		{[]string{"restore", file, "--dir", filepath.Join(base, "y"), "--with-key", "--backup-passphrase-file", pass}, "without --with-key"},
		{[]string{"restore", pass, "--check"}, "not a backup"},
	} {
		if code, out, errs := runCLI(append([]string{"ca"}, c.args...)...); code == exitOK || !strings.Contains(errs, c.word) {
			t.Errorf("%q: exit status %d\n%s\n%s", c.args, code, out, errs)
		}
	}
	again := filepath.Join(base, "again")
	if code, out, errs := runCLI("ca", "restore", withKey, "--dir", again, "--with-key", "--backup-passphrase-file", pass); code != exitOK || !strings.Contains(out, "restored to "+again) {
		t.Fatalf("exit status %d\n%s\n%s", code, out, errs)
	}
	if _, err := ca.LoadKey(again, []byte("a passphrase")); err != nil {
		t.Error(err)
	}
	// The backup itself is in the log, and in the log of the copy.
	code, out, errs = runCLI("audit", "operators", "--dir", again, "--ledger", ledger, "--action", "ca backup", "--json")
	if code != exitOK || strings.Count(out, `"action": "ca backup"`) != 2 {
		t.Errorf("exit status %d\n%s\n%s", code, out, errs)
	}
	// A marked directory is no source of backups, and of no other record.
	if code, _, errs := runCLI("ca", "backup", "--dir", again, "--out", filepath.Join(base, "z")); code == exitOK || !strings.Contains(errs, "restored from a backup") {
		t.Errorf("exit status %d\n%s", code, errs)
	}
	if code, _, errs := runCLI("ca", "restored", "--dir", dir); code != exitOK {
		t.Errorf("exit status %d\n%s", code, errs)
	}
	if marked, err := oplog.IsRestored(dir); err != nil || !marked {
		t.Errorf("marked: %v, %v", marked, err)
	}
}
