package ca

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/cloudflare/cfssl/csr"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/problem"
)

// signDoor lets anybody in who asks for an open profile, and all others to the guard. A request with credentials always goes there.
func (s *Server) signDoor(guarded http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.settings.CFSSL != nil && len(s.settings.CFSSL.OpenProfiles) > 0 && !s.hasCredential(r) {
			body, err := readBody(w, r)
			if err != nil {
				problem.Write(w, s.log, err)
				return
			}
			if q, err := parseSignRequest(body); err == nil && s.open(s.profileOr(q.profile)) {
				r = withIdentity(r, &identity{how: howOpen, client: &client{name: openClient + hostOf(r.RemoteAddr), role: RoleRequester, how: howOpen}})
			}
		}
		guarded(w, r)
	}
}

func (s *Server) hasCredential(r *http.Request) bool {
	_, _, err := s.clients.credential(r)
	return err == nil || len(r.Header.Values("Authorization")) > 0
}

// profileOr is the profile of a request that names one or none.
func (s *Server) profileOr(name string) string {
	if name == "" {
		return defaultProfile
	}
	return name
}

// profileFor finds a profile by the name in a request of cfssl's. A name that is not known is refused, where cfssl takes signing.default.
func (s *Server) profileFor(name string) (string, error) {
	known := slices.Sorted(maps.Keys(s.issuer.policy.Profiles))
	known = slices.DeleteFunc(known, func(n string) bool { return n == ResponderProfile })
	switch p := s.issuer.policy.Profiles[s.profileOr(name)]; {
	case name == ResponderProfile:
		return "", invalid("profile", name, "is issued by POST %s only", caapi.PathResponders)
	case p == nil && name == "":
		return "", invalid("profile", "", "must be given, as one of %s: signing.default has no usages or no CSRWhitelist", strings.Join(known, ", "))
	case p == nil:
		return "", invalid("profile", name, "must be one of %s", strings.Join(known, ", "))
	}
	return s.profileOr(name), nil
}

// checkLabel: a cfssl server of several CAs chooses one by label. This one may be called by the names that it has.
func (s *Server) checkLabel(label string) error {
	for _, g := range s.line.list() { // a client's configuration outlives a rotation
		if label == "" || label == g.issuer.cert.Subject.CommonName || label == g.issuer.id.String() {
			return nil
		}
	}
	return invalid("label", label, "must be empty, or this CA's common name or ID: it is the only one here")
}

func (s *Server) cfsslSign(w http.ResponseWriter, r *http.Request, c *client) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	return s.signFor(w, r, c, body, key)
}

// tokenKey cannot be an Idempotency-Key, which has printable characters only.
const tokenKey = "\x00token:"

// cfsslAuthSign answers a request that was answered before with the same certificate. cfssl's token covers nothing but the request, so
// whoever has seen one can repeat it for ever: a certificate that is out, for a key that they do not have, is all that they get.
func (s *Server) cfsslAuthSign(w http.ResponseWriter, r *http.Request, c *client) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	a, err := parseAuthRequest(body)
	if err != nil {
		return err
	}
	return s.signFor(w, r, c, a.request, tokenKey+hex.EncodeToString(a.token))
}

func (s *Server) signFor(w http.ResponseWriter, r *http.Request, c *client, body []byte, key string) error {
	q, err := parseSignRequest(body)
	if err != nil {
		return err
	}
	if err := s.checkLabel(q.label); err != nil {
		return err
	}
	profile, err := s.profileFor(q.profile)
	if err != nil {
		return err
	}
	p := s.issuer.policy.Profiles[profile]
	if err := identified(r).mayAsk(profile, p.AuthKeyName, p.PrevAuthKeyName); err != nil {
		return err
	}
	got, err := s.issueFor(w, r, Request{CSR: q.csr, Profile: profile, Client: c.name, IdempotencyKey: key, override: q.over})
	if err != nil {
		return err
	}
	result := map[string]any{"certificate": string(encodeCert(got.DER))}
	if q.bundle {
		if result["bundle"], err = s.bundle(got); err != nil {
			return err
		}
	}
	s.step(stepReleasing)
	return s.answerCFSSL(w, result)
}

