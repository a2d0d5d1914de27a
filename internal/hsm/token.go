//go:build cgo

package hsm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThalesGroup/crypto11"
	"github.com/miekg/pkcs11"
)

const (
	// reopenPause is between two attempts to reach a token that came to nothing.
	reopenPause = time.Second
	// closeWait is how long a lost connection's calls may take to return before another connection is made beside it.
	closeWait = time.Second
)

// A process may initialise a module, and log in to a token, once (PKCS #11 v2.40 sections 5.4 and 5.6): keys share both.
var (
	modulesMu sync.Mutex
	modules   = map[string]*module{} // by path
)

// module is a PKCS #11 library.
type module struct {
	opening sync.Mutex        // held while a connection is made or ended
	tokens  map[string]*token // by URI.tokenName; guarded by modulesMu
}

// token is what the keys of one token share.
type token struct {
	module *module
	pin    PINSource
	busy   chan struct{}        // a place for each signature in progress
	conn   atomic.Pointer[conn] // nil: none; changed by the holder of module.opening

	// Owned by the holder of module.opening.
	failed   error             // why the last attempt came to nothing
	failedAt time.Time         // and when
	refused  [sha256.Size]byte // hash of the PIN that the token refused last
}

// conn is a login.
type conn struct {
	ctx    *crypto11.Context
	closed atomic.Bool
}

// tokenOf returns the token that u names.
func tokenOf(field string, u *URI) (*token, error) {
	modulesMu.Lock()
	defer modulesMu.Unlock()
	m := modules[u.Module]
	if m == nil {
		m = &module{tokens: map[string]*token{}}
		modules[u.Module] = m
	}
	t := m.tokens[u.tokenName()]
	if t == nil {
		t = &token{module: m, pin: u.PIN, busy: make(chan struct{}, u.Sessions)}
		m.tokens[u.tokenName()] = t
	}
	if t.pin != u.PIN {
		return nil, fault(field, "pin-source", "", "must be the same in all URIs of the token %s", u.tokenName())
	}
	return t, nil
}

// CloseAll logs out of all tokens and unloads the modules. Keys that were opened before fail from then on, or open their token again.
func CloseAll() {
	modulesMu.Lock()
	all := modules
	modules = map[string]*module{}
	modulesMu.Unlock()
	for _, m := range all {
		m.opening.Lock()
		for _, t := range m.list() {
			t.close(time.Minute)
		}
		m.opening.Unlock()
	}
}

func (m *module) list() []*token {
	modulesMu.Lock()
	defer modulesMu.Unlock()
	return slices.Collect(maps.Values(m.tokens))
}

// connect returns a connection other than bad.
func (t *token) connect(bad *conn, u *URI, field string) (*conn, error) {
	if c := t.conn.Load(); c != nil && c != bad {
		return c, nil
	}
	t.module.opening.Lock()
	defer t.module.opening.Unlock()
	if c := t.conn.Load(); c != nil && c != bad {
		return c, nil
	}
	if t.failed != nil && time.Since(t.failedAt) < reopenPause {
		return nil, t.failed
	}
	t.close(closeWait)
	c, err := t.login(u, field)
	if err != nil && !errors.Is(err, ErrPIN) && t.module.closeOthers(t) {
		// With nobody else logged in the module is initialised anew, and looks at its slots as after a start.
		c, err = t.login(u, field)
	}
	t.failed, t.failedAt = err, time.Now()
	if err != nil {
		return nil, err
	}
	t.conn.Store(c)
	return c, nil
}

// close ends the connection. What it has in progress may take until wait; after that it ends by itself.
func (t *token) close(wait time.Duration) {
	c := t.conn.Swap(nil)
	if c == nil {
		return
	}
	c.closed.Store(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.ctx.Close() // its errors are those of a connection that is lost
	}()
	select {
	case <-done:
	case <-time.After(wait):
	}
}

