package ctapi

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctapi/ctapitest"
	"github.com/certanchor/certanchor/internal/ctleaf"
)

// bare is a template's tweak: an end-entity certificate, as far as basicConstraints go.
func bare(c *x509.Certificate) { c.IsCA = false }

// poisonedTwice makes what crypto/x509 refuses to read: the extension after the poison gets the poison's identifier. Its signature
// fails too, but that comes later.
func poisonedTwice(t *testing.T, ca *cctest.CA) []byte {
	t.Helper()
	other := slices.Clone(ctleaf.OIDPoison)
	other[len(other)-1]++
	der, _ := ca.Issue(t, ctapitest.Poison, func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: other, Critical: true, Value: []byte{5, 0}})
	})
	mark := func(id asn1.ObjectIdentifier) []byte {
		b, err := asn1.Marshal(id)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return bytes.Replace(der, mark(other), mark(ctleaf.OIDPoison), 1)
}

func TestChainsThatAreRefused(t *testing.T) {
	l, ledger := fixture(t)
	ca, root := ledger.CA, ledger.Root
	leaf, pre := ledger.Chain(t)[0], ledger.Chain(t, ctapitest.Poison)[0]

	stranger := cctest.NewCA(t)
	strangers, _ := stranger.Issue(t)
	named := func(of *cctest.CA) cctest.CAOption { // of's name on another key
		return cctest.WithTemplate(func(c *x509.Certificate) { c.RawSubject = of.Cert.RawSubject })
	}
	impostor := cctest.NewCA(t, named(ca))
	forged, _ := impostor.Issue(t)
	otherRoot := cctest.NewCA(t)
	cross := cctest.NewCA(t, cctest.WithKey(ca.Key), cctest.WithParent(otherRoot), named(ca))
	notCA := cctest.NewCA(t, cctest.WithKey(ca.Key), cctest.WithParent(root), named(ca), cctest.WithTemplate(bare))
	noCertSign := cctest.NewCA(t, cctest.WithKey(ca.Key), cctest.WithParent(root), named(ca),
		cctest.WithTemplate(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }))
	middle := cctest.NewCA(t, cctest.WithParent(root), cctest.WithTemplate(bare))
	byMiddle := cctest.NewCA(t, cctest.WithKey(ca.Key), cctest.WithParent(middle), named(ca))
	signing := cctest.NewCA(t, cctest.WithParent(ca), cctest.WithTemplate(func(c *x509.Certificate) {
		c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{oidPrecertSigning}
	}))
	bySigning, _ := signing.Issue(t, ctapitest.Poison)
	byRoot, _ := root.Issue(t)
	twice := [][]byte{poisonedTwice(t, ca), ca.DER}
	flipped := append([]byte{}, leaf...)
	flipped[len(flipped)-1] ^= 1
	huge := make([]byte, wire.MaxCertDER+1)
	long := append(ledger.Chain(t), make([][]byte, 8)...)
	for i := 3; i < len(long); i++ {
		long[i] = root.DER
	}

	for name, c := range map[string]struct {
		to    string
		chain [][]byte
		words []string
	}{
		"empty":                         {"add-chain", [][]byte{}, []string{"chain", "1 to 10"}},
		"too long":                      {"add-chain", long, []string{"chain", "1 to 10"}},
		"empty certificate":             {"add-chain", [][]byte{leaf, {}}, []string{"chain[1]", fmt.Sprintf("1 to %d", wire.MaxCertDER)}},
		"huge certificate":              {"add-chain", [][]byte{leaf, huge}, []string{"chain[1]", fmt.Sprintf("1 to %d", wire.MaxCertDER)}},
		"no certificate":                {"add-chain", [][]byte{{0x30, 0}}, []string{"chain[0]", "RFC 5280"}},
		"no certificate after the leaf": {"add-chain", [][]byte{leaf, {0x30, 0}}, []string{"chain[1]", "RFC 5280"}},
		"octets after the certificate":  {"add-chain", [][]byte{append(append([]byte{}, leaf...), 0)}, []string{"chain[0]"}},
		"reversed":                      {"add-chain", [][]byte{root.DER, ca.DER, leaf}, []string{"chain[1]", "must be the issuer of chain[0]"}},
		"root before the CA":            {"add-chain", [][]byte{leaf, root.DER, ca.DER}, []string{"chain[1]", "must be the issuer of chain[0]"}},
		"CA twice":                      {"add-chain", [][]byte{leaf, ca.DER, ca.DER}, []string{"chain[2]", "must be the issuer of chain[1]"}},
		"the CA itself":                 {"add-chain", [][]byte{ca.DER, root.DER}, []string{"chain[0]", "not one of the CA's own key"}},
		"another CA's":                  {"add-chain", [][]byte{strangers, stranger.DER}, []string{"chain[1]", "the CA that this log is for"}},
		"another CA's, alone":           {"add-chain", [][]byte{strangers}, []string{"chain[0]", "get-roots"}},
		"of the root, alone":            {"add-chain", [][]byte{byRoot}, []string{"chain[0]", "get-roots"}},
		"of the root":                   {"add-chain", [][]byte{byRoot, root.DER}, []string{"chain[1]", "the CA that this log is for"}},
		"a CA of the same name":         {"add-chain", [][]byte{forged, impostor.DER}, []string{"chain[1]", "the CA that this log is for"}},
		"forged":                        {"add-chain", [][]byte{forged, ca.DER}, []string{"chain[0].signature", "chain[1]"}},
		"forged, alone":                 {"add-chain", [][]byte{forged}, []string{"chain[0].signature"}},
		"signature with a flipped bit":  {"add-chain", [][]byte{flipped, ca.DER}, []string{"chain[0].signature"}},
		"an unknown root":               {"add-chain", [][]byte{leaf, cross.DER, otherRoot.DER}, []string{"chain[2]", "get-roots"}},
		"an unknown root, not sent":     {"add-chain", [][]byte{leaf, cross.DER}, []string{"chain[1]", "get-roots"}},
		"an issuer that is no CA":       {"add-chain", [][]byte{leaf, notCA.DER, root.DER}, []string{"chain[1]", "basicConstraints"}},
		"an issuer without keyCertSign": {"add-chain", [][]byte{leaf, noCertSign.DER, root.DER}, []string{"chain[1]", "keyCertSign"}},
		"an intermediate that is no CA": {"add-chain", [][]byte{leaf, byMiddle.DER, middle.DER, root.DER}, []string{"chain[2]", "basicConstraints"}},
		"precertificate to add-chain":   {"add-chain", [][]byte{pre, ca.DER}, []string{"chain[0]", "poison", "add-pre-chain"}},
		"certificate to add-pre-chain":  {"add-pre-chain", [][]byte{leaf, ca.DER}, []string{"chain[0]", "poison", "add-chain"}},
		"two poisons to add-pre-chain":  {"add-pre-chain", twice, []string{"chain[0]", "exactly one poison"}},
		"two poisons to add-chain":      {"add-chain", twice, []string{"chain[0]", "poison"}},
		"a poison that is not critical": {"add-pre-chain", ledger.Chain(t, ctapitest.PoisonAs(false, []byte{5, 0})), []string{"chain[0]", "must be critical"}},
		"a poison with a value":         {"add-pre-chain", ledger.Chain(t, ctapitest.PoisonAs(true, []byte{1, 1, 0xff})), []string{"chain[0]", "0101ff", "NULL"}},
		"a precertificate signing cert": {"add-pre-chain", [][]byte{bySigning, signing.DER, ca.DER, root.DER}, []string{"chain[1]", "Precertificate Signing Certificate"}},
	} {
		t.Run(name, func(t *testing.T) {
			refusal(t, l, c.to, ctapitest.Body(c.chain...), http.StatusBadRequest, c.words...)
		})
	}
	if ledger.Calls() != 0 {
		t.Errorf("%d of them reached the ledger", ledger.Calls())
	}
}

