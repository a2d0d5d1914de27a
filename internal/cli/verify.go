package cli

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/client"
)

// exitRevoked is verify's exit status for a proof that holds and says that the certificate is revoked or on hold.
const exitRevoked = 3

// errRevoked marks what ends with exitRevoked.
var errRevoked = errors.New("the certificate is not good")

func newVerifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "check a certificate's bundle offline: was it issued, and is it revoked?",
		Long: `Checks a bundle (certanchor proof) without any network: that the certificate is in its CA's log on the ledger, what its status was
at the bundle's tick, and that as many organisations as the policy wants vouch for both. Prints good, on hold or revoked, when, why and by
whom, or exactly what does not hold.

Names and validity period are not checked, nor is a chain built: that is path validation, which knows nothing of revocation.

With --policy-fingerprint the policy file may come from anywhere: it must hold the version with that fingerprint, and a quorum of each
version must have signed the next. Without, the file itself is trusted.

Exit status: 0 good; 1 nothing is proven: the bundle, the policy or a file is not as it must be; 2 wrong usage; 3 the proof holds, and the
certificate is revoked or on hold.`,
		Example: `  certanchor verify --policy policy.txt --cert cert.pem --bundle cert.bundle
  certanchor verify --policy policy.txt --policy-fingerprint 5e8f... --cert cert.pem --bundle cert.bundle --json
  certanchor verify --policy policy.txt --cert cert.pem --bundle old.bundle --at 2026-05-01T12:00:00Z`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fs := cmd.Flags()
	f.trust.register(cmd)
	fs.StringVar(&f.certFile, "cert", "", "the certificate, PEM or DER (required)")
	fs.StringVar(&f.bundleFile, "bundle", "", "its bundle (required)")
	fs.StringVar(&f.at, "at", "", "time to verify at, RFC 3339, for a bundle that was kept; default: now")
	fs.BoolVar(&f.asJSON, "json", false, "print JSON, also when nothing is proven")
	mustRequire(cmd, "policy", "cert", "bundle")
	return withConfig(cmd, f.trust.defaults)
}

type verifyFlags struct {
	trust                    trustFlags
	certFile, bundleFile, at string
	asJSON                   bool
}

func (f *verifyFlags) run(cmd *cobra.Command) error {
	now := time.Now()
	if f.at != "" {
		var err error
		if now, err = time.Parse(time.RFC3339, f.at); err != nil {
			return fmt.Errorf("%w: --at %q: must be RFC 3339, such as 2026-05-01T12:00:00Z", errUsage, f.at)
		}
	}
	v, err := f.verify(now)
	if errors.Is(err, errUsage) {
		return err
	}
	if err != nil {
		if f.asJSON {
			err = errors.Join(err, printJSON(cmd.OutOrStdout(), map[string]string{"verdict": "not_proven", "fails": whatFails(err), "detail": err.Error()}))
		}
		return fmt.Errorf("not proven: %w", err)
	}
	if err := v.print(cmd.OutOrStdout(), f.asJSON); err != nil {
		return err
	}
	if v.Verdict.Status != client.Good {
		return fmt.Errorf("%w: %s", errRevoked, v.word())
	}
	return nil
}

func (f *verifyFlags) verify(now time.Time) (*proven, error) {
	policy, err := f.trust.load()
	if err != nil {
		return nil, err
	}
	certs, err := readCertificates("--cert", f.certFile)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(f.bundleFile)
	if err != nil {
		return nil, fmt.Errorf("--bundle: %w", err)
	}
	if block, _ := pem.Decode(data); block != nil {
		return nil, fmt.Errorf("--bundle %s: %w: it is a PEM file (%s); certanchor proof gets a certificate's bundle", f.bundleFile, client.ErrBundleFormat, block.Type)
	}
	v, err := prove(policy, f.trust.pin != "", certs[0], data, now)
	if errors.Is(err, client.ErrBundleStale) && f.at == "" {
		err = fmt.Errorf("%w; get a new one (certanchor proof), or check this machine's clock", err)
	}
	return v, err
}

// proven is a verdict with what it stands on.
type proven struct {
	*client.Verdict
	cert   *x509.Certificate
	policy *client.Policy
	pinned bool
	now    time.Time
}

func prove(policy *client.Policy, pinned bool, cert *x509.Certificate, data []byte, now time.Time) (*proven, error) {
	v, err := client.VerifyBundle(policy, cert, data, now)
	if err != nil {
		return nil, err
	}
	return &proven{v, cert, policy, pinned, now}, nil
}

