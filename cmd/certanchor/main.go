// Command certanchor anchors a PKI in a ledger shared by several organisations. See README.md.
package main

import (
	"os"

	"github.com/certanchor/certanchor/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
