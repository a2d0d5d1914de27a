package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/audit/served"
	"github.com/certanchor/certanchor/internal/audit/session"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/node"
	"github.com/certanchor/certanchor/internal/pemcert"
)

// auditFlags are the flags of certanchor audit.
type auditFlags struct {
	configFile, ledger, socket, dir         string
	genesisFile, genesisHash                string
	bridges                                 []string
	policyFile, policyFingerprint, tlsRoots string
	sample, limit                           int
	restart, asJSON                         bool
}

func newAuditCommand() *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "execute the ledger's history again, and compare what organisations serve with it",
		Long: `Reads every block, trusts none: on Fabric it checks the hash chain, the orderers' quorum, endorsements and conflicts, on an embedded
ledger the hash chain, and executes every transaction again. From the blocks alone it derives every log, the revocation map and every
certificate's status, and compares them with what each --bridge serves: checkpoints and their signatures, all tiles, and for a sample of
certificates OCSP answers and bundles. docs/audit.md says what exactly, and what is trusted.

What has been audited is kept in the state directory: the next audit reads only new blocks, and knows what was served before.
Exit status 0 means that everything agrees, 1 that something differs or could not be compared.`,
		Example: `  certanchor audit --config org4.yaml --genesis-hash 6c1f... --policy policy --policy-fingerprint 90ab... \
      --bridge https://ocsp.org1.example --bridge https://ocsp.org2.example
  certanchor audit --ledger pki/ledger                       # one that no process has open
  certanchor audit --socket run/ledger.sock --bridge http://127.0.0.1:8889 --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	cmd.AddCommand(newAuditOperatorsCommand())
	fs := cmd.Flags()
	fs.StringVar(&f.configFile, "config", "", "YAML configuration with the section ledger; ocsp_bridge has defaults for --bridge and --policy")
	fs.StringVar(&f.ledger, "ledger", "", "directory of an embedded ledger that no process has open, instead of --config")
	fs.StringVar(&f.socket, "socket", "", "socket of an embedded ledger, instead of --config")
	fs.StringVar(&f.dir, "dir", "", "directory of the audit's state (default: certanchor/audit/CHANNEL in the user's state directory)")
	fs.StringVar(&f.genesisFile, "genesis", "", "file of the Fabric channel's first block, from a source that you trust")
	fs.StringVar(&f.genesisHash, "genesis-hash", "", "hash of the ledger's first block, from a source that you trust, hexadecimal")
	fs.StringArrayVar(&f.bridges, "bridge", nil, "base URL of an organisation's OCSP bridge; may be given several times")
	fs.StringVar(&f.policyFile, "policy", "", "policy file of the consortium (default: what the first bridge serves)")
	fs.StringVar(&f.policyFingerprint, "policy-fingerprint", "", "of a version in it, from a source that you trust")
	fs.StringVar(&f.tlsRoots, "tls-ca", "", "roots for the bridges' TLS certificates, PEM file (default: the system's)")
	fs.IntVar(&f.sample, "sample", served.DefaultSample, "certificates to ask about beside those whose status ever changed; 0: all")
	fs.IntVar(&f.limit, "limit", served.DefaultLimit, "differences to print, the most severe first")
	fs.BoolVar(&f.restart, "restart", false, "begin at the first block again; what was served before stays known")
	fs.BoolVar(&f.asJSON, "json", false, "print JSON")
	cmd.MarkFlagsMutuallyExclusive("genesis", "genesis-hash")
	cmd.MarkFlagsMutuallyExclusive("config", "ledger", "socket")
	cmd.MarkFlagsOneRequired("config", "ledger", "socket")
	cmd.MarkFlagsRequiredTogether("policy", "policy-fingerprint")
	return cmd
}

func (f *auditFlags) run(cmd *cobra.Command) (err error) {
	if f.sample < 0 || f.limit < 1 {
		return fmt.Errorf("%w: --sample %d must not be negative, --limit %d must be at least 1", errUsage, f.sample, f.limit)
	}
	conf, err := f.configuration()
	if err != nil {
		return err
	}
	o := session.Options{Sample: f.sample, Limit: f.limit, Restart: f.restart, Bridges: f.bridges, Log: slog.Default()}
	if err := f.read(&o); err != nil {
		return err
	}
	if o.Ledger, err = node.OpenLedger(cmd.Context(), conf, wire.RoleAuditor); err != nil {
		return err
	}
	defer func() { err = closing(err, o.Ledger) }()
	if conf.Ledger.Fabric != nil {
		o.Chaincode = conf.Ledger.Fabric.Chaincode
	}
	o.Dir = cmp.Or(f.dir, defaultAuditDir(o.Ledger.Channel()))
	bar := newProgressBar(cmd.ErrOrStderr())
	o.Progress = bar.show
	r, err := session.Run(cmd.Context(), o)
	bar.end()
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("interrupted after block %d; the same command continues there", r.Blocks)
	}
	if err != nil && len(r.Differences) == 0 {
		return err
	}
	if printErr := printAudit(cmd.OutOrStdout(), cmd.ErrOrStderr(), r, f.asJSON); printErr != nil {
		return printErr
	}
	if n := len(r.Differences); n > 0 {
		return errors.Join(fmt.Errorf("%s; the first: %s", differences(n), r.Differences[0]), err)
	}
	return nil
}

// configuration is the file, or what --ledger and --socket stand for.
func (f *auditFlags) configuration() (*config.File, error) {
	if f.configFile == "" {
		e := &config.Embedded{Dir: f.ledger, Socket: f.socket}
		if e.Dir != "" { // a mistyped path must not become a new ledger
			if _, err := os.Stat(e.Dir); err != nil {
				return nil, fmt.Errorf("--ledger: %w", err)
			}
		}
		return &config.File{Path: "flags", Ledger: config.Ledger{Engine: config.EngineEmbedded, Embedded: e}}, nil
	}
	conf, err := config.Load(f.configFile)
	if err != nil {
		return nil, err
	}
	if b := conf.OCSPBridge; b != nil {
		if len(f.bridges) == 0 {
			for _, url := range append([]string{b.PublicURL}, peerURLs(b)...) {
				if url != "" {
					f.bridges = append(f.bridges, url)
				}
			}
		}
		if f.policyFile == "" {
			f.policyFile, f.policyFingerprint = b.Policy, b.PolicyFingerprint
		}
	}
	return conf, nil
}

func peerURLs(b *config.OCSPBridge) (urls []string) {
	for _, p := range b.Peers {
		urls = append(urls, p.URL)
	}
	return urls
}

// read reads the files that flags name.
func (f *auditFlags) read(o *session.Options) (err error) {
	switch {
	case f.genesisFile != "":
		var file []byte
		if file, err = os.ReadFile(f.genesisFile); err == nil {
			o.Genesis, err = session.GenesisHash(file)
		}
		if err != nil {
			return fmt.Errorf("--genesis %s: %w", f.genesisFile, err)
		}
	case f.genesisHash != "":
		if o.Genesis, err = hex.DecodeString(f.genesisHash); err != nil || len(o.Genesis) != 32 {
			return fmt.Errorf("%w: --genesis-hash %q must be 64 hexadecimal digits", errUsage, f.genesisHash)
		}
	}
	if f.policyFile != "" {
		if o.PolicyFile, err = os.ReadFile(f.policyFile); err != nil {
			return fmt.Errorf("--policy: %w", err)
		}
		o.Fingerprint = f.policyFingerprint
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: served.DefaultConcurrency, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if f.tlsRoots != "" {
		certs, err := pemcert.Read(f.tlsRoots)
		if err != nil {
			return fmt.Errorf("--tls-ca: %w", err)
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		for _, c := range certs {
			transport.TLSClientConfig.RootCAs.AddCert(c)
		}
	}
	o.HTTP = &http.Client{Timeout: time.Minute, Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return nil
}

func defaultAuditDir(channel string) string {
	return filepath.Join(filepath.Dir(defaultNetworkDir()), "audit", channel)
}

// printAudit prints the result. Notes go to standard error: they must be seen whatever reads the rest.
func printAudit(out, notes io.Writer, r *session.Result, asJSON bool) error {
	for _, n := range r.Notes {
		fmt.Fprintf(notes, "note: %s\n", n)
	}
	if asJSON {
		return printJSON(out, r)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "channel\t%s (%s)\ngenesis\t%s%s\n", r.Channel, r.Engine, r.Genesis, pinned(r.GenesisPinned))
	fmt.Fprintf(w, "blocks\t%d, of which %d now, in %.1f s; the last is %s\n", r.Blocks, r.NewBlocks, r.Seconds, r.LastHash)
	if r.Endorsement != "" {
		fmt.Fprintf(w, "endorsement\t%s\n", r.Endorsement)
	}
	if n := r.LoneWrites; n != nil && n.Approvals+n.Others > 0 {
		fmt.Fprintf(w, "let through\t%d writes to private collections of one organisation, not about the contract's state: %s of chaincode definitions, %d others\n",
			n.Approvals+n.Others, plural(int(n.Approvals), "approval", "approvals"), n.Others)
	}
	fmt.Fprintf(w, "transactions\t%d\ncertificates\t%d: %d good, %d on hold, %d revoked\n", r.Txs, r.Certificates, r.Good, r.Held, r.Revoked)
	if r.Imported > 0 {
		fmt.Fprintf(w, "imported\t%d of them, %d as serial numbers only\n", r.Imported, r.SerialOnly)
	}
	if r.Policy != "" {
		fmt.Fprintf(w, "policy\tversion %d, %s%s\n", r.PolicyVersion, r.Policy, pinned(r.PolicyPinned))
	}
	for _, l := range r.Logs {
		fmt.Fprintf(w, "log\t%s: %d, root %s\n", l.Name, l.Size, l.Root)
	}
	for _, b := range r.Bridges {
		fmt.Fprintf(w, "bridge\t%s: %d heads, %d tiles, %d entry bundles (%d octets), %d OCSP answers (%d times tryLater%s), %d proof bundles\n",
			b.URL, b.Heads, b.Tiles, b.Bundles, b.Octets, b.OCSP, b.Unanswered, withoutResponder(b.NoResponder), b.Proofs)
	}
	result := "everything agrees"
	if !r.Compared {
		result = "the blocks follow the rules; nothing that is served was compared: there is no --bridge"
	}
	if n := len(r.Differences); n > 0 {
		if result = strings.ToUpper(differences(n)); r.More {
			result += ", and there are more (--limit)"
		}
	}
	fmt.Fprintf(w, "result\t%s\n", result)
	for i, d := range r.Differences {
		fmt.Fprintf(w, "%d\t%s\n", i+1, strings.ReplaceAll(d.String(), "\t", " "))
	}
	return w.Flush()
}

func differences(n int) string { return plural(n, "difference", "differences") }

func pinned(yes bool) string {
	if yes {
		return ""
	}
	return " (not pinned: trust on first use)"
}

// progressBar is a line that is written over on a terminal, and a line now and then elsewhere.
type progressBar struct {
	w        io.Writer
	terminal bool

	mu    sync.Mutex // guards what follows, and a line on w
	last  time.Time
	stage string
}

func newProgressBar(w io.Writer) *progressBar {
	b := &progressBar{w: w}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		b.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return b
}

const (
	barWidth = 30
	barPause = 5 * time.Second // between lines that stay
)

func (b *progressBar) show(p session.Progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	done := p.Of > 0 && p.Done >= p.Of
	now := time.Now()
	if !b.terminal && !done && b.stage == p.Stage && now.Sub(b.last) < barPause {
		return
	}
	b.last, b.stage = now, p.Stage
	text := fmt.Sprintf("%s %d/%d", p.Stage, p.Done, p.Of)
	if p.Rate > 0 {
		text += fmt.Sprintf(", %.0f/s", p.Rate)
	}
	if p.Left > 0 {
		text += ", " + p.Left.Round(time.Second).String() + " left"
	}
	if !b.terminal {
		fmt.Fprintln(b.w, text)
		return
	}
	full := barWidth
	if p.Of > 0 {
		full = int(barWidth * min(p.Done, p.Of) / p.Of)
	}
	fmt.Fprintf(b.w, "\r\x1b[K[%s%s] %s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), text)
}

func (b *progressBar) end() {
	if b.terminal {
		fmt.Fprint(b.w, "\r\x1b[K")
	}
}

// withoutResponder says how often a bridge could not answer because nobody can.
func withoutResponder(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d times of a CA without a responder", n)
}
