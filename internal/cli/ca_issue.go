package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// issueFlags are those of ca issue.
type issueFlags struct {
	ca                                         caFlags
	csr, csrDir, profile, out, outDir          string
	idempotencyKey, supersedes, overlap, names string
	keyOut                                     string
	parallel                                   int
}

func newCAIssueCommand() *cobra.Command {
	var f issueFlags
	cmd := &cobra.Command{
		Use:   "issue",
		Short: "have one certificate, or one for each request in a directory, signed, anchored and released",
		Long: `Sends certificate signing requests to the CA; certificates come back when they are on the ledger. With --csr-dir every file *.csr, *.pem or
*.req of a directory is a request, and NAME.crt in --out-dir its certificate: one that is there is not asked for again, so that the command can be
repeated after a failure. --key-out makes a new P-256 key for --name, in a new file of mode 0600, and asks for its certificate.

With --supersedes the new certificate replaces another one, which is revoked with the reason superseded as soon as the new one is there, or
--overlap after that, whether or not this command still runs.`,
		Example: `  certanchor ca issue --csr req.pem --profile server -o cert.pem --token-file pki/ca/operator.token
  certanchor ca issue --csr new.pem --supersedes 4f0c9e... --overlap 72h -o cert.pem --token-file requester.token
  certanchor ca issue --key-out key.pem --name host.example.org -o cert.pem --token-file requester.token
  certanchor ca issue --csr-dir requests --out-dir certs --parallel 32 --token-file requester.token`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.csr, "csr", "", "certificate signing request, PEM")
	fs.StringVar(&f.csrDir, "csr-dir", "", "directory of requests, instead of --csr")
	fs.StringVar(&f.keyOut, "key-out", "", "new file for a new key, instead of a request")
	fs.StringVar(&f.names, "name", "", "with --key-out: host names, separated by commas")
	fs.StringVar(&f.profile, "profile", "server", "profile of the CA to issue under")
	fs.StringVarP(&f.out, "out", "o", "", "file for the certificate; without it, it is printed")
	fs.StringVar(&f.outDir, "out-dir", "", "with --csr-dir: directory for the certificates")
	fs.StringVar(&f.idempotencyKey, "idempotency-key", "", "name of this issuance, for repeating it safely")
	fs.StringVar(&f.supersedes, "supersedes", "", "serial number of the certificate that the new one replaces")
	fs.StringVar(&f.overlap, "overlap", "", "how long the replaced certificate stays good, such as 72h")
	fs.IntVar(&f.parallel, "parallel", 16, "with --csr-dir: requests at a time, 1 to 256")
	f.ca.register(cmd)
	cmd.MarkFlagsOneRequired("csr", "csr-dir", "key-out")
	cmd.MarkFlagsMutuallyExclusive("csr", "csr-dir", "key-out")
	for _, one := range []string{"out", "idempotency-key", "supersedes", "overlap", "name"} {
		cmd.MarkFlagsMutuallyExclusive("csr-dir", one)
	}
	cmd.MarkFlagsRequiredTogether("csr-dir", "out-dir")
	cmd.MarkFlagsRequiredTogether("key-out", "name")
	return cmd
}

func (f *issueFlags) run(cmd *cobra.Command) error {
	if f.parallel < 1 || f.parallel > 256 {
		return fmt.Errorf("%w: --parallel %d: must be 1 to 256", errUsage, f.parallel)
	}
	if f.csrDir != "" {
		return f.runDir(cmd)
	}
	csr, err := f.request()
	if err != nil {
		return err
	}
	c, ctx, cancel, err := f.ca.client(cmd.Context())
	if err != nil {
		return err
	}
	defer cancel()
	got, err := c.Issue(ctx, caapi.IssueRequest{CSR: csr, Profile: f.profile, Supersedes: f.supersedes, Overlap: f.overlap}, f.idempotencyKey)
	if err != nil {
		return err
	}
	return printIssued(cmd, got, f.out, f.ca.asJSON)
}

// request reads the request, or makes key and request.
func (f *issueFlags) request() (string, error) {
	if f.keyOut == "" {
		csr, err := os.ReadFile(f.csr)
		if err != nil {
			return "", fmt.Errorf("--csr: %w", err)
		}
		return string(csr), nil
	}
	return newRequest(f.keyOut, strings.Split(f.names, ","))
}

