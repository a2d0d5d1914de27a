package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/client"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/logkey"
	"github.com/certanchor/certanchor/internal/policy"
)

func newPolicySignCommand() *cobra.Command {
	var (
		file, fingerprint string
		keys              []string
		passphrase        keyfile.Source
	)
	cmd := &cobra.Command{
		Use:   "sign",
		Short: "sign the newest version of a policy file with an organisation's log key",
		Long: `Adds the signatures of log keys to the newest version in a policy file: those of organisations of the version before. Each organisation's
administrator signs where its bridge's log.key is and passes the file on; the file counts when it has a quorum. Signing the same again
changes nothing.

A signature says that the organisation agrees to this version, whoever wrote the file: look at what is printed, or give the fingerprint that
was agreed upon with --fingerprint.`,
		Example: `  certanchor policy sign --policy next.txt --key pki/ocsp-bridge/log.key --fingerprint 5e8f...`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFingerprint("fingerprint", fingerprint); err != nil {
				return err
			}
			data, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("--policy: %w", err)
			}
			all, err := policy.ParseFile(data)
			if err == nil {
				err = signPolicy(all, fingerprint, keys, passphrase)
			}
			if err != nil {
				return fmt.Errorf("--policy %s: %w", file, err)
			}
			if data, err = marshalPolicies(all); err != nil {
				return err
			}
			views, err := describePolicies(all)
			if err != nil {
				return err
			}
			if err := replaceFile(file, data); err != nil {
				return err
			}
			return views[len(views)-1].print(cmd.OutOrStdout())
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&file, "policy", "", "policy file to add signatures to (required)")
	fs.StringArrayVar(&keys, "key", nil, "an organisation's log.key; may be given several times (required)")
	fs.StringVar(&fingerprint, "fingerprint", "", "sign only if the newest version has this fingerprint, 64 hexadecimal digits")
	fs.StringVar(&passphrase.File, "passphrase-file", "", "file with the passphrase of an encrypted log.key, readable by its owner only")
	fs.StringVar(&passphrase.Env, "passphrase-env", "", "environment variable that holds it")
	cmd.MarkFlagsMutuallyExclusive("passphrase-file", "passphrase-env")
	mustRequire(cmd, "policy", "key")
	return cmd
}

// signPolicy adds the signatures of key files to the newest version.
func signPolicy(all []*policy.Signed, fingerprint string, keys []string, passphrase keyfile.Source) error {
	last := all[len(all)-1]
	before := last.Policy
	switch {
	case fingerprint != "" && strings.ToLower(fingerprint) != last.Policy.Fingerprint():
		return fmt.Errorf("not signed: the newest version, %d, has the fingerprint %s: must be %s", last.Policy.Version(), last.Policy.Fingerprint(), fingerprint)
	case len(all) > 1:
		before = all[len(all)-2].Policy
		for i, s := range all[1 : len(all)-1] {
			if err := all[i].Policy.VerifySuccessor(s); err != nil {
				return err
			}
		}
		if next := last.Policy; next.Channel() != before.Channel() || next.Version() != before.Version()+1 {
			return fmt.Errorf("version %d of %s comes after version %d of %s", next.Version(), next.Channel(), before.Version(), before.Channel())
		}
	case before.Version() > 1:
		return fmt.Errorf("holds version %d only: whose signatures it needs is in the version before", before.Version())
	}
	var signers []note.Signer
	for _, path := range keys {
		k, err := loadLogKey(path, passphrase)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(before.Orgs(), func(o policy.Org) bool { return o.LogKey == k.VKey }) {
			return fmt.Errorf("--key %s: %s: must be the log key of an organisation of version %d", path, k.VKey, before.Version())
		}
		signers = append(signers, k)
	}
	return last.Sign(signers...)
}

