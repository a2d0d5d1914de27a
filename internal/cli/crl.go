package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/internal/crl"
	"github.com/certanchor/certanchor/internal/pemcert"
)

func newCRLCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "crl", Short: "show and verify certificate revocation lists",
		Example: `  certanchor crl show http://org2.example/crl/5d0c...e1/full.crl
  certanchor crl verify --ca pki/ca/ca.pem full.crl`,
	}
	cmd.AddCommand(newCRLShowCommand(), newCRLVerifyCommand())
	return cmd
}

// crlFlags are what crl show and crl verify share.
type crlFlags struct {
	timeout time.Duration
	entries int
	asJSON  bool
}

func (f *crlFlags) register(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.timeout, "timeout", time.Minute, "how long to wait for a URL")
	cmd.Flags().IntVar(&f.entries, "entries", 20, "how many entries the table shows; 0: all")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print JSON, with all entries")
}

func newCRLShowCommand() *cobra.Command {
	var f crlFlags
	cmd := &cobra.Command{
		Use:   "show FILE|URL",
		Short: "print what a CRL says",
		Long: `Prints a CRL, DER or PEM, from a file, a URL or, with -, standard input: issuer, number, times, scope and entries. It does not verify the
signature; certanchor crl verify does. A CRL with extensions that certanchor does not make is refused: what they say would not be shown.`,
		Example: `  certanchor crl show full.crl
  certanchor crl show http://org2.example/crl/5d0c...e1/delta.crl --json`,
		Args: oneArg("the file or URL of the CRL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			der, list, err := f.read(cmd, args[0])
			if err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), der, list, nil)
		},
	}
	f.register(cmd)
	return cmd
}

func newCRLVerifyCommand() *cobra.Command {
	var (
		f      crlFlags
		caFile string
	)
	cmd := &cobra.Command{
		Use:   "verify FILE|URL --ca CERT",
		Short: "verify a CRL's signature and times, and print what it says",
		Long: `Verifies that the CA has signed a CRL and that it is valid now, and prints it. Exit status 0: both are so; 1: not.

That it says what the ledger says is not shown by its signature. The OCSP bridges of all organisations compare that before they serve it.`,
		Example: `  certanchor crl verify --ca pki/ca/ca.pem full.crl
  certanchor crl verify --ca ca.pem http://org2.example/crl/5d0c...e1/full.crl`,
		Args: oneArg("the file or URL of the CRL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			issuers, err := pemcert.Read(caFile)
			if err != nil {
				return fmt.Errorf("--ca: %w", err)
			}
			der, list, err := f.read(cmd, args[0])
			if err != nil {
				return err
			}
			signer, err := list.Verify(issuers)
			if err != nil {
				return err
			}
			if err := f.print(cmd.OutOrStdout(), der, list, signer); err != nil {
				return err
			}
			switch now := time.Now(); {
			case now.Before(list.ThisUpdate):
				return fmt.Errorf("the CRL is not valid yet: its thisUpdate is %s", list.ThisUpdate.Format(time.RFC3339))
			case !now.Before(list.NextUpdate):
				return fmt.Errorf("the CRL has run out: its nextUpdate was %s", list.NextUpdate.Format(time.RFC3339))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&caFile, "ca", "", "the CA's certificate, PEM (required)")
	f.register(cmd)
	mustRequire(cmd, "ca")
	return cmd
}

// read gets a CRL from a file, a URL or standard input.
func (f *crlFlags) read(cmd *cobra.Command, from string) ([]byte, *crl.List, error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	data, err := readFrom(ctx, cmd.InOrStdin(), from)
	if err != nil {
		return nil, nil, err
	}
	der, err := crlDER(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", from, err)
	}
	list, err := crl.Parse(der)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", from, err)
	}
	return der, list, nil
}

func readFrom(ctx context.Context, stdin io.Reader, from string) ([]byte, error) {
	if from == "-" {
		return io.ReadAll(io.LimitReader(stdin, crl.MaxBytes+1))
	}
	if !strings.HasPrefix(from, "http://") && !strings.HasPrefix(from, "https://") {
		return os.ReadFile(from)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, crl.MaxBytes+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s: %s", from, resp.Status, firstOctets(data))
	}
	return data, nil
}

func firstOctets(b []byte) string {
	const most = 300
	return strings.TrimSpace(string(b[:min(len(b), most)]))
}

// crlDER takes the CRL out of its PEM wrapping (RFC 7468 section 6), if it has one.
func crlDER(data []byte) ([]byte, error) {
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN ")) {
		return data, nil
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "X509 CRL" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("must be DER, or one PEM block X509 CRL and nothing else (RFC 7468 section 6)")
	}
	return block.Bytes, nil
}

