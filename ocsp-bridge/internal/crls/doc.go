// Package crls keeps the certificate revocation lists that an OCSP bridge serves. It computes what a CRL must say from the bridge's own index
// (Maker), takes a CA's CRL only if it says that (Store.Accept), keeps it on disk, and goes on comparing what is served with the ledger and
// with what OCSP answers (Store.Run): what disagrees is served no longer.
//
// For a CA that is gone, an organisation may sign an indirect CRL (Indirect).
package crls
