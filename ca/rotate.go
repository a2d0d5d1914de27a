package ca

import (
	"cmp"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/keystate"
	"github.com/certanchor/certanchor/internal/oplog"
)

// RotateOptions describe the next generation of a CA's key.
type RotateOptions struct {
	Dir        string            // of the CA
	Subject    pkix.Name         // default: the CA's own; the keys tell the two apart
	Algorithm  keyfile.Algorithm // default P256
	Validity   time.Duration     // default: as long as the present certificate
	KeyURI     string            // see InitOptions; another key than the present one
	Passphrase func() ([]byte, error)
	Request    bool   // make a request for a certificate of a root
	Again      bool   // although the present key has been in use for less than settledAfter
	Status     bool   // make nothing
	By         string // default: the user of this process
	Now        func() time.Time

	Iterations int // see InitOptions
}

// Rotation is how far one has come.
type Rotation struct {
	Dir         string            // of the next generation
	Made        bool              // by this call
	Certificate *x509.Certificate // of it; nil: it waits for one, Request has what a root is to certify
	Request     string            // path
	State       keystate.State    // of its key
	Old         *x509.Certificate // of the generation before
	OldState    keystate.State
}

// Rotate makes the next generation of the CA's key in a directory within the CA's own, whole or not at all, or tells how far an earlier call has come. A CA that runs finds
// it by itself, and puts it in the place of the present one as soon as the ledger trusts it.
func Rotate(o RotateOptions) (_ *Rotation, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.By = cmp.Or(o.By, userName())
	unlock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	all, err := generationsIn(o.Dir)
	if err != nil {
		return nil, err
	}
	last := all[len(all)-1]
	state, err := last.state()
	if err != nil {
		return nil, err
	}
	if n := len(all); n > 1 {
		young, err := last.young(o.Now())
		if err != nil {
			return nil, err
		}
		// Who asks again how far a rotation has come does not mean another one.
		if state == keystate.Generated || o.Status || young && !o.Again {
			return rotationOf(all[n-2], last, false)
		}
	}
	next := generationDir{dir: filepath.Join(last.dir, nextDir)}
	if _, err := os.Stat(filepath.Join(next.dir, RequestFile)); err == nil {
		return rotationOf(last, next, false)
	}
	if o.Status {
		return nil, fmt.Errorf("dir %q: no rotation was begun", o.Dir)
	}
	if err := sweep(last.dir); err != nil {
		return nil, err
	}
	init, err := o.init(last, next.dir)
	if err != nil {
		return nil, err
	}
	err = o.recorded(last, func() error {
		res, err := Init(init)
		if err == nil {
			next.cert = res.Certificate
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return rotationOf(last, next, true)
}

// recorded runs fn with a record in the operators' log. A CA that runs has that for itself, and records the new key when it takes it up (Server.takenUp).
func (o *RotateOptions) recorded(last generationDir, fn func() error) error {
	began := false
	e := oplog.Entry{Actor: o.By, Action: "make the next key", Target: keyName(last.cert)}
	err := recordedOffline(o.Dir, e, func() error {
		began = true
		return fn()
	})
	if !began && errors.Is(err, oplog.ErrLocked) {
		return fn()
	}
	return err
}

// settledAfter is how long after a rotation another one is asked for on purpose only.
const settledAfter = 24 * time.Hour

// young reports whether the key has been in use for less than settledAfter.
func (g *generationDir) young(now time.Time) (bool, error) {
	history, err := keystate.Read(filepath.Join(g.dir, keystate.File), keyName(g.cert))
	for _, r := range history {
		if r.From == keystate.Generated && now.Sub(r.Time) < settledAfter {
			return true, err
		}
	}
	return false, err
}

func (o *RotateOptions) init(last generationDir, dir string) (InitOptions, error) {
	c := last.cert
	init := InitOptions{
		Dir: dir, Subject: o.Subject, Algorithm: o.Algorithm, KeyURI: o.KeyURI, PathLen: max(0, c.MaxPathLen), Request: o.Request, By: o.By, Now: o.Now,
		Validity: cmp.Or(o.Validity, c.NotAfter.Sub(c.NotBefore).Truncate(time.Hour)), successor: true, other: c.PublicKey, Iterations: o.Iterations,
	}
	if init.Subject.CommonName == "" {
		init.Subject = c.Subject
		init.rawSubject = c.RawSubject
	}
	var err error
	if o.KeyURI == "" {
		init.Passphrase, err = o.Passphrase()
	}
	return init, err
}

func rotationOf(old, next generationDir, made bool) (*Rotation, error) {
	r := &Rotation{Dir: next.dir, Made: made, Certificate: next.cert, Old: old.cert, State: keystate.Generated}
	var err error
	if r.OldState, err = old.state(); err != nil {
		return nil, err
	}
	if next.cert == nil {
		r.Request = filepath.Join(next.dir, RequestFile)
		return r, nil
	}
	r.State, err = next.state()
	return r, err
}

// sweep removes what Init left beside the next generation when it was killed.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), initPrefix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// lockDir keeps other rotations out of a CA's directory.
func lockDir(dir string) (unlock func() error, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("dir %q: another rotation is at work: %w", dir, err), d.Close())
	}
	return d.Close, nil
}

// FinishRotation is Finish for the generation of the CA in o.Dir that Rotate made a request for. Its key is active as soon as the ledger trusts it.
func FinishRotation(o FinishOptions) error {
	all, err := generationsIn(o.Dir)
	if err != nil {
		return err
	}
	o.successor = true
	o.Dir = filepath.Join(all[len(all)-1].dir, nextDir)
	if _, err := os.Stat(o.Dir); errors.Is(err, fs.ErrNotExist) && len(all) > 1 {
		o.Dir = all[len(all)-1].dir // it has its certificate already
	}
	return Finish(o)
}
