package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/catalogue"
)

// revokeFlags are those of ca revoke.
type revokeFlags struct {
	ca                      caFlags
	cert, file, key, bulk   string
	query                   []string
	reason, since, idemKey  string
	hold, release, dry, yes bool
}

func newCARevokeCommand() *cobra.Command {
	var f revokeFlags
	cmd := &cobra.Command{
		Use:   "revoke [SERIAL...]",
		Short: "revoke, hold or release certificates: one, a list, what a query finds, or all with a key",
		Long: `Changes the status of certificates of a CA, for one of RFC 5280's reasons: unspecified, keyCompromise, cACompromise, affiliationChanged,
superseded, cessationOfOperation, privilegeWithdrawn, aACompromise; or, with --hold and --release, for a time.

The list is fixed first and shown; exactly that list is worked on once you agree, or with --yes. It goes on at the CA when this command ends, and when
the CA is restarted: --bulk ID looks at it again. Repeating the command is safe: what is so already stays as it is, with its first date.

  --file FILE    CSV (serial,reason,invalidity_date) or, from *.jsonl, JSON lines with these fields; - is standard input, CSV
  --query F=V    those that match all: profile, client, name (exact, or *.example.org for all that end so), subject, issued_from, issued_to,
                 expires_from, expires_to (RFC 3339) and state (valid, held, revoked)
  --spki FILE    every certificate with the key in a PEM certificate, request or public key, or with the SHA-256 in hexadecimal. Revoked for
                 keyCompromise, the key is blocked: nothing is issued for it any more, and what is recorded with it later is revoked

docs/revoking.md tells more.`,
		Example: `  certanchor ca revoke 4f0c9e... --reason superseded --token-file pki/ca/operator.token
  certanchor ca revoke --file gone.csv --reason cessationOfOperation --token-file pki/ca/operator.token
  certanchor ca revoke --query profile=server --query 'name=*.shop.example' --reason superseded --dry-run --token-file pki/ca/operator.token
  certanchor ca revoke --spki leaked.pem --reason keyCompromise --yes --token-file pki/ca/operator.token`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.cert, "cert", "", "the certificate, PEM, instead of its serial number")
	fs.StringVar(&f.file, "file", "", "list of certificates, CSV or *.jsonl")
	fs.StringArrayVar(&f.query, "query", nil, "field=value that certificates must match; may be given several times")
	fs.StringVar(&f.key, "spki", "", "file with the key, or its SHA-256")
	fs.StringVar(&f.bulk, "bulk", "", "look at an earlier bulk revocation, and wait for its end")
	fs.StringVar(&f.reason, "reason", "", "reason; of a list, for the lines that have none")
	fs.StringVar(&f.since, "invalidity-date", "", "when the key or certificate became bad, RFC 3339")
	fs.BoolVar(&f.hold, "hold", false, "put on hold instead")
	fs.BoolVar(&f.release, "release", false, "release from hold instead")
	fs.BoolVar(&f.dry, "dry-run", false, "only show what would be done")
	fs.BoolVar(&f.yes, "yes", false, "do not ask")
	fs.StringVar(&f.idemKey, "idempotency-key", "", "name of this change: with the same one, the same list")
	f.ca.register(cmd)
	cmd.MarkFlagsMutuallyExclusive("hold", "release")
	cmd.MarkFlagsMutuallyExclusive("cert", "file", "query", "spki", "bulk")
	return cmd
}

// usage is a mistake in how the command was called.
func usage(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errUsage, fmt.Sprintf(format, args...))
}

func (f *revokeFlags) check(args []string) error {
	given := 0
	for _, is := range []bool{len(args) > 0, f.cert != "", f.file != "", len(f.query) > 0, f.key != "", f.bulk != ""} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		return usage("certanchor ca revoke takes serial numbers, or one of --cert, --file, --query, --spki and --bulk")
	case f.bulk != "" && (f.reason != "" || f.hold || f.release || f.dry || f.since != ""):
		return usage("--bulk looks at what was begun, it takes no --reason, --invalidity-date, --hold, --release or --dry-run")
	case f.release && (f.reason != "" || f.since != ""), f.hold && (f.reason != "" || f.since != ""):
		return usage("--reason and --invalidity-date are of a revocation, not of --hold or --release")
	case f.reason == "" && !f.hold && !f.release && f.file == "" && f.bulk == "":
		return usage("--reason must be given, or --hold or --release")
	}
	return nil
}

