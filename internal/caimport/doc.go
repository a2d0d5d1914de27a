// Package caimport brings what a CA has issued and revoked elsewhere onto the ledger.
//
// A CA keeps its history in one of a few forms: openssl's index.txt with newcerts beside it, files of certificates, CRLs, cfssl's certdb in
// SQLite. A Plan reads several of them together and joins what they say by serial number. It reads them twice:
//
//	check   every entry is parsed, every signature verified, every status noted in a table. What is wrong is reported, all of it.
//	submit  the certificates are read again, and each is submitted once, with its status; at the end what has no certificate
//
// Nothing is written before everything was checked. What stays in memory is the table, some 100 octets for each serial number; certificates
// stream. A killed run goes on from its State; without one it starts again and finds the ledger's answer to be that nothing changed,
// because the contract's Import merges.
//
// Reading order: record.go, the sources (index.go, certs.go, tree.go, crl.go, certdb.go), detect.go, table.go, plan.go, state.go, run.go.
package caimport
