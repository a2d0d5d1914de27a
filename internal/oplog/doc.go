// Package oplog is the log of what the operators of a CA do: append-only, each record chained to the one before, with an RFC 6962 tree
// over all of them whose head the CA bridge anchors in the ledger. docs/operators-log.md has the format and says who trusts what.
//
// The log is the directory "operators" in the CA's directory:
//
//	lock     held by the process that may write: the CA bridge, or a command on the directory of one that does not run
//	N.log    generation N, from 0; the highest one is written to, those below it ended when part of the log was lost
//
// Beside it the file "restored" says that the directory comes from a backup and the ledger has not been asked yet what it lacks.
package oplog
