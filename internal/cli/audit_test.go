package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/audit/served"
	"github.com/certanchor/certanchor/internal/audit/session"
	"github.com/certanchor/certanchor/network/embedded"
)

// auditedLedger is the directory of a small ledger.
func auditedLedger(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ledger")
	node, err := embedded.Open(embedded.Options{Dir: dir, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ca := cctest.NewCA(t)
	for _, s := range []struct {
		role, function string
		arg            []byte
	}{
		{wire.RoleAdministrator, wire.FnRegisterCA, ca.RegisterArg(node.MSPID())},
		{wire.RoleOperator, wire.FnIssue, ca.IssueArg(ca.IssueMany(t, 3)...)},
		{wire.RoleAuditor, wire.FnTick, cctest.TickArg()},
	} {
		if _, err := node.Connect(s.role).Submit(t.Context(), s.function, s.arg); err != nil {
			t.Fatal(err)
		}
	}
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAuditOfALedgerInADirectory(t *testing.T) {
	ledger, state := auditedLedger(t), filepath.Join(t.TempDir(), "audit")
	code, out, errs := runCLI("audit", "--ledger", ledger, "--dir", state)
	if code != exitOK || !strings.Contains(out, "nothing that is served was compared") || !strings.Contains(out, "certificates  3: 3 good, 0 on hold, 0 revoked") {
		t.Errorf("exit status %d\n%s\n%s", code, out, errs)
	}
	if !strings.Contains(errs, "blocks 4/4") || !strings.Contains(errs, "THE FIRST BLOCK WAS TAKEN FROM THE LEDGER ITSELF") {
		t.Errorf("standard error: %s", errs)
	}
	code, out, errs = runCLI("audit", "--ledger", ledger, "--dir", state, "--json")
	var r struct {
		Blocks, Txs  uint64
		Certificates int
		Genesis      string
		NewBlocks    uint64 `json:"new_blocks"`
		Logs         []struct {
			Name, Root string
			Size       uint64
		}
		Differences []any
		Compared    *bool
		Bridges     []any
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitOK || r.Blocks != 4 || r.NewBlocks != 0 || r.Txs != 4 || r.Certificates != 3 || len(r.Logs) != 3 || r.Logs[0].Size != 3 || r.Differences == nil || r.Compared == nil || *r.Compared || r.Bridges == nil {
		t.Errorf("exit status %d, %v: %s\n%s", code, err, out, errs)
	}
	code, out, _ = runCLI("audit", "--ledger", ledger, "--dir", state, "--genesis-hash", r.Genesis, "--restart")
	if code != exitOK || strings.Contains(out, "genesis       "+r.Genesis+" (not pinned") {
		t.Errorf("exit status %d\n%s", code, out)
	}
	code, out, errs = runCLI("audit", "--ledger", ledger, "--dir", state, "--genesis-hash", strings.Repeat("00", 32))
	if code != exitFailure || !strings.Contains(out, "1 DIFFERENCE\n") || !strings.Contains(errs, "1 difference; the first: block: block 0: hash: found "+r.Genesis) {
		t.Errorf("exit status %d\n%s\n%s", code, out, errs)
	}
}

func TestAuditTellsWhatWasLetThrough(t *testing.T) {
	for says, n := range map[string]*session.Lone{
		"": nil, "transactions": {}, "let through   5 writes to private collections of one organisation, not about the contract's state: 1 approval of chaincode definitions, 4 others": {Approvals: 1, Others: 4},
	} {
		r := &session.Result{LoneWrites: n}
		r.Report = *served.NewReport()
		var out, notes bytes.Buffer
		if err := printAudit(&out, &notes, r, false); err != nil || !strings.Contains(out.String(), says) || strings.Contains(out.String(), "let through") != (n != nil && n.Others > 0) {
			t.Errorf("%v, %s", err, out.String())
		}
	}
}

func TestAuditRefusesFlagsThatCannotBeMeant(t *testing.T) {
	for says, args := range map[string][]string{
		"at least one of the flags in the group [config ledger socket]": {},
		"--sample -1 must not be negative":                              {"--ledger", t.TempDir(), "--sample", "-1"},
		"64 hexadecimal digits":                                         {"--ledger", t.TempDir(), "--genesis-hash", "12"},
		"[policy policy-fingerprint]":                                   {"--ledger", t.TempDir(), "--policy", "x"},
		"[config ledger socket]":                                        {"--ledger", "x", "--socket", "y"},
	} {
		if code, _, errs := runCLI(append([]string{"audit"}, args...)...); code != exitUsage || !strings.Contains(errs, says) {
			t.Errorf("%q: exit status %d, %s", args, code, errs)
		}
	}
	missing := filepath.Join(t.TempDir(), "missing")
	if code, _, errs := runCLI("audit", "--ledger", missing); code != exitFailure || !strings.Contains(errs, missing) {
		t.Errorf("exit status %d, %s", code, errs)
	}
}
