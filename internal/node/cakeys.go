package node

import (
	"context"
	"crypto"
	"crypto/x509"
	"sync"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/internal/config"
)

// joiner puts a new generation of the CA's key on the trust list; nil: that is for the organisations to decide.
type joiner = func(ctx context.Context, cert *x509.Certificate, chain []*x509.Certificate) error

// caKeys opens the keys of a CA's generations, each in its directory. A passphrase that is asked on the terminal is asked once: it is tried for
// generations that are made later.
func caKeys(section *config.CA) func(dir string) (crypto.Signer, error) {
	var (
		mu     sync.Mutex
		phrase []byte
	)
	return func(dir string) (crypto.Signer, error) {
		return ca.OpenKey(dir, func() ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			if phrase != nil {
				return phrase, nil
			}
			got, err := section.Passphrase.Passphrase("the CA key in " + section.Dir)
			if section.Passphrase.Prompt {
				phrase = got
			}
			return got, err
		})
	}
}
