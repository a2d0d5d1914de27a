package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/policy"
)

func newPolicyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "make, sign, show and fetch a consortium's policy file",
		Long: `A policy says which organisations a consortium has, with their keys, how many of them must vouch for what a bundle shows, and how old
that may be (docs/policy.md). Relying parties pin the fingerprint of one version; each later one is signed by a quorum of the version before.`,
		Example: `  certanchor policy show policy.txt
  certanchor policy fetch --bridge https://bridge.org1.example -o policy.txt`,
	}
	cmd.AddCommand(newPolicyCreateCommand(), newPolicySucceedCommand(), newPolicySignCommand(), newPolicyShowCommand(), newPolicyFetchCommand())
	return cmd
}

// trustFlags say which policy to verify with.
type trustFlags struct{ file, pin string }

func (f *trustFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.file, "policy", "", "the consortium's policy file")
	f.registerPin(cmd)
}

func (f *trustFlags) registerPin(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.pin, "policy-fingerprint", "", "fingerprint of a version in the policy file that is trusted, 64 hexadecimal digits from a trusted source")
}

// load returns the newest version, or nil without a file. Without a pin the first version in the file is trusted.
func (f *trustFlags) load() (*client.Policy, error) {
	if f.file == "" {
		if f.pin != "" {
			return nil, fmt.Errorf("%w: --policy-fingerprint needs --policy, the file that has it", errUsage)
		}
		return nil, nil
	}
	if err := f.checkPin(); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(f.file)
	if err != nil {
		return nil, fmt.Errorf("--policy: %w", err)
	}
	p, err := f.loadFrom(data)
	if err != nil {
		return nil, fmt.Errorf("--policy %s: %w", f.file, err)
	}
	return p, nil
}

func (f *trustFlags) loadFrom(file []byte) (*client.Policy, error) {
	pin := f.pin
	if pin == "" {
		all, err := policy.ParseFile(file)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", client.ErrPolicyFile, err)
		}
		pin = all[0].Policy.Fingerprint()
	}
	return client.LoadPolicy(file, pin)
}

func (f *trustFlags) checkPin() error { return checkFingerprint("policy-fingerprint", f.pin) }

func checkFingerprint(flag, s string) error {
	if s != "" && (len(s) != 64 || strings.Trim(strings.ToLower(s), "0123456789abcdef") != "") {
		return fmt.Errorf("%w: --%s %q: must be 64 hexadecimal digits", errUsage, flag, s)
	}
	return nil
}

func newPolicyCreateCommand() *cobra.Command {
	var (
		channel, out string
		quorum       int
		maxAge       time.Duration
		orgs         []string
	)
	cmd := &cobra.Command{
		Use:   "create",
		Short: "write the first version of a policy",
		Long: `Writes version 1 of a policy. It needs no signatures: relying parties pin its fingerprint, which this prints. Each organisation's bridge
shows its keys at /logs: vkey is its log key, cosigner_vkey its cosigner key. Compare them with the organisation itself.`,
		Example: `  certanchor policy create --channel certanchor --quorum 3 --max-age 45s -o policy.txt \
    --org Org1MSP=certanchor/Org1MSP+1b2c3d4e+AW...,certanchor/Org1MSP/cosigner+5f6a7b8c+BO... \
    --org Org2MSP=... --org Org3MSP=... --org Org4MSP=...`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := parseOrgs(orgs)
			if err != nil {
				return err
			}
			p, err := policy.New(channel, 1, quorum, maxAge, list...)
			if err != nil {
				return err
			}
			return writePolicy(cmd, out, nil, &policy.Signed{Policy: p})
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&channel, "channel", "", "name of the ledger (required)")
	fs.IntVar(&quorum, "quorum", 0, "how many organisations must vouch: more than half (required)")
	fs.DurationVar(&maxAge, "max-age", 45*time.Second, "how old a bundle's view of the ledger may be: some ticks, in whole seconds")
	fs.StringArrayVar(&orgs, "org", nil, "an organisation, MSPID=LOGVKEY,COSIGNERVKEY; once for each (required)")
	fs.StringVarP(&out, "out", "o", "", "file to write; must not exist (required)")
	mustRequire(cmd, "channel", "quorum", "org", "out")
	return cmd
}

