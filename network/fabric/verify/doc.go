// Package verify checks Fabric blocks that come from a peer that is not trusted, starting from nothing but the channel's first
// block or its hash.
//
// Orderers sign a block's header, not the flags that say which transactions are valid: those are each peer's own. So this package
// decides validity itself, from the first block on, and refuses a block whose flags say anything else:
//
//   - number, previous hash and data hash (header.go), orderer signatures: the channel's BlockValidation policy and, on a BFT
//     channel, a quorum of distinct consenters (orderers.go);
//   - changes of the channel's configuration: they must result from an update that the policies in force allow (update.go);
//   - each transaction as a peer checks it: identities under their MSPs (msp.go), signature, transaction ID and proposal hash
//     (envelope.go), the endorsement policy that the chaincode's definition on the ledger names (endorsement.go, lifecycle.go,
//     policy.go), duplicates and versions of what was read (mvcc.go).
//
// The rules are those of a Fabric 3.1.1 peer on a channel with application capability V2_0 or later, so that the computed flags
// equal an honest peer's. In addition a valid transaction that a majority had to endorse, under the policy of the chaincode or to change
// a definition, must satisfy some rules that Fabric does not have (strict.go): a peer accepts an endorsement by a certificate that has
// expired, an auditor wants to know. What one organisation can do alone, in its implicit collections, is followed as Fabric has it
// (apply.go, ranges.go), odd as that may be, so that nobody can stop a verifier alone.
//
// What is not supported is refused by name, never passed: key-level endorsement policies in the chaincode's own state or that of the
// definitions, idemix, validation plugins other than Fabric's own, capabilities before V1_4_3/V2_0.
package verify