// printIssued prints a certificate, or writes it to out.
func printIssued(cmd *cobra.Command, got *caapi.Certificate, out string, asJSON bool) error {
	if out != "" {
		if err := os.WriteFile(out, []byte(got.Certificate), 0o644); err != nil { //nolint:gosec // certificates are public
			return fmt.Errorf("--out: %w", err)
		}
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), got)
	}
	if out == "" {
		fmt.Fprint(cmd.OutOrStdout(), got.Certificate)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "serial %s, log index %d at %s, block %d, transaction %s\n", got.Serial, got.LogIndex, got.Timestamp, got.Block, got.TxID)
	if s := got.Supersedes; s != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "replaces %s, which is revoked (superseded) at %s\n", s.Serial, s.At)
	}
	return nil
}

// dirOutcome is what became of one request of a directory.
type dirOutcome struct {
	Request  string `json:"request"`
	Out      string `json:"certificate,omitempty"`
	Serial   string `json:"serial,omitempty"`
	LogIndex uint64 `json:"log_index,omitempty"`
	There    bool   `json:"there_already,omitempty"`
	Error    string `json:"error,omitempty"`
}

func (f *issueFlags) runDir(cmd *cobra.Command) error {
	files, err := requestFiles(f.csrDir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.outDir, 0o755); err != nil { //nolint:gosec // certificates are public
		return fmt.Errorf("--out-dir: %w", err)
	}
	c, _, cancel, err := f.ca.client(cmd.Context())
	if err != nil {
		return err
	}
	defer cancel()
	p := newTally(cmd.ErrOrStderr(), "certificates", len(files))
	outcomes := make([]dirOutcome, len(files))
	slots := make(chan struct{}, f.parallel)
	var all sync.WaitGroup
	for i, file := range files {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			outcomes[i] = f.issueFile(cmd.Context(), c, file)
			p.add(1, outcomes[i].Error != "")
		})
	}
	all.Wait()
	p.end()
	return reportDir(cmd, outcomes, f.ca.asJSON)
}

// requestFiles lists the requests in dir, sorted.
func requestFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("--csr-dir: %w", err)
	}
	var files []string
	names := map[string]string{}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if e.IsDir() || !slices.Contains([]string{".csr", ".pem", ".req"}, ext) {
			continue
		}
		base := strings.TrimSuffix(e.Name(), ext)
		if other, twice := names[base]; twice {
			return nil, fmt.Errorf("--csr-dir: %s and %s would have the same certificate %s.crt", other, e.Name(), base)
		}
		names[base] = e.Name()
		files = append(files, filepath.Join(dir, e.Name()))
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("--csr-dir %s: has no file *.csr, *.pem or *.req", dir)
	}
	return files, nil
}

func (f *issueFlags) issueFile(ctx context.Context, c *caapi.Client, file string) (o dirOutcome) {
	o.Request = file
	o.Out = filepath.Join(f.outDir, strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))+".crt")
	fail := func(err error) dirOutcome {
		o.Out, o.Error = "", explain(err)
		return o
	}
	if _, err := os.Stat(o.Out); err == nil {
		o.There = true
		return o
	}
	csr, err := os.ReadFile(file)
	if err != nil {
		return fail(err)
	}
	ctx, cancel := context.WithTimeout(ctx, f.ca.timeout)
	defer cancel()
	// The same request under the same profile is the same issuance, should this command be repeated.
	key := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s", filepath.Base(file), f.profile, csr))
	got, err := c.Issue(ctx, caapi.IssueRequest{CSR: string(csr), Profile: f.profile}, "ca-issue-"+hex.EncodeToString(key[:]))
	if err != nil {
		return fail(err)
	}
	if err := keyfile.Replace(o.Out, []byte(got.Certificate), 0o644); err != nil {
		return fail(err)
	}
	o.Serial, o.LogIndex = got.Serial, got.LogIndex
	return o
}

func reportDir(cmd *cobra.Command, outcomes []dirOutcome, asJSON bool) error {
	issued, there, failed := 0, 0, 0
	for _, o := range outcomes {
		switch {
		case o.Error != "":
			failed++
		case o.There:
			there++
		default:
			issued++
		}
	}
	w := cmd.OutOrStdout()
	if asJSON {
		if err := printJSON(w, map[string]any{"issued": issued, "there_already": there, "failed": failed, "requests": outcomes}); err != nil {
			return err
		}
	} else if err := tableDir(w, outcomes, issued, there, failed); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d requests failed", failed, len(outcomes))
	}
	return nil
}

func tableDir(w io.Writer, outcomes []dirOutcome, issued, there, failed int) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "issued\t%d\nthere already\t%d\nfailed\t%d\n", issued, there, failed)
	err := t.Flush()
	for _, o := range outcomes {
		if o.Error != "" {
			fmt.Fprintf(w, "%s: %s\n", o.Request, o.Error)
		}
	}
	return err
}

var errNoNames = errors.New("must have one name at least")
