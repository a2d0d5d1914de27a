package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caimport"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/node"
)

// importFlags are those of certanchor ca import.
type importFlags struct {
	ca                                     importedCA
	in                                     caimport.Inputs
	state, report                          string
	dryRun, keepGoing, assumeValid, asJSON bool
	batch                                  int
	patience                               time.Duration
}

// importedCA name the configuration and one CA on the ledger.
type importedCA struct{ configFile, id, cert string }

func (f *importedCA) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.configFile, "config", "", "YAML configuration with the ledger section of an operator of the CA's operating organisation (required)")
	fs.StringVar(&f.cert, "ca-cert", "", "the CA's certificate, PEM or DER")
	fs.StringVar(&f.id, "ca", "", "the CA's ID, instead of --ca-cert")
	cmd.MarkFlagsMutuallyExclusive("ca", "ca-cert")
	cmd.MarkFlagsOneRequired("ca", "ca-cert")
	mustRequire(cmd, "config")
}

func (f *importedCA) caID() (wire.CAID, error) {
	if f.cert == "" {
		id, err := wire.ParseCAID(strings.ToLower(f.id))
		if err != nil {
			return id, fmt.Errorf("--ca: %w", err)
		}
		return id, nil
	}
	certs, err := readCertificates("--ca-cert", f.cert)
	if err != nil {
		return wire.CAID{}, err
	}
	return wire.CAIDOf(certs[0].RawSubjectPublicKeyInfo), nil
}

func newCAImportCommand() *cobra.Command {
	f := new(importFlags)
	cmd := &cobra.Command{
		Use:   "import [flags] SOURCE...",
		Short: "bring what a CA has issued and revoked so far onto the ledger",
		Long: `Imports certificates and their status from a CA's own records. The CA keeps its software and its key, which this does not need: it acts as an
operator of the organisation that operates the CA on the ledger (certanchor ca register).

A SOURCE is recognised by its content; flags name it for what it is. Several are joined by serial number:

  openssl's index.txt, or the directory it is in    status, and certificates of newcerts/SERIAL.pem beside it
  a directory, a file, or - for standard input      certificates in PEM, or DER one after the other
  a CRL in PEM or DER                               status, after its signature is verified; what is not on a complete CRL is valid
  cfssl's certdb in SQLite                          status and certificates

First everything is read, and every signature verified. If anything is wrong, it is all reported and nothing is written; --keep-going imports
the rest. What is revoked or on hold without a certificate is imported by its serial number; without a certificate nothing is ever good.
An import that was interrupted goes on where it was when the same command is run again. docs/import.md tells the rest.`,
		Example: `  certanchor ca import --config ca.yaml --ca-cert demoCA/cacert.pem --dry-run demoCA
  certanchor ca import --config ca.yaml --ca-cert ca.pem certificates/ ca.crl
  zcat issued.pem.gz | certanchor ca import --config ca.yaml --ca-cert ca.pem --crl ca.crl --json -
  certanchor ca import --config ca.yaml --ca-cert ca.pem --certdb certs.db`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.in.Any = args
			return f.run(cmd)
		},
	}
	fs := cmd.Flags()
	f.ca.add(cmd)
	fs.StringArrayVar(&f.in.Index, "index", nil, "openssl's index.txt; may be repeated, like the next three")
	fs.StringArrayVar(&f.in.Certs, "certs", nil, "file or directory of certificates, - for standard input")
	fs.StringArrayVar(&f.in.CRLs, "crl", nil, "CRL")
	fs.StringArrayVar(&f.in.CertDBs, "certdb", nil, "cfssl's SQLite database")
	fs.StringVar(&f.in.Newcerts, "newcerts", "", "directory with index.txt's certificates (default newcerts beside it)")
	fs.BoolVar(&f.assumeValid, "assume-valid", false, "take certificates for valid whose status no source tells")
	fs.BoolVar(&f.dryRun, "dry-run", false, "check everything, ask the ledger what it would say, write nothing")
	fs.BoolVar(&f.keepGoing, "keep-going", false, "leave out what cannot be imported; the exit status is 1 if there was any")
	fs.StringVar(&f.report, "report", "", "file for everything that cannot be imported, a line of JSON each")
	fs.StringVar(&f.state, "state", "", "file that tells how far the import has come (default SOURCE.certanchor-import.json)")
	fs.IntVar(&f.batch, "batch", wire.MaxBatch, fmt.Sprintf("entries in one transaction, at most %d", wire.MaxBatch))
	fs.DurationVar(&f.patience, "patience", 5*time.Minute, "how long the ledger may be away before the import gives up")
	fs.BoolVar(&f.asJSON, "json", false, "print a summary in JSON")
	return cmd
}

