package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/cabackup"
	"github.com/certanchor/certanchor/internal/dual"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/oplog"
	"github.com/certanchor/certanchor/internal/pemcert"
)

// backupFlags are the flags of certanchor ca backup.
type backupFlags struct {
	ca         caFlags
	dir, out   string
	withKey    bool
	passphrase keyfile.Source
	operation  string
	approvals  []string
}

func newCABackupCommand() *cobra.Command {
	var f backupFlags
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "write a CA's journal, configuration and operators' log into one file",
		Long: `Writes what a CA needs to go on elsewhere into one new file, mode 0600, which appears whole or not at all. A CA that does not run is named by --dir; of
one that runs, the CA bridge sends it (role administrator). Both go into the operators' log. Keys stay out unless --with-key is given: then
they are wrapped under a passphrase of their own, on this machine, which needs --dir; keys in a PKCS #11 token are never in a backup. Under
dual control --with-key needs approvals: --operation names a file, which is made first, and --approval the operators' signatures on it.
Tokens of clients are never in it. docs/backup.md tells more.`,
		Example: `  certanchor ca backup --dir pki/ca --out ca.backup                                    # the CA does not run
  certanchor ca backup --token-file pki/ca/admin.token --out ca.backup                 # it runs
  certanchor ca backup --dir pki/ca --out ca.backup --with-key --backup-passphrase-file backup.pass`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.dir, "dir", "", "directory of a CA that does not run; of one that runs, with --with-key and a credential for its API")
	fs.StringVarP(&f.out, "out", "o", "", "new file (required)")
	fs.BoolVar(&f.withKey, "with-key", false, "with the keys that are in files, wrapped")
	backupPassphraseFlags(cmd, &f.passphrase)
	fs.StringVar(&f.operation, "operation", "", "with --with-key under dual control: file with the operation; made if it does not exist")
	fs.StringSliceVar(&f.approvals, "approval", nil, "file that certanchor ca approve --operation wrote; several times")
	f.ca.register(cmd)
	mustRequire(cmd, "out")
	return withConfig(cmd, caDefaults)
}

func backupPassphraseFlags(cmd *cobra.Command, s *keyfile.Source) {
	cmd.Flags().StringVar(&s.File, "backup-passphrase-file", "", "file with the passphrase of the backup's keys in its only line, readable by its owner only (default: asked for)")
	cmd.Flags().StringVar(&s.Env, "backup-passphrase-env", "", "environment variable that holds it")
	cmd.MarkFlagsMutuallyExclusive("backup-passphrase-file", "backup-passphrase-env")
}

func (f *backupFlags) run(cmd *cobra.Command) error {
	if f.withKey && f.dir == "" {
		return fmt.Errorf("%w: --with-key needs --dir: keys do not leave a CA's directory through its API", errUsage)
	}
	if _, err := os.Lstat(f.out); err == nil {
		return fmt.Errorf("--out %s: %w", f.out, fs.ErrExist)
	}
	var o cabackup.Options
	if f.withKey {
		if wait, err := f.approved(cmd.OutOrStdout()); wait || err != nil {
			return err
		}
		var err error
		if o.Passphrase, err = orPrompt(f.passphrase).NewPassphrase("the backup's keys"); err != nil {
			return err
		}
	}
	m, err := f.write(cmd.Context(), o)
	if err != nil {
		return err
	}
	if f.ca.asJSON {
		return printJSON(cmd.OutOrStdout(), map[string]any{"file": f.out, "manifest": m})
	}
	size := int64(0)
	for _, file := range m.Files {
		size += file.Size
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s\n  CA ID  %s\n  taken  %s\n  files  %d, %d bytes\n  keys   %s\n", f.out, m.CAID, m.Taken.Format(time.RFC3339), len(m.Files), size, m.Keys)
	if len(m.LeftOut) > 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "  left out, for they are or have keys: %s\n", strings.Join(m.LeftOut, ", "))
		if len(m.AuthKeys) > 0 {
			fmt.Fprintf(cmd.OutOrStdout(), "  of profiles.json only the keys are left out: %s\n", strings.Join(m.AuthKeys, ", "))
		}
	}
	return nil
}

// write takes the backup where the CA is.
func (f *backupFlags) write(ctx context.Context, o cabackup.Options) (m *cabackup.Manifest, err error) {
	if f.dir != "" {
		log, err := oplog.Open(f.dir)
		if err == nil {
			return f.offline(log, o)
		}
		if !errors.Is(err, oplog.ErrLocked) {
			return nil, err
		}
	}
	c, err := f.patient()
	if err != nil {
		return nil, err
	}
	keys := cabackup.KeysNone
	if f.withKey {
		keys = cabackup.KeysWrapped
	}
	err = c.Backup(ctx, caapi.BackupRequest{Keys: keys}, func(r io.Reader) error {
		return cabackup.CreateFile(f.out, func(w io.Writer) error {
			m, err = cabackup.Copy(w, r, f.dir, o)
			return err
		})
	})
	return m, err
}

// patient is a client of the running CA's API.
func (f *backupFlags) patient() (*caapi.Client, error) {
	c, _, cancel, err := f.ca.client(context.Background())
	if err != nil {
		if f.dir != "" {
			return nil, fmt.Errorf("the CA in %s runs: %w", f.dir, err)
		}
		return nil, fmt.Errorf("--dir must name the directory of a CA that does not run; of one that runs: %w", err)
	}
	cancel() // of the time for one request, which a backup does not keep
	return c, nil
}

