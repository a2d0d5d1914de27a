package ca

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/problem"
)

// CFSSLSettings are about cfssl's API.
type CFSSLSettings struct {
	Disabled bool `yaml:"disabled,omitempty"` // the API is not there

	// OpenProfiles may be asked for over sign by whoever reaches the server, without authentication, as with a cfssl server whose profiles
	// have no auth_key. Default: none; clients then need a certificate, a token or, with authsign, a key.
	OpenProfiles []string `yaml:"open_profiles,omitempty"`
}

// Names of clients that are in no clients file, where a name begins with a letter or a digit.
const (
	openClient    = "(anyone)"   // followed by the address, which has its own rate and share of the queue
	authKeyClient = "(auth_key)" // followed by the key's name in profiles.json
)

// howOpen stands beside howToken and the others.
const howOpen = "none"

// checkCFSSL refuses settings that do not fit the profiles.
func (s *Server) checkCFSSL() error {
	if s.settings.CFSSL == nil {
		return nil
	}
	for _, name := range s.settings.CFSSL.OpenProfiles {
		switch p := s.issuer.policy.Profiles[name]; {
		case p == nil || name == ResponderProfile:
			return invalid("cfssl.open_profiles", name, "must be a profile of this CA other than %s", ResponderProfile)
		case p.AuthKeyName != "":
			return invalid("cfssl.open_profiles", name, "must be a profile without auth_key, which has %s: open it is not asked for", p.AuthKeyName)
		}
	}
	return nil
}

// open tells whether anybody may ask for a profile.
func (s *Server) open(profile string) bool {
	return s.settings.CFSSL != nil && slices.Contains(s.settings.CFSSL.OpenProfiles, profile)
}

// identity is what the body of a request says about its client, decided before the guard is asked.
type identity struct {
	client  *client
	how     string
	err     error
	authKey string // the name in auth_keys of the key that the client has; empty: it is one of the clients file
}

// identify has the form of access's ways to find a client.
func (id *identity) identify(*http.Request) (c *client, finish func() error, err error) {
	return id.client, nil, id.err
}

type identityKey struct{}

func withIdentity(r *http.Request, id *identity) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), identityKey{}, id))
}

// identified is the hook in access.credential; nil: the request's headers and connection say who asks.
func identified(r *http.Request) *identity {
	id, _ := r.Context().Value(identityKey{}).(*identity)
	return id
}

// authenticates lets the guard see who has made a token over the request, refused tokens too. The body can be read again.
func (s *Server) authenticates(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := readBody(w, r)
		if err != nil {
			problem.Write(w, s.log, err)
			return
		}
		a, err := parseAuthRequest(body)
		if err != nil {
			problem.Write(w, s.log, err)
			return
		}
		next(w, withIdentity(r, s.identify(a)))
	}
}

// identify finds the client whose key made the token. All keys are tried, so that the time taken does not tell which is near.
func (s *Server) identify(a *authRequest) *identity {
	found := &identity{how: howHMAC, err: problem.New(http.StatusUnauthorized, problem.CodeUnauthenticated, "token", "", "must be the HMAC-SHA256 of request under a key of this CA's clients or of auth_keys")}
	keys := s.issuer.policy.cfssl.authKeys
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		if a.madeWith(keys[name]) {
			found = &identity{how: howHMAC, client: &client{name: authKeyClient + name, role: RoleRequester, how: howHMAC}, authKey: name}
		}
	}
	clients := *s.clients.list.Load()
	for i := range clients {
		if c := &clients[i]; c.how == howHMAC && a.madeWith(c.key) {
			found = &identity{how: howHMAC, client: c}
		}
	}
	return found
}

// mayAsk tells whether the client may ask for a profile. Who has a key of auth_keys may ask for the profiles that name it; everybody else's
// role has been looked at.
func (id *identity) mayAsk(name, authKey, previous string) error {
	if id == nil || id.authKey == "" || id.authKey == authKey || id.authKey == previous {
		return nil
	}
	return wire.Errorf(wire.PermissionDenied, "profile", name, "must be a profile whose auth_key or prev_auth_key is %s", id.authKey)
}

func hmacOf(key, message []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	return h.Sum(nil)
}

// maxCFSSLBody leaves room for a request inside authsign's, in base64.
const maxCFSSLBody = maxBody/3*4 + 4<<10

// readBody reads a request's body, which can be read again.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCFSSLBody))
	if err != nil {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return nil, err
		}
		return nil, invalid("body", "", "could not be read: %v", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return body, nil
}
