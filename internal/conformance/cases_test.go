package conformance

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/internal/ocspwire"
)

// question is one request, and what the answer must be.
type question struct {
	name string
	der  []byte
	req  *ocspwire.Request // nil: malformed on purpose
	at   *bridge
	want answer
	// unable are judges that cannot read a right answer, and why.
	unable map[string]*limit
}

// limit is something that a judge cannot do, which the page explains below its tables.
type limit struct {
	mark, why string
}

var gnutlsPSS = &limit{"¹", "GnuTLS's OCSP reader takes any RSASSA-PSS signature for one with SHA-256: it does not look at the parameters."}

// asker makes questions.
type asker struct {
	w *world
	b *bridge // where to ask
}

func (a asker) id(h crypto.Hash, serial *big.Int) ocspwire.CertID {
	a.w.t.Helper()
	id, err := ocspwire.NewCertID(h, a.w.ca, serial)
	a.w.must(err)
	return id
}

// about makes a question about certificates, in SHA-1 and without a nonce as most clients ask.
func (a asker) about(name string, want answer, certs ...*cert) *question {
	a.w.t.Helper()
	req := &ocspwire.Request{}
	for _, c := range certs {
		req.Items = append(req.Items, ocspwire.RequestItem{ID: a.id(crypto.SHA1, c.SerialNumber)})
	}
	return a.asking(name, want, req)
}

func (a asker) asking(name string, want answer, req *ocspwire.Request) *question {
	a.w.t.Helper()
	der, err := req.Marshal()
	a.w.must(err)
	return a.raw(name, want, der)
}

// raw reads the request back: an answer repeats CertIDs and nonce as they were sent.
func (a asker) raw(name string, want answer, der []byte) *question {
	q := &question{name: name, der: der, at: a.b, want: want}
	req, err := ocspwire.ParseRequest(der, 1000)
	if err == nil {
		q.req, q.want.nonce = req, req.Nonce
	}
	if want.refusal == "" && q.want.alg == 0 {
		q.want.alg = x509.ECDSAWithSHA256
	}
	return q
}

// What answers say.
func good() answer               { return answer{statuses: []string{"good"}} }
func revoked(why string) answer  { return answer{statuses: []string{"revoked"}, reasons: []string{why}} }
func refused(name string) answer { return answer{refusal: name} }
func unknown() answer            { return answer{statuses: []string{"unknown"}} }

func (a answer) with(marks ...string) answer {
	a.marks = append(a.marks, marks...)
	return a
}

func (a answer) by(alg x509.SignatureAlgorithm) answer {
	a.alg = alg
	return a
}

func (a answer) must() string {
	if a.refusal != "" {
		return a.refusal
	}
	var said []string
	n := 0
	for _, s := range a.statuses {
		if s == "revoked" {
			if a.reasons[n] != "" {
				s += " (" + a.reasons[n] + ")"
			}
			n++
		}
		said = append(said, s)
	}
	text := strings.Join(said, ", ")
	if len(a.marks) > 0 {
		text += "; " + strings.Join(a.marks, ", ")
	}
	return text
}

// statusQuestions are about every status that a certificate can have.
func statusQuestions(w *world) (qs []*question) {
	a := asker{w, w.main}
	qs = append(qs, a.about("issued", good(), w.issue("good.test", "server")))
	for _, reason := range []string{
		"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded", "cessationOfOperation", "certificateHold",
		"privilegeWithdrawn", "aACompromise",
	} {
		c := w.issue(strings.ToLower(reason)+".test", "server")
		w.revoke(c, reason, time.Time{})
		said := reason
		if reason == "unspecified" { // RFC 5280 section 5.3.1: should be left out
			said = ""
		}
		qs = append(qs, a.about("revoked: "+reason, revoked(said), c))
	}
	since := w.issue("since.test", "server")
	w.revoke(since, "keyCompromise", time.Now().Add(-24*time.Hour))
	qs = append(qs, a.about("revoked, invalid since yesterday", revoked("keyCompromise").with(markInvalidity), since))

	held := w.issue("released.test", "server")
	w.revoke(held, "certificateHold", time.Time{})
	w.release(held)
	qs = append(qs, a.about("held, then released", good(), held))
	final := w.issue("final.test", "server")
	w.revoke(final, "certificateHold", time.Time{})
	w.revoke(final, "superseded", time.Time{})
	qs = append(qs, a.about("held, then revoked", revoked("superseded"), final))
	named := asker{w, w.bridges["name"]}
	return append(qs,
		named.about("issued, `responder_id: name`", good().with(markByName), held),
		named.about("revoked, `responder_id: name`", revoked("superseded").with(markByName), final))
}

// neverIssued is a serial number that the CA has not given.
func neverIssued(w *world) *cert {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 150))
	w.must(err)
	return &cert{Certificate: &x509.Certificate{SerialNumber: serial}}
}

func foreignID(w *world, h crypto.Hash) ocspwire.CertID {
	w.t.Helper()
	key := newKey(w, "P-256")
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Foreign CA"}, IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	w.must(err)
	ca, err := x509.ParseCertificate(der)
	w.must(err)
	id, err := ocspwire.NewCertID(h, ca, big.NewInt(4711))
	w.must(err)
	return id
}

