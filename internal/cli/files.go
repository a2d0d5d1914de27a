package cli

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/internal/pemcert"
)

// readCertificate returns the first certificate of the PEM file that a flag names.
func readCertificate(flag, path string) (*x509.Certificate, error) {
	certs, err := pemcert.Read(path)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	return certs[0], nil
}

// closing adds the error of a Close to err.
func closing(err error, c io.Closer) error { return errors.Join(err, c.Close()) }

// requiredFlags is the annotation with the required flags of a command, in the order of their definition.
const requiredFlags = "certanchor-required-flags"

// mustRequire marks flags that the command defines as required.
func mustRequire(cmd *cobra.Command, names ...string) {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	for _, name := range names {
		if cmd.Annotations[requiredFlags] != "" {
			cmd.Annotations[requiredFlags] += ", "
		}
		cmd.Annotations[requiredFlags] += "--" + name
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // a name that the command does not define
		}
	}
}