// shownBad is how many faults are printed; --report has them all.
const shownBad = 20

// importSummary is what --json prints.
type importSummary struct {
	CAID     string   `json:"ca_id"`
	Sources  []string `json:"sources"`
	DryRun   bool     `json:"dry_run"`
	Complete bool     `json:"complete"` // everything that can be imported is on the ledger, or would be
	caimport.Counts
	Resumed     uint64  `json:"resumed"`  // entries that an earlier run had done
	Imported    uint64  `json:"imported"` // by this run
	Changed     uint64  `json:"changed"`  // of these, those that the ledger did not have so
	Refused     uint64  `json:"refused"`  // by the ledger's contract
	Block       uint64  `json:"block"`    // of the last transaction
	CheckTime   float64 `json:"check_seconds"`
	ImportTime  float64 `json:"import_seconds"`
	PerSecond   float64 `json:"per_second"`
	ResidentMax int64   `json:"max_resident_bytes"`
	State       string  `json:"state_file"`
}

func (f *importFlags) run(cmd *cobra.Command) (err error) {
	id, err := f.ca.caID()
	if err != nil {
		return err
	}
	if f.batch < 1 || f.batch > wire.MaxBatch {
		return fmt.Errorf("%w: --batch %d: must be from 1 to %d", errUsage, f.batch, wire.MaxBatch)
	}
	conf, err := config.Load(f.ca.configFile)
	if err != nil {
		return err
	}
	stdin, drop, err := f.spool(cmd.InOrStdin())
	if err != nil {
		return err
	}
	defer drop()
	faults, err := newFaults(cmd.ErrOrStderr(), f.report)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, faults.close()) }()
	ctx := cmd.Context()
	conn, err := node.OpenLedger(ctx, conf, wire.RoleOperator)
	if err != nil {
		return err
	}
	defer func() { err = closing(err, conn) }()
	authority, err := caimport.FindAuthority(ctx, conn, id)
	if err != nil {
		return err
	}
	meter := newMeter(cmd.ErrOrStderr())
	plan, err := caimport.NewPlan(authority, f.in, stdin, caimport.Options{
		AssumeValid: f.assumeValid, OnBad: func(b *caimport.Bad) { meter.clear(); faults.add(b) },
		Progress: func(n uint64) { meter.show("checked", n, 0) },
	})
	if err != nil {
		return err
	}
	state, err := caimport.LoadState(f.stateFile(id), conn.Channel(), id.String())
	if err != nil {
		return err
	}
	submitter := &caimport.Submitter{Ledger: conn, CAID: id, BatchItems: f.batch, Patience: f.patience, DryRun: f.dryRun}
	if f.keepGoing || f.dryRun {
		submitter.OnRefused = func(b *caimport.Bad) { meter.clear(); faults.add(b) }
	}
	sum := &importSummary{CAID: id.String(), Sources: plan.Sources(), DryRun: f.dryRun, State: f.stateFile(id)}
	err = f.execute(ctx, plan, submitter, state, meter, sum)
	meter.clear()
	faults.rest()
	sum.ResidentMax = maxResident()
	if sum.Sources != nil && sum.Skipped != nil { // it came past reading
		err = errors.Join(err, sum.print(cmd.OutOrStdout(), f.asJSON))
	}
	return err
}

// execute checks, and imports what the check allows. What it has come to is in sum, errors or not.
func (f *importFlags) execute(ctx context.Context, p *caimport.Plan, s *caimport.Submitter, st *caimport.State, m *meter, sum *importSummary) error {
	began := time.Now()
	counts, err := p.Resume(ctx, st)
	if err != nil {
		return err
	}
	m.clear()
	sum.Counts, sum.CheckTime = *counts, time.Since(began).Seconds()
	if counts.Bad > 0 && !f.keepGoing && !f.dryRun {
		return fmt.Errorf("%d of %s cannot be imported; nothing was written (--keep-going imports the others)", counts.Bad, plural(counts.Entries, "entry", "entries"))
	}
	if counts.Items() == 0 {
		return errors.New("the sources have nothing of this CA to import")
	}
	began = time.Now()
	if f.dryRun {
		st.Done = 0
	}
	sum.Resumed = st.Done
	m.show("imported", st.Done, counts.Items())
	out, err := caimport.Import(ctx, p, s, st, func(done uint64) { m.show("imported", done, counts.Items()) })
	sum.Imported, sum.Changed, sum.Refused, sum.Block = out.Items, out.Changed, out.Refused, out.Block
	if sum.ImportTime = time.Since(began).Seconds(); sum.ImportTime > 0 {
		sum.PerSecond = float64(out.Items) / sum.ImportTime
	}
	var refused *caimport.Bad
	switch left := counts.Bad + st.Refused + out.Refused; {
	case errors.As(err, &refused):
		return fmt.Errorf("the ledger refuses an entry: %w; %d entries before it are on the ledger (--keep-going leaves out what it refuses)", err, st.Done)
	case err != nil:
		return fmt.Errorf("%w; %d of %d entries are on the ledger, run it again to go on", err, st.Done, counts.Items())
	case left > 0:
		sum.Complete = true
		return fmt.Errorf("%s cannot be imported", plural(counts.Bad+max(st.Refused, out.Refused), "entry", "entries"))
	}
	sum.Complete = true
	return nil
}

