package ctfront

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/client"
	"github.com/google/certificate-transparency-go/jsonclient"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/internal/ctapi/ctapitest"
	"github.com/certanchor/certanchor/network"
)

type answer struct {
	ID         []byte `json:"id"`
	Time       int64  `json:"timestamp"`
	Extensions []byte `json:"extensions"`
	Signature  []byte `json:"signature"`
}

// pair is a CA's operating organisation and another one whose front forwards to it; both read one log.
func pair(t testing.TB) (operator, other *org, l *ctapitest.Ledger) {
	t.Helper()
	operator, other, l = newOrg(t, "Org1MSP"), newOrg(t, "Org2MSP"), ctapitest.New(t)
	operator.trust(l, l, l)
	other.trust(l, l, forward(t, l, operator.prefix(l), operator.http, l, never))
	return operator, other, l
}

func TestEachFrontHasItsOwnSCTOfOneEntryByteForByte(t *testing.T) {
	operator, other, l := pair(t)
	for name, chain := range map[string][][]byte{"add-chain": l.Chain(t), "add-pre-chain": l.Chain(t, ctapitest.Poison)} {
		body := ctapitest.Body(chain...)
		first := other.ask(l, "ct/v1/"+name, body).ok(t)
		l.Fill(t, 3)
		own := operator.ask(l, "ct/v1/"+name, body).ok(t)
		for range 2 {
			if again := other.ask(l, "ct/v1/"+name, body).ok(t); !bytes.Equal(again, first) {
				t.Errorf("%s again: %s, want %s", name, again, first)
			}
			if again := operator.ask(l, "ct/v1/"+name, ctapitest.Body(chain[0])).ok(t); !bytes.Equal(again, own) {
				t.Errorf("%s again at the operator's: %s, want %s", name, again, own)
			}
		}
		var a, b answer
		if json.Unmarshal(first, &a) != nil || json.Unmarshal(own, &b) != nil {
			t.Fatal("not JSON")
		}
		if a.Time != b.Time || !bytes.Equal(a.Extensions, b.Extensions) || bytes.Equal(a.ID, b.ID) || bytes.Equal(a.Signature, b.Signature) {
			t.Errorf("%s: SCTs are %s and %s, want two keys' of one entry", name, first, own)
		}
	}
	if size := l.Head().Size; size != 8 {
		t.Errorf("the log has %d entries, want 8", size)
	}
}

