package importtest

import (
	"crypto/x509"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/embedded"
)

// MSP operates every CA of these tests.
const MSP = "Org1MSP"

// Ledger is an embedded ledger with a CA on its trust list.
type Ledger struct {
	t    testing.TB
	node *embedded.Node
	Conn network.Ledger // operator
	ID   wire.CAID
}

// NewLedger makes one.
func NewLedger(t testing.TB, ca *x509.Certificate) *Ledger {
	t.Helper()
	node, err := embedded.Open(embedded.Options{Dir: filepath.Join(t.TempDir(), "ledger"), MSPID: MSP, Log: Quiet()})
	check(t, err)
	t.Cleanup(func() { check(t, node.Close()) })
	admin := node.Connect(wire.RoleAdministrator)
	_, err = admin.Submit(t.Context(), wire.FnRegisterCA, wire.Encode(&wire.RegisterCAArg{V: wire.Version, Cert: ca.Raw, OperatingMSP: MSP}))
	check(t, err)
	return &Ledger{t: t, node: node, Conn: node.Connect(wire.RoleOperator), ID: wire.CAIDOf(ca.RawSubjectPublicKeyInfo)}
}

// Quiet logs nowhere.
func Quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// Record reads a certificate's record; nil: there is none.
func (l *Ledger) Record(serial string) *wire.CertRecord {
	l.t.Helper()
	s, err := wire.ParseSerial(serial)
	check(l.t, err)
	answer, err := l.Conn.Evaluate(l.t.Context(), wire.FnRead, wire.Encode(&wire.ReadArg{V: wire.Version, Keys: []string{wire.CertKey(l.ID, s)}}))
	check(l.t, err)
	var r wire.ReadResult
	check(l.t, wire.Decode(answer, &r))
	if r.Values[0] == nil {
		return nil
	}
	rec := new(wire.CertRecord)
	check(l.t, wire.Decode(r.Values[0], rec))
	return rec
}

// LogSize is how many certificates the CA's log has.
func (l *Ledger) LogSize() uint64 {
	l.t.Helper()
	answer, err := l.Conn.Evaluate(l.t.Context(), wire.FnRead, wire.Encode(&wire.ReadArg{V: wire.Version, Keys: []string{wire.LogHeadKey(l.ID)}}))
	check(l.t, err)
	var r wire.ReadResult
	check(l.t, wire.Decode(answer, &r))
	if r.Values[0] == nil {
		return 0
	}
	var head wire.LogHead
	check(l.t, wire.Decode(r.Values[0], &head))
	return head.Size
}

// Admin connects as an administrator.
func (l *Ledger) Admin() network.Ledger { return l.node.Connect(wire.RoleAdministrator) }
