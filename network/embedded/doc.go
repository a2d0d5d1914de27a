// Package embedded is the ledger engine for one machine: the same contract as on Hyperledger Fabric, executed over an
// embedded key-value store (Pebble) by one process, with the same block stream.
//
// Transactions run one after another. Those that wait while a block is being written share the next one, and its one fsync:
// each is acknowledged only after that. A block, the state it leaves and the new height are one atomic batch of the store, so
// a crash leaves all of a block or nothing of it. Blocks are chained by SHA-256 (block.go). A ledger whose write failed
// refuses everything from then on: what the disk holds is known only after it has been opened again.
//
// There is one organisation, so there is nobody to disagree with: transactions never conflict, and a block holds only
// transactions that took effect. What a role may do is the contract's business; who may claim a role is the operating
// system's: a process that can open the directory or the socket may act in any role.
//
// Reading order: options.go, node.go (a ledger's life), writer.go (how a block comes about), block.go, store.go, overlay.go and
// view.go (what a transaction reads), witness.go (what tells a
// lost end from a crash), conn.go (network.Ledger in this process), protocol.go, server.go and client.go (network.Ledger
// in another).
package embedded