// google is a client that verifies every SCT and head with the key of o's log.
func google(t testing.TB, o *org, l *ctapitest.Ledger) *client.LogClient {
	t.Helper()
	key, err := o.Keys(l.CA.ID)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(o.prefix(l), o.http, jsonclient.Options{PublicKeyDER: key.SPKI(), UserAgent: "certanchor-test"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestClientsOfOthersVerifyWhatWasForwarded(t *testing.T) {
	operator, other, l := pair(t)
	for i := range 6 {
		add := google(t, other, l).AddChain
		chain := l.Chain(t)
		if i%2 == 1 {
			chain, add = l.Chain(t, ctapitest.Poison), google(t, other, l).AddPreChain
		}
		var certs []ct.ASN1Cert
		for _, der := range chain {
			certs = append(certs, ct.ASN1Cert{Data: der})
		}
		stamp, err := add(t.Context(), certs)
		if err != nil {
			t.Fatal(i, err)
		}
		for _, o := range []*org{operator, other} {
			head, err := google(t, o, l).GetSTH(t.Context())
			if err != nil || head.TreeSize != uint64(i+1) || head.Timestamp < stamp.Timestamp {
				t.Errorf("head of %s is %+v, %v", o.cfg.Operator, head, err)
			}
		}
	}
}

func TestManyForwardedAtOnceGetEachTheirOwn(t *testing.T) {
	operator, other, l := pair(t)
	key, err := other.Keys(l.CA.ID)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 40 {
		chain := l.Chain(t)
		all.Go(func() {
			var got, own answer
			if err := json.Unmarshal(other.ask(l, "ct/v1/add-chain", ctapitest.Body(chain...)).body, &got); err != nil {
				t.Error(err)
			}
			if err := json.Unmarshal(operator.ask(l, "ct/v1/add-chain", ctapitest.Body(chain...)).body, &own); err != nil {
				t.Error(err)
			}
			if id := key.ID(); got.Time == 0 || got.Time != own.Time || !bytes.Equal(got.Extensions, own.Extensions) || !bytes.Equal(got.ID, id[:]) {
				t.Errorf("SCT %+v, the operator's %+v", got, own)
			}
		})
	}
	all.Wait()
}

// The operator's word is not enough: the SCT waits until the entry is in this organisation's own blocks.
func TestNoSCTBeforeTheEntryIsInTheOwnBlocks(t *testing.T) {
	operator, other, l := newOrg(t, "Org1MSP"), newOrg(t, "Org2MSP"), ctapitest.New(t)
	l.Fill(t, 7)
	operator.trust(l, l, l)
	log := follow(l)
	log.pull(t, 3)
	other.trust(l, log, forward(t, l, operator.prefix(l), operator.http, log, log.Changed))
	got := make(chan reply, 1)
	body := ctapitest.Body(l.Chain(t)...)
	go func() { got <- other.ask(l, "ct/v1/add-chain", body) }()
	for _, size := range []uint64{4, 6, 7} {
		<-log.waiting // it has looked, and the entry is not there
		select {
		case r := <-got:
			t.Fatalf("answered with %d entries there: %s", size, r.body)
		default:
		}
		log.pull(t, size)
	}
	<-log.waiting
	log.pull(t, 8)
	(<-got).ok(t)
}

func TestClientThatLeavesIsToldNothingAndTheOutcomeIsUnknown(t *testing.T) {
	operator, l := newOrg(t, "Org1MSP"), ctapitest.New(t)
	operator.trust(l, l, l)
	log := follow(l)
	to := forward(t, l, operator.prefix(l), operator.http, log, log.Changed)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := to.Submit(ctx, l.Chain(t)[0])
		failed <- err
	}()
	<-log.waiting
	cancel()
	if err := <-failed; !errors.Is(err, network.ErrUnknownOutcome) {
		t.Errorf("%v", err)
	}
}

func TestFrontsThatTakeEachOtherForTheOperatorDoNotLoop(t *testing.T) {
	a, b, l := newOrg(t, "Org1MSP"), newOrg(t, "Org2MSP"), ctapitest.New(t)
	a.trust(l, l, forward(t, l, b.prefix(l), b.http, l, never))
	b.trust(l, l, forward(t, l, a.prefix(l), a.http, l, never))
	a.ask(l, "ct/v1/add-chain", ctapitest.Body(l.Chain(t)...)).refused(t, http.StatusServiceUnavailable, "unavailable")
}

// Another organisation's front, the operator's front, and the CA bridge behind that.
func TestSubmissionMayPassSeveralFronts(t *testing.T) {
	operator, other, l := pair(t)
	bridge := newOrg(t, "Org1MSP")
	bridge.trust(l, l, l)
	operator.mu.Lock()
	operator.to[l.CA.ID] = forward(t, l, bridge.prefix(l), bridge.http, l, never)
	operator.mu.Unlock()
	other.ask(l, "ct/v1/add-chain", ctapitest.Body(l.Chain(t)...)).ok(t)
	if l.Calls() != 1 {
		t.Errorf("%d submissions", l.Calls())
	}
}

// A CA may be renewed under another name: what the older certificate did not issue is not sent below it.
func TestCertificateOfACAsOtherNameIsForwarded(t *testing.T) {
	operator, other, l := pair(t)
	renamed := cctest.NewCA(t, cctest.WithKey(l.CA.Key), cctest.WithParent(l.Root), cctest.WithTemplate(func(c *x509.Certificate) { c.Subject.CommonName = "renamed" }))
	l.Record.Certs = append(l.Record.Certs, renamed.DER)
	der, _ := renamed.Issue(t)
	for _, o := range []*org{other, operator} {
		o.ask(l, "ct/v1/add-chain", ctapitest.Body(der, renamed.DER)).ok(t)
	}
}

func TestOperatorThatIsDownIsUnavailable(t *testing.T) {
	operator, other, l := pair(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing: no TLS comes about
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, url := range map[string]string{
		"no server": gone.URL, "not TLS": "http" + operator.prefix(l)[len("https"):], "silent": "https://" + silent.Addr().String(),
		"certificate of another name": "https://localhost:" + operator.url[len("https://127.0.0.1:"):],
	} {
		patience := 30 * time.Second
		if name == "silent" {
			patience = 50 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err := forward(t, l, url, operator.http, l, never).Submit(ctx, l.Chain(t)[0])
		cancel()
		if !errors.Is(err, network.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l.Calls() != 0 {
		t.Error("something was submitted")
	}
	other.mu.Lock()
	other.to[l.CA.ID] = forward(t, l, gone.URL, nil, l, never)
	other.mu.Unlock()
	other.ask(l, "ct/v1/add-chain", ctapitest.Body(l.Chain(t)...)).refused(t, http.StatusServiceUnavailable, "unavailable", "nothing was changed")
}

// After the operator's restart every kept connection is dead; the first submission after it is not the one to find out.
func TestOperatorsRestartIsNotNoticed(t *testing.T) {
	operator, _, l := pair(t)
	to := forward(t, l, operator.prefix(l), operator.http, l, never)
	for range 5 {
		if _, err := to.Submit(t.Context(), l.Chain(t)[0]); err != nil {
			t.Fatal(err)
		}
		operator.server.CloseClientConnections()
	}
}