// stateFile is beside the first source that is a file.
func (f *importFlags) stateFile(id wire.CAID) string {
	if f.state != "" {
		return f.state
	}
	for _, path := range slices.Concat(f.in.Any, f.in.Index, f.in.Certs, f.in.CertDBs, f.in.CRLs) {
		if path != "-" {
			return filepath.Clean(path) + ".certanchor-import.json"
		}
	}
	return "certanchor-import-" + id.String()[:16] + ".json"
}

// spool keeps standard input in a file, if it is a source: it is read twice. drop removes the file.
func (f *importFlags) spool(in io.Reader) (path string, drop func(), err error) {
	n := 0
	for _, s := range slices.Concat(f.in.Any, f.in.Certs) {
		if s == "-" {
			n++
		}
	}
	if n > 1 {
		return "", nil, fmt.Errorf("%w: -: standard input must be named once", errUsage)
	}
	if n == 0 {
		return "", func() {}, nil
	}
	file, err := os.CreateTemp("", "certanchor-import-")
	if err != nil {
		return "", nil, err
	}
	drop = func() { _ = os.Remove(file.Name()) }
	if _, err = io.Copy(file, in); err == nil {
		err = file.Close()
	}
	if err != nil {
		drop()
		return "", nil, fmt.Errorf("couldn't keep standard input: %w", err)
	}
	return file.Name(), drop, nil
}

func (s *importSummary) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, s)
	}
	t := &strings.Builder{}
	row := func(n uint64, what string) {
		if n > 0 {
			fmt.Fprintf(t, "%10d  %s\n", n, what)
		}
	}
	fmt.Fprintf(t, "CA %s, from %s\n", s.CAID, strings.Join(s.Sources, ", "))
	row(s.Valid, "valid certificates")
	row(s.Revoked, "revoked certificates")
	row(s.Held, "certificates on hold")
	row(s.SerialOnlyRevoked, "revoked, without certificate")
	row(s.SerialOnlyHeld, "on hold, without certificate")
	row(s.LeftOut, "left out: expired, without certificate")
	row(s.Duplicates, "left out: the same certificate again")
	for _, kind := range slices.Sorted(maps.Keys(s.Skipped)) {
		row(s.Skipped[kind], "passed by: "+kind)
	}
	row(s.Bad, "cannot be imported")
	row(s.Refused, "refused by the ledger")
	switch {
	case s.DryRun:
		fmt.Fprintf(t, "%d entries would change the ledger; nothing was written\n", s.Changed)
	case s.Imported > 0 || s.Resumed > 0:
		fmt.Fprintf(t, "%d entries imported in %s (%.0f/s), %d of them new to the ledger", s.Imported, time.Duration(s.ImportTime*float64(time.Second)).Round(time.Millisecond), s.PerSecond, s.Changed)
		if s.Resumed > 0 {
			fmt.Fprintf(t, "; %d were there from an earlier run", s.Resumed)
		}
		fmt.Fprintln(t)
	}
	_, err := io.WriteString(w, t.String())
	return err
}

// faults prints the first faults, and writes all of them to a file if there is one.
type faults struct {
	w     io.Writer
	file  *os.File
	total int
	err   error
}

func newFaults(w io.Writer, path string) (*faults, error) {
	f := &faults{w: w}
	if path == "" {
		return f, nil
	}
	var err error
	f.file, err = os.Create(path)
	return f, err
}

func (f *faults) add(b *caimport.Bad) {
	if f.total++; f.total <= shownBad {
		fmt.Fprintf(f.w, "%v\n", b)
	}
	if f.file != nil && f.err == nil {
		f.err = json.NewEncoder(f.file).Encode(b)
	}
}

// rest tells of those that were not printed.
func (f *faults) rest() {
	if n := f.total - shownBad; n > 0 {
		fmt.Fprintf(f.w, "... and %d more (--report FILE has them all)\n", n)
	}
}

func (f *faults) close() error {
	if f.file == nil {
		return nil
	}
	return errors.Join(f.err, f.file.Sync(), f.file.Close())
}
