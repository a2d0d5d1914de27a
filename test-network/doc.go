// Package testnetwork runs a real Hyperledger Fabric network on one machine: native processes, no Docker, no shell.
//
// Each organisation has a peer, an orderer under its own orderer MSP, and a chaincode server that the peer reaches over
// mutual TLS (chaincode as a service). Everything a network is lies in one directory: keys, configuration, ledgers, logs and
// the process ids, so that any process that opens the directory can look at the network and stop, kill, freeze or restart
// its nodes. Several networks run side by side on different ports.
//
// It is a laboratory, not a way to run in production: the keys of all organisations lie side by side, timeouts are far shorter
// than a wide-area network would bear, and every port is bound to the loopback address.
//
// Reading order: options.go (what can be chosen), layout.go (where things are), network.go and up.go (the life of a network),
// node.go (one process), status.go.
package testnetwork
