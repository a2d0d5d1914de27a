package client

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// StatusEvent is a change of status as a bridge tells it at GET /v1/events, in the data of a server-sent event.
type StatusEvent struct {
	Block uint64 `json:"block"` // of the transaction that made the change
	N     uint32 `json:"n"`     // number of the change in its block, from 1
	CAID  string `json:"ca_id"`

	Serial string `json:"serial,omitempty"` // of the certificate; empty: a rule, or a decision about the CA
	State  string `json:"state"`            // valid, held or revoked; of a decision about the CA active or suspended; unknown: a serial number was released that was imported without its certificate
	Was    string `json:"was,omitempty"`    // of a certificate: the state before; empty: not issued. The same as State: the certificate of a serial number became known

	Reason         string     `json:"reason,omitempty"`   // RFC 5280 section 5.3.1, while held or revoked
	Time           time.Time  `json:"time"`               // since when State holds on the ledger
	Asserted       *time.Time `json:"asserted,omitempty"` // of what was imported: since when, as the CA says
	InvalidityDate *time.Time `json:"invalidity_date,omitempty"`

	Rule uint64     `json:"rule,omitempty"` // of a rule: its number; it revokes every certificate of the CA that was logged at From or later and before To
	From *time.Time `json:"from,omitempty"`
	To   *time.Time `json:"to,omitempty"`

	At time.Time `json:"at"` // of the transaction
}

// ID is the event's position, as Last-Event-ID and ?after= take it: block and number in it. Every organisation's bridge has the same.
func (e *StatusEvent) ID() string { return positionID(e.Block, e.N) }

func positionID(block uint64, n uint32) string { return fmt.Sprintf("%d-%d", block, n) }

// ParseEventID reads the ID of an event: two decimal numbers without leading zeros or signs, with a hyphen between them.
func ParseEventID(id string) (block uint64, n uint32, err error) {
	b, k, ok := strings.Cut(id, "-")
	if ok {
		if block, err = strconv.ParseUint(b, 10, 64); err == nil {
			var wide uint64
			wide, err = strconv.ParseUint(k, 10, 32)
			n = uint32(wide)
		}
	}
	if !ok || err != nil || positionID(block, n) != id {
		return 0, 0, fmt.Errorf("event ID %q: must be <block>-<number in it>, in decimal digits", id)
	}
	return block, n, nil
}
