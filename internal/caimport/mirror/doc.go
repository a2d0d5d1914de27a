// Package mirror keeps the status of an outside CA's certificates in the ledger, from what that CA publishes, until it speaks to the ledger
// itself.
//
// It polls the CA's CRL. What is new on a CRL that can be believed is imported; what this mirror has seen on hold and is on a newer one no
// longer is released. Between CRLs it may ask the CA's OCSP responder about the certificates that the ledger has, one after the other, at a
// bounded rate.
//
// The directory of a mirror has its state and the CRL that was applied last:
//
//	mirror.json  which CRL that is, and what is on hold because of it
//	crl.der      the CRL itself; what differs in the next one is what has to be done
//	lock         held by the process that runs
//
// The state is written before and after the ledger is told, so that a mirror that was killed does again what it may have done. That changes
// nothing: Import merges, and only a hold with the date that this CA has published is released.
package mirror
