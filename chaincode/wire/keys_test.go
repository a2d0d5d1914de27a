package wire

import (
	"bytes"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"
)

func TestKeys(t *testing.T) {
	id, serial := caID(0xab), Serial{0x01, 0xff}
	hash := [32]byte(fill(0xcd, 32))
	for got, want := range map[string]string{
		CAKey(id):           "ca/" + hexOf(0xab, 32),
		CertKey(id, serial): "cert/" + hexOf(0xab, 32) + "/01ff",
		LogHeadKey(id):      "log/" + hexOf(0xab, 32) + "/head",
		PendingKey(hash):    "status/pending/" + hexOf(0xcd, 32),
		RevokeKey(id, serial, HolderSource(hash)): "revoke/" + hexOf(0xab, 32) + "/01ff/holder-" + hexOf(0xcd, 32),
		RevokeKey(id, serial, QuorumSource()):     "revoke/" + hexOf(0xab, 32) + "/01ff/quorum",
		RuleKey(id, 12):                           "rule/" + hexOf(0xab, 32) + "/12",
		StatusHeadKey:                             "status/head",
		OperatorsKey(id, ""):                      "operators/" + hexOf(0xab, 32),
		OperatorsKey(id, "bridge-2"):              "operators/" + hexOf(0xab, 32) + "/bridge-2",
		ClockKey(0):                               "clock/0",
		ClockKey(117815041):                       "clock/1",
		ProposalKey(hash):                         "proposal/" + hexOf(0xcd, 32),
		VoteKey(hash, "Org1MSP"):                  "vote/" + hexOf(0xcd, 32) + "/Org1MSP",
	} {
		if got != want {
			t.Errorf("key is %q, want %q", got, want)
		}
	}
	gotID, gotSerial, err := ParseCertKey(CertKey(id, serial))
	if err != nil || gotID != id || !bytes.Equal(gotSerial, serial) {
		t.Errorf("ParseCertKey returned %v, %v, %v", gotID, gotSerial, err)
	}
	for _, source := range []string{HolderSource(hash), QuorumSource()} {
		gotID, gotSerial, gotSource, err := ParseRevokeKey(RevokeKey(id, serial, source))
		if err != nil || gotID != id || !bytes.Equal(gotSerial, serial) || gotSource != source {
			t.Errorf("ParseRevokeKey returned %v, %v, %v, %v", gotID, gotSerial, gotSource, err)
		}
	}
	if gotID, n, err := ParseRuleKey(RuleKey(id, 12)); err != nil || gotID != id || n != 12 {
		t.Errorf("ParseRuleKey returned %v, %v, %v", gotID, n, err)
	}
	if gotID, err = ParseLogHeadKey(LogHeadKey(id)); err != nil || gotID != id {
		t.Errorf("ParseLogHeadKey returned %v, %v", gotID, err)
	}
	for _, name := range []string{"", "bridge-2", "0", strings.Repeat("z", MaxOperatorsName)} {
		if gotID, got, err := ParseOperatorsKey(OperatorsKey(id, name)); err != nil || gotID != id || got != name {
			t.Errorf("ParseOperatorsKey returned %v, %q, %v", gotID, got, err)
		}
	}
}

func TestKeysThatAreNot(t *testing.T) {
	id := hexOf(0xab, 32)
	for _, key := range []string{
		"", "cert/", "cert/" + id, "cert/" + id + "/", "cert/" + id + "/0", "cert/" + id + "/zz", "cert/" + id + "/00ff", "cert/" + id + "/FF",
		"cert/" + strings.ToUpper(id) + "/01", "cert/" + id[2:] + "/01", "ca/" + id + "/01", id + "/01", "cert/" + id + "/" + hexOf(1, 21), "cert/" + id + "/01/02",
	} {
		if _, _, err := ParseCertKey(key); err == nil {
			t.Errorf("ParseCertKey accepts %q", key)
		}
	}
	for _, key := range []string{
		"", "revoke/", "revoke/" + id + "/01", "revoke/" + id + "/01/", "revoke/" + id + "/01/other", "revoke/" + id + "/01/quorum/", "revoke/" + id + "/001/quorum",
		"revoke/" + id + "/01/holder-", "revoke/" + id + "/01/holder-" + id[2:], "revoke/" + id + "/01/holder-" + strings.ToUpper(id), "revoke/" + id + "/01/" + id,
		id + "/01/quorum", "cert/" + id + "/01/quorum", "revoke/" + id[2:] + "/01/quorum",
	} {
		if _, _, _, err := ParseRevokeKey(key); err == nil {
			t.Errorf("ParseRevokeKey accepts %q", key)
		}
	}
	for _, key := range []string{
		"", "rule/", "rule/" + id, "rule/" + id + "/", "rule/" + id + "/0", "rule/" + id + "/01", "rule/" + id + "/-1", "rule/" + id + "/+1", "rule/" + id + "/1/2",
		"rule/" + id + "/18446744073709551616", id + "/1", "rule/" + strings.ToUpper(id) + "/1",
	} {
		if _, _, err := ParseRuleKey(key); err == nil {
			t.Errorf("ParseRuleKey accepts %q", key)
		}
	}
	for _, key := range []string{"", "log/", "log/head", "log//head", "log/" + id, id + "/head", "log/" + id + "/tail", "log/" + strings.ToUpper(id) + "/head"} {
		if _, err := ParseLogHeadKey(key); err == nil {
			t.Errorf("ParseLogHeadKey accepts %q", key)
		}
	}
	for _, key := range []string{"", "operators/", "operators/" + id + "/", "operators/" + strings.ToUpper(id), id, "ca/" + id,
		"operators/" + id + "/A", "operators/" + id + "/a/b", "operators/" + id + "/a_b", "operators/" + id + "/" + strings.Repeat("a", MaxOperatorsName+1), "operators//a"} {
		if _, _, err := ParseOperatorsKey(key); err == nil {
			t.Errorf("ParseOperatorsKey accepts %q", key)
		}
	}
}

