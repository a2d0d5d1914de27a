package hsm

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

const query = "?module-path=/lib/p11.so&pin-source=file:/run/pin"

func TestURIs(t *testing.T) {
	slot := 7
	for text, want := range map[string]URI{
		"pkcs11:token=CA%20token;object=ca;id=%01%fe?module-path=/lib/p11.so&pin-source=file:/run/pin": {
			Token: "CA token", Object: "ca", ID: []byte{1, 0xfe}, Module: "/lib/p11.so", PIN: PINSource{File: "/run/pin"}, Timeout: DefaultTimeout, Sessions: DefaultSessions},
		"PKCS11:serial=12ab;id=x;type=private?pin-source=env:PIN&module-path=/a/../lib/p11.so&certanchor-timeout=1500ms&certanchor-sessions=3": {
			Serial: "12ab", ID: []byte("x"), Module: "/lib/p11.so", PIN: PINSource{Env: "PIN"}, Timeout: 1500 * time.Millisecond, Sessions: 3},
		"pkcs11:slot-id=7;object=a%3bb?module-path=/p&pin-source=file:///run/pin": {
			Slot: &slot, Object: "a;b", Module: "/p", PIN: PINSource{File: "/run/pin"}, Timeout: DefaultTimeout, Sessions: DefaultSessions},
		"pkcs11:token=t;object=o?module-path=/p&pin-source=/run/pin": {
			Token: "t", Object: "o", Module: "/p", PIN: PINSource{File: "/run/pin"}, Timeout: DefaultTimeout, Sessions: DefaultSessions},
	} {
		got, err := ParseURI("key", text)
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: got %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestRefusedURIsNameTheAttributeAndNeverThePIN(t *testing.T) {
	const secret = "s3cr3t"
	for text, want := range map[string]string{
		"file:/a":                                "must begin with pkcs11:",
		"pkcs11:" + query:                        "exactly one of token, serial and slot-id",
		"pkcs11:token=a;serial=b;id=c":           "exactly one of token, serial and slot-id",
		"pkcs11:token=a" + query:                 "object or id",
		"pkcs11:token=a;object=b":                "module-path",
		"pkcs11:token=a;object=b?module-path=/p": "pin-source",
		"pkcs11:token=a;object=b?module-path=p":  "absolute",
		"pkcs11:token=a;object=b?pin-source=file:pin&module-path=/p":      "pin-source=file:pin",
		"pkcs11:token=a;object=b?pin-source=%7c/bin/echo&module-path=/p":  "pin-source=|/bin/echo",
		"pkcs11:token=a;object=b?pin-source=env:&module-path=/p":          "env:NAME",
		"pkcs11:token=a;object=b?module-path=/p&pin-value=" + secret:      "pin-value",
		"pkcs11:token=a;object=b;pin-value=" + secret + "?module-path=/p": "pin-value",
		"pkcs11:token=a;object=b?module-path=/p&pin=" + secret:            "pin-value",
		"pkcs11:token=a;object=b?module-path=/p&pin-value%3d" + secret:    "pin-value",
		"pkcs11:token=a;token=b;object=c" + query:                         "must not occur twice",
		"pkcs11:token=a;object" + query:                                   "name=value",
		"pkcs11:token=a;object=" + query:                                  "must not be empty",
		"pkcs11:token=a;object=%zz" + query:                               "percent-encoded",
		"pkcs11:token=a;object=%00" + query:                               "control characters",
		"pkcs11:token=a;object=b;model=x" + query:                         "is not one of the attributes",
		"pkcs11:token=a;object=b;type=public" + query:                     `"type=public": must be private`,
		"pkcs11:slot-id=-1;object=b" + query:                              "slot-id=-1",
		"pkcs11:token=a;object=b" + query + "&certanchor-timeout=5":       "certanchor-timeout=5",
		"pkcs11:token=a;object=b" + query + "&certanchor-timeout=2m":      "10ms to 1m0s",
		"pkcs11:token=a;object=b" + query + "&certanchor-sessions=0":      "1 to 1024",
		"pkcs11:token=a;object=b" + query + "&module-name=x":              "query attributes",
		"pkcs11:token=a;id=" + strings.Repeat("a", maxObjectID+1) + query: "at most 255",
		"pkcs11:token=" + strings.Repeat("a", maxURI) + query:             "at most 4096",
	} {
		_, err := ParseURI("ca.key", text)
		var e *Error
		if !errors.As(err, &e) || e.Field != "ca.key" || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: got %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("the PIN is in %v", err)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("pkcs11:token=CA%20token;object=ca;id=%01%fe" + query)
	f.Add("pkcs11:slot-id=7;id=x?pin-source=env:PIN&module-path=/p&certanchor-timeout=1s&certanchor-sessions=9")
	f.Add("pkcs11:serial=a;object=%3b%26%3f?pin-source=/p&module-path=/p")
	f.Add("pkcs11:?&;==")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseURI("key", text)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Rule == "" {
				t.Fatalf("%v is not an *Error with a rule", err)
			}
			return
		}
		// What identifies the key survives being written.
		again, err := ParseURI("key", u.String()+query)
		if err != nil || again.Token != u.Token || again.Serial != u.Serial || again.Object != u.Object || string(again.ID) != string(u.ID) {
			t.Fatalf("%q became %q: %+v, %v", text, u, again, err)
		}
	})
}
