// Package lognames fixes the names of logs and of the keys that sign their checkpoints.
package lognames

import "github.com/certanchor/certanchor/chaincode/wire"

// Issuance is the origin line (C2SP tlog-checkpoint) of a CA's issuance log. It does not name the serving organisation:
// every organisation's checkpoint has the same body.
func Issuance(channel string, ca wire.CAID) string { return channel + "/issuance/" + ca.String() }

// Status is the origin line of the status log.
func Status(channel string) string { return channel + "/status" }

// Map is the origin line of the map log: one leaf for each Tick, with the revocation map's root.
func Map(channel string) string { return channel + "/map" }

// Key is the name (C2SP signed-note) of an organisation's Ed25519 log key.
func Key(channel, mspID string) string { return channel + "/" + mspID }

// Cosigner is the name (C2SP signed-note) of an organisation's Ed25519 cosigner key.
func Cosigner(channel, mspID string) string { return channel + "/" + mspID + "/cosigner" }
