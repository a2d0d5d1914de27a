package cli

import (
	"bufio"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caroot"
	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/keystate"
)

func newCARootCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "root", Short: "make and use an offline root on a machine without a network",
		Long: `An offline root certifies CAs: requests, certificates and CRLs come and go as files, and no command here opens a connection. It keeps its own
numbered register, so that no serial number is used twice. docs/keys.md has a whole ceremony.`,
		Example: `  certanchor ca root init --dir root --subject "CN=Example Root,O=Example"
  certanchor ca root sign --dir root --csr sub.csr --out sub.pem`,
	}
	cmd.AddCommand(newRootInitCommand(), newRootSignCommand(), newRootRevokeCommand(), newRootCRLCommand(), newRootShowCommand())
	return cmd
}

func newRootInitCommand() *cobra.Command {
	var (
		o                       caroot.InitOptions
		subject, key, algorithm string
		passphrase              keyfile.Source
	)
	cmd := &cobra.Command{
		Use:   "init",
		Short: "make a root: key, self-signed certificate and register",
		Example: `  certanchor ca root init --dir root --subject "CN=Example Root,O=Example" --validity 175200h
  certanchor ca root init --dir root --subject "CN=Example Root" --key 'pkcs11:token=root;object=root?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/root/pin'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Subject, err = parseSubject(subject); err != nil {
				return err
			}
			flag := "--key"
			if hsm.IsURI(key) {
				o.KeyURI, key, flag = key, algorithm, "--key-algorithm"
			}
			if o.Algorithm, err = keyfile.ParseAlgorithm(key); err != nil {
				return fmt.Errorf("%w: %s: %w", errUsage, flag, err)
			}
			if o.KeyURI == "" {
				if o.Passphrase, err = orPrompt(passphrase).NewPassphrase("the new root key"); err != nil {
					return err
				}
			}
			o.By = operatorName(o.By)
			cert, err := caroot.Init(o)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "root %s\n  certificate  %s, until %s\n  CA ID        %s\n",
				cert.Subject, filepath.Join(o.Dir, caroot.CertFile), cert.NotAfter.Format(time.DateOnly), wire.CAIDOf(cert.RawSubjectPublicKeyInfo))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", "", "directory to make (required)")
	f.StringVar(&subject, "subject", "", `distinguished name, such as "CN=Example Root,O=Example" (required)`)
	f.StringVar(&key, "key", "p384", "key: p256, p384, rsa2048 or rsa3072 in a file, or the PKCS #11 URI of one in a token (RFC 7512)")
	f.StringVar(&algorithm, "key-algorithm", "p384", "of a key that is to be made in a token")
	f.DurationVar(&o.Validity, "validity", caroot.DefaultValidity, "how long the root's certificate is valid")
	f.IntVar(&o.PathLen, "path-len", 1, "CA certificates that may stand below the root's own, at least 1; -1: any number")
	passphraseFlags(cmd, &passphrase)
	byFlag(cmd, &o.By)
	mustRequire(cmd, "dir", "subject")
	return cmd
}

func newRootSignCommand() *cobra.Command {
	var (
		dir, csr, out      string
		o                  caroot.SignOptions
		permitIP, policies []string
		yes, asJSON        bool
		passphrase         keyfile.Source
	)
	cmd := &cobra.Command{
		Use:   "sign",
		Short: "certify a subordinate CA",
		Long: `Shows what it is about to sign, asks, and signs. The flags decide what the certificate says; of the request only the name and the key are taken over.
The certificate is in the register before it is written, and can be got out again: certanchor ca root show --serial.`,
		Example: `  certanchor ca root sign --dir root --csr sub.csr --out sub.pem --permit-dns example.org
  certanchor ca root sign --dir root --csr sub.csr --out sub.pem --validity 43800h --policy 2.23.140.1.2.1 --crl-url http://pki.example.org/root.crl`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.CSR, err = os.ReadFile(csr); err != nil {
				return fmt.Errorf("--csr: %w", err)
			}
			for _, text := range permitIP {
				_, n, err := net.ParseCIDR(text)
				if err != nil {
					return fmt.Errorf("%w: --permit-ip %q: must be an address range such as 192.0.2.0/24", errUsage, text)
				}
				o.PermitIP = append(o.PermitIP, n)
			}
			for _, text := range policies {
				oid, err := parseOID(text)
				if err != nil {
					return err
				}
				o.Policies = append(o.Policies, oid)
			}
			o.By, o.Passphrase, o.Confirm = operatorName(o.By), rootPassphrase(passphrase), confirm(cmd, yes)
			o.PolicyNotice = func(s string) { fmt.Fprintln(cmd.ErrOrStderr(), s) }
			if err := mayWriteOut(out); err != nil {
				return err
			}
			root, err := caroot.Open(dir, nil)
			if err != nil {
				return err
			}
			defer func() { err = closing(err, root) }()
			cert, err := root.Sign(o)
			if err != nil {
				return err
			}
			if err := writeCertificate(cmd, out, cert, asJSON); err != nil {
				return fmt.Errorf("%w; the certificate is in the register: certanchor ca root show --dir %s --serial %s", err, dir, cert.SerialNumber.Text(16))
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "the root's directory (required)")
	f.StringVar(&csr, "csr", "", "request of the subordinate CA, PEM (required)")
	f.StringVarP(&out, "out", "o", "", "file for the certificate, which must not exist; default: standard output")
	f.DurationVar(&o.Validity, "validity", caroot.DefaultSubValidity, "how long the certificate is valid; it must end before the root's")
	f.IntVar(&o.PathLen, "path-len", 0, "CA certificates that may stand below the subordinate")
	f.StringSliceVar(&o.PermitDNS, "permit-dns", nil, "domain that names in its certificates must be in (name constraint); may be given several times; default: any")
	f.StringSliceVar(&o.ExcludeDNS, "exclude-dns", nil, "domain that they must not be in")
	f.StringSliceVar(&permitIP, "permit-ip", nil, "address range that addresses in its certificates must be in; default: any")
	f.StringSliceVar(&o.PermitEmail, "permit-email", nil, "mail domain, or address, that addresses must be of; default: any")
	f.StringSliceVar(&policies, "policy", nil, "certificate policy, an object identifier")
	f.StringVar(&o.CRLURL, "crl-url", "", "where the root's CRL will be found")
	f.StringVar(&o.IssuerURL, "issuer-url", "", "where the root's certificate will be found")
	f.BoolVar(&yes, "yes", false, "do not ask")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	passphraseFlags(cmd, &passphrase)
	byFlag(cmd, &o.By)
	mustRequire(cmd, "dir", "csr")
	return cmd
}

