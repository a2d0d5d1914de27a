package conformance

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ocspwire"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

const intro = `# OCSP conformance

This page is written by the tests (` + "`go test ./internal/conformance -update`" + `), and they fail when it is not what they show. A CA bridge and OCSP bridges
run on an embedded ledger, each behind the HTTP server that it has in production. Every question below is asked with GET and with POST,
and each answer is read by three judges: this project's own strict reader and verifier, ` + "`openssl ocsp`" + ` and GnuTLS ` + "`ocsptool`" + `.

"yes": the judge accepts the answer, its signature and the responder's certificate, and reads in it what must be there. "**no**": it does not.
ocsptool tells no reasons and no extensions but the nonce, so it says nothing about those. Settings are the defaults but where a line names one.
`

// TestConformance is the table of docs/ocsp-conformance.md.
func TestConformance(t *testing.T) {
	w := newWorld(t)
	needTools(w, "openssl", "ocsptool", "curl", "nginx")
	w.others()
	tb := &table{t: t}
	tb.out.WriteString(intro)
	for _, s := range []struct {
		title, text string
		questions   func(*world) []*question
	}{
		{"Status", "What the ledger says of a certificate is what the answer says.", statusQuestions},
		{"Certificates that were never issued", "RFC 6960 section 2.2, RFC 5019 section 2.2.3.", unissuedQuestions},
		{"Certificates that have expired", "RFC 6960 section 4.4.4.", expiredQuestions},
		{"CertIDs", "RFC 6960 section 4.1.1, RFC 5754 section 2.", certIDQuestions},
		{"Nonces", "RFC 9654: 1 to 128 octets, which come back.", nonceQuestions},
		{"Extensions of requests", "RFC 6960 section 4.4.", extensionQuestions},
		{"Requestors and signed requests", "RFC 6960 section 4.1.2.", requestorQuestions},
		{"Signature algorithms", "RFC 6960 section 4.4.7. The answer must be signed with the algorithm that is said.", algorithmQuestions},
	} {
		tb.section(s.title, s.text, "Question", "Answer must be", "GET: own", "OpenSSL", "GnuTLS", "POST: own", "OpenSSL", "GnuTLS")
		for _, q := range s.questions(w) {
			tb.ask(w, q)
		}
	}
	tb.forms(w)
	tb.http(w)
	tb.clients(w)
	tb.responders(w)
	tb.stapling(w)
	tb.limits(gnutlsPSS)
	tb.compare()
}

// ask puts a question in both ways, and shows the answers to every judge.
func (tb *table) ask(w *world, q *question) {
	var cells []error
	for _, way := range []func(*bridge, []byte) (*exchange, error){w.get, w.post} {
		e, err := way(q.at, q.der)
		cells = append(cells, tb.judged(w, q, e, err)...)
	}
	must := q.want.must()
	if len(q.want.statuses) > 3 {
		must = fmt.Sprintf("%d × %s", len(q.want.statuses), q.want.statuses[0])
	}
	if q.want.alg != 0 && q.want.alg != x509.ECDSAWithSHA256 {
		must += ", " + q.want.alg.String()
	}
	tb.row(q.name, must, cells...)
}

// judged is a cell for each judge.
func (tb *table) judged(w *world, q *question, e *exchange, err error) (cells []error) {
	if err == nil {
		err = checkHTTP(e, 200, q.want.refusal != "" || q.want.nonce != nil)
	}
	for _, j := range judges {
		said := err
		if said == nil {
			var got *answer
			if got, said = j.read(w, q, e.body); said == nil {
				if differs := j.agrees(got, &q.want); differs != "" {
					said = fmt.Errorf("%s", differs)
				}
			}
		}
		if l := q.unable[j.name]; l != nil && said != nil {
			said = &unableError{l}
		} else if said != nil {
			said = fmt.Errorf("%s: %w", j.name, said)
		}
		cells = append(cells, said)
	}
	return cells
}

// others starts the bridges with settings and keys that are not the default ones.
func (w *world) others() {
	w.bridges = map[string]*bridge{}
	for name, set := range map[string]func(*ocspbridge.Settings){
		"unknown": func(s *ocspbridge.Settings) { s.NotIssued = ocspbridge.NotIssuedUnknown },
		"revoked": func(s *ocspbridge.Settings) { s.NotIssued = ocspbridge.NotIssuedRevoked },
		"cutoff":  func(s *ocspbridge.Settings) { s.ArchiveCutoff = time.Second },
		"verify":  func(s *ocspbridge.Settings) { s.SignedRequests = ocspbridge.SignedVerify },
		"prefix":  func(s *ocspbridge.Settings) { s.OCSPPath = "/pki/status" },
		"name":    func(s *ocspbridge.Settings) { s.ResponderID = ocspbridge.ResponderByName },
		"root":    func(s *ocspbridge.Settings) { s.OCSPPath = "/" },
	} {
		w.bridges[name] = w.bridgeOf(name, newKey(w, "P-256"), func(c *ocspbridge.Config) { set(&c.Settings) })
	}
	for _, kind := range []string{"P-384", "RSA", "Ed25519"} {
		w.bridges[kind] = w.bridgeOf(kind, newKey(w, kind), nil)
	}
}

// certify has the CA's key sign a responder certificate that the CA bridge would not, and brings it to the ledger: the CA uses
// other software too.
func (w *world) certify(name string, pub any) []byte {
	w.t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	w.must(err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "responder " + name}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		ExtraExtensions: []pkix.Extension{{Id: ocspwire.OIDNoCheck, Value: []byte{5, 0}}},
	}, w.ca, pub, w.caKey)
	w.must(err)
	_, err = w.node.Connect(wire.RoleOperator).Submit(w.t.Context(), wire.FnIssue, wire.Encode(wire.NewIssueArg(w.caID, [][]byte{der})))
	w.must(err)
	return der
}
