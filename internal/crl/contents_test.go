package crl

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/certanchor/certanchor/chaincode/wire"
)

const someTime = 1_800_000_000

func someContents() *Contents {
	return &Contents{
		CAID: wire.CAID{1, 2, 3}, Number: 9, ThisUpdate: Seconds(someTime).Time(),
		Entries: []Entry{
			{Serial: wire.Serial{1}, Time: someTime - 10},
			{Serial: wire.Serial{1, 0}, Time: someTime - 9, Reason: wire.KeyCompromise, Invalidity: someTime - 99},
			{Serial: wire.Serial{2}, Time: someTime - 8, Reason: wire.CertificateHold},
		},
	}
}

func drawContents(t *rapid.T) *Contents {
	seconds := rapid.Custom(func(t *rapid.T) Seconds {
		return Seconds(rapid.OneOf(rapid.Int64Range(1, int64(MaxSeconds)), rapid.Int64Range(2524607999-2, 2524607999+2)).Draw(t, "seconds"))
	})
	c := &Contents{
		CAID: wire.CAID(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "ca")), ThisUpdate: seconds.Draw(t, "this update").Time(),
		Scope:  rapid.SampledFrom([]string{"", "http://crl.example/1.crl", "https://crl.example/" + strings.Repeat("s", 300)}).Draw(t, "scope"),
		Number: rapid.Uint64Range(2, 1<<63).Draw(t, "number"),
	}
	if rapid.Bool().Draw(t, "delta") {
		c.Base = rapid.Uint64Range(1, c.Number-1).Draw(t, "base")
	}
	seen := map[string]bool{}
	for range rapid.IntRange(0, 40).Draw(t, "entries") {
		serial := rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "serial")
		if serial[0] == 0 {
			serial[0] = 0x80
		}
		if seen[string(serial)] {
			continue
		}
		seen[string(serial)] = true
		e := Entry{Serial: serial, Time: seconds.Draw(t, "time")}
		if e.Remove = c.Base != 0 && rapid.Bool().Draw(t, "remove"); !e.Remove {
			e.Reason = wire.Reason(rapid.SampledFrom([]int{0, 1, 2, 3, 4, 5, 6, 9, 10}).Draw(t, "reason"))
			if rapid.Bool().Draw(t, "with invalidity") {
				e.Invalidity = seconds.Draw(t, "invalidity")
			}
		}
		c.Entries = append(c.Entries, e)
	}
	Sort(c.Entries)
	return c
}

func encode(t interface{ Fatal(...any) }, c *Contents) []byte {
	var b bytes.Buffer
	if n, err := c.WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatal(n, b.Len(), err)
	}
	return b.Bytes()
}

func TestContentsSurviveTheirEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawContents(t)
		enc := encode(t, c)
		got, err := ReadContents(bytes.NewReader(enc))
		if err != nil {
			t.Fatal(err)
		}
		if err := got.Compare(c); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(encode(t, got), enc) {
			t.Fatal("encoded again, it differs")
		}
		cut := rapid.IntRange(0, len(enc)-1).Draw(t, "cut")
		if _, err := ReadContents(bytes.NewReader(enc[:cut])); err == nil {
			t.Fatalf("cut to %d of %d octets it is accepted", cut, len(enc))
		}
		if _, err := ReadContents(bytes.NewReader(append(enc, 0))); err == nil {
			t.Fatal("with an octet more it is accepted")
		}
	})
}

// The encoding is what docs/crl.md says: another program can compute it.
func TestEncodingIsAsDocumented(t *testing.T) {
	c := someContents()
	c.Scope, c.Base = "http://a/", 8
	c.Entries = append(c.Entries[:2], Entry{Serial: wire.Serial{3}, Time: someTime, Remove: true})
	want := "87" + "01" + "5820" + "010203" + strings.Repeat("00", 29) + "69" + fmt.Sprintf("%x", c.Scope) + "09" + "08" + "1a6b49d200" + "03" +
		"84" + "4101" + "1a6b49d1f6" + "00" + "00" +
		"84" + "420100" + "1a6b49d1f7" + "01" + "1a6b49d19d" +
		"84" + "4103" + "1a6b49d200" + "08" + "00"
	if got := fmt.Sprintf("%x", encode(t, c)); got != want {
		t.Errorf("encoding is\n%s, want\n%s", got, want)
	}
}

func TestContentsAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Contents)
		want   string
	}{
		"number":             {func(c *Contents) { c.Number = 0 }, `number "0"`},
		"base":               {func(c *Contents) { c.Base = 9 }, `base "9"`},
		"fraction":           {func(c *Contents) { c.ThisUpdate = c.ThisUpdate.Add(time.Millisecond) }, "this_update"},
		"no time":            {func(c *Contents) { c.ThisUpdate = time.Time{} }, "this_update"},
		"scope":              {func(c *Contents) { c.Scope = "shard 1" }, "scope"},
		"scope scheme":       {func(c *Contents) { c.Scope = "ldap://host/x" }, "scope"},
		"long scope":         {func(c *Contents) { c.Scope = "http://a/" + strings.Repeat("b", MaxScope) }, "scope"},
		"scope with a space": {func(c *Contents) { c.Scope = "http://a/b c" }, "scope"},
		"no serial":          {func(c *Contents) { c.Entries[1].Serial = nil }, "entries[1].serial"},
		"leading zero":       {func(c *Contents) { c.Entries[1].Serial = wire.Serial{0, 1} }, "entries[1].serial"},
		"twice":              {func(c *Contents) { c.Entries[1].Serial = wire.Serial{1} }, "entries[1].serial"},
		"order":              {func(c *Contents) { c.Entries[1].Serial = wire.Serial{3} }, "entries[2].serial"},
		"no date":            {func(c *Contents) { c.Entries[0].Time = 0 }, "entries[0].time"},
		"late date":          {func(c *Contents) { c.Entries[0].Time = MaxSeconds + 1 }, "entries[0].time"},
		"invalidity":         {func(c *Contents) { c.Entries[0].Invalidity = -1 }, "entries[0].invalidity"},
		"reason 7":           {func(c *Contents) { c.Entries[0].Reason = 7 }, "entries[0].reason"},
		"reason 8":           {func(c *Contents) { c.Entries[0].Reason = 8 }, "entries[0].reason"},
		"remove":             {func(c *Contents) { c.Entries[0].Remove = true }, "entries[0].remove"},
		"remove and reason":  {func(c *Contents) { c.Base, c.Entries[1].Remove = 1, true }, "entries[1].remove"},
	} {
		c := someContents()
		tc.change(c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want an error about %s", name, err, tc.want)
		}
		if n, err := c.WriteTo(new(bytes.Buffer)); err == nil || n != 0 {
			t.Errorf("%s: encoded, %d octets, %v", name, n, err)
		}
	}
	if err := someContents().Check(); err != nil {
		t.Error(err)
	}
}

func TestCompareNamesTheFirstDifference(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Contents)
		want   string
	}{
		"another CA":        {func(c *Contents) { c.CAID[0]++ }, "ca_id"},
		"another scope":     {func(c *Contents) { c.Scope = "http://a/" }, "scope"},
		"another number":    {func(c *Contents) { c.Number++ }, "number"},
		"another base":      {func(c *Contents) { c.Base++ }, "base"},
		"another time":      {func(c *Contents) { c.ThisUpdate = c.ThisUpdate.Add(time.Second) }, "this_update"},
		"one missing":       {func(c *Contents) { c.Entries = append(c.Entries[:1:1], c.Entries[2:]...) }, `"0100": is missing`},
		"the last missing":  {func(c *Contents) { c.Entries = c.Entries[:2] }, `"02": is missing`},
		"one more":          {func(c *Contents) { c.Entries = append(c.Entries, Entry{Serial: wire.Serial{3}, Time: 1}) }, `"03": must not be listed`},
		"one more between":  {func(c *Contents) { c.Entries[0].Serial = wire.Serial{1, 0, 0}; Sort(c.Entries) }, `"01": is missing`},
		"another date":      {func(c *Contents) { c.Entries[1].Time++ }, "must be keyCompromise at 2027-01-15T07:59:51Z"},
		"another reason":    {func(c *Contents) { c.Entries[1].Reason++ }, "must be keyCompromise"},
		"no invalidity":     {func(c *Contents) { c.Entries[1].Invalidity = 0 }, "invalid since"},
		"removed, not held": {func(c *Contents) { c.Entries[2].Remove, c.Entries[2].Reason = true, 0 }, "must be certificateHold"},
	} {
		c := someContents()
		tc.change(c)
		if err := c.Compare(someContents()); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	if err := someContents().Compare(someContents()); err != nil {
		t.Error(err)
	}
}

// RFC 5280 section 3.3: an expired certificate stays on one regularly scheduled CRL issued beyond its validity.
func TestExpiredStayForTheGrace(t *testing.T) {
	notAfter := wire.Millis(someTime * 1000)
	for age, want := range map[time.Duration]bool{-time.Hour: true, 0: true, Grace: true, Grace + time.Second: false} {
		if got := Lists(notAfter, notAfter.Time().Add(age)); got != want {
			t.Errorf("%s after notAfter: listed %t", age, got)
		}
	}
}
