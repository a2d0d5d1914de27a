package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/dual"
)

// newCADualCommands are what operators under dual control use.
func newCADualCommands() []*cobra.Command {
	return []*cobra.Command{newCAApproveCommand(), newCAOperationsCommand(), newCAProfilesCommand(), newCADualControlCommand()}
}

func newCAOperationsCommand() *cobra.Command {
	var f caFlags
	var contents string
	cmd := &cobra.Command{
		Use:   "operations [ID]",
		Short: "list operations under dual control, or show one",
		Long: `Lists the operations that wait for operators' signatures at a CA, and those that ended in the last week; with an ID it shows one, and with
--contents it fetches what that one is about: the list of revocations, the profiles or the policy.`,
		Example: `  certanchor ca operations --token-file pki/ca/operator.token
  certanchor ca operations 3f0c... --contents list.jsonl --token-file pki/ca/operator.token`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if contents != "" && len(args) == 0 {
				return fmt.Errorf("%w: --contents needs an operation's ID", errUsage)
			}
			c, ctx, cancel, err := f.client(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			if len(args) == 0 {
				all, err := c.Operations(ctx)
				if err != nil {
					return err
				}
				if f.asJSON {
					return printJSON(cmd.OutOrStdout(), caapi.Operations{Operations: all})
				}
				return printOperations(cmd.OutOrStdout(), all)
			}
			op, err := c.Operation(ctx, args[0])
			if err != nil {
				return err
			}
			if contents != "" {
				if err := fetchContents(op, contents, func() ([]byte, error) { return c.Contents(ctx, args[0]) }); err != nil {
					return err
				}
			}
			if f.asJSON {
				return printJSON(cmd.OutOrStdout(), op)
			}
			return printOperation(cmd.OutOrStdout(), op)
		},
	}
	cmd.Flags().StringVar(&contents, "contents", "", "file for what the operation is about")
	f.register(cmd)
	return withConfig(cmd, caDefaults)
}

// fetchContents writes what an operation is about, once it fits the operation's text.
func fetchContents(answer *caapi.Operation, path string, get func() ([]byte, error)) error {
	op, err := dual.ParseOperation([]byte(answer.Text))
	if err != nil {
		return err
	}
	data, err := get()
	if err != nil {
		return err
	}
	if err := op.CheckContents(data); err != nil {
		return fmt.Errorf("what the CA sent is not what the operation is about: %w", err)
	}
	return os.WriteFile(path, data, 0o600)
}

func printOperations(w io.Writer, all []caapi.Operation) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "no operations")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tKIND\tSTATE\tSIGNED BY\tNEEDS\tEXPIRES\tASKED FOR BY")
	for _, op := range all {
		var by []string
		for _, a := range op.Approvals {
			by = append(by, a.Operator)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", op.ID, op.Kind, op.State, orDash(strings.Join(by, ", ")), op.Need, op.Expires, op.Client)
	}
	return t.Flush()
}

func printOperation(w io.Writer, op *caapi.Operation) error {
	fmt.Fprintf(w, "operation %s is %s, asked for by %s\n\n%s\n", op.ID, op.State, op.Client, indent([]byte(op.Text)))
	for _, a := range op.Approvals {
		fmt.Fprintf(w, "approved by %s at %s\n", a.Operator, a.Time)
	}
	if op.Rejection != nil {
		fmt.Fprintf(w, "rejected by %s at %s\n", op.Rejection.Operator, op.Rejection.Time)
	}
	if op.State == dual.Pending {
		fmt.Fprintf(w, "%d of %d operators have signed\n", len(op.Approvals), op.Need)
	}
	if op.Error != "" {
		fmt.Fprintf(w, "error: %s\n", op.Error)
	}
	if len(op.Result) > 0 {
		text, err := json.MarshalIndent(op.Result, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "result: %s\n", text)
	}
	return nil
}

// printPending tells of an operation that has to be signed first. It returns other errors.
func printPending(w io.Writer, asJSON bool, err error) error {
	p, ok := errors.AsType[*caapi.PendingError](err)
	if !ok {
		return err
	}
	if asJSON {
		return printJSON(w, caapi.Pending{Operation: p.Operation})
	}
	fmt.Fprintf(w, "nothing is changed yet: %d operators must sign it, each with\n  certanchor ca approve %s --key KEY\n\n", p.Operation.Need, p.Operation.ID)
	return printOperation(w, p.Operation)
}

func printApplied(w io.Writer, asJSON bool, a *caapi.Applied, err error) error {
	if err != nil {
		return printPending(w, asJSON, err)
	}
	if asJSON {
		return printJSON(w, a)
	}
	_, err = fmt.Fprintf(w, "in place, SHA-256 %s; in force %s\n", a.SHA256, a.InForce)
	return err
}

func newCAProfilesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "profiles", Short: "replace what a CA issues",
		Example: `  certanchor ca profiles apply profiles.json --token-file pki/ca/admin.token`,
	}
	var f caFlags
	apply := &cobra.Command{
		Use:   "apply FILE",
		Short: "replace a CA's profiles, with approvals where dual control wants them",
		Long: `Sends new profiles (cfssl's configuration format) to a CA, which checks and keeps them; they are in force from its next start on. Where the
dual-control policy has a rule for profiles, the CA keeps an operation instead, which operators sign with certanchor ca approve. The role
administrator is needed.`,
		Example: `  certanchor ca profiles apply profiles.json --token-file pki/ca/admin.token`,
		Args:    oneArg("the file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			c, ctx, cancel, err := f.client(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			a, err := c.ReplaceProfiles(ctx, data)
			return printApplied(cmd.OutOrStdout(), f.asJSON, a, err)
		},
	}
	f.register(apply)
	cmd.AddCommand(withConfig(apply, caDefaults))
	return cmd
}

func newCADualControlCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dual-control", Short: "show or change what needs several operators",
		Example: `  certanchor ca dual-control apply dual-control.json --token-file pki/ca/admin.token`,
	}
	var f caFlags
	show := &cobra.Command{
		Use: "show", Short: "show a CA's dual-control policy",
		Example: `  certanchor ca dual-control show --token-file pki/ca/admin.token`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, ctx, cancel, err := f.client(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			d, err := c.DualControl(ctx)
			if err != nil {
				return err
			}
			if f.asJSON {
				return printJSON(cmd.OutOrStdout(), d)
			}
			return printDualControl(cmd.OutOrStdout(), d)
		},
	}
	f.register(show)
	cmd.AddCommand(withConfig(show, caDefaults), newCADualApplyCommand(), newCADualAbandonCommand())
	return cmd
}

func printDualControl(w io.Writer, d *caapi.DualControl) error {
	if !d.Configured {
		_, err := fmt.Fprintln(w, "no dual control")
		return err
	}
	fmt.Fprintf(w, "policy %s: %d operators must sign\n%s\n\n", d.SHA256, d.Need, d.Rules)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "OPERATOR\tPUBLIC KEY, SHA-256")
	for _, name := range slices.Sorted(maps.Keys(d.Operators)) {
		fmt.Fprintf(t, "%s\t%s\n", name, d.Operators[name])
	}
	return t.Flush()
}

func newCADualAbandonCommand() *cobra.Command {
	var dir string
	var yes bool
	cmd := &cobra.Command{
		Use:   "abandon",
		Short: "take a dual-control policy out of force that nobody can change any more",
		Long: `For a CA whose operators have lost their keys: works in the CA's directory, without approvals. The CA bridge tells of it in the operators' log at once or
at its next start, and that log's head is anchored in the ledger: other organisations can see it.`,
		Example: `  certanchor ca dual-control abandon --dir pki/ca --yes`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return fmt.Errorf("%w: --yes must be given: one person then does what took several", errUsage)
			}
			if err := dual.Abandon(dir); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "no dual control is in force; the operators' log will tell of it")
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the CA's directory (required)")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it (required)")
	mustRequire(cmd, "dir")
	return cmd
}

// dualApplyFlags change the policy, at a CA or in its directory.
type dualApplyFlags struct {
	ca             caFlags
	dir, operation string
	approvals      []string
}

func newCADualApplyCommand() *cobra.Command {
	var f dualApplyFlags
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "put a dual-control policy in place; the first one, or another one with approvals under the one in force",
		Long: `Sends a policy to a CA, which puts the first one in force at once, and keeps an operation for any other, which operators of the policy in
force sign with certanchor ca approve. The role administrator is needed. With --dir the same is done in the directory of a CA, without its
server: the first run writes the operation to --operation, another one with the approvals puts the policy in place.`,
		Example: `  certanchor ca dual-control apply dual-control.json --token-file pki/ca/admin.token
  certanchor ca dual-control apply new.json --dir pki/ca --operation op.txt
  certanchor ca dual-control apply new.json --dir pki/ca --operation op.txt --approval alice.json --approval bob.json`,
		Args: oneArg("the file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			if f.dir != "" {
				return f.inDirectory(cmd.OutOrStdout(), data)
			}
			c, ctx, cancel, err := f.ca.client(cmd.Context())
			if err != nil {
				return err
			}
			defer cancel()
			a, err := c.ReplacePolicy(ctx, data)
			return printApplied(cmd.OutOrStdout(), f.ca.asJSON, a, err)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.dir, "dir", "", "the CA's directory, instead of its API")
	fs.StringVar(&f.operation, "operation", "", "with --dir: file with the operation; made if it does not exist")
	fs.StringSliceVar(&f.approvals, "approval", nil, "with --dir: file that certanchor ca approve --operation wrote; several times")
	f.ca.register(cmd)
	return withConfig(cmd, caDefaults)
}

func (f *dualApplyFlags) inDirectory(w io.Writer, data []byte) error {
	policy, err := dual.LoadPolicy(f.dir)
	if err != nil {
		return err
	}
	applied := &caapi.Applied{SHA256: dual.Digest(data), InForce: "now"}
	if policy == nil {
		return printApplied(w, f.ca.asJSON, applied, dual.Adopt(f.dir, data))
	}
	if f.operation == "" {
		return fmt.Errorf("%w: --operation must name a file: a policy is in force, and a change of it needs approvals", errUsage)
	}
	op, err := dual.ReadOperation(f.operation)
	if errors.Is(err, fs.ErrNotExist) {
		if op, err = policy.NewReplacement(dual.KindPolicy, data, time.Now()); err == nil {
			err = dual.WriteOperation(f.operation, op)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "nothing is changed yet: %d operators must sign %s, each with\n  certanchor ca approve --operation %s --operator NAME --key KEY --out APPROVAL\n", policy.Quorum(), f.operation, f.operation)
		return err
	}
	if err != nil {
		return err
	}
	approvals, err := dual.ReadApprovals(op, f.approvals)
	if err == nil {
		err = policy.Apply(op, approvals, data, time.Now())
	}
	return printApplied(w, f.ca.asJSON, applied, err)
}
