package cli

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestChaincodeServeNamesWhatIsWrong(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.pem")
	good := map[string]string{
		"--address": "127.0.0.1:0", "--package-id": "certanchor:1", "--tls-cert": missing, "--tls-key": missing, "--client-ca": missing,
		"--consortium": "Org1MSP,Org2MSP",
	}
	for _, c := range []struct {
		name, flag, value, word string
	}{
		{"no package", "--package-id", "", `"package-id" not set`},
		{"no consortium", "--consortium", "", `"consortium" not set`},
		{"member twice", "--consortium", "Org1MSP,Org1MSP", `consortium "Org1MSP"`},
		{"slash in a member", "--consortium", "Org/1", `consortium "Org/1"`},
		{"short interval", "--tick-interval", "1ms", "tick_interval"},
		{"no interval", "--tick-interval", "fast", "tick-interval"},
		{"missing file", "--tls-cert", missing, "--tls-cert: open " + missing},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{"chaincode", "serve"}
			for flag, value := range good {
				if flag != c.flag {
					args = append(args, flag, value)
				}
			}
			if c.value != "" {
				args = append(args, c.flag, c.value)
			}
			if code, _, errs := runCLI(args...); code == exitOK || !strings.Contains(errs, c.word) {
				t.Errorf("exit status %d: %s\nwant one that says %s", code, errs, c.word)
			}
		})
	}
}
