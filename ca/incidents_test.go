package ca

import (
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
)

// Mammoth 2024: a disk ran full in the middle of a batch, and the log had to be given up. Here no certificate leaves that the journal has no
// room for, nor reaches the ledger; what was issued before is there, and the CA goes on when there is room again.
func TestMammoth2024DiskFullInTheJournal(t *testing.T) {
	w := newWorld(t, nil)
	before, err := w.client("requester").Issue(t.Context(), caapi.IssueRequest{CSR: newCSR(t, nil), Profile: "server"}, "")
	if err != nil {
		t.Fatal(err)
	}
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0) // each write fails with ENOSPC
	if err != nil {
		t.Fatal(err)
	}
	size, disk := w.logSize(), w.server.journal.frames.Swap(full)
	for range 3 {
		code, _, b := w.call("POST", caapi.PathCertificates, serverRequest(t), nil)
		if code != http.StatusInternalServerError || strings.Contains(string(b), "BEGIN") {
			t.Fatalf("%d %s", code, b)
		}
	}
	if ready := w.server.Ready(t.Context()); ready.Ready || w.logSize() != size {
		t.Fatalf("%+v, %d certificates are on the ledger, before it were %d", ready, w.logSize(), size)
	}
	w.server.journal.frames.Swap(disk)
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := full.Close(); err != nil {
		t.Fatal(err)
	}

	again, err := New(Config{Dir: w.dir, Key: prepared.key, Log: slog.New(slog.DiscardHandler)}, w.ledger)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := wire.ParseSerial(before.Serial)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Certificate(t.Context(), serial); err != nil || got.Certificate != before.Certificate {
		t.Errorf("what was issued before is %+v, %v", got, err)
	}
	if _, err := again.Issue(t.Context(), Request{CSR: newCSR(t, nil), Profile: "server", Client: "requester"}); err != nil {
		t.Error(err)
	}
	if w.logSize() != size+1 {
		t.Errorf("%d certificates are on the ledger, want %d", w.logSize(), size+1)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}
