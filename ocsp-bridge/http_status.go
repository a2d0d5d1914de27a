package ocspbridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/status"
)

// statusInfo is what the ledger says about a certificate, as far as this bridge has read it. Unlike an OCSP answer it is given
// when the view is stale too; Fresh says so.
type statusInfo struct {
	CAID           string         `json:"ca_id"`
	Serial         string         `json:"serial"`
	State          string         `json:"state"` // valid, held or revoked; unknown: see SerialOnly
	Reason         string         `json:"reason,omitempty"`
	Since          time.Time      `json:"since"`              // on the ledger
	Asserted       *time.Time     `json:"asserted,omitempty"` // of a hold or revocation that was imported: since when, as the CA says; OCSP and CRLs tell it if the record came with it, and it is earlier
	InvalidityDate *time.Time     `json:"invalidity_date,omitempty"`
	By             []string       `json:"by,omitempty"` // who put it on hold or revoked it: ca, holder, quorum, rule <n>
	Changes        uint64         `json:"changes"`
	Imported       bool           `json:"imported,omitempty"`    // it came to the ledger by Import
	SerialOnly     bool           `json:"serial_only,omitempty"` // the ledger does not have the certificate; unless it is on hold or revoked, its state is unknown
	LogIndex       *uint64        `json:"log_index,omitempty"`   // of the certificate; of its precertificate while that is all there is
	Logged         *time.Time     `json:"logged,omitempty"`
	Certificate    *entryInfo     `json:"certificate,omitempty"`
	Precertificate *entryInfo     `json:"precertificate,omitempty"`
	Rules          []ruleInfo     `json:"rules,omitempty"`      // those that cover it
	StatusLog      []positionInfo `json:"status_log,omitempty"` // changes that the status log has, the newest first
	Pending        int            `json:"pending"`              // changes that it does not have yet
	NotAfter       *time.Time     `json:"not_after,omitempty"`  // left out if it is not known
	ViewHeight     uint64         `json:"view_height"`
	ViewTime       time.Time      `json:"view_time"`
	Fresh          bool           `json:"fresh"`
	Stale          string         `json:"stale,omitempty"` // why it is not fresh
}

// entryInfo is an entry of the CA's log.
type entryInfo struct {
	Index  uint64    `json:"index"`
	Logged time.Time `json:"logged"`
}