func newPolicySucceedCommand() *cobra.Command {
	var (
		file, out    string
		quorum       int
		maxAge       time.Duration
		orgs, remove []string
	)
	cmd := &cobra.Command{
		Use:   "succeed",
		Short: "write the next version of a policy, to be signed by a quorum of the present one",
		Long: `Writes a file with all versions so far and the next one, changed as the flags say: --org adds an organisation or replaces its keys. Nobody
accepts the file until a quorum of the organisations of the present version has signed it (certanchor policy sign), so the file in use stays
as it is meanwhile.`,
		Example: `  certanchor policy succeed --policy policy.txt --remove Org3MSP --org Org5MSP=LOGVKEY,COSIGNERVKEY -o next.txt
  certanchor policy succeed --policy policy.txt --max-age 1m30s -o next.txt`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("--policy: %w", err)
			}
			all, err := policy.ParseFile(data)
			if err != nil {
				return fmt.Errorf("--policy %s: %w", file, err)
			}
			if _, err := policy.Load(data, all[0].Policy.Fingerprint()); err != nil {
				return fmt.Errorf("--policy %s: the newest version does not count yet, so it cannot have a successor: %w", file, err)
			}
			last := all[len(all)-1].Policy
			list, err := changeOrgs(last.Orgs(), orgs, remove)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("quorum") {
				quorum = last.Quorum()
			}
			if !cmd.Flags().Changed("max-age") {
				maxAge = last.MaxAge()
			}
			next, err := policy.New(last.Channel(), last.Version()+1, quorum, maxAge, list...)
			if err != nil {
				return err
			}
			if quorum == last.Quorum() && maxAge == last.MaxAge() && slices.Equal(next.Orgs(), last.Orgs()) {
				return fmt.Errorf("%w: nothing changes: give --quorum, --max-age, --org or --remove", errUsage)
			}
			return writePolicy(cmd, out, all, &policy.Signed{Policy: next})
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&file, "policy", "", "policy file with the present version (required)")
	fs.IntVar(&quorum, "quorum", 0, "how many organisations must vouch (default: as now)")
	fs.DurationVar(&maxAge, "max-age", 0, "how old a bundle's view of the ledger may be (default: as now)")
	fs.StringArrayVar(&orgs, "org", nil, "an organisation that is new or has new keys, MSPID=LOGVKEY,COSIGNERVKEY; may be given several times")
	fs.StringArrayVar(&remove, "remove", nil, "MSP ID of an organisation that leaves; may be given several times")
	fs.StringVarP(&out, "out", "o", "", "file to write; must not exist (required)")
	mustRequire(cmd, "policy", "out")
	return cmd
}

// writePolicy writes before and a new version into a new file and shows that version.
func writePolicy(cmd *cobra.Command, path string, before []*policy.Signed, s *policy.Signed) error {
	data, err := marshalPolicies(append(slices.Clone(before), s))
	if err != nil {
		return err
	}
	err = keyfile.WriteNew(path, data, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("--out %s: exists already, and is not replaced", path)
	}
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	views, err := describePolicies(append(slices.Clone(before), s))
	if err != nil {
		return err
	}
	return views[len(views)-1].print(cmd.OutOrStdout())
}

func marshalPolicies(all []*policy.Signed) ([]byte, error) {
	var b bytes.Buffer
	for _, s := range all {
		signed, err := s.Marshal()
		if err != nil {
			return nil, err
		}
		b.Write(signed)
	}
	if again, err := policy.ParseFile(b.Bytes()); err != nil || len(again) != len(all) {
		return nil, fmt.Errorf("policy file: couldn't be read as written: %w", err)
	}
	return b.Bytes(), nil
}

func parseOrgs(flags []string) ([]policy.Org, error) {
	var orgs []policy.Org
	for _, s := range flags {
		id, keys, ok := strings.Cut(s, "=")
		log, cosigner, ok2 := strings.Cut(keys, ",")
		if !ok || !ok2 || id == "" {
			return nil, fmt.Errorf("%w: --org %q: must be MSPID=LOGVKEY,COSIGNERVKEY", errUsage, s)
		}
		orgs = append(orgs, policy.Org{MSPID: id, LogKey: log, CosignerKey: cosigner})
	}
	return orgs, nil
}

// changeOrgs replaces or adds those of set, and takes out those of remove.
func changeOrgs(orgs []policy.Org, set, remove []string) ([]policy.Org, error) {
	for _, id := range remove {
		i := slices.IndexFunc(orgs, func(o policy.Org) bool { return o.MSPID == id })
		if i < 0 {
			return nil, fmt.Errorf("%w: --remove %q: must be an organisation of the present version", errUsage, id)
		}
		orgs = slices.Delete(orgs, i, i+1)
	}
	changed, err := parseOrgs(set)
	if err != nil {
		return nil, err
	}
	for _, o := range changed {
		orgs = append(slices.DeleteFunc(orgs, func(old policy.Org) bool { return old.MSPID == o.MSPID }), o)
	}
	return orgs, nil
}
