// Package client is what a relying party imports: it asks for a certificate's status over OCSP, and verifies, offline, that a
// certificate is in its CA's issuance log, or, with a bundle, that and its status.
//
// What has to be trusted for which answer:
//
//   - Status: the certificate's CA, whose key or whose delegate's key signs the answer, and the responder to have a fresh view.
//   - VerifyInclusion: the organisations whose log keys are given, not to sign two histories of the log. The network and the
//     server that the proof came from need not be trusted.
//   - VerifyBundle: the policy file, and the clock; and of any two quorums of organisations one that both have, to sign one history.
//     The CA, the network and the server that the bundle came from need not be trusted.
//
// Nothing here depends on the ledger's engine, and the zero Client is ready to use.
package client
