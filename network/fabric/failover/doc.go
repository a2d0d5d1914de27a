// Package failover is a connection to a Fabric channel that goes on reading blocks while the organisation's own peer is away: from
// peers of other organisations, and only blocks that package verify has found right.
//
// The own peer is trusted for the flags that say which transactions are valid. Another organisation's peer is trusted for nothing: chain of
// hashes, orderers' signatures, endorsement policies and versions are checked, and every flag is computed anew (DESIGN.md, Trusting a block). What such
// a peer can still do is to withhold blocks; then the view grows old, and the bridge answers tryLater. No height that it claims is asked for.
//
// The verifier needs the state that the blocks before have left. It is derived: kept in a directory that may be deleted, and fed with the own peer's blocks
// beside the stream that the bridge reads, so that it is there when it is needed (feed.go). Without it, it is built from block 0 on,
// from whatever peer answers; until then no block is passed on. Its anchor is the channel's first block: a configured file, or what the own peer served first.
//
// Reading order: ledger.go, blocks.go (own peer and others as one stream), gate.go (what is let through), feed.go, store.go.
package failover
