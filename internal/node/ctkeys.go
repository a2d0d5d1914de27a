package node

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/sct"
)

// nextLogKeys opens the keys of the logs of the generations after the first. The organisation's OCSP bridge has them all in one directory, named after their CAs. A
// key_file in it, or named as there, has siblings, which are made when absent as it is; beside one with another name nothing is made, since the bridge would not
// have it, and one that the operator puts there is used. A key in a token has no siblings: nil.
func nextLogKeys(section *config.CA) func(wire.CAID) (*sct.Key, error) {
	ct := section.CT
	return func(id wire.CAID) (*sct.Key, error) {
		if hsm.IsURI(ct.KeyFile) {
			return nil, nil
		}
		seal, err := sealer("ca.ct.key_passphrase", ct.KeyPassphrase)
		if err != nil {
			return nil, err
		}
		first, _, err := ca.LoadCertificate(section.Dir)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(filepath.Dir(ct.KeyFile), id.String()+".pem")
		var key *sct.Key
		if filepath.Base(ct.KeyFile) == wire.CAIDOf(first.RawSubjectPublicKeyInfo).String()+".pem" {
			key, err = sct.LoadOrCreateSealed(path, seal)
		} else if key, err = sct.LoadSealed(path, seal); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("ca.ct.key_file, of the next generation's log: %w", err)
		}
		return key, nil
	}
}