func TestChainsThatAreTaken(t *testing.T) {
	l, ledger := fixture(t)
	ca, root := ledger.CA, ledger.Root
	renewed := cctest.NewCA(t, cctest.WithKey(ca.Key), cctest.WithParent(root), cctest.WithTemplate(func(c *x509.Certificate) { c.RawSubject = ca.Cert.RawSubject }))
	for name, more := range map[string][][]byte{
		"alone": {}, "up to the CA": {ca.DER}, "up to the root": {ca.DER, root.DER},
		"a renewed CA": {renewed.DER, root.DER}, "a renewed CA, root not sent": {renewed.DER},
	} {
		leaf, pre := ledger.Chain(t)[0], ledger.Chain(t, ctapitest.Poison)[0]
		if w := ask(l, "add-chain", ctapitest.Body(append([][]byte{leaf}, more...)...)); w.Code != http.StatusOK {
			t.Errorf("%s: status %d: %s", name, w.Code, w.Body)
		}
		if w := ask(l, "add-pre-chain", ctapitest.Body(append([][]byte{pre}, more...)...)); w.Code != http.StatusOK {
			t.Errorf("%s, precertificate: status %d: %s", name, w.Code, w.Body)
		}
	}
}

// A cross-certificate that joins the trust list is a root from then on, without a restart; what is immutable stays.
func TestTrustListMayGrow(t *testing.T) {
	l, ledger := fixture(t)
	other := cctest.NewCA(t)
	cross := cctest.NewCA(t, cctest.WithKey(ledger.CA.Key), cctest.WithParent(other), cctest.WithTemplate(func(c *x509.Certificate) { c.RawSubject = ledger.CA.Cert.RawSubject }))
	chain := ctapitest.Body(ledger.Chain(t)[0], cross.DER)
	refusal(t, l, "add-chain", chain, http.StatusBadRequest, "get-roots")
	ledger.Record.Certs = append(ledger.Record.Certs, cross.DER)
	if w := ask(l, "add-chain", chain); w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	var roots rootsAnswer
	decode(t, ask(l, "get-roots", nil), &roots)
	if len(roots.Certificates) != 3 {
		t.Errorf("%d roots, want 3", len(roots.Certificates))
	}
	var page entriesAnswer
	decode(t, ask(l, "get-entries?start=0&end=0", nil), &page)
	want, err := certificateChain([][]byte{ledger.CA.DER, ledger.Root.DER})
	if err != nil || string(page.Entries[0].ExtraData) != string(want) {
		t.Error("extra_data is not the chain that the CA was registered with")
	}
}

func TestLogOfARootCA(t *testing.T) {
	ledger := ctapitest.New(t)
	root := cctest.NewCA(t)
	ledger.CA, ledger.Root = root, root
	ledger.Record = &wire.CARecord{V: wire.Version, Certs: [][]byte{root.DER}}
	l := newLog(t, config(t, ledger))
	for n := 1; n <= 2; n++ {
		leaf, _ := root.Issue(t)
		if w := ask(l, "add-chain", ctapitest.Body([][]byte{leaf, root.DER}[:n]...)); w.Code != http.StatusOK {
			t.Errorf("%d certificates: status %d: %s", n, w.Code, w.Body)
		}
	}
	var roots rootsAnswer
	decode(t, ask(l, "get-roots", nil), &roots)
	if len(roots.Certificates) != 1 {
		t.Errorf("%d roots, want 1", len(roots.Certificates))
	}
}
