package client

import "time"

// EventKind tells what an Event is about.
type EventKind string

// Kinds of events.
const (
	EventCertificate    EventKind = "certificate"
	EventPrecertificate EventKind = "precertificate"
	EventStatus         EventKind = "status"     // a certificate that matches was held, released or revoked, by whomever
	EventCA             EventKind = "ca"         // a CA that has matching certificates was suspended or resumed, or a rule revokes what it issued
	EventUnparsable     EventKind = "unparsable" // an entry that is in the log, cannot be read, and contains a pattern
	EventAlarm          EventKind = "alarm"      // a log is not what it must be, or cannot be seen
)

// What an alarm is about.
const (
	AlarmRollback = "rollback" // the log became shorter: a backup was restored, or an old checkpoint is repeated
	AlarmFork     = "fork"     // two signed checkpoints that no one log can have
	AlarmDamage   = "damage"   // hashes or entries that the signed checkpoint does not commit to
	AlarmBlind    = "blind"    // for a long time there was no checkpoint that can be trusted, or no entries for it
)

// What a status event or a CA event says.
const (
	ChangeHeld      = "held"
	ChangeReleased  = "released"
	ChangeRevoked   = "revoked"
	ChangeSuspended = "suspended"
	ChangeResumed   = "resumed"
)

// Event is one report of a Monitor. Its JSON form is what the command line prints and what a webhook gets.
type Event struct {
	// ID is the same each time that the event is delivered, and no other event's: the log's origin, # and the entry's index. An event that
	// one entry makes about another one adds that; an alarm's has what contradicts.
	ID   string    `json:"id"`
	Kind EventKind `json:"kind"`
	Time time.Time `json:"time"` // of an entry: its timestamp, or since when a change holds; of an alarm: when it was noticed
	Log  string    `json:"log"`  // origin

	// Index of the entry in Log. Of an alarm: all entries below have been reported.
	Index uint64 `json:"index"`

	CAID      string    `json:"ca_id,omitempty"`
	Serial    string    `json:"serial,omitempty"` // hexadecimal
	Issuer    string    `json:"issuer,omitempty"`
	Subject   string    `json:"subject,omitempty"`
	Names     []string  `json:"names,omitempty"`   // of the certificate: all; of a status event: those that match
	Matched   []string  `json:"matched,omitempty"` // patterns
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	SHA256    string    `json:"sha256,omitempty"` // of the certificate or precertificate, hexadecimal; empty of a precertificate if the server has its TBSCertificate only

	Change     string    `json:"change,omitempty"`
	Reason     string    `json:"reason,omitempty"`  // RFC 5280's name
	By         string    `json:"by,omitempty"`      // ca, holder, quorum or rule <n>
	Asserted   time.Time `json:"asserted,omitzero"` // of what was imported: since when, as the CA says
	Invalidity time.Time `json:"invalidity,omitzero"`
	From       time.Time `json:"from,omitzero"` // of a rule: it revokes what was logged from then on
	To         time.Time `json:"to,omitzero"`   // of a rule: and before then
	Covers     int       `json:"covers,omitempty"`

	Alarm    string   `json:"alarm,omitempty"`
	Detail   string   `json:"detail,omitempty"`   // in words, for people
	Evidence []string `json:"evidence,omitempty"` // signed checkpoints that contradict each other, the older one first
}

// MonitorProgress is how far a Monitor is in a log.
type MonitorProgress struct {
	Log       string
	Next      uint64        // entries below it are done
	Size      uint64        // of the newest verified checkpoint
	PerSecond float64       // entries since the Monitor turned to this log; 0: not known yet
	Remaining time.Duration // at this pace; 0: not known yet
}
