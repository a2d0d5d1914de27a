package index

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// fill gives every field of a value, however deep, another value than any other field.
func fill(t *testing.T, v reflect.Value, next *uint64) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), next)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), next)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(t, v.Index(i), next)
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8:
		*next++
		v.SetUint(*next & 0xff)
	case reflect.Uint, reflect.Uint64:
		*next++
		v.SetUint(*next * 1000)
	case reflect.Int64:
		*next++
		v.SetInt(int64(*next) * 1e9)
	default:
		t.Fatalf("a field of kind %s", v.Kind())
	}
}

// A field that is added to records or revocations, and forgotten here, shows.
func TestChangedCertificateKeepsEveryField(t *testing.T) {
	full := new(changedCert)
	next := uint64(0)
	fill(t, reflect.ValueOf(full).Elem(), &next)
	for name, c := range map[string]*changedCert{
		"full": full, "empty": {}, "negative time": {Rec: wire.CertRecord{StatusTime: -1}},
		"without revocations": {Rec: full.Rec}, "precertificate only": {Rec: wire.CertRecord{Pre: full.Rec.Pre}, Revs: full.Revs[:1]},
	} {
		got, err := decodeChanged(c.encode())
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, c)
		}
	}
	whole := full.encode()
	for n := range whole {
		if _, err := decodeChanged(whole[:n]); err == nil {
			t.Errorf("cut off after %d octets, it is read", n)
		}
	}
	if _, err := decodeChanged(append(whole, 0)); err == nil {
		t.Error("with an octet too many, it is read")
	}
}

func FuzzChangedCert(f *testing.F) {
	f.Add((&changedCert{}).encode())
	f.Add((&changedCert{Rec: wire.CertRecord{V: 1, State: wire.CertRevoked, Final: &wire.LogEntry{Index: 7, LeafHash: []byte{1}}, SPKIHash: []byte{2}},
		Revs: []wire.Revocation{{V: 1, Source: wire.SourceHolder, SPKIHash: []byte{3}, Change: 1}}}).encode())
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeChanged(b)
		if err != nil {
			return
		}
		again, err := decodeChanged(c.encode())
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Fatalf("%+v, %v, was %+v", again, err, c)
		}
	})
}
