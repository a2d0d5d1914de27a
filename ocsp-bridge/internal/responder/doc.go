// Package responder keeps, for each CA, a key and a delegated certificate that may sign OCSP responses.
//
// Reading order: manager.go (what the bridge uses), rotate.go (how certificates come and go), accept.go (which are refused),
// keyfile.go (what is on disk).
package responder
