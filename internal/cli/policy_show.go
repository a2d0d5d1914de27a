package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/policy"
)

// policyView is one version of a policy and who has signed it.
type policyView struct {
	Channel       string    `json:"channel"`
	Version       uint64    `json:"version"`
	Fingerprint   string    `json:"fingerprint"`
	Quorum        int       `json:"quorum"`
	MaxAge        string    `json:"max_age"`
	Organisations []orgView `json:"organisations"`

	// SignedBy has the organisations of the version before whose signatures verify, and Needed how many it wants. The first version in a
	// file needs none: it is signed, if at all, by its own organisations.
	SignedBy []string `json:"signed_by"`
	Needed   int      `json:"needed"`

	// Counts is true for the first version in the file, and for each that enough organisations of a version that counts have signed.
	Counts bool `json:"counts"`

	first bool
}

type orgView struct {
	MSPID       string `json:"msp_id"`
	LogKey      string `json:"log_key"`
	CosignerKey string `json:"cosigner_key"`
}

// describePolicies describes the versions of a file. Errors: a signature by a known key that does not verify.
func describePolicies(all []*policy.Signed) ([]*policyView, error) {
	var views []*policyView
	for i, s := range all {
		p := s.Policy
		v := &policyView{
			Channel: p.Channel(), Version: p.Version(), Fingerprint: p.Fingerprint(), Quorum: p.Quorum(), MaxAge: p.MaxAge().String(), SignedBy: []string{}, first: i == 0, Counts: i == 0,
		}
		for _, o := range p.Orgs() {
			v.Organisations = append(v.Organisations, orgView(o))
		}
		before := p
		if i > 0 {
			before = all[i-1].Policy
			v.Needed = before.Quorum()
			v.Counts = views[i-1].Counts && before.VerifySuccessor(s) == nil
		}
		signed, err := signersOf(before, s)
		if err != nil {
			return nil, fmt.Errorf("policy version %d: %w", p.Version(), err)
		}
		v.SignedBy = append(v.SignedBy, signed...)
		views = append(views, v)
	}
	return views, nil
}

// signersOf returns the organisations of p whose log keys have signed s.
func signersOf(p *policy.Policy, s *policy.Signed) ([]string, error) {
	if len(s.Sigs) == 0 {
		return nil, nil
	}
	signed, err := s.Marshal()
	if err != nil {
		return nil, err
	}
	opened, err := note.Open(signed, note.VerifierList(p.LogKeys()...))
	if unknown := new(note.UnverifiedNoteError); errors.As(err, &unknown) { // only keys that do not count
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	for i, k := range p.LogKeys() {
		for _, sig := range opened.Sigs {
			if sig.Name == k.Name() && sig.Hash == k.KeyHash() {
				ids = append(ids, p.Orgs()[i].MSPID)
			}
		}
	}
	return ids, nil
}

func (v *policyView) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "version %d of %s: %d of %d, max-age %s\n  fingerprint  %s\n", v.Version, v.Channel, v.Quorum, len(v.Organisations), v.MaxAge, v.Fingerprint)
	who := strings.Join(v.SignedBy, ", ")
	if who == "" {
		who = "nobody"
	}
	switch {
	case v.first:
		fmt.Fprintf(&b, "  signed by    %s; the first in the file needs no signature: pin its fingerprint\n", who)
	case v.Counts:
		fmt.Fprintf(&b, "  signed by    %s: %d of the %d that version %d wants\n", who, len(v.SignedBy), v.Needed, v.Version-1)
	default:
		fmt.Fprintf(&b, "  signed by    %s: %d of the %d that version %d wants; it does not count yet\n", who, len(v.SignedBy), v.Needed, v.Version-1)
	}
	for _, o := range v.Organisations {
		fmt.Fprintf(&b, "  %-12s %s\n  %-12s %s\n", o.MSPID, o.LogKey, "", o.CosignerKey)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func printPolicies(w io.Writer, views []*policyView, asJSON bool) error {
	if asJSON {
		return printJSON(w, map[string]any{"versions": views})
	}
	for _, v := range views {
		if err := v.print(w); err != nil {
			return err
		}
	}
	return nil
}

func newPolicyShowCommand() *cobra.Command {
	var (
		trust  trustFlags
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "show FILE",
		Short: "print a policy file's versions, their fingerprints and who has signed them",
		Long: `Prints what is in a policy file. A newest version that has not enough signatures yet is shown as such. With --policy-fingerprint the file must
be one that relying parties who pin that fingerprint accept, or the exit status is 1.`,
		Example: `  certanchor policy show policy.txt
  certanchor policy show policy.txt --policy-fingerprint 5e8f... --json`,
		Args: oneArg("the policy file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := trust.checkPin(); err != nil {
				return err
			}
			data, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			views, err := viewPolicies(data)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			var refused error
			if trust.pin != "" {
				_, refused = trust.loadFrom(data)
			}
			// Of a file that is another one altogether nothing is shown.
			has := slices.ContainsFunc(views, func(v *policyView) bool { return strings.EqualFold(v.Fingerprint, trust.pin) })
			if refused != nil && !has {
				return fmt.Errorf("%s: %w", args[0], refused)
			}
			return errors.Join(printPolicies(cmd.OutOrStdout(), views, asJSON), refused)
		},
	}
	trust.registerPin(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func viewPolicies(data []byte) ([]*policyView, error) {
	all, err := policy.ParseFile(data)
	if err != nil {
		return nil, err
	}
	return describePolicies(all)
}
