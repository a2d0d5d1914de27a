package responder

import (
	"crypto"
	"strings"
	"testing"

	"github.com/certanchor/certanchor/internal/hsm"
	"github.com/certanchor/certanchor/internal/hsm/hsmtest"
	"github.com/certanchor/certanchor/internal/keyfile"
)

func TestResponderKeyInATokenIsFoundByItsURI(t *testing.T) {
	token := hsmtest.New(t)
	made, _, err := hsm.OpenOrCreate("key", token.URI("responder"), keyfile.P384)
	if err != nil {
		t.Fatal(err)
	}
	key, err := loadKey(token.URI("responder"))
	if err != nil || !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(made.Public()) {
		t.Fatalf("another key, or %v", err)
	}
	if _, err := loadKey(token.URI("none")); err == nil || !strings.Contains(err.Error(), "ocsp_bridge.responders") {
		t.Errorf("a key that is not there: %v", err)
	}
}
