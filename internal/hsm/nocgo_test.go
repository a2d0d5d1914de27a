//go:build !cgo

package hsm

import (
	"errors"
	"strings"
	"testing"
)

func TestWithoutCgo(t *testing.T) {
	_, err := Open("ca.key", "pkcs11:token=t;object=o"+query)
	if !errors.Is(err, ErrNoSupport) || !strings.Contains(err.Error(), "built without PKCS #11 support") || !strings.Contains(err.Error(), "CGO_ENABLED=1") {
		t.Errorf("got %v", err)
	}
	if _, err := Open("ca.key", "pkcs11:token=t"); err == nil || errors.Is(err, ErrNoSupport) {
		t.Errorf("a wrong URI: %v", err)
	}
}
