// Package ca is the bridge between a certificate authority and the ledger: it checks a request, signs it with cfssl's local
// signer, anchors the certificate in the ledger and only then lets it out.
//
// # The order of steps
//
//	check -> sign -> journal "signed" (fsync) -> anchor on the ledger -> journal "anchored" (fsync) -> release
//
// The journal's first record exists before the ledger can know the certificate, so a certificate on the ledger is always one
// that the CA can still produce; its second record is what release waits for. Killed at any point, the CA finds every
// certificate in one of these states when it comes back:
//
//	not in the journal    never left memory: it does not exist
//	signed                submitted again; the contract gives the same bytes the same place in the log, so it is there once
//	anchored              on the ledger, retrievable by its serial and by the idempotency key of its request
//	refused               the contract refused it; it was never released and never will be
//	abandoned             it was certainly never submitted (ledger down); the requester was told that nothing changed
//
// A client whose answer got lost repeats the request with the same Idempotency-Key, or asks for the serial number that a
// problem of unknown outcome names in "instance".
//
// Before all that, the operators' log has a durable record of the action, and after it of how it ended.
//
// # Certificates with SCTs
//
// A profile may have it that a certificate embeds SCTs of several organisations' fronts. Then it has a precertificate, and more steps (ct.go):
//
//	check -> sign -> journal "precert" -> anchor -> journal "preAnchored" -> SCTs -> journal "stamped"
//	      -> sign -> journal "final" -> anchor -> journal "anchored" -> release
//
// Up to "preAnchored" it may end as refused or abandoned. From then on it is a promise, which the CA keeps when it can: after a crash, or
// once enough fronts answer. "stamped" comes before the second signature, so that there is one certificate of a precertificate.
//
// # CRLs
//
// Beside that, and never in the way of it, the CA signs CRLs of what an OCSP bridge of its organisation says that the ledger says:
//
//	contents -> number (fsync) -> sign -> lint -> keep (fsync) -> publish to the OCSP bridges of every organisation
//
// # The directory
//
//	ca.pem          the CA certificate
//	chain.pem       its issuers up to the root, issuer first; absent for a self-signed CA
//	ca.key          its key, encrypted PKCS#8, mode 0600; or one line, the RFC 7512 URI of a key in a PKCS #11 token
//	profiles.json   what it issues, in cfssl's configuration format with keys of its own (docs/profiles.md)
//	clients         who may use the HTTP API: name, role and SHA-256 of the token or HMAC key, mode 0600
//	operator.token  the token of the first operator, mode 0600
//	dual-control.json, dual   what needs several operators, and what waits for them; package dual has the files
//	journal         what was signed and what became of it; one process at a time holds its lock
//	operators       the log of what is done for clients; package oplog has the files
//	restored        only in a directory that came from a backup, until the ledger was asked what that lacks
//	crl             numbers of CRLs, and the newest of them; crl_store.go has the files
//	key.states      the life of the key: generated, active, suspended, retired, destroyed; who changed it, when and why (package keystate)
//	ca.csr          the request of a CA below a root; there is no ca.pem until Finish has put it in
//	next            the next generation of the key: a directory like this one, whose clients, profiles and policy are those of the first
//	revocations     lists of certificates that were revoked in bulk, and what became of them
//	blocked-keys    keys that nothing is issued for, for good or while an operation under dual control waits
//	superseded      which certificates replace which
//	catalogue       the CA's certificates on the ledger, for queries; derived, and made again when it is not there
//
// Init writes it whole or not at all.
package ca