// ruleInfo is a rule: it revokes what was logged at From or later and before To.
type ruleInfo struct {
	N      uint64    `json:"n"`
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// positionInfo is an entry of the status log.
type positionInfo struct {
	Index uint64    `json:"index"`
	Kind  string    `json:"kind"` // certificate, revocation or rule
	Since time.Time `json:"since"`
}

var (
	stateNames = map[wire.CertState]string{
		wire.CertValid: "valid", wire.CertHeld: "held", wire.CertRevoked: "revoked", status.Unknown: "unknown",
	}
	sourceNames = map[wire.Source]string{wire.SourceHolder: "holder", wire.SourceQuorum: "quorum"}
	kindNames   = map[wire.LeafKind]string{wire.LeafCert: "certificate", wire.LeafRevocation: "revocation", wire.LeafRule: "rule"}
)

// shownChanges is how many changes of one certificate are listed.
const shownChanges = 100

func (b *Bridge) serveStatus(w http.ResponseWriter, r *http.Request) {
	info, err := b.status(r.PathValue("ca"), r.PathValue("serial"))
	if err != nil {
		problem.Write(w, b.log, err)
		return
	}
	b.writeJSON(w, http.StatusOK, info)
}

func (b *Bridge) status(caText, serialText string) (*statusInfo, error) {
	id, err := wire.ParseCAID(caText)
	if err != nil {
		return nil, err
	}
	serial, err := wire.ParseSerial(serialText)
	if err != nil {
		return nil, err
	}
	v := b.index.View()
	if v.CA(id) == nil {
		return nil, wire.Errorf(wire.NotFound, "ca_id", id.String(), "must be a registered CA")
	}
	st, rec, err := b.index.Status(id, serial)
	if err != nil {
		return nil, err
	}
	if rec == nil {
		return nil, notLogged(serial)
	}
	info := &statusInfo{
		CAID: id.String(), Serial: serial.String(), State: stateNames[st.State], Since: st.Time.Time(), Changes: st.Change,
		ViewHeight: v.Height, ViewTime: v.Time.Time(), Fresh: true,
		Certificate: describeEntry(rec.Final), Precertificate: describeEntry(rec.Pre), Imported: rec.Imported, SerialOnly: rec.SerialOnly(),
		NotAfter: dateOf(rec.NotAfter), InvalidityDate: dateOf(st.Invalidity),
	}
	if first := cmp.Or(info.Certificate, info.Precertificate); first != nil {
		info.LogIndex, info.Logged = &first.Index, &first.Logged
	}
	if st.Bad() {
		info.Reason = st.Reason.String()
		if rec.State != wire.CertValid {
			info.Asserted = dateOf(rec.Asserted)
		}
	}
	if _, err := b.fresh(v, b.cfg.Now()); err != nil {
		info.Fresh, info.Stale = false, err.Error()
	}
	if err := b.describeParties(info, id, serial, rec); err != nil {
		return nil, err
	}
	return info, b.describeLog(info, id, serial, rec)
}

// dateOf is nil for 0: not known, or none given.
func dateOf(m wire.Millis) *time.Time {
	if m == 0 {
		return nil
	}
	t := m.Time()
	return &t
}

func describeEntry(e *wire.LogEntry) *entryInfo {
	if e == nil {
		return nil
	}
	return &entryInfo{Index: e.Index, Logged: e.Time.Time()}
}

// describeParties tells who has put the certificate on hold or revoked it.
func (b *Bridge) describeParties(info *statusInfo, id wire.CAID, serial wire.Serial, rec *wire.CertRecord) error {
	if rec.State != wire.CertValid {
		info.By = append(info.By, "ca")
	}
	revs, err := b.index.Revocations(id, serial)
	if err != nil {
		return err
	}
	for i := range revs {
		if status.Applies(&revs[i], rec.SPKIHash) {
			info.By = append(info.By, sourceNames[revs[i].Source])
		}
	}
	for _, r := range b.index.Rules(id) {
		if !status.Covers(&r, rec.Pre) && !status.Covers(&r, rec.Final) {
			continue
		}
		info.By = append(info.By, fmt.Sprintf("rule %d", r.N))
		info.Rules = append(info.Rules, ruleInfo{N: r.N, From: r.From.Time(), To: r.To.Time(), Reason: r.Reason.String(), Since: r.Time.Time()})
	}
	return nil
}

// describeLog tells where the status log has the changes, and how many it does not have yet.
func (b *Bridge) describeLog(info *statusInfo, id wire.CAID, serial wire.Serial, rec *wire.CertRecord) error {
	concerns := func(l *wire.StatusLeaf) bool {
		rule := wire.Rule{From: l.From, To: l.To}
		return l.CAID == id && (len(l.Serial) > 0 && slices.Equal(l.Serial, serial) && !ofAnotherKey(l, rec) ||
			l.Kind == wire.LeafRule && (status.Covers(&rule, rec.Pre) || status.Covers(&rule, rec.Final)))
	}
	for _, about := range []wire.Serial{serial, nil} {
		entries, err := b.index.StatusEntries(id, about, shownChanges)
		if err != nil {
			return err
		}
		for i := range entries {
			if e := &entries[i]; concerns(&e.Leaf) {
				info.StatusLog = append(info.StatusLog, positionInfo{Index: e.Index, Kind: kindNames[e.Leaf.Kind], Since: e.Leaf.Time.Time()})
			}
		}
	}
	slices.SortFunc(info.StatusLog, func(a, b positionInfo) int { return cmp.Compare(b.Index, a.Index) })
	pending, err := b.index.Pending(wire.MaxBatch)
	for i := range pending {
		if concerns(&pending[i].Leaf) {
			info.Pending++
		}
	}
	return err
}

const (
	defaultWait = 10 * time.Second
	longestWait = 30 * time.Second
)

// serveApplied answers ?block=N once block N is applied, or with 504 after ?timeout= (a Go duration, at most 30 s).
func (b *Bridge) serveApplied(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	block, err := strconv.ParseUint(q.Get("block"), 10, 64)
	if err != nil {
		problem.Write(w, b.log, wire.Errorf(wire.InvalidArgument, "block", q.Get("block"), "must be a decimal block number"))
		return
	}
	wait := defaultWait
	if q.Has("timeout") {
		if wait, err = time.ParseDuration(q.Get("timeout")); err != nil || wait < 0 || wait > longestWait {
			problem.Write(w, b.log, wire.Errorf(wire.InvalidArgument, "timeout", q.Get("timeout"), "must be a duration of 0s to %s", longestWait))
			return
		}
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	go func() {
		select {
		case <-b.cfg.After(wait):
			cancel(context.DeadlineExceeded)
		case <-ctx.Done():
		}
	}()
	if err := b.WaitApplied(ctx, block); err != nil {
		if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			err = problem.New(http.StatusGatewayTimeout, problem.CodeUnavailable, "block", strconv.FormatUint(block, 10),
				"is not applied yet: this bridge has applied "+strconv.FormatUint(b.index.View().Height, 10)+" blocks")
		}
		if b.haltReason() != nil {
			err = unavailable(err)
		}
		problem.Write(w, b.log, err)
		return
	}
	b.writeJSON(w, http.StatusOK, map[string]uint64{"block": block, "height": b.index.View().Height})
}

// What /healthz says, the worst first.
const (
	healthHalted   = "halted"
	healthStale    = "stale"
	healthAlarm    = "alarm"    // somebody lies
	healthDegraded = "degraded" // a CRL is not served
	healthAlive    = "alive"
)

type health struct {
	Status  string   `json:"status"`
	Reasons []string `json:"reasons,omitempty"`
	Alarms  int64    `json:"alarms,omitempty"`
	See     string   `json:"see,omitempty"` // of alarms
}

// serveHealth: 503 when the bridge has halted or its view is stale, so that every answer is tryLater. With an alarm or a CRL that disagrees it is 200:
// who asks restarts what is not healthy, and what one liar has spread, or one CA has signed, would take down every bridge at once. The body
// tells, as do /v1/alarms, /v1/heads, the metrics and the log. An alarm stays until its evidence is taken away.
func (b *Bridge) serveHealth(w http.ResponseWriter, _ *http.Request) {
	h := health{Status: healthAlive, Reasons: b.crls.Problems(), Alarms: b.alarms.Load()}
	if len(h.Reasons) > 0 {
		h.Status = healthDegraded
	}
	if h.Alarms > 0 {
		h.Status, h.See = healthAlarm, pathAlarms
	}
	code := http.StatusOK
	if status, err := b.ailing(b.cfg.Now()); err != nil {
		h.Status, h.Reasons = status, append([]string{err.Error()}, h.Reasons...)
		code = http.StatusServiceUnavailable
	}
	b.writeJSON(w, code, h)
}

// serveReady: 200 when answers are given, 503 with the reason when not.
func (b *Bridge) serveReady(w http.ResponseWriter, _ *http.Request) {
	r := b.Ready()
	code := http.StatusOK
	if !r.Ready {
		code = http.StatusServiceUnavailable
	}
	b.writeJSON(w, code, r)
}
