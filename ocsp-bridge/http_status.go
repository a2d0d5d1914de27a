package ocspbridge

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/problem"
)

// statusInfo is what the ledger says about a certificate, as far as this bridge has read it. Unlike an OCSP answer it is given
// when the view is stale too; Fresh says so.
type statusInfo struct {
	CAID           string     `json:"ca_id"`
	Serial         string     `json:"serial"`
	State          string     `json:"state"` // valid, held or revoked
	Reason         string     `json:"reason,omitempty"`
	Since          time.Time  `json:"since"`
	InvalidityDate *time.Time `json:"invalidity_date,omitempty"`
	Changes        uint64     `json:"changes"`
	LogIndex       uint64     `json:"log_index"`
	Logged         time.Time  `json:"logged"`
	NotAfter       time.Time  `json:"not_after"`
	ViewHeight     uint64     `json:"view_height"`
	ViewTime       time.Time  `json:"view_time"`
	Fresh          bool       `json:"fresh"`
	Stale          string     `json:"stale,omitempty"` // why it is not fresh
}

var stateNames = map[wire.CertState]string{wire.CertValid: "valid", wire.CertHeld: "held", wire.CertRevoked: "revoked"}

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
	ca := v.CA(id)
	if ca == nil {
		return nil, wire.Errorf(wire.NotFound, "ca_id", id.String(), "must be a registered CA")
	}
	st, rec, err := b.index.Status(id, serial)
	if err != nil {
		return nil, err
	}
	if rec == nil || rec.Final == nil {
		return nil, notLogged(serial)
	}
	info := &statusInfo{
		CAID: id.String(), Serial: serial.String(), State: stateNames[st.State], Since: st.Time.Time(), Changes: st.Change,
		LogIndex: rec.Final.Index, Logged: rec.Final.Time.Time(), NotAfter: rec.NotAfter.Time(),
		ViewHeight: v.Height, ViewTime: v.Time.Time(), Fresh: true,
	}
	if st.State != wire.CertValid {
		info.Reason = st.Reason.String()
	}
	if st.Invalidity != 0 {
		t := st.Invalidity.Time()
		info.InvalidityDate = &t
	}
	if _, err := b.fresh(v, b.cfg.Now()); err != nil {
		info.Fresh, info.Stale = false, err.Error()
	}
	return info, nil
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

// serveHealth: the process is alive and able to answer.
func (b *Bridge) serveHealth(w http.ResponseWriter, _ *http.Request) {
	b.writeJSON(w, http.StatusOK, map[string]string{"status": "alive"})
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
