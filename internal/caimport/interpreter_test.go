package caimport

import (
	sqlite3 "github.com/ncruces/go-sqlite3"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// SQLite is WebAssembly here. Its compiler takes half a minute under the race detector; to interpret it is enough for small databases.
func init() {
	sqlite3.RuntimeConfig = wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(api.CoreFeaturesV2)
}
