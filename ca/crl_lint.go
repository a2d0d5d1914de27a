package ca

import (
	"fmt"
	"maps"
	"slices"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"
)

// lint refuses a CRL in which zlint finds an error.
func lintCRL(der []byte) error {
	list, err := zx509.ParseRevocationList(der)
	if err != nil {
		return fmt.Errorf("zlint cannot read the CRL: %w", err)
	}
	results := zlint.LintRevocationList(list).Results
	for _, name := range slices.Sorted(maps.Keys(results)) {
		if results[name].Status >= lint.Error {
			return fmt.Errorf("zlint lint %s: %s", name, explainLint(name, results[name]))
		}
	}
	return nil
}
