package dual

import (
	"encoding/json"
	"fmt"

	"github.com/certanchor/certanchor/internal/keyfile"
)

// maxApproval is the longest approval file, in octets.
const maxApproval = 16 << 10

// approvalFile is an approval on its way from an operator's machine to where the operation is carried out.
type approvalFile struct {
	Operation string `json:"operation"` // its ID
	Approval
}

// MarshalApproval returns the contents of an approval file.
func MarshalApproval(op Operation, a Approval) ([]byte, error) {
	data, err := json.MarshalIndent(approvalFile{op.ID(), a}, "", "  ")
	return append(data, '\n'), err
}

// ParseApproval reads an approval file and checks that it is about op. Its signature is the policy's to verify.
func ParseApproval(op Operation, data []byte) (Approval, error) {
	var f approvalFile
	if err := strictJSON(data, &f); err != nil {
		return Approval{}, err
	}
	if f.Operation != op.ID() {
		return Approval{}, fmt.Errorf("operation %q: must be %s", f.Operation, op.ID())
	}
	return f.Approval, nil
}

// ReadApprovals reads the approval files at paths.
func ReadApprovals(op Operation, paths []string) ([]Approval, error) {
	var all []Approval
	for _, path := range paths {
		data, err := readLimited(path, maxApproval)
		if err != nil {
			return nil, err
		}
		a, err := ParseApproval(op, data)
		if err != nil {
			return nil, fmt.Errorf("approval %s: %w", path, err)
		}
		all = append(all, a)
	}
	return all, nil
}

// ReadOperation reads the file with an operation's text.
func ReadOperation(path string) (Operation, error) {
	data, err := readLimited(path, maxText)
	if err != nil {
		return Operation{}, err
	}
	op, err := ParseOperation(data)
	if err != nil {
		return op, fmt.Errorf("%s: %w", path, err)
	}
	return op, nil
}

// WriteOperation writes an operation's text to a new file, for its operators to sign.
func WriteOperation(path string, op Operation) error {
	if err := op.Check(); err != nil {
		return err
	}
	return keyfile.WriteNew(path, op.Bytes(), 0o644)
}
