package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/network"
)

// issue issues a certificate for a host as a client, and returns its serial number.
func (w *world) issue(client, profile, host string) string {
	w.t.Helper()
	csr := newCSR(w.t, nil, forHost(host))
	got, err := w.client(client).Issue(w.t.Context(), caapi.IssueRequest{CSR: csr, Profile: profile}, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return got.Serial
}

// bulkOf posts a request and returns the bulk once it is done, or planned.
func (w *world) bulkOf(kind, query, body string) caapi.Bulk {
	w.t.Helper()
	path := caapi.PathBulk
	if query != "" {
		path += "?" + query
	}
	code, _, answer := w.call(http.MethodPost, path, body, map[string]string{"Content-Type": kind})
	if code/100 != 2 {
		w.t.Fatalf("status %d: %s", code, answer)
	}
	return w.await(asBulk(w.t, answer).ID)
}

// await returns a bulk that nothing happens to any more.
func (w *world) await(id string) caapi.Bulk {
	w.t.Helper()
	var b caapi.Bulk
	waitFor(w.t, "the end of the bulk", func() bool {
		code, _, answer := w.call(http.MethodGet, caapi.PathBulk+"/"+id+"?wait=5s", "", nil)
		if code != http.StatusOK {
			w.t.Fatalf("status %d: %s", code, answer)
		}
		b = asBulk(w.t, answer)
		return b.State != caapi.BulkRunning
	})
	return b
}

func asBulk(t testing.TB, answer []byte) caapi.Bulk {
	t.Helper()
	var b caapi.Bulk
	if err := json.Unmarshal(answer, &b); err != nil {
		t.Fatalf("%v: %s", err, answer)
	}
	return b
}

// results is what became of each certificate, by serial number.
func (w *world) results(id string) map[string]caapi.BulkResult {
	w.t.Helper()
	code, _, answer := w.call(http.MethodGet, caapi.PathBulk+"/"+id+caapi.PathResults, "", nil)
	if code != http.StatusOK {
		w.t.Fatalf("status %d: %s", code, answer)
	}
	all := map[string]caapi.BulkResult{}
	for line := range strings.Lines(string(answer)) {
		var r caapi.BulkResult
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			w.t.Fatal(err)
		}
		all[r.Serial] = r
	}
	return all
}

// state is what the ledger's record says.
func (w *world) state(serial string) string {
	w.t.Helper()
	rec := w.record(serial)
	if rec.State == wire.CertValid {
		return "valid"
	}
	return stateName(rec.State) + " " + rec.Reason.String()
}

func (w *world) record(serial string) *wire.CertRecord {
	w.t.Helper()
	s, err := wire.ParseSerial(serial)
	if err != nil {
		w.t.Fatal(err)
	}
	values, err := readAll(w.node.Connect(wire.RoleOperator), wire.CertKey(w.server.CAID(), s))
	if err != nil || values[0] == nil {
		w.t.Fatal(err, values)
	}
	var rec wire.CertRecord
	if err := wire.Decode(values[0], &rec); err != nil {
		w.t.Fatal(err)
	}
	return &rec
}

// list is a CSV list of revocations.
func list(reason string, serials ...string) string {
	var b strings.Builder
	b.WriteString("serial,reason,invalidity_date\n")
	for _, s := range serials {
		fmt.Fprintf(&b, "%s,%s,\n", s, reason)
	}
	return b.String()
}

// flood puts n certificates onto the ledger that the CA's key has signed and the CA bridge knows nothing of, and returns their serial numbers.
func flood(t testing.TB, ledger network.Ledger, dir string, n int) []string {
	t.Helper()
	cert, _, err := LoadCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	subject, err := keyfile.Generate(keyfile.P256)
	if err != nil {
		t.Fatal(err)
	}
	serials := make([]string, n)
	for at := 0; at < n; at += wire.MaxBatch {
		var certs [][]byte
		for i := at; i < min(at+wire.MaxBatch, n); i++ {
			serials[i] = fmt.Sprintf("7%09x", i)
			certs = append(certs, foreign(t, cert, subject.Public(), serials[i], fmt.Sprintf("host%d.flood.example", i)))
		}
		if _, err := ledger.Submit(t.Context(), wire.FnIssue, wire.Encode(wire.NewIssueArg(wire.CAIDOf(cert.RawSubjectPublicKeyInfo), certs))); err != nil {
			t.Fatal(err)
		}
	}
	return serials
}

// integrate takes all pending changes into the status log.
func integrate(t testing.TB, ledger network.Ledger) {
	t.Helper()
	var leaves [][]byte
	err := ledger.Blocks(t.Context(), 0, func(b *network.Block) error {
		for _, tx := range b.Txs {
			for _, w := range tx.Writes {
				if strings.HasPrefix(w.Key, wire.PendingPrefix) {
					leaves = pendingLeaves(t, leaves, w)
				}
			}
		}
		h, err := ledger.Height(t.Context())
		if err == nil && b.Number+1 == h {
			err = errEnough
		}
		return err
	})
	if err != errEnough {
		t.Fatal(err)
	}
	values, err := readAll(ledger, wire.StatusHeadKey)
	if err != nil {
		t.Fatal(err)
	}
	var head wire.StatusHead
	if values[0] != nil {
		if err := wire.Decode(values[0], &head); err != nil {
			t.Fatal(err)
		}
	}
	for len(leaves) > 0 {
		n := min(len(leaves), wire.MaxBatch)
		if _, err := ledger.Submit(t.Context(), wire.FnIntegrate, wire.Encode(&wire.IntegrateArg{V: wire.Version, Size: head.Size, Leaves: leaves[:n]})); err != nil {
			t.Fatal(err)
		}
		head.Size, leaves = head.Size+uint64(n), leaves[n:]
	}
}

// inThePast is an invalidity date.
var inThePast = time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)

var errEnough = errors.New("enough")

func pendingLeaves(t testing.TB, leaves [][]byte, w network.Write) [][]byte {
	t.Helper()
	hash, err := hex.DecodeString(strings.TrimPrefix(w.Key, wire.PendingPrefix))
	if err != nil {
		t.Fatal(err)
	}
	if w.Value != nil {
		return append(leaves, hash)
	}
	return slices.DeleteFunc(leaves, func(l []byte) bool { return bytes.Equal(l, hash) })
}

// forHost gives a request one name.
func forHost(host string) csrOption {
	return func(r *x509.CertificateRequest) {
		r.Subject.CommonName, r.DNSNames = host, []string{host}
	}
}

// foreign is a certificate that the CA's key signed elsewhere.
func foreign(t testing.TB, ca *x509.Certificate, pub crypto.PublicKey, serial, host string) []byte {
	t.Helper()
	n, ok := new(big.Int).SetString(serial, 16)
	if !ok {
		t.Fatal(serial)
	}
	tmpl := &x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: host, Organization: []string{"Flood"}}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(nil, tmpl, ca, pub, prepared.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// countingResponder has applied every block, and counts how often it is asked.
type countingResponder struct{ n atomic.Int32 }

func (*countingResponder) Name() string { return "counting" }

func (r *countingResponder) WaitApplied(context.Context, uint64) error {
	r.n.Add(1)
	return nil
}
