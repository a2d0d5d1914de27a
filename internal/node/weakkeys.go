package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/weakkey"
)

// weakKeys reads the lists of keys that a CA does not certify.
func weakKeys(file string, section *config.CA) (*weakkey.List, error) {
	if len(section.WeakKeys) == 0 {
		return nil, nil //nolint:nilnil // a nil List is an empty one
	}
	list := new(weakkey.List)
	for i, path := range section.WeakKeys {
		f, err := os.Open(path)
		if err == nil {
			err = errors.Join(list.Read(f), f.Close())
		}
		if err != nil {
			return nil, &config.Error{File: file, Key: fmt.Sprintf("ca.weak_keys[%d]", i), Value: path, Rule: err.Error()}
		}
	}
	slog.Info("lists of weak keys read", "keys", list.Len(), "files", len(section.WeakKeys))
	return list, nil
}
