// Package catalogue knows every certificate of one CA that is on the ledger: by key, by name, and which change of its status is where.
//
// The ledger's state can be read by serial number only. A Store follows the blocks and keeps what questions about many certificates
// need: "which certificates have this key" is answered from all records up to a stated block, whoever signed, submitted or imported them.
// Keys, states and places come from what transactions wrote, so that they are complete whichever function wrote them; names come from the
// certificates in their arguments, and are not known of what was recorded without one.
//
// A Store is derived: it can be deleted and is built again from the blocks. It begins again by itself when the ledger is another one.
//
// Reading order: cert.go, store.go, apply.go, follow.go, query.go.
package catalogue
