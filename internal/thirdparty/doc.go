// Package thirdparty holds certanchor serve to programs that others wrote, as separate processes over HTTP: the load tester of
// certificate-transparency-go and fsck of tessera, unmodified, and an fsck for static-ct-api made of tessera's, sunlight's and
// certificate-transparency-go's parts. The module under programs pins and builds them; none of it gets into certanchor's own go.mod.
//
// The clients, scanner and log list of certificate-transparency-go and sunlight's client are tested in internal/ctapi/interop.
package thirdparty