// closeOthers ends the connections to other tokens, which are opened again when they are needed, and says whether there were any.
func (m *module) closeOthers(but *token) (any bool) {
	for _, t := range m.list() {
		if t != but && t.conn.Load() != nil {
			t.close(closeWait)
			any = true
		}
	}
	return any
}

func (t *token) login(u *URI, field string) (*conn, error) {
	at := func(value string, kind, err error, rule string, args ...any) error {
		return &Error{Field: field, Value: value, Rule: fmt.Sprintf(rule, args...), Kind: kind, Err: err}
	}
	if _, err := os.Stat(u.Module); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("the file does not exist")
		}
		return nil, at("module-path="+u.Module, ErrModule, err, "must be a PKCS #11 library")
	}
	pin, err := u.PIN.read(u.tokenName()) // read anew: it may have been changed
	if err != nil {
		return nil, at("pin-source", ErrPIN, err, "must hold the token's PIN")
	}
	sum := sha256.Sum256(pin)
	if sum == t.refused {
		return nil, at(u.tokenName(), ErrPIN, nil, "pin-source still has the one that it refused, which is not tried again: the token would lock itself")
	}
	cfg := &crypto11.Config{Path: u.Module, Pin: string(pin), TokenLabel: u.Token, TokenSerial: u.Serial, SlotNumber: u.Slot,
		MaxSessions: cap(t.busy) + 2, PoolWaitTimeout: u.Timeout}
	ctx, err := crypto11.Configure(cfg)
	if err == nil {
		return &conn{ctx: ctx}, nil
	}
	var code pkcs11.Error
	switch errors.As(err, &code); {
	case code == pkcs11.CKR_PIN_INCORRECT, code == pkcs11.CKR_PIN_INVALID, code == pkcs11.CKR_PIN_LEN_RANGE:
		t.refused = sum
		return nil, at(u.tokenName(), ErrPIN, err, "pin-source must hold the user PIN of this token")
	case code == pkcs11.CKR_PIN_LOCKED, code == pkcs11.CKR_PIN_EXPIRED, code == pkcs11.CKR_USER_PIN_NOT_INITIALIZED:
		return nil, at(u.tokenName(), ErrPIN, err, "the token's user PIN must be in order: its security officer sets it")
	case strings.Contains(err.Error(), "failed to open module"):
		return nil, at("module-path="+u.Module, ErrModule, nil, "must be a PKCS #11 library for this machine")
	case strings.Contains(err.Error(), "could not find PKCS#11 token"):
		return nil, at(u.tokenName(), ErrUnavailable, nil, "no slot of %s has this token", u.Module)
	}
	return nil, at(u.tokenName(), ErrUnavailable, err, "couldn't log in")
}

// lost reports whether err may be the connection's fault, so that another one may help.
func (c *conn) lost(err error) bool { return c.closed.Load() || !requestFault(err) }

// requestFault reports whether the token refused a request for what it is: the same request would be refused again.
func requestFault(err error) bool {
	var code pkcs11.Error
	if !errors.As(err, &code) {
		// crypto11 has no errors to tell apart: those of its pool of sessions, which is over when the connection is, and those of arguments.
		return !strings.Contains(err.Error(), "context is closed") && !strings.Contains(err.Error(), "resource pool")
	}
	switch code {
	case pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_KEY_TYPE_INCONSISTENT, pkcs11.CKR_KEY_SIZE_RANGE, pkcs11.CKR_MECHANISM_INVALID,
		pkcs11.CKR_MECHANISM_PARAM_INVALID, pkcs11.CKR_DATA_INVALID, pkcs11.CKR_DATA_LEN_RANGE, pkcs11.CKR_FUNCTION_NOT_SUPPORTED, pkcs11.CKR_ARGUMENTS_BAD,
		pkcs11.CKR_ATTRIBUTE_SENSITIVE, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID:
		return true
	}
	return false
}
