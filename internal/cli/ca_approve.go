package cli

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/dual"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// approveFlags are one operator's decision about an operation under dual control.
type approveFlags struct {
	ca                   caFlags
	key, operator, check string
	operationFile, out   string
	passphrase           keyfile.Source
	reject, yes          bool

	stdin          io.Reader
	stderr         io.Writer
	knownOperators map[string]string // of the CA's answer: name to key ID
}

func newCAApproveCommand() *cobra.Command {
	var f approveFlags
	cmd := &cobra.Command{
		Use:   "approve [ID]",
		Short: "sign, as one of several operators, an operation under dual control",
		Long: `Shows what an operation does, asks, signs its text with the operator's key and hands the signature to the CA. The signature that was missing
has the operation carried out. With --operation the text comes from a file and the approval goes to one, on a machine that reaches no CA.
--reject ends the operation. docs/operators.md tells about dual control.`,
		Example: `  certanchor ca approve 3f0c... --key alice.pem --operator-cert alice-cert.pem --operator-key alice.pem --ca-url https://ca.org1.example
  certanchor ca approve 3f0c... --key 'pkcs11:token=alice;object=sign?pin-source=file:/etc/alice.pin' --check revoke.jsonl --token-file op.token
  certanchor ca approve --operation op.txt --operator alice --key alice.pem --out alice.json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.stdin, f.stderr = cmd.InOrStdin(), cmd.ErrOrStderr()
			if (len(args) == 1) == (f.operationFile != "") {
				return fmt.Errorf("%w: %s takes either an operation's ID or --operation", errUsage, cmd.CommandPath())
			}
			if f.operationFile != "" {
				return f.toFile(cmd.OutOrStdout())
			}
			return f.atCA(cmd.Context(), cmd.OutOrStdout(), args[0])
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.key, "key", "", "the operator's private key: PEM file, or PKCS #11 URI (required)")
	fs.StringVar(&f.operator, "operator", "", "the operator's name in the policy (default: whose key it is; required with --operation)")
	fs.StringVar(&f.check, "check", "", "file that the operation must be about: the list, the profiles or the policy")
	fs.StringVar(&f.operationFile, "operation", "", "file with an operation's text, instead of an ID")
	fs.StringVarP(&f.out, "out", "o", "", "with --operation: file for the approval")
	fs.BoolVar(&f.reject, "reject", false, "reject the operation instead")
	fs.BoolVar(&f.yes, "yes", false, "sign without asking")
	passphraseFlags(cmd, &f.passphrase)
	f.ca.register(cmd)
	mustRequire(cmd, "key")
	return withConfig(cmd, caDefaults)
}

// atCA signs an operation that waits at a CA.
func (f *approveFlags) atCA(ctx context.Context, out io.Writer, id string) error {
	c, ctx, cancel, err := f.ca.client(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	got, err := c.Operation(ctx, id)
	if err != nil {
		return err
	}
	// What is shown, and signed, is the text; whatever else the answer says about it counts for nothing.
	op, err := dual.ParseOperation([]byte(got.Text))
	if err != nil {
		return fmt.Errorf("the CA's answer: %w", err)
	}
	if op.ID() != id {
		return fmt.Errorf("the CA's answer is about the operation %s, not %s", op.ID(), id)
	}
	f.knownOperators = got.Operators
	a, err := f.decide(op)
	if err != nil {
		return err
	}
	send := c.Approve
	if f.reject {
		send = c.Reject
	}
	got, err = send(ctx, id, caapi.OperatorSignature{Operator: a.Operator, Signature: base64.StdEncoding.EncodeToString(a.Signature)})
	if err != nil {
		return err
	}
	if f.ca.asJSON {
		return printJSON(out, got)
	}
	return printOperation(out, got)
}

// toFile signs an operation from a file.
func (f *approveFlags) toFile(out io.Writer) error {
	if f.operator == "" || f.out == "" || f.reject {
		return fmt.Errorf("%w: --operation needs --operator and --out, and no --reject", errUsage)
	}
	op, err := dual.ReadOperation(f.operationFile)
	if err != nil {
		return fmt.Errorf("--operation: %w", err)
	}
	a, err := f.decide(op)
	if err != nil {
		return err
	}
	data, err := dual.MarshalApproval(op, a)
	if err != nil {
		return err
	}
	if err := keyfile.WriteNew(f.out, data, 0o644); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	_, err = fmt.Fprintln(out, f.out)
	return err
}

// decide shows the operation, asks and signs.
func (f *approveFlags) decide(op dual.Operation) (dual.Approval, error) {
	var none dual.Approval
	if f.check != "" {
		contents, err := os.ReadFile(f.check)
		if err == nil {
			err = op.CheckContents(contents)
		}
		if err != nil {
			return none, fmt.Errorf("--check %s: %w", f.check, err)
		}
	}
	key, err := dual.OpenKey("--key", f.key, func() ([]byte, error) { return orPrompt(f.passphrase).Passphrase("the key in " + f.key) })
	if err != nil {
		return none, err
	}
	id, err := dual.KeyID(key.Public())
	if err != nil {
		return none, err
	}
	name := f.operator
	for who, keyID := range f.knownOperators {
		if keyID == id && name == "" {
			name = who
		}
	}
	if name == "" {
		return none, fmt.Errorf("--key %s: is the key of none of those who may sign this operation (public key SHA-256 %s)", f.key, id)
	}
	verb, text := "approve", op.Bytes()
	if f.reject {
		verb, text = "reject", op.RejectionBytes()
	}
	fmt.Fprintf(f.stderr, "%s\n\n%s\n", op.Summary(), indent(text))
	if !f.yes {
		fmt.Fprintf(f.stderr, "%s, as %s, this operation? Type yes: ", verb, name)
		line, err := bufio.NewReader(f.stdin).ReadString('\n')
		if strings.TrimSpace(line) != "yes" {
			return none, errors.Join(errors.New("nothing was signed"), ignoreEOF(err))
		}
	}
	sig, err := dual.Sign(key, text)
	return dual.Approval{Operator: name, Signature: sig}, err
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func indent(text []byte) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "\n    ") + "\n"
}