func newRootRevokeCommand() *cobra.Command {
	var (
		dir, cert, reason, by string
		yes                   bool
	)
	cmd := &cobra.Command{
		Use:     "revoke",
		Short:   "note that a subordinate CA's certificate is revoked; the next CRL says so",
		Example: `  certanchor ca root revoke --dir root --cert sub.pem --reason keyCompromise && certanchor ca root crl --dir root --out root.crl`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			c, err := readCertificate("cert", cert)
			if err != nil {
				return err
			}
			r, err := wire.ParseReason(reason)
			if err != nil {
				return fmt.Errorf("%w: --reason: %w", errUsage, err)
			}
			root, err := caroot.Open(dir, nil)
			if err != nil {
				return err
			}
			defer func() { err = closing(err, root) }()
			if err := confirm(cmd, yes)(fmt.Sprintf("The root is about to revoke, for good, %s\n  serial  %s\n  reason  %s\n", c.Subject, c.SerialNumber.Text(16), r)); err != nil {
				return err
			}
			if err := root.Revoke(c.SerialNumber, r, operatorName(by)); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is revoked; certanchor ca root crl makes the CRL that says so\n", c.SerialNumber.Text(16))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "the root's directory (required)")
	f.StringVar(&cert, "cert", "", "the subordinate CA's certificate, PEM (required)")
	f.StringVar(&reason, "reason", "", "keyCompromise, cACompromise, affiliationChanged, superseded, cessationOfOperation, privilegeWithdrawn or unspecified (required)")
	f.BoolVar(&yes, "yes", false, "do not ask")
	byFlag(cmd, &by)
	mustRequire(cmd, "dir", "cert", "reason")
	return cmd
}

func newRootCRLCommand() *cobra.Command {
	var (
		dir, out   string
		o          caroot.CRLOptions
		yes        bool
		passphrase keyfile.Source
	)
	cmd := &cobra.Command{
		Use:     "crl",
		Short:   "sign the root's CRL: the subordinate CAs that it has revoked",
		Example: `  certanchor ca root crl --dir root --out root.crl --validity 4380h`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			o.By, o.Passphrase, o.Confirm = operatorName(o.By), rootPassphrase(passphrase), confirm(cmd, yes)
			if err := mayWriteOut(out); err != nil {
				return err
			}
			root, err := caroot.Open(dir, nil)
			if err != nil {
				return err
			}
			defer func() { err = closing(err, root) }()
			der, err := root.CRL(o)
			if err != nil {
				return err
			}
			return writeOut(cmd, out, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "the root's directory (required)")
	f.StringVarP(&out, "out", "o", "", "file for the CRL, PEM, which must not exist; default: standard output")
	f.DurationVar(&o.Validity, "validity", caroot.DefaultCRLValidity, "how long the CRL holds")
	f.BoolVar(&yes, "yes", false, "do not ask")
	passphraseFlags(cmd, &passphrase)
	byFlag(cmd, &o.By)
	mustRequire(cmd, "dir")
	return cmd
}

func newRootShowCommand() *cobra.Command {
	var (
		dir, serial string
		asJSON      bool
	)
	cmd := &cobra.Command{
		Use:   "show",
		Short: "show a root's register, or one certificate of it",
		Long:  `Checks the register's chain of hashes and shows it. With --serial, prints that certificate again.`,
		Example: `  certanchor ca root show --dir root
  certanchor ca root show --dir root --serial 5f1c… > sub.pem`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			root, err := caroot.Open(dir, nil)
			if err != nil {
				return err
			}
			defer func() { err = closing(err, root) }()
			if serial != "" {
				n, ok := new(big.Int).SetString(serial, 16)
				if !ok {
					return fmt.Errorf("%w: --serial %q: must be hexadecimal", errUsage, serial)
				}
				cert, err := root.Issued(n)
				if err != nil {
					return err
				}
				return writeOut(cmd, "", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
			}
			states, err := root.States()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"certificate": root.Certificate.Raw, "key_states": states, "register": root.Entries()})
			}
			return printRoot(cmd.OutOrStdout(), root, states)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the root's directory (required)")
	cmd.Flags().StringVar(&serial, "serial", "", "print the certificate with this serial number, PEM")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	mustRequire(cmd, "dir")
	return cmd
}

func printRoot(w io.Writer, root *caroot.Root, states []keystate.Record) error {
	c := root.Certificate
	fmt.Fprintf(w, "root %s, %s to %s\n", c.Subject, c.NotBefore.Format(time.DateOnly), c.NotAfter.Format(time.DateOnly))
	if n := len(states); n > 0 {
		fmt.Fprintf(w, "key  %s\n", states[n-1].String())
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nENTRY\tTIME\tBY\tWHAT\tSERIAL\tSUBJECT")
	for _, e := range root.Entries() {
		what := e.Kind
		switch e.Kind {
		case caroot.KindCRL:
			what += " " + strconv.FormatUint(e.Number, 10)
		case caroot.KindRevoked:
			what += " " + e.Reason
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\n", e.N, e.Time.Format(time.RFC3339), e.By, what, orDash(e.Serial), orDash(e.Subject))
	}
	return t.Flush()
}

// byFlag says who does something that is recorded with a name.
func byFlag(cmd *cobra.Command, by *string) {
	cmd.Flags().StringVar(by, "by", "", "who does it, for the record; default: the user of this process")
}

func operatorName(by string) string {
	if by != "" {
		return by
	}
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "uid " + strconv.Itoa(os.Getuid())
}

func rootPassphrase(s keyfile.Source) func() ([]byte, error) {
	return func() ([]byte, error) { return orPrompt(s).Passphrase("the root key") }
}

// confirm shows a plan on standard error and reads the answer from standard input.
func confirm(cmd *cobra.Command, yes bool) func(string) error {
	return func(plan string) error {
		fmt.Fprint(cmd.ErrOrStderr(), plan)
		if yes {
			return nil
		}
		fmt.Fprint(cmd.ErrOrStderr(), "Type yes to go on: ")
		line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if strings.TrimSpace(line) != "yes" {
			return errors.New("not confirmed: nothing was done (--yes does not ask)")
		}
		return nil
	}
}

func parseOID(text string) (asn1.ObjectIdentifier, error) {
	var oid asn1.ObjectIdentifier
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%w: --policy %q: must be an object identifier such as 2.23.140.1.2.1", errUsage, text)
		}
		oid = append(oid, n)
	}
	if _, err := asn1.Marshal(oid); err != nil {
		return nil, fmt.Errorf("%w: --policy %q: must be an object identifier such as 2.23.140.1.2.1", errUsage, text)
	}
	return oid, nil
}

// mayWriteOut refuses what writeOut would, before something is signed that is to be written.
func mayWriteOut(path string) error {
	if path == "" {
		return nil
	}
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("--out %s: %w; nothing was signed", path, fs.ErrExist)
	}
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return fmt.Errorf("--out %s: %w; nothing was signed", path, err)
	}
	return nil
}

// writeOut writes to a new file, durably, or to standard output.
func writeOut(cmd *cobra.Command, path string, data []byte) error {
	if path == "" {
		_, err := cmd.OutOrStdout().Write(data)
		return err
	}
	return keyfile.WriteNew(path, data, 0o644)
}

func writeCertificate(cmd *cobra.Command, out string, cert *x509.Certificate, asJSON bool) error {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	if asJSON {
		if out != "" {
			if err := writeOut(cmd, out, text); err != nil {
				return err
			}
		}
		return printJSON(cmd.OutOrStdout(), map[string]string{
			"certificate": string(text), "serial": cert.SerialNumber.Text(16), "ca_id": wire.CAIDOf(cert.RawSubjectPublicKeyInfo).String(),
			"not_after": cert.NotAfter.Format(time.RFC3339),
		})
	}
	return writeOut(cmd, out, text)
}
