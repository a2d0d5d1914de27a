package ocspbridge

import (
	"crypto"
	"errors"
	"io"
)

// brokenKey is one that its security module does not sign with.
type brokenKey struct {
	crypto.Signer
	err error
}

func (k brokenKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, k.err }

// BreakKeys has the responder keys that are in use fail. No request may be under way.
func (b *Bridge) BreakKeys(err error) {
	for _, ca := range b.index.View().CAs() {
		ids, _ := b.responders.Signers(ca, b.cfg.Now())
		for _, id := range ids {
			id.Key = brokenKey{id.Key, err}
		}
	}
}

// HoldSigners keeps all signers of answers that are not kept (live) or of those that are at work until release is called.
func (b *Bridge) HoldSigners(live bool) (release func()) {
	lane := b.signers
	if live {
		lane = b.live
	}
	stop, started, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	n := b.cfg.Settings.signers()
	for range n {
		go func() {
			_, _ = lane.Do(func() ([]byte, error) {
				started <- struct{}{}
				<-stop
				return nil, errors.New("held")
			})
			ended <- struct{}{}
		}()
		<-started
	}
	return func() {
		close(stop)
		for range n {
			<-ended
		}
	}
}

// Waiting is how many requests wait for a signer.
func (b *Bridge) Waiting() int { return b.ocspState().Waiting }

// KeptAnswers is how many answers are kept.
func (b *Bridge) KeptAnswers() int { return b.ocspState().KeptAnswers }

// PlainCertID and DecodePath are what their names say, for fuzzing.
func PlainCertID(der []byte) []byte { return plainCertID(der) }

// DecodePath decodes into a buffer of its own.
func DecodePath(text string, limit int) ([]byte, error) {
	return decodePath(text, limit, &buffer{data: make([]byte, 64)})
}