func unissuedQuestions(w *world) []*question {
	a := asker{w, w.main}
	never := neverIssued(w)
	foreign := &ocspwire.Request{Items: []ocspwire.RequestItem{{ID: foreignID(w, crypto.SHA256)}}}
	return []*question{
		a.about("never issued", refused("unauthorized"), never),
		a.asking("of a CA that is not on the trust list", refused("unauthorized"), foreign),
		asker{w, w.bridges["unknown"]}.about("never issued, `not_issued: unknown`", unknown(), never),
		asker{w, w.bridges["revoked"]}.about("never issued, `not_issued: revoked`", revoked("certificateHold").with(markExtended), never),
	}
}

// expiredQuestions are about certificates that the wait in between outlives.
func expiredQuestions(w *world) []*question {
	valid, gone := w.issue("brief.test", "brief"), w.issue("brief-revoked.test", "brief")
	w.revoke(gone, "superseded", time.Time{})
	w.until("the brief certificates have expired", func() error {
		if end := gone.NotAfter; !time.Now().After(end.Add(2 * time.Second)) {
			return fmt.Errorf("%s is valid until %s", gone.Subject, end)
		}
		return nil
	})
	a, short := asker{w, w.main}, asker{w, w.bridges["cutoff"]}
	return []*question{
		a.about("expired", good().with(markCutoff), valid),
		a.about("expired, revoked before", revoked("superseded").with(markCutoff), gone),
		short.about("expired before the archive cutoff, `archive_cutoff: 1s`", refused("unauthorized"), valid),
		short.about("revoked and expired before the archive cutoff, `archive_cutoff: 1s`", refused("unauthorized"), gone),
	}
}

func certIDQuestions(w *world) (qs []*question) {
	a := asker{w, w.main}
	good1, never := w.issue("one.test", "server"), neverIssued(w)
	gone := w.issue("two.test", "server")
	w.revoke(gone, "superseded", time.Time{})
	for _, h := range ocspwire.Hashes() {
		id := a.id(h, gone.SerialNumber)
		qs = append(qs,
			a.asking(h.String()+", parameters NULL", revoked("superseded"), &ocspwire.Request{Items: []ocspwire.RequestItem{{ID: id}}}),
			a.asking(h.String()+", parameters absent", revoked("superseded"), &ocspwire.Request{Items: []ocspwire.RequestItem{{ID: ocspwire.CertID{Raw: withoutNull(w, id)}}}}))
	}
	md5 := ocspwire.CertID{Raw: encodeID(w, asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 5}, make([]byte, 16), make([]byte, 16), big.NewInt(5), true)}
	many := &ocspwire.Request{}
	for range 17 {
		many.Items = append(many.Items, ocspwire.RequestItem{ID: a.id(crypto.SHA1, good1.SerialNumber)})
	}
	sixteen := &ocspwire.Request{}
	all := answer{}
	for i := range 16 {
		c := w.issue(fmt.Sprintf("many-%d.test", i), "server")
		sixteen.Items = append(sixteen.Items, ocspwire.RequestItem{ID: a.id(crypto.SHA256, c.SerialNumber)})
		all.statuses = append(all.statuses, "good")
	}
	q := a.asking("sixteen certificates (the most that are answered by default)", all, sixteen)
	return append(qs,
		a.asking("MD5", refused("unauthorized"), &ocspwire.Request{Items: []ocspwire.RequestItem{{ID: md5}}}),
		a.about("three certificates: issued, revoked, never issued", answer{statuses: []string{"good", "revoked", "unknown"}, reasons: []string{"superseded"}}, good1, gone, never),
		a.asking("hashes mixed", answer{statuses: []string{"good", "revoked"}, reasons: []string{"superseded"}}, &ocspwire.Request{Items: []ocspwire.RequestItem{
			{ID: a.id(crypto.SHA512, good1.SerialNumber)}, {ID: a.id(crypto.SHA384, gone.SerialNumber)}}}),
		q,
		a.asking("seventeen certificates", refused("malformedRequest"), many),
	)
}

func withoutNull(w *world, id ocspwire.CertID) []byte {
	var (
		oid       asn1.ObjectIdentifier
		body, alg cryptobyte.String
		s         = cryptobyte.String(id.Raw)
	)
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) || !body.ReadASN1(&alg, cbasn1.SEQUENCE) || !alg.ReadASN1ObjectIdentifier(&oid) {
		w.t.Fatalf("not a CertID: %x", id.Raw)
	}
	return encodeID(w, oid, id.NameHash, id.KeyHash, id.Serial, false)
}

func encodeID(w *world, oid asn1.ObjectIdentifier, name, key []byte, serial *big.Int, null bool) []byte {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oid)
			if null {
				b.AddASN1(cbasn1.NULL, func(*cryptobyte.Builder) {})
			}
		})
		b.AddASN1OctetString(name)
		b.AddASN1OctetString(key)
		b.AddASN1BigInt(serial)
	})
	der, err := b.Bytes()
	w.must(err)
	return der
}
