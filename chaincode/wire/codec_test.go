package wire

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
)

func TestEncodingsNeverChange(t *testing.T) {
	for _, s := range samples {
		if got := hex.EncodeToString(Encode(s.v)); got != s.hex {
			t.Errorf("%T encodes as\n%s, want\n%s", s.v, got, s.hex)
		}
	}
}

func TestDecodeUndoesEncode(t *testing.T) {
	for _, s := range samples {
		got := s.make()
		if err := Decode(Encode(s.v), got); err != nil {
			t.Errorf("%T: %v", s.v, err)
			continue
		}
		if !bytes.Equal(Encode(got), Encode(s.v)) {
			t.Errorf("%T: decoded as %+v", s.v, got)
		}
	}
}

func TestAbsentValuesOfAReadStayNil(t *testing.T) {
	var r ReadResult
	if err := Decode(Encode(&ReadResult{V: Version, Values: [][]byte{nil, {1}}}), &r); err != nil {
		t.Fatal(err)
	}
	if r.Values[0] != nil || r.Values[1] == nil {
		t.Errorf("values are %#v", r.Values)
	}
	if !bytes.Equal(Encode(r), Encode(&r)) {
		t.Error("a ReadResult and a pointer to it encode differently")
	}
}

// A list that is nil and one that is empty are the same bytes: two organisations' votes must not differ by it.
func TestNilAndEmptyListsAreOneEncoding(t *testing.T) {
	a := Encode(&RegisterCAArg{V: Version, Cert: []byte{1}, Chain: nil})
	b := Encode(&RegisterCAArg{V: Version, Cert: []byte{1}, Chain: [][]byte{}})
	if !bytes.Equal(a, b) {
		t.Errorf("%x and %x", a, b)
	}
}

func TestDecodeRefusesEveryOtherEncoding(t *testing.T) {
	for _, c := range []struct {
		name, hex, word string
		v               versioned
	}{
		{"nothing", "", "EOF", new(TickArg)},
		{"null", "f6", "version 0", new(TickArg)},
		{"no version", "a0", "version 0", new(TickArg)},
		{"version 2", "a10002", "version 2", new(TickArg)},
		{"version twice", "a200010001", "duplicate", new(TickArg)},
		{"unknown field", "a200011863f6", "unknown field", new(TickArg)},
		{"text key", "a2000161760a", "unknown field", new(TickArg)},
		{"trailing byte", "a1000100", "extraneous", new(TickArg)},
		{"long integer", "a1001801", "deterministic", new(TickArg)},
		{"long map header", "b8010001", "deterministic", new(TickArg)},
		{"indefinite map", "bf0001ff", "indefinite", new(TickArg)},
		{"indefinite list", "a200010" + "19f6161ff", "indefinite", new(ReadArg)},
		{"tag", "c1a10001", "tag", new(TickArg)},
		{"keys in another order", "a3010200010203", "deterministic", new(TickResult)},
		{"integer as float", "a300010" + "1f9400002" + "03", "cannot unmarshal", new(TickResult)},
		{"list as null", "a40001014101" + "02f6" + "036141", "deterministic", new(RegisterCAArg)},
		{"octets as null", "a4000101f6" + "0280" + "036141", "deterministic", new(RegisterCAArg)},
		{"short CA ID", "a30001" + "01581f" + hexOf(5, 31) + "0240", "deterministic", new(IssueArg)},
		{"long CA ID", "a30001" + "015821" + hexOf(5, 33) + "0240", "", new(IssueArg)},
		{"CA ID as a list", "a30001" + "019820" + hexOf(5, 32) + "0240", "deterministic", new(IssueArg)},
		{"no UTF-8", "a2000101" + "8161ff", "UTF-8", new(ReadArg)},
		{"octets as text", "a4000101" + "6131" + "0280" + "036141", "", new(RegisterCAArg)},
		{"text as octets", "a2000101" + "814161", "", new(ReadArg)},
		{"zero that is left out", "a90001010302010309" + "0400" + "0502" + "0844010101" + "01090a", "", new(CertRecord)},
		{"negative version", "a10020", "", new(TickArg)},
	} {
		t.Run(c.name, func(t *testing.T) {
			data, err := hex.DecodeString(c.hex)
			if err != nil {
				t.Fatal(err)
			}
			if err := Decode(data, c.v); err == nil || !strings.Contains(err.Error(), c.word) {
				t.Errorf("Decode returned %v, want an error with %q", err, c.word)
			}
		})
	}
	if err := Decode(make([]byte, MaxArgBytes+1), new(TickArg)); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("Decode of too much returned %v", err)
	}
}

func TestEncodePanicsOnWhatIsNoRecord(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Encode of a channel did not panic")
		}
	}()
	Encode(make(chan int))
}

func FuzzDecode(f *testing.F) {
	for i, s := range samples {
		f.Add(uint8(i), Encode(s.v))
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		s := samples[int(kind)%len(samples)]
		v := s.make()
		if Decode(data, v) != nil {
			return
		}
		if !bytes.Equal(Encode(v), data) {
			t.Fatalf("%T: %x has another encoding, %x", v, data, Encode(v))
		}
		again := s.make()
		if err := Decode(Encode(v), again); err != nil || !reflect.DeepEqual(v, again) {
			t.Fatalf("%T: %+v became %+v, %v", v, v, again, err)
		}
	})
}
