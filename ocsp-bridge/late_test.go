package ocspbridge_test

import (
	"crypto/x509"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ocspwire"
)

// A request is decided, waits for a signer, and is answered after a block with a revocation is applied: with what the block says.
func TestAnAnswerThatWaitedForItsSignerSaysWhatHoldsWhenItIsGiven(t *testing.T) {
	for what, c := range map[string]struct {
		live   bool
		nonce  []byte
		others int
	}{
		"to be kept":           {},
		"with a nonce":         {live: true, nonce: []byte("nonce")},
		"several certificates": {live: true, others: 2},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			certs := w.issue(c.others + 2)
			b := w.start("bridge", nil).ready()
			last := certs[c.others]
			der := request(t, w.ca.Cert, c.nonce, append([]*x509.Certificate{}, certs[:c.others+1]...)...)
			release := b.HoldSigners(c.live)
			got := make(chan []byte, 1)
			go func() {
				_, answer := b.post(der)
				got <- answer
			}()
			b.until("it waits", func() (bool, string) { return b.Waiting() == 1, "not yet" })
			b.applied(w.revoke(last, wire.KeyCompromise))
			release()
			status, resp, err := ocspwire.ParseResponse(<-got)
			if err != nil || status != ocspwire.Successful {
				t.Fatalf("%s, %v", status, err)
			}
			for i, single := range resp.Responses {
				want := ocspwire.Good
				if i == c.others {
					want = ocspwire.Revoked
				}
				if single.Status != want {
					t.Errorf("certificate %d: %s, want %s", i, single.Status, want)
				}
			}
			b.want(last, "revoked")
			b.want(certs[c.others+1], "good")
		})
	}
}