func (f *revokeFlags) run(cmd *cobra.Command, args []string) error {
	if err := f.check(args); err != nil {
		return err
	}
	c, ctx, cancel, err := f.ca.client(cmd.Context())
	if err != nil {
		return err
	}
	defer cancel()
	if f.cert != "" {
		serial, err := whichCert(cmd, nil, f.cert)
		if err != nil {
			return err
		}
		args = []string{serial}
	}
	if len(args) == 1 && !f.dry {
		return f.one(cmd, ctx, c, args[0])
	}
	var b *caapi.Bulk
	if f.bulk == "" {
		if b, err = f.plan(cmd, ctx, c, args); err != nil {
			return err
		}
		if goOn, err := f.agree(cmd, ctx, c, b); !goOn || err != nil {
			return err
		}
		if b, err = c.StartBulk(ctx, b); err != nil {
			return err
		}
	} else if b, err = c.Bulk(ctx, f.bulk, 0); err != nil {
		return err
	} else if b.State == caapi.BulkPlanned {
		if goOn, err := f.agree(cmd, ctx, c, b); !goOn || err != nil {
			return err
		}
		if b, err = c.StartBulk(ctx, b); err != nil {
			return err
		}
	}
	return f.follow(cmd, c, b)
}

// one changes a single certificate.
func (f *revokeFlags) one(cmd *cobra.Command, ctx context.Context, c *caapi.Client, arg string) error {
	serial, err := wire.ParseSerial(arg)
	if err != nil {
		return err
	}
	if f.release {
		change, acknowledged, err := c.Release(ctx, serial.String())
		return printChange(cmd, f.ca, change, acknowledged, err)
	}
	r := caapi.RevokeRequest{Serial: serial.String(), Reason: f.reason, InvalidityDate: f.since}
	if f.hold {
		r.Reason = wire.CertificateHold.String()
	}
	change, acknowledged, err := c.Revoke(ctx, r)
	return printChange(cmd, f.ca, change, acknowledged, err)
}

func (f *revokeFlags) operation() string {
	switch {
	case f.hold:
		return caapi.OperationHold
	case f.release:
		return caapi.OperationRelease
	}
	return ""
}

// plan has the list fixed, and does nothing else.
func (f *revokeFlags) plan(cmd *cobra.Command, ctx context.Context, c *caapi.Client, args []string) (*caapi.Bulk, error) {
	r := caapi.BulkRequest{Operation: f.operation(), Reason: f.reason, InvalidityDate: f.since, DryRun: true}
	switch {
	case len(f.query) > 0:
		q, err := parseQueryFlags(f.query)
		if err != nil {
			return nil, err
		}
		r.Query = q
		return c.BulkOf(ctx, r, f.idemKey)
	case f.key != "":
		if err := f.readKey(&r); err != nil {
			return nil, err
		}
		return c.BulkOf(ctx, r, f.idemKey)
	case f.file != "":
		list, kind, err := readList(cmd.InOrStdin(), f.file)
		if err != nil {
			return nil, err
		}
		return c.BulkList(ctx, r, kind, list, f.idemKey)
	}
	return c.BulkList(ctx, r, caapi.TypeCSV, []byte(strings.Join(args, "\n")+"\n"), f.idemKey)
}

// readKey takes a hash, or the file that is named.
func (f *revokeFlags) readKey(r *caapi.BulkRequest) error {
	if k, err := catalogue.ParseKey(f.key); err == nil {
		r.SPKI = k.String()
		return nil
	}
	data, err := os.ReadFile(f.key)
	if err != nil {
		return fmt.Errorf("--spki: must be a file, or 64 hexadecimal digits: %w", err)
	}
	if bytes.Contains(data, []byte("PRIVATE KEY")) {
		return fmt.Errorf("--spki %s: has a private key, which must not be sent anywhere; openssl pkey -in %s -pubout makes the public one", f.key, f.key)
	}
	r.Key = string(data)
	return nil
}

func readList(stdin io.Reader, path string) (list []byte, kind string, err error) {
	kind = caapi.TypeCSV
	if ext := filepath.Ext(path); ext == ".jsonl" || ext == ".ndjson" {
		kind = caapi.TypeJSONLines
	}
	in := stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, "", fmt.Errorf("--file: %w", err)
		}
		defer file.Close()
		in = file
	}
	list, err = io.ReadAll(io.LimitReader(in, caapi.MaxBulkBody+1))
	if err == nil && len(list) > caapi.MaxBulkBody {
		err = fmt.Errorf("must have at most %d bytes; split it", caapi.MaxBulkBody)
	}
	if err != nil {
		return nil, "", fmt.Errorf("--file %s: %w", path, err)
	}
	return list, kind, nil
}

