// Package audit executes a ledger's history again and compares it with what the ledger says.
//
// It takes blocks of whose place in the chain and validity the caller has made sure: by network/fabric/verify for Fabric, by the
// embedded engine's own hashes otherwise. What is left is the question whether the organisations that endorsed a transaction
// followed the rules. So every valid transaction is executed by the contract, on a state that comes from nowhere but the transactions
// before it, and its answer and its writes must be the block's, octet for octet: whatever a colluding majority signed that the rules
// forbid is a Difference.
//
// The state lies in a directory of its own, in step with the position, and may be deleted at any time: it is made anew from the
// blocks. When the audit has come to its end, the caller compares the state (Get, Scan, LogHeads) with what organisations serve.
package audit
