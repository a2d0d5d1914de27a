package ca

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/dual"
	"github.com/certanchor/certanchor/internal/keystate"
	"github.com/certanchor/certanchor/internal/oplog"
)

// ChangeKeyOffline is Server.ChangeKey for the CA in dir while it does not run. caID may be empty where there is one generation. Errors: oplog.ErrLocked when it
// runs; a change that needs several operators, who sign over the running CA's API.
func ChangeKeyOffline(dir, caID string, c KeyChange) (k *caapi.Key, err error) {
	g, err := generationIn(dir, caID)
	if err != nil {
		return nil, err
	}
	e := oplog.Entry{Actor: c.By, Action: "key becomes " + string(c.To), Target: keyName(g.cert), Detail: map[string]string{"why": c.Why}}
	err = recordedOffline(dir, e, func() error {
		k, err = changeKeyOffline(dir, g, c)
		return err
	})
	if errors.Is(err, oplog.ErrLocked) {
		err = fmt.Errorf("%w: the CA runs, and takes changes over its API (--ca-url, --token-file): %w", keystate.ErrLocked, err)
	}
	return k, err
}

func changeKeyOffline(dir string, g *generationDir, c KeyChange) (_ *caapi.Key, err error) {
	c.How = commandLine
	states, err := keystate.Open(filepath.Join(g.dir, keystate.File), keyName(g.cert))
	if errors.Is(err, keystate.ErrLocked) {
		err = fmt.Errorf("%w: the CA runs, and takes changes over its API (--ca-url, --token-file)", err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, states.Close()) }()
	now := time.Now()
	last := states.Last()
	switch {
	case c.To == keystate.Destroyed:
		if err := mayDestroy(wire.CAIDOf(g.cert.RawSubjectPublicKeyInfo), c, g.needed(last), now); err != nil {
			return nil, err
		}
	case last.To == keystate.Suspended:
		policy, err := dual.LoadPolicy(dir)
		if err != nil {
			return nil, err
		}
		if policy.Needs(dual.KindKeyResume, 1) {
			return nil, wire.Errorf(wire.PermissionDenied, "to", string(c.To), "the CA's policy wants several operators for it: start the CA and ask it over its API")
		}
	}
	if last.To == keystate.Destroyed && c.To == keystate.Destroyed { // and the process died before the key was gone
		return g.describe(states), eraseKey(g.dir)
	}
	if _, err := states.Change(keystate.Change{To: c.To, By: c.By, How: c.How, Why: c.Why, At: now}); err != nil {
		return nil, err
	}
	if c.To == keystate.Destroyed {
		if err := eraseKey(g.dir); err != nil {
			return nil, fmt.Errorf("the key is destroyed as far as the CA is concerned, but couldn't be removed; do it again: %w", err)
		}
	}
	return g.describe(states), nil
}

// KeyOffline describes the key of the CA in dir, running or not.
func KeyOffline(dir, caID string) (*caapi.Key, error) {
	g, err := generationIn(dir, caID)
	if err != nil {
		return nil, err
	}
	history, err := keystate.Read(filepath.Join(g.dir, keystate.File), keyName(g.cert))
	if err != nil {
		return nil, err
	}
	var last keystate.Record
	if n := len(history); n > 0 {
		last = history[n-1]
	}
	return describeKey(wire.CAIDOf(g.cert.RawSubjectPublicKeyInfo), history, g.needed(last)), nil
}

func (g *generationDir) describe(states *keystate.Store) *caapi.Key {
	return describeKey(wire.CAIDOf(g.cert.RawSubjectPublicKeyInfo), states.History(), g.needed(states.Last()))
}

// needed is Server.neededUntil without the ledger: the end of the CA certificate, which no certificate of it outlives. A key that was never in use needs nothing.
func (g *generationDir) needed(last keystate.Record) time.Time {
	if last.To == keystate.Generated || last.From == keystate.Generated && last.To == keystate.Destroyed {
		return last.Time
	}
	return g.cert.NotAfter
}