func TestSerials(t *testing.T) {
	for in, want := range map[string]string{
		"1": "01", "01": "01", "0x0A": "0a", "00:00:ff:01": "ff01", "ABCDEF": "abcdef", strings.Repeat("f", 40): strings.Repeat("f", 40),
	} {
		got, err := ParseSerial(in)
		if err != nil || got.String() != want {
			t.Errorf("ParseSerial(%q) = %v, %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "00", "-1", "+1", "1_0", "g", "0x", "0x0x1", " 1", "1 ", strings.Repeat("f", 41), strings.Repeat("0", 2000) + "1"} {
		_, err := ParseSerial(in)
		var e *Error
		if !errors.As(err, &e) || e.Code != InvalidArgument || e.Field != "serial" {
			t.Errorf("ParseSerial(%q) returned %v", in, err)
		}
	}
	if _, err := SerialOf(nil); err == nil {
		t.Error("SerialOf accepts nil")
	}
	n := big.NewInt(0x1ff)
	s, err := SerialOf(n)
	if err != nil || s.Int().Cmp(n) != 0 || s.Check() != nil {
		t.Errorf("SerialOf(%v) = %v, %v", n, s, err)
	}
}

func TestReasons(t *testing.T) {
	for r := range Reason(12) {
		parsed, err := ParseReason(r.String())
		if known := r != 7 && r != 8 && r != 11; r.Known() != known || (err == nil) != known || known && parsed != r {
			t.Errorf("reason %d %s: known %t, parsed as %d, %v", r, r, r.Known(), parsed, err)
		}
	}
}

func TestMillis(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 123_999_999, time.FixedZone("", 3600))
	if got := MillisOf(at).Time(); !got.Equal(at.Truncate(time.Millisecond)) || got.Location() != time.UTC {
		t.Errorf("%v became %v", at, got)
	}
}

func TestMajority(t *testing.T) {
	for n, want := range map[int]int{1: 1, 2: 2, 3: 2, 4: 3, 5: 3, 7: 4} {
		if got := (&Consortium{MSPs: make([]string, n)}).Majority(); got != want {
			t.Errorf("majority of %d is %d, want %d", n, got, want)
		}
	}
}

func FuzzParseKeys(f *testing.F) {
	id := caID(0xab)
	for _, s := range []string{RevokeKey(id, Serial{1}, QuorumSource()), RevokeKey(id, Serial{1}, HolderSource(id)), RuleKey(id, 1), CertKey(id, Serial{1}), LogHeadKey(id), id.String(), "00:01", "0xff", "keyCompromise", "cert//", "log/head"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, serial, err := ParseCertKey(s); err == nil && (CertKey(id, serial) != s || serial.Check() != nil) {
			t.Fatalf("certificate key %q is also %q", s, CertKey(id, serial))
		}
		if id, serial, source, err := ParseRevokeKey(s); err == nil && (RevokeKey(id, serial, source) != s || serial.Check() != nil) {
			t.Fatalf("revocation key %q is also %q", s, RevokeKey(id, serial, source))
		}
		if id, n, err := ParseRuleKey(s); err == nil && (RuleKey(id, n) != s || n == 0) {
			t.Fatalf("rule key %q is also %q", s, RuleKey(id, n))
		}
		if id, err := ParseLogHeadKey(s); err == nil && LogHeadKey(id) != s {
			t.Fatalf("log head key %q is also %q", s, LogHeadKey(id))
		}
		if id, err := ParseCAID(s); err == nil && id.String() != s {
			t.Fatalf("CA ID %q is also %q", s, id)
		}
		if r, err := ParseReason(s); err == nil && r.String() != s {
			t.Fatalf("reason %q is also %q", s, r)
		}
		serial, err := ParseSerial(s)
		if err != nil {
			return
		}
		again, err := ParseSerial(serial.String())
		if serial.Check() != nil || err != nil || !bytes.Equal(again, serial) {
			t.Fatalf("serial %q is %v, which is %v, %v", s, serial, again, err)
		}
	})
}
