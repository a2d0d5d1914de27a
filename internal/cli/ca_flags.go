package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/config"
)

// caFlags say which CA to talk to and as whom.
type caFlags struct {
	url, root         string
	tokenFile         string // one of these three
	hmacFile, name    string
	certFile, keyFile string
	timeout           time.Duration
	asJSON            bool

	flags *pflag.FlagSet
}

// credentialFlags exclude one another: one that is given leaves what a configuration says about the others aside.
var credentialFlags = []string{"token-file", "hmac-key-file", "hmac-name", "operator-cert", "operator-key"}

func (f *caFlags) register(cmd *cobra.Command) {
	fallback := func(env, value string) string {
		if v := os.Getenv(env); v != "" {
			return v
		}
		return value
	}
	fs := cmd.Flags()
	f.flags = fs
	fs.StringVar(&f.url, "ca-url", fallback("CERTANCHOR_CA_URL", "http://"+config.DefaultCAListen), "base URL of the CA's API (environment: CERTANCHOR_CA_URL)")
	fs.StringVar(&f.root, "ca-root", "", "roots for the CA's TLS certificate, PEM file (default: the system's)")
	fs.StringVar(&f.tokenFile, "token-file", os.Getenv("CERTANCHOR_TOKEN_FILE"), "file with a token for the CA's API (environment: CERTANCHOR_TOKEN_FILE)")
	fs.StringVar(&f.hmacFile, "hmac-key-file", "", "instead of a token: file with the HMAC key of a client that signs its requests")
	fs.StringVar(&f.name, "hmac-name", "", "that client's name (default: that of the file, without its extension)")
	fs.StringVar(&f.certFile, "operator-cert", "", "instead of a token: certificate of the CA organisation's MSP, PEM file; over https")
	fs.StringVar(&f.keyFile, "operator-key", "", "its key, PEM file")
	fs.DurationVar(&f.timeout, "timeout", time.Minute, "how long to try")
	fs.BoolVar(&f.asJSON, "json", false, "print JSON")
}

// givenCredential reports whether a flag named a credential.
func givenCredential(fs *pflag.FlagSet) bool {
	return slices.ContainsFunc(credentialFlags, fs.Changed)
}

func (f *caFlags) client(ctx context.Context) (*caapi.Client, context.Context, context.CancelFunc, error) {
	token := f.tokenFile
	if token != "" && !f.flags.Changed("token-file") && givenCredential(f.flags) {
		token = "" // of the environment
	}
	if token == "" && f.hmacFile == "" && f.certFile == "" {
		return nil, nil, nil, fmt.Errorf("%w: --token-file (or CERTANCHOR_TOKEN_FILE) must name a token, or --hmac-key-file a key, or --operator-cert and --operator-key a certificate; certanchor ca init made a token for the operator", errUsage)
	}
	c, err := caapi.New(caapi.Config{
		URL: f.url, TokenFile: token, HMAC: caapi.HMAC{KeyFile: f.hmacFile, Name: f.name}, TLS: caapi.TLS{CA: f.root, Cert: f.certFile, Key: f.keyFile},
	})
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	return c, ctx, cancel, nil
}

// caDefaults are the client section's values for the flags of caFlags.
func caDefaults(c *config.Client) map[string][]string {
	all := map[string][]string{"ca-url": {c.CAURL}, "token-file": {c.TokenFile}, "hmac-key-file": {c.HMACKeyFile}, "hmac-name": {c.HMACName}}
	if t := c.CATLS; t != nil {
		all["ca-root"], all["operator-cert"], all["operator-key"] = []string{t.CA}, []string{t.Cert}, []string{t.Key}
	}
	return all
}