// issueFor issues through Server.Issue, like every other way to a certificate. The header says where it is, to those who ask for more than
// cfssl does and to logs.
func (s *Server) issueFor(w http.ResponseWriter, r *http.Request, req Request) (*Issued, error) {
	// A requester that hangs up must not leave the question open when it can be answered.
	got, err := s.Issue(context.WithoutCancel(r.Context()), req)
	if err != nil {
		return nil, err
	}
	w.Header().Set("Location", caapi.PathCertificates+"/"+got.Serial.String())
	if strings.HasPrefix(req.IdempotencyKey, tokenKey) {
		cert, err := x509.ParseCertificate(got.DER)
		if err != nil {
			return nil, err
		}
		if s.now().After(cert.NotAfter) {
			return nil, wire.Errorf(wire.FailedPrecondition, "token", "", "must not be used again: its certificate, %s, expired at %s; a new certificate takes a new CSR",
				got.Serial, cert.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	s.log.Info("issued", "client", req.Client, "profile", req.Profile, "serial", got.Serial.String(), "log_index", got.Log.Index, "block", got.Block, "api", "cfssl")
	return got, nil
}

// cfsslNewCert makes a key for a requester that wants none of its own. It leaves with the answer and is kept nowhere; so a repetition could
// not give it again, and makes another.
func (s *Server) cfsslNewCert(w http.ResponseWriter, r *http.Request, c *client) error {
	if r.Header.Values(caapi.IdempotencyKey) != nil {
		return invalid(caapi.IdempotencyKey, r.Header.Get(caapi.IdempotencyKey), "must not be given with newcert: the private key is not kept, so a repetition makes another")
	}
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	q, err := parseNewCertRequest(body)
	if err != nil {
		return err
	}
	if err := s.checkLabel(q.label); err != nil {
		return err
	}
	profile, err := s.profileFor(q.profile)
	if err != nil {
		return err
	}
	if !s.issuer.policy.cfssl.newKey[profile] {
		return wire.Errorf(wire.PermissionDenied, "profile", profile, "must be one that lets private keys be made here, with %s in profiles.json", keyNewKey)
	}
	request, key, err := csr.ParseRequest(q.request) // makes the key, too
	if err != nil {
		return invalid("request", "", "must be one of which a CSR can be made: %v", err)
	}
	got, err := s.issueFor(w, r, Request{CSR: string(request), Profile: profile, Client: c.name})
	if err != nil {
		return err
	}
	cert := encodeCert(got.DER)
	result := map[string]any{
		"private_key": string(key), "certificate_request": string(request), "certificate": string(cert),
		"sums": map[string]map[string]string{"certificate_request": sumsOf(request), "certificate": sumsOf(cert)},
	}
	if q.bundle {
		if result["bundle"], err = s.bundle(got); err != nil {
			return err
		}
	}
	s.step(stepReleasing)
	if len(q.request.Hosts) == 0 {
		return s.answerCFSSL(w, result, cfsslMessage{cfsslBadPolicy, "the certificate has no subject alternative name (hosts): TLS clients take it for no server's"})
	}
	return s.answerCFSSL(w, result)
}

// sumsOf are the digests of what is in a PEM block that cfssl gives, for people to compare; nothing relies on the older two.
func sumsOf(text []byte) map[string]string {
	block, _ := pem.Decode(text) // made here
	return map[string]string{
		"md5": fmt.Sprintf("%X", md5.Sum(block.Bytes)), "sha-1": fmt.Sprintf("%X", sha1.Sum(block.Bytes)), "sha-256": fmt.Sprintf("%X", sha256.Sum256(block.Bytes)),
	}
}
