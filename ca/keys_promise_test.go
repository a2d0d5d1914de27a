package ca

import (
	"testing"

	"github.com/certanchor/certanchor/internal/keystate"
)

// TestPromisesOfAKeyOutOfUse: a precertificate that is on the ledger has its certificate from a retired key at once, from a suspended one when it is resumed. Neither
// promises anything new.
func TestPromisesOfAKeyOutOfUse(t *testing.T) {
	for _, to := range []keystate.State{keystate.Retired, keystate.Suspended} {
		t.Run(string(to), func(t *testing.T) {
			var w *world
			var changed error
			done := false
			become := func(to keystate.State) error {
				return w.server.ChangeKey(t.Context(), KeyChange{To: to, ends: w.server.custody.states.Last().Seq, By: "alice", How: "test", Why: "test"})
			}
			w, p := ctWorld(t, 1, 1, func(c *Config) {
				c.step = func(s string) {
					if s == stepStampsRecorded && !done {
						done, changed = true, become(to)
					}
				}
			})
			req := Request{CSR: newCSR(t, nil), Profile: "server", Client: "c", IdempotencyKey: "k"}
			got, err := w.server.Issue(t.Context(), req)
			if changed != nil {
				t.Fatal(changed)
			}
			if to == keystate.Suspended {
				if err == nil {
					t.Fatal("signed with a suspended key")
				}
				w.server.resolveRound(t.Context())
				if open(w.server) != 1 || w.logSize() != 1 {
					t.Fatal("finished with a suspended key")
				}
			}
			if _, err := w.server.Issue(t.Context(), Request{CSR: newCSR(t, nil), Profile: "server"}); err == nil || w.logSize() > 2 {
				t.Fatalf("a key that is %s promises something: %v", to, err)
			}
			if to == keystate.Suspended {
				if err := become(keystate.Active); err != nil {
					t.Fatal(err)
				}
				got, err = w.server.Issue(t.Context(), req)
			}
			if err != nil {
				t.Fatal(err)
			}
			if w.logSize() != 2 {
				t.Errorf("%d entries on the ledger", w.logSize())
			}
			p.checkSCTs(t, w, got.DER, 1)
			checkPair(t, w, got.DER)
		})
	}
}
