package ca

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/httpsig"
	"github.com/certanchor/certanchor/internal/metrics"
	"github.com/certanchor/certanchor/internal/msp"
	"github.com/certanchor/certanchor/internal/problem"
)

// maxSignedBody is the longest body of a request that is signed with an HMAC key, in octets: it is held until its digest is known.
const maxSignedBody = 64 << 20

// OperatorSettings let people use the HTTP API with certificates of the organisation's MSP.
type OperatorSettings struct {
	// MSP is the folder with cacerts, intermediatecerts and crls. It is read again when a file in it changes.
	MSP string `yaml:"msp"`

	// Roles says which role here the holder of a role attribute (certanchor.role) has; default: auditor, operator and administrator have the role
	// of that name. An attribute that is not listed gives none.
	Roles map[string]Role `yaml:"roles,omitempty"`
}

func (o *OperatorSettings) validate() error {
	if o == nil {
		return nil
	}
	if o.MSP == "" {
		return invalid("operators.msp", "", "must name a folder with cacerts")
	}
	for attr, role := range o.Roles {
		if attr == "" {
			return invalid("operators.roles", "", "must name values of the attribute %s: who has none has no role", wire.RoleAttribute)
		}
		if allowed[role] == nil {
			return invalid("operators.roles."+attr, string(role), "must be %s", Roles())
		}
	}
	return nil
}

var defaultRoles = map[string]Role{
	wire.RoleAuditor: RoleAuditor, wire.RoleOperator: RoleOperator, wire.RoleAdministrator: RoleAdministrator,
}

// access says who may use the HTTP API. It is safe for concurrent use.
type access struct {
	file   string // the clients file
	mspDir string // empty: no certificates
	roles  map[string]Role
	now    func() time.Time
	log    *slog.Logger

	list    atomic.Pointer[clientList]
	msp     atomic.Pointer[msp.MSP]
	limits  *limits
	nonces  *httpsig.Nonces
	metrics *metrics.Auth

	// of the goroutine that watches
	fileStamp string // of the clients file as it was last read, taken or not
	mspStamp  string
}

func openAccess(dir string, settings Settings, now func() time.Time, m *metrics.Auth, log *slog.Logger) (*access, error) {
	a := &access{
		file: filepath.Join(dir, clientsFile), roles: defaultRoles, now: now, log: log, metrics: m,
		limits: newLimits(settings.Rate, now), nonces: httpsig.NewNonces(now),
	}
	if o := settings.Operators; o != nil {
		a.mspDir = o.MSP
		if o.Roles != nil {
			a.roles = o.Roles
		}
	}
	return a, a.reload(true)
}

// hmacKey returns the key of the HMAC client called name.
func (a *access) hmacKey(name string) ([]byte, bool) {
	if c := a.list.Load().find(name); c != nil && c.how == howHMAC {
		return c.key, true
	}
	return nil, false
}

// authenticate finds the client of a request by the one credential that it has: a bearer token (RFC 6750 section 2.1), a signature (RFC 9421)
// or a certificate. It counts the request against the client's rate, and a failure against the address's. A request of two credentials is
// refused: which of them would count?
func (a *access) authenticate(r *http.Request) (*client, error) {
	how, identify, err := a.credential(r)
	var c *client
	var finish func() error
	if err == nil {
		c, finish, err = identify(r)
	}
	if err != nil {
		a.metrics.Request(how, false)
		if retry := a.limits.failed(r.RemoteAddr); retry > 0 {
			a.metrics.Limited("")
			return nil, problem.TooMany("address", addressOf(r.RemoteAddr), "too many failed authentications from there; one that succeeds is served", retry)
		}
		return nil, err
	}
	if retry := a.limits.take(c); retry > 0 {
		a.metrics.Limited(c.name)
		return nil, problem.TooMany("client", c.name, "is over its rate", retry)
	}
	if finish != nil {
		err = finish()
	}
	a.metrics.Request(how, err == nil)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// credential says which one the request has. finish, if not nil, ends the authentication once the request is within the client's rate.
func (a *access) credential(r *http.Request) (how string, identify func(*http.Request) (*client, func() error, error), err error) {
	var found []string
	if len(r.Header.Values("Authorization")) > 0 {
		found, how, identify = append(found, "Authorization"), howToken, a.byToken
	}
	if httpsig.Present(r) {
		found, how, identify = append(found, "Signature"), howHMAC, a.bySignature
	}
	if a.mspDir != "" && r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		found, how, identify = append(found, "client certificate"), howCertificate, a.byCertificate
	}
	switch len(found) {
	case 1:
		return how, identify, nil
	case 0:
		return "none", nil, unauthenticated("Authorization", "", "must be Bearer and a token of this CA's clients; or the request must be signed with a client's key, or come with a certificate of this organisation's MSP")
	}
	return "several", nil, unauthenticated("credentials", strings.Join(found, ", "), "must be one: a request of two could be taken for another client's")
}

func unauthenticated(field, value, rule string) error {
	return problem.New(http.StatusUnauthorized, problem.CodeUnauthenticated, field, value, rule)
}

