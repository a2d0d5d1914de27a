package cli

import (
	"os"
	"testing"

	"github.com/certanchor/certanchor/internal/keyfile"
)

func TestMain(m *testing.M) {
	keyfile.FewerIterations()
	os.Exit(m.Run())
}
