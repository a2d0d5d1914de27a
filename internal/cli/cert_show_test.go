package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/internal/caapi"
)

func TestShowTellsBothDatesOfImportedRevocations(t *testing.T) {
	status := &caapi.Status{State: "revoked", Reason: "superseded", Since: "2026-05-02T00:00:00Z", Asserted: "2025-01-01T00:00:00Z"}
	for name, c := range map[string]struct {
		cert      caapi.Certificate
		has, lack string
	}{
		"certificate":   {caapi.Certificate{Imported: true, LogIndex: 7, Timestamp: "2026-05-02T00:00:00Z", Status: status}, "imported   yes", "serial number only"},
		"serial number": {caapi.Certificate{Imported: true, SerialOnly: true, Status: status}, "as a serial number only", "log index"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, out := &cobra.Command{}, new(bytes.Buffer)
			cmd.SetOut(out)
			if err := showCertificate(cmd, &c.cert); err != nil {
				t.Fatal(err)
			}
			const dates = "revoked since 2026-05-02T00:00:00Z (since 2025-01-01T00:00:00Z, as the CA said), superseded"
			if s := out.String(); !strings.Contains(s, c.has) || strings.Contains(s, c.lack) || !strings.Contains(s, dates) {
				t.Errorf("%s", s)
			}
		})
	}
}