// byToken compares every hash, in constant time, so that the time taken tells nothing about any of them.
func (a *access) byToken(r *http.Request) (*client, func() error, error) {
	headers := r.Header.Values("Authorization")
	scheme, token, ok := strings.Cut(headers[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || len(headers) > 1 {
		return nil, nil, unauthenticated("Authorization", "", "must occur once, and be Bearer and a token of this CA's clients")
	}
	hash := sha256.Sum256([]byte(strings.TrimSpace(token)))
	var found *client
	cs := *a.list.Load()
	for i := range cs {
		if subtle.ConstantTimeCompare(hash[:], cs[i].hash[:]) == 1 && cs[i].how == howToken {
			found = &cs[i]
		}
	}
	if found == nil {
		return nil, nil, unauthenticated("Authorization", "Bearer", "the token is not one of this CA's clients")
	}
	return found, nil, nil
}

// nobody's key takes as long to compare as a client's.
var nobody = make([]byte, httpsig.MinKey)

func (a *access) bySignature(r *http.Request) (*client, func() error, error) {
	sig, err := httpsig.Parse(r)
	if err != nil {
		return nil, nil, asUnauthenticated(err)
	}
	c, key := a.list.Load().find(sig.KeyID), nobody
	if c != nil && c.how == howHMAC {
		key = c.key
	} else {
		c = nil
	}
	if !sig.Verify(r, key) || c == nil {
		return nil, nil, unauthenticated("Signature", sig.KeyID, "is not one of this client's key on this request")
	}
	if err := a.nonces.CheckTime(sig, r.Method); err != nil {
		if early, ok := errors.AsType[*httpsig.NotYetError](err); ok {
			return nil, nil, problem.Later("Signature-Input", sig.KeyID, early.Error(), early.Wait)
		}
		return nil, nil, asUnauthenticated(err)
	}
	return c, func() error {
		if err := a.nonces.Use(sig); err != nil {
			return asUnauthenticated(err)
		}
		return bodySigned(r, sig)
	}, nil
}

// bodySigned reads the body and checks its digest, before any of it is acted on.
func bodySigned(r *http.Request, sig *httpsig.Signature) error {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxSignedBody))
	if err != nil {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return err
		}
		return invalid("body", "", "could not be read: %v", err)
	}
	if err := sig.CheckBody(body); err != nil {
		return asUnauthenticated(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}

func asUnauthenticated(err error) error {
	we, ok := errors.AsType[*wire.Error](err)
	if !ok {
		return err
	}
	if we.Code == wire.FailedPrecondition {
		return problem.TooMany(we.Field, we.Value, we.Rule, httpsig.Window)
	}
	return unauthenticated(we.Field, we.Value, we.Rule)
}

// byCertificate takes the TLS connection's certificate, whose key the handshake has proved. It is verified at each request: connections outlive
// certificates and revocations.
func (a *access) byCertificate(r *http.Request) (*client, func() error, error) {
	const field = "client certificate"
	cert := r.TLS.PeerCertificates[0]
	subject := cert.Subject.String()
	if err := a.msp.Load().Verify(cert, a.now()); err != nil {
		return nil, nil, unauthenticated(field, subject, err.Error())
	}
	attr, err := msp.Role(cert)
	if err != nil {
		return nil, nil, unauthenticated(field, subject, err.Error())
	}
	role, ok := a.roles[attr]
	if !ok {
		return nil, nil, unauthenticated(field, subject, fmt.Sprintf("its attribute %s %q gives no role here", wire.RoleAttribute, attr))
	}
	return &client{name: certName(cert.Subject.CommonName, cert.RawSubject), role: role, how: howCertificate}, nil, nil
}

// certPrefix stands before the names of those who have certificates.
const certPrefix = "msp:"

// certName is who a certificate is of, also after its renewal: an MSP gives a common name to one person. One that would not read well in logs gives
// way to a digest of the whole subject.
func certName(cn string, subject []byte) string {
	if clientName.MatchString(cn) {
		return certPrefix + cn
	}
	return fmt.Sprintf("%ssha256-%x", certPrefix, sha256.Sum256(subject))
}

// reload reads the clients file and the MSP again if they have changed, or in any case if all is true. What is refused leaves what was in force.
func (a *access) reload(all bool) error {
	return errors.Join(
		a.reloadOne("clients", stampOf(a.file), &a.fileStamp, all, func() error {
			list, err := loadClients(a.file)
			if err == nil {
				a.list.Store(&list)
			}
			return err
		}),
		a.reloadMSP(all),
	)
}

func (a *access) reloadMSP(all bool) error {
	if a.mspDir == "" {
		return nil
	}
	stamp, err := msp.Fingerprint(a.mspDir)
	if err != nil {
		stamp = err.Error()
	}
	return a.reloadOne("msp", stamp, &a.mspStamp, all, func() error {
		m, err := msp.Load(a.mspDir)
		if err != nil {
			return fmt.Errorf("operators.msp: %w", err)
		}
		if since, stale := m.Stale(a.now()); stale {
			a.log.Warn("a revocation list of the MSP has run out; it counts all the same", "msp", a.mspDir, "next_update", since)
		}
		a.msp.Store(m)
		return nil
	})
}

// reloadOne calls load if stamp is another one than last time.
func (a *access) reloadOne(name, stamp string, last *string, all bool, load func() error) error {
	if stamp == *last && !all {
		return nil
	}
	first := *last == ""
	*last = stamp
	err := load()
	if !first {
		a.metrics.Reloaded(name, err == nil)
		if err == nil {
			a.log.Info("read again", "what", name)
		}
	}
	return err
}

// stampOf changes when a file does.
func stampOf(path string) string {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "absent"
	}
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %d %o", st.Size(), st.ModTime().UnixNano(), st.Mode())
}