// shownCRL is the JSON of crl show and crl verify.
type shownCRL struct {
	Issuer     string       `json:"issuer"`
	Kind       string       `json:"kind"` // complete, delta or indirect
	Scope      string       `json:"scope,omitempty"`
	Number     uint64       `json:"number"`
	Base       uint64       `json:"base,omitempty"`
	ThisUpdate string       `json:"this_update"`
	NextUpdate string       `json:"next_update"`
	DeltaURL   string       `json:"delta_url,omitempty"`
	KeyID      string       `json:"authority_key_id"`
	Algorithm  string       `json:"signature_algorithm"`
	Verified   bool         `json:"verified"` // false: the signature was not looked at
	SHA256     string       `json:"sha256"`
	Size       int          `json:"size"`
	Entries    []shownEntry `json:"entries"`
}

type shownEntry struct {
	Serial     string `json:"serial"`
	Time       string `json:"time"`
	Reason     string `json:"reason"`
	Invalidity string `json:"invalidity_date,omitempty"`
	Issuer     string `json:"issuer,omitempty"` // in an indirect CRL
}

func showCRL(der []byte, l *crl.List, verified bool) (*shownCRL, error) {
	issuer, err := nameOf(l.Issuer)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	s := &shownCRL{
		Issuer: issuer, Kind: "complete", Scope: l.Scope, Number: l.Number, Base: l.Base, DeltaURL: l.DeltaURL,
		ThisUpdate: l.ThisUpdate.Format(time.RFC3339), NextUpdate: l.NextUpdate.Format(time.RFC3339), KeyID: hex.EncodeToString(l.AuthorityKeyID),
		Algorithm: l.Algorithm.String(), Verified: verified, SHA256: hex.EncodeToString(sum[:]), Size: len(der), Entries: []shownEntry{},
	}
	switch {
	case l.Indirect:
		s.Kind = "indirect"
	case l.Base != 0:
		s.Kind = "delta"
	}
	for _, g := range l.Groups {
		of := ""
		if len(g.Name) > 0 {
			if of, err = nameOf(g.Name); err != nil {
				return nil, err
			}
		}
		for i := range g.Entries {
			s.Entries = append(s.Entries, showEntry(&g.Entries[i], of))
		}
	}
	return s, nil
}

func showEntry(e *crl.Entry, issuer string) shownEntry {
	s := shownEntry{Serial: e.Serial.String(), Time: e.Time.Time().Format(time.RFC3339), Reason: e.Reason.String(), Issuer: issuer}
	if e.Remove {
		s.Reason = "removeFromCRL"
	}
	if e.Invalidity != 0 {
		s.Invalidity = e.Invalidity.Time().Format(time.RFC3339)
	}
	return s
}

// nameOf prints a Name. It may come from anybody: what a terminal would act on is not printed.
func nameOf(der []byte) (string, error) {
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &name); err != nil || len(rest) > 0 {
		return "", fmt.Errorf("issuer: must be a Name (RFC 5280 section 4.1.2.4): %w", err)
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, name.String()), nil
}

func (f *crlFlags) print(w io.Writer, der []byte, l *crl.List, signer *x509.Certificate) error {
	s, err := showCRL(der, l, signer != nil)
	if err != nil {
		return err
	}
	if f.asJSON {
		return printJSON(w, s)
	}
	line := func(what, format string, args ...any) {
		fmt.Fprintf(w, "  %-12s "+format+"\n", append([]any{what}, args...)...)
	}
	fmt.Fprintf(w, "%s CRL of %s\n", s.Kind, s.Issuer)
	if signer != nil {
		line("signature", "verified with the certificate of %s, %s", signer.Subject, s.Algorithm)
	} else {
		line("signature", "not verified, %s", s.Algorithm)
	}
	if s.Base != 0 {
		line("number", "%d, against %d or later", s.Number, s.Base)
	} else {
		line("number", "%d", s.Number)
	}
	if s.Scope != "" {
		line("scope", "certificates that name %s", s.Scope)
	}
	line("valid", "%s to %s", s.ThisUpdate, s.NextUpdate)
	if s.DeltaURL != "" {
		line("deltas", "%s", s.DeltaURL)
	}
	line("size", "%d octets, %d entries", s.Size, len(s.Entries))
	return f.printEntries(w, s.Entries)
}

func (f *crlFlags) printEntries(w io.Writer, entries []shownEntry) error {
	if len(entries) == 0 {
		return nil
	}
	shown := entries
	if f.entries > 0 && len(shown) > f.entries {
		shown = shown[:f.entries]
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nSERIAL\tSINCE\tREASON\tINVALID SINCE")
	for _, e := range shown {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", e.Serial, e.Time, e.Reason, e.Invalidity)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if more := len(entries) - len(shown); more > 0 {
		fmt.Fprintf(w, "and %d more; --entries 0 shows all\n", more)
	}
	return nil
}
