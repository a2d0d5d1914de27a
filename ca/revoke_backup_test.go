package ca

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/cabackup"
)

// TestBackupHasWhatRevocationsNeed, and not what is made of the ledger.
func TestBackupHasWhatRevocationsNeed(t *testing.T) {
	w := newWorld(t, nil)
	b := w.bulkOf(caapi.TypeCSV, "reason=keyCompromise", w.issue("requester", "server", "a.example.org"))
	if _, err := supersede(w, "requester", w.issue("requester", "server", "b.example.org"), "24h"); err != nil {
		t.Fatal(err)
	}
	m, err := cabackup.Write(new(bytes.Buffer), w.dir, cabackup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range m.Files {
		names = append(names, f.Name)
		if strings.HasPrefix(f.Name, catalogueDir) {
			t.Errorf("%s is in the backup", f.Name)
		}
	}
	for _, want := range []string{blockedFile, supersededFile, bulkDir + "/" + b.ID + planSuffix, bulkDir + "/" + b.ID + logSuffix} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not in the backup, which has %v", want, names)
		}
	}
}
