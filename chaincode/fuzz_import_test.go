package chaincode_test

import (
	"strings"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// FuzzImport puts arbitrary values into an argument's fields, past its encoding (FuzzInvoke has that). What the contract takes is what the rules
// for records say, with a status leaf for each change, and certificates that everybody can read. Taken once more, it changes nothing.
func FuzzImport(f *testing.F) {
	s := newStage(f)
	for _, arg := range s.seeds[wire.FnImport] {
		a := decode[wire.ImportArg](f, arg)
		certs, err := a.Certs()
		if err != nil {
			f.Fatal(err)
		}
		for _, i := range a.Items {
			var der []byte
			if i.HasCert && len(certs) > 0 {
				der, certs = certs[0], certs[1:]
			}
			f.Add(der, []byte(i.Serial), uint8(i.State), uint8(i.Reason), int64(i.Revoked), int64(i.Invalidity), int64(i.NotAfter))
		}
	}
	state := s.Store.Snapshot()
	f.Fuzz(func(t *testing.T, der, serial []byte, is, reason uint8, revoked, invalidity, notAfter int64) {
		item := wire.ImportItem{
			HasCert: len(der) > 0, Serial: serial, State: wire.CertState(is), Reason: wire.Reason(reason),
			Revoked: wire.Millis(revoked), Invalidity: wire.Millis(invalidity), NotAfter: wire.Millis(notAfter),
		}
		items, ders := []wire.ImportItem{item}, [][]byte(nil)
		if item.HasCert { // and a serial number without
			second := item
			second.HasCert, second.Serial = false, wire.Serial{77}
			items, ders = append(items, second), append(ders, der)
		}
		arg := s.ca.ImportArg(items, ders...)
		result, refusal := s.Submit(t, op1, wire.FnImport, arg)
		if refusal != nil {
			if refusal.Code == wire.Internal {
				t.Fatal(refusal)
			}
			return
		}
		a := decode[wire.ImportArg](t, arg)
		if answer := decode[wire.ImportResult](t, result); len(answer.Entries) != len(a.Items) {
			t.Fatalf("%d items, answered %d", len(a.Items), len(answer.Entries))
		}
		unchanged(t, s.Ledger, op1, wire.FnImport, arg)
		certs, err := a.Certs()
		if err != nil {
			t.Fatal(err)
		}
		for _, der := range certs {
			s.mustBeCertificate(t, der)
		}
		for _, key := range s.Store.Keys() {
			if value := s.Store.Value(key); string(value) != string(state[key]) {
				if strings.HasPrefix(key, wire.CertPrefix) {
					s.mustBeImported(t, key, state[key])
				}
				s.Set(key, state[key]) // nil removes it
			}
		}
	})
}

// mustBeImported checks a record that an import has changed.
func (s *stage) mustBeImported(t *testing.T, key string, before []byte) {
	t.Helper()
	rec, now := record[wire.CertRecord](t, s.Ledger, key), wire.MillisOf(s.Now)
	_, serial, err := wire.ParseCertKey(key)
	if err != nil {
		t.Fatal(err)
	}
	was := &wire.CertRecord{State: wire.CertValid, Imported: true}
	if before != nil {
		was = decode[wire.CertRecord](t, before)
	}
	switch {
	case rec.Imported != was.Imported, rec.Asserted > now, rec.Asserted != 0 && rec.Asserted < 1000, rec.StatusTime < was.StatusTime,
		rec.State < was.State, rec.Change > was.Change+1, rec.SerialOnly() != (len(rec.SPKIHash) == 0), rec.Invalidity > now,
		rec.NotAfter == 0 && !rec.SerialOnly(), (rec.State == wire.CertHeld) != (rec.Reason == wire.CertificateHold):
		t.Fatalf("%s became %+v, it was %+v", key, rec, was)
	}
	if rec.Change != was.Change && s.Store.Value(wire.PendingKey(rec.Leaf(s.ca.ID, serial).Hash())) == nil {
		t.Fatalf("%s became %+v, and no status leaf says so", key, rec)
	}
}