// offline backs up the directory of a CA that does not run, which the lock of its log keeps from starting meanwhile.
func (f *backupFlags) offline(log *oplog.Log, o cabackup.Options) (m *cabackup.Manifest, err error) {
	defer func() { err = closing(err, log) }()
	seq, err := log.Record(oplog.Entry{Actor: localUser(), How: "local", Action: "ca backup", Target: log.CAID().String(), Detail: map[string]string{"keys": fmt.Sprint(f.withKey)}})
	if err != nil {
		return nil, err
	}
	m, err = cabackup.Create(f.out, f.dir, o)
	outcome := oplog.Done
	if err != nil {
		outcome = "failed: " + err.Error()
	}
	return m, errors.Join(err, log.End(seq, outcome, "", nil))
}

// localUser is who runs a command on this machine.
func localUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// approved has the policy agree to keys being exported; wait: operators must sign first.
func (f *backupFlags) approved(out io.Writer) (wait bool, err error) {
	policy, err := dual.LoadPolicy(f.dir)
	if err != nil || !policy.Needs(dual.KindExport, 1) {
		return false, err
	}
	if f.operation == "" {
		return false, fmt.Errorf("%w: --operation must name a file: exporting keys of this CA needs approvals", errUsage)
	}
	op, err := dual.ReadOperation(f.operation)
	if errors.Is(err, fs.ErrNotExist) {
		return true, f.propose(out, policy)
	}
	if err != nil {
		return false, err
	}
	if op.Kind != dual.KindExport || op.Params["file"] != filepath.Base(f.out) {
		return false, fmt.Errorf("--operation %s: is of the kind %s to the file %q: must be %s to %q", f.operation, op.Kind, op.Params["file"], dual.KindExport, filepath.Base(f.out))
	}
	approvals, err := dual.ReadApprovals(op, f.approvals)
	if err != nil {
		return false, err
	}
	return false, policy.Verify(op, approvals, time.Now())
}

func (f *backupFlags) propose(out io.Writer, policy *dual.Policy) error {
	certs, err := pemcert.Read(filepath.Join(f.dir, "ca.pem"))
	if err != nil {
		return err
	}
	op, err := dual.New(wire.CAIDOf(certs[0].RawSubjectPublicKeyInfo), dual.KindExport, map[string]string{"file": filepath.Base(f.out), "by": localUser()}, time.Now(), 0)
	if err == nil {
		err = dual.WriteOperation(f.operation, op)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "nothing is exported yet: %d operators must sign %s, each with\n  certanchor ca approve --operation %s --operator NAME --key KEY --out APPROVAL\n", policy.Quorum(), f.operation, f.operation)
	return err
}

func newCARestoreCommand() *cobra.Command {
	var (
		dir             string
		withKey, asJSON bool
		check           bool
		passphrase      keyfile.Source
	)
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "make a CA's directory from a backup",
		Long: `Makes a directory, which must not be there or be empty, from a file of certanchor ca backup, after verifying every digest; it appears whole or not at
all. The directory is marked: at its first start the CA bridge reads the ledger before it does anything, takes in the certificates that the
backup lacks, and goes on with the operators' log, in a new generation if records of it are lost. Keys are restored with --with-key only;
otherwise put the key in its place, or give it with the same token. docs/backup.md tells what an older backup loses, and why that is safe.`,
		Example: `  certanchor ca restore ca.backup --dir pki/ca --with-key --backup-passphrase-file backup.pass
  certanchor ca restore ca.backup --check`,
		Args: oneArg("the backup's file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if check == (dir != "") {
				return fmt.Errorf("%w: one of --dir and --check must be given", errUsage)
			}
			var o cabackup.RestoreOptions
			var err error
			if withKey {
				if o.Passphrase, err = orPrompt(passphrase).Passphrase("the backup's keys"); err != nil {
					return err
				}
			}
			var m *cabackup.Manifest
			if check {
				m, err = checkBackup(args[0])
			} else {
				m, err = cabackup.Restore(args[0], dir, o)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"dir": dir, "manifest": m})
			}
			what := "restored to " + dir
			if check {
				what = "is whole"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n  CA ID  %s\n  taken  %s\n  files  %d\n  keys   %s\n", args[0], what, m.CAID, m.Taken.Format(time.RFC3339), len(m.Files), m.Keys)
			if !check && !withKey && len(m.AuthKeys) > 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "  to do  put these keys into profiles.json again, or the CA does not start: %s\n", strings.Join(m.AuthKeys, ", "))
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "directory to make")
	f.BoolVar(&withKey, "with-key", false, "with the keys in it")
	f.BoolVar(&check, "check", false, "only verify the file")
	backupPassphraseFlags(cmd, &passphrase)
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func checkBackup(file string) (m *cabackup.Manifest, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = closing(err, f) }()
	m, _, err = cabackup.Read(f, func(_ string, _ fs.FileMode, _ int64, from io.Reader) error {
		_, err := io.Copy(io.Discard, from)
		return err
	})
	return m, err
}

func newCARestoredCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "restored",
		Short: "say that a CA's directory is an older copy, made by other means than certanchor ca backup",
		Long: `Marks a directory that came from a snapshot of a disk, a file backup or the like, so that the CA bridge asks the ledger at its next start what the copy
lacks, as after certanchor ca restore. The CA must not run; the one whose newer directory was lost must never run again.`,
		Example: `  certanchor ca restored --dir pki/ca`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := oplog.Open(dir) // no process runs it
			if err != nil {
				return err
			}
			err = oplog.MarkRestored(dir, oplog.Restored{Restored: time.Now().UTC().Truncate(time.Second), From: "said by " + localUser(), Name: log.Name()})
			return closing(err, log)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the CA's directory (required)")
	mustRequire(cmd, "dir")
	return cmd
}
