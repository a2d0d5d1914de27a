// Package answers keeps signed OCSP answers, and the signers that make them, within bounds.
//
// The rule that everything here serves: an answer that is kept is given only while nothing that it was decided from has changed.
// Versions counts the changes of each certificate and CA; whoever decides reads the counts first (Stamp), then the status, and keeps the
// answer with the stamp. Changes are counted before they can be read and once more after, so that there is no moment in which a
// request could see a block and be given an answer from before it.
//
// Reading order: versions.go, answer.go, cache.go, signers.go.
package answers