// loadLogKey reads a log key of whatever name. The policy says whose it is.
func loadLogKey(path string, passphrase keyfile.Source) (*logkey.Key, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--key: %w", err)
	}
	var seal *keyfile.Sealer
	if keyfile.IsSealed(data) {
		if seal, err = keyfile.NewSealer(orPrompt(passphrase), "the log key "+path, 0); err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
	}
	name, err := logkey.Name(data)
	if err != nil {
		return nil, fmt.Errorf("--key %s: must hold one signed-note private key, a bridge's log.key: %w", path, err)
	}
	k, err := logkey.LoadSealed(path, name, seal)
	if err != nil {
		return nil, fmt.Errorf("--key: %w", err)
	}
	return k, nil
}

func newPolicyFetchCommand() *cobra.Command {
	var (
		trust       trustFlags
		secure      tlsFlags
		bridge, out string
		timeout     time.Duration
		asJSON      bool
	)
	cmd := &cobra.Command{
		Use:   "fetch",
		Short: "get the policy file that an organisation's bridge uses",
		Long: `Gets the policy file from a bridge and prints it. What a server says about whom to trust proves nothing: compare the fingerprint with one
from another source, such as another organisation's administrator on the telephone, or give it with --policy-fingerprint. The file is then
checked against it, and not written if it is another's.`,
		Example: `  certanchor policy fetch --bridge https://bridge.org1.example -o policy.txt
  certanchor policy fetch --bridge https://bridge.org1.example --policy-fingerprint 5e8f... -o policy.txt`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := trust.checkPin(); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			h, err := secure.client()
			if err != nil {
				return err
			}
			data, err := fetchPolicy(ctx, h, bridge)
			if err != nil {
				return err
			}
			if _, err := trust.loadFrom(data); err != nil {
				return fmt.Errorf("%s: %w", bridge, err)
			}
			views, err := viewPolicies(data)
			if err != nil {
				return fmt.Errorf("%s: %w", bridge, err)
			}
			if out != "" {
				if err := replaceFile(out, data); err != nil {
					return err
				}
			}
			if err := printPolicies(cmd.OutOrStdout(), views, asJSON); err != nil || trust.pin != "" {
				return err
			}
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "not pinned: compare this fingerprint with one from another source than %s before you rely on it:\n%s\n", bridge, views[0].Fingerprint)
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&bridge, "bridge", "http://"+config.DefaultOCSPListen, "base URL of an organisation's OCSP bridge")
	fs.StringVarP(&out, "out", "o", "", "write the file here, in place of what is there")
	fs.DurationVar(&timeout, "timeout", client.DefaultTimeout, "how long to wait")
	fs.BoolVar(&asJSON, "json", false, "print JSON")
	trust.registerPin(cmd)
	secure.register(cmd)
	return withConfig(cmd, together(bridgeDefault, secure.defaults))
}

func fetchPolicy(ctx context.Context, h *http.Client, bridge string) ([]byte, error) {
	code, body, err := get(ctx, h, bridge, "/policy", policy.MaxFile)
	if err != nil {
		return nil, err
	}
	if code == http.StatusNotFound {
		return nil, fmt.Errorf("%s has no policy: its operator has not configured one (ocsp_bridge.policy)", bridge)
	}
	if code != http.StatusOK {
		return nil, fmt.Errorf("%s/policy: HTTP status %d", bridge, code)
	}
	return body, nil
}

// get asks a bridge for a resource of at most limit octets. h may be nil.
func get(ctx context.Context, h *http.Client, bridge, path string, limit int64) (code int, body []byte, err error) {
	u, err := url.Parse(bridge)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return 0, nil, fmt.Errorf("%w: --bridge %q: must be an absolute http or https URL without query and fragment", errUsage, bridge)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(bridge, "/")+path, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	if h == nil {
		h = http.DefaultClient
	}
	resp, err := h.Do(req)
	if err != nil {
		return 0, nil, err
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return 0, nil, err
	}
	if int64(len(body)) > limit {
		return 0, nil, fmt.Errorf("%s%s: more than %d bytes", bridge, path, limit)
	}
	return resp.StatusCode, body, nil
}