// parseQueryFlags reads field=value.
func parseQueryFlags(fields []string) (*caapi.Query, error) {
	values := map[string]string{}
	for _, f := range fields {
		name, v, ok := strings.Cut(f, "=")
		if _, twice := values[name]; !ok || v == "" || twice {
			return nil, usage("--query %q: must be field=value, each field once", f)
		}
		values[name] = v
	}
	data, err := json.Marshal(values)
	if err != nil {
		return nil, err
	}
	var q caapi.Query
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&q); err != nil {
		return nil, usage("--query: there are profile, client, name, subject, issued_from, issued_to, expires_from, expires_to and state: %v", err)
	}
	return &q, nil
}

// shownCertificates is how many of a list are shown.
const shownCertificates = 20

// agree shows what would be done and asks whether it is to be.
func (f *revokeFlags) agree(cmd *cobra.Command, ctx context.Context, c *caapi.Client, b *caapi.Bulk) (bool, error) {
	if f.dry && f.ca.asJSON {
		return false, printJSON(cmd.OutOrStdout(), b)
	}
	out := cmd.ErrOrStderr()
	if f.dry {
		out = cmd.OutOrStdout()
	}
	if err := printPlan(out, b, func(fn func(*caapi.BulkResult) error) error {
		return c.BulkResults(ctx, b.ID, "", shownCertificates, fn)
	}); err != nil {
		return false, err
	}
	switch {
	case f.dry:
		fmt.Fprintf(out, "nothing is done; certanchor ca revoke --bulk %s does it\n", b.ID)
		return false, nil
	case b.Total == 0 && b.SPKI == "":
		return false, nil
	case f.yes:
		return true, nil
	}
	if in, ok := cmd.InOrStdin().(*os.File); !ok || !term.IsTerminal(int(in.Fd())) {
		return false, usage("nobody can be asked here: --yes agrees to this list, --bulk %s --yes later", b.ID)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s %d certificates? [y/N] ", strings.ToUpper(b.Operation[:1])+b.Operation[1:], b.Total)
	answer, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return false, errors.New("nothing is done")
	}
	return true, nil
}

// followWait is how long one look waits for the end.
const followWait = time.Second

// follow waits for the end and tells of it. What goes wrong here does not end it at the CA.
func (f *revokeFlags) follow(cmd *cobra.Command, c *caapi.Client, b *caapi.Bulk) error {
	ctx := cmd.Context()
	p := newTally(cmd.ErrOrStderr(), "certificates", b.Total)
	said := ""
	for last := time.Now(); b.State == caapi.BulkRunning; {
		next, err := c.Bulk(ctx, b.ID, followWait)
		switch {
		case err == nil:
			b, last = next, time.Now()
		case ctx.Err() != nil || time.Since(last) > f.ca.timeout:
			return fmt.Errorf("%w; it goes on at the CA: certanchor ca revoke --bulk %s", err, b.ID)
		default: // the CA is being restarted
			pauseFor(ctx, followWait)
			continue
		}
		p.at(b.Changed+b.Already+b.Failed, b.Failed)
		if b.Detail != said && b.Detail != "" {
			fmt.Fprintln(cmd.ErrOrStderr(), b.Detail)
		}
		said = b.Detail
	}
	p.end()
	return f.report(cmd, c, b)
}

func pauseFor(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// report prints how it ended. A change that failed, or that a responder has not confirmed, is a failure of the command.
func (f *revokeFlags) report(cmd *cobra.Command, c *caapi.Client, b *caapi.Bulk) error {
	var failures []*caapi.BulkResult
	if b.Failed > 0 {
		limit := shownCertificates
		if f.ca.asJSON {
			limit = 0
		}
		err := c.BulkResults(cmd.Context(), b.ID, "failed", limit, func(r *caapi.BulkResult) error {
			failures = append(failures, r)
			return nil
		})
		if err != nil {
			return err
		}
	}
	var err error
	if f.ca.asJSON {
		err = printJSON(cmd.OutOrStdout(), struct {
			*caapi.Bulk
			Failures []*caapi.BulkResult `json:"failures"`
		}{b, failures})
	} else {
		err = printBulk(cmd.OutOrStdout(), b, failures)
	}
	switch {
	case err != nil:
		return err
	case b.Failed > 0:
		return fmt.Errorf("%d of %d certificates could not be changed", b.Failed, b.Total)
	case !b.Acknowledged:
		return fmt.Errorf("not acknowledged by every responder: %s", b.Detail)
	}
	return nil
}
