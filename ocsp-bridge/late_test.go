package ocspbridge_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ocspwire"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
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

// journalText is a log that can be read while it is written.
type journalText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journalText) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journalText) count(s string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), s)
}

// A security module that fails silences nobody whose answer is kept and holds, and it does not fill the log.
func TestAKeptAnswerIsGivenWhileTheKeyCannotSign(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(2)
	log := &journalText{}
	b := w.start("bridge", func(c *ocspbridge.Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) }).ready()
	der := request(t, w.ca.Cert, nil, certs[0])
	_, first := b.post(der)
	w.clock.Advance(30 * time.Second) // due, and not dead
	b.applied(w.tick())
	b.BreakKeys(errors.New("the token is gone"))
	for range 5 {
		if _, again := b.post(der); !bytes.Equal(again, first) {
			t.Errorf("not the answer of before: %s", b.single(der))
		}
	}
	b.want(certs[1], "internalError")
	if n := log.count("the token is gone"); n != 1 {
		t.Errorf("%d lines about it in one moment, want 1", n)
	}
	b.applied(w.revoke(certs[0], wire.KeyCompromise))
	b.want(certs[0], "internalError") // what is kept is not true any more
	w.clock.Advance(11 * time.Second)
	b.want(certs[0], "internalError")
	if n := log.count("left_out_since_the_last=6"); n != 1 {
		t.Error("the log does not tell how many lines were left out")
	}
}
