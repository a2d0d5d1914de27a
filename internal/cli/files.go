package cli

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// readCertificates returns the DER of every certificate in a PEM file; there is at least one, and nothing else.
func readCertificates(path string) ([][]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var ders [][]byte
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s: holds a PEM block %q, must hold certificates only", path, block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", path, len(ders)+1, err)
		}
		ders = append(ders, block.Bytes)
	}
	if len(ders) == 0 {
		return nil, fmt.Errorf("%s: holds no PEM certificate", path)
	}
	return ders, nil
}

// readCertificate returns the first certificate of a PEM file.
func readCertificate(path string) (*x509.Certificate, error) {
	ders, err := readCertificates(path)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(ders[0])
}

// closing adds the error of a Close to err.
func closing(err error, c io.Closer) error { return errors.Join(err, c.Close()) }

// mustRequire marks flags that the command defines as required.
func mustRequire(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // a name that the command does not define
		}
	}
}
