//go:build cgo

package hsm

import "crypto"

// Wrap puts something between the key and its token.
func (k *Key) Wrap(wrap func(crypto.Signer) crypto.Signer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wrap = wrap
}