// whatFails names the statement that does not hold.
func whatFails(err error) string {
	for _, c := range []struct {
		err  error
		name string
	}{
		{client.ErrPolicyFile, "policy_file"}, {client.ErrBundleFormat, "format"}, {client.ErrBundlePolicy, "policy"},
		{client.ErrBundleNotIssued, "not_issued"}, {client.ErrBundleProof, "proof"}, {client.ErrBundleStale, "stale"},
		{client.ErrBundleIncomplete, "incomplete"},
	} {
		if errors.Is(err, c.err) {
			return c.name
		}
	}
	return "input"
}

func (v *proven) word() string {
	switch {
	case v.Verdict.Status == client.Good:
		return "good"
	case v.OnHold:
		return "on hold"
	}
	return "revoked"
}

// parties says who revoked.
func (v *proven) parties() string {
	var names []string
	for _, by := range v.By {
		switch by {
		case "ca":
			by = "the CA"
		case "holder":
			by = "the holder of its key"
		case "quorum":
			by = "a majority of the organisations"
		default:
			by += " of a majority of the organisations"
		}
		names = append(names, by)
	}
	return strings.Join(names, ", ")
}

func (v *proven) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, v.fields())
	}
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintln(&b, v.word())
	if v.Verdict.Status != client.Good {
		line("since", "%s, %s", stamp(v.RevokedAt), v.Reason)
		if !v.Asserted.IsZero() {
			line("asserted", "by the CA: since %s, imported later", stamp(v.Asserted))
		}
		if !v.Invalidity.IsZero() {
			line("invalid", "since %s", stamp(v.Invalidity))
		}
		line("by", "%s", v.parties())
	}
	newer := ""
	if v.Newer == 1 {
		newer = " and 1 newer entry of the status log"
	} else if v.Newer > 1 {
		newer = fmt.Sprintf(" and %d newer entries of the status log", v.Newer)
	}
	line("as of", "the tick at %s%s; the tick is %v before %s, at most %v is allowed", stamp(v.AsOf), newer, v.now.Sub(v.AsOf).Round(time.Second), stamp(v.now), v.policy.MaxAge())
	line("logged", "%s, index %d", stamp(v.Logged), v.Index)
	suspended := ""
	if v.CASuspended {
		suspended = " (suspended: it may not issue now; what it has issued keeps its status)"
	}
	line("CA", "%s%s", v.CAID, suspended)
	line("status by", "%s", strings.Join(v.StatusCosigners, ", "))
	line("log by", "%s", strings.Join(v.LogCosigners, ", "))
	pinned := "pinned"
	if !v.pinned {
		pinned = "not pinned: the file is trusted as it is"
	}
	line("policy", "version %d of %s, %d of %d, fingerprint %s, %s", v.policy.Version(), v.policy.Channel(), v.policy.Quorum(), len(v.policy.Organisations()), v.policy.Fingerprint(), pinned)
	if v.now.Before(v.cert.NotBefore) || v.now.After(v.cert.NotAfter) {
		line("note", "the certificate is valid from %s to %s only, which is not checked here", stamp(v.cert.NotBefore), stamp(v.cert.NotAfter))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (v *proven) fields() map[string]any {
	out := map[string]any{
		"verdict": strings.ReplaceAll(v.word(), " ", "_"), "as_of": stamp(v.AsOf), "newer_entries": v.Newer, "verified_at": stamp(v.now), "ca_id": v.CAID,
		"ca_suspended": v.CASuspended, "log_index": v.Index, "logged": stamp(v.Logged), "log_cosigners": v.LogCosigners,
		"status_cosigners": v.StatusCosigners, "not_before": stamp(v.cert.NotBefore), "not_after": stamp(v.cert.NotAfter),
		"policy": map[string]any{
			"channel": v.policy.Channel(), "version": v.policy.Version(), "fingerprint": v.policy.Fingerprint(), "pinned": v.pinned,
			"quorum": v.policy.Quorum(), "organisations": v.policy.Organisations(), "max_age": v.policy.MaxAge().String(),
		},
	}
	if v.Verdict.Status != client.Good {
		out["revoked_at"], out["reason"], out["by"] = stamp(v.RevokedAt), v.Reason, v.By
		if !v.Asserted.IsZero() {
			out["asserted"] = stamp(v.Asserted)
		}
		if !v.Invalidity.IsZero() {
			out["invalidity_date"] = stamp(v.Invalidity)
		}
	}
	return out
}

// stamp is RFC 3339 in UTC, with as many decimals as there are: the ledger's times have three.
func stamp(t time.Time) string { return t.UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano) }
