package ocspbridge

import (
	"encoding/hex"
	"net/http"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/tlogproof"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/heads"
)

// members restricts a handler to members, if the logs are.
func (b *Bridge) members(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if b.admitted(w, r) {
			next(w, r)
		}
	}
}

// admitted refuses clients that are not members, if the logs are for members only.
func (b *Bridge) admitted(w http.ResponseWriter, r *http.Request) bool {
	if !b.cfg.MembersOnly || r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return true
	}
	problem.Write(w, b.log, problem.New(http.StatusForbidden, string(wire.PermissionDenied), "client certificate", "none",
		"must be one that this server's tls.client_ca has certified: logs_access is members"))
	return false
}

// serveWitness cosigns for other organisations, as long as this one's ledger is to be believed.
func (b *Bridge) serveWitness(w http.ResponseWriter, r *http.Request) {
	if err := b.haltReason(); err != nil {
		problem.Write(w, b.log, unavailable(err))
		return
	}
	b.witness.ServeHTTP(w, r)
}

// headsInfo is the state of the cosigned heads.
type headsInfo struct {
	Quorum int        `json:"quorum"`
	Alarms int64      `json:"alarms"`
	Logs   []headInfo `json:"logs"`
	Peers  []peerInfo `json:"peers"`
}

type headInfo struct {
	Name    string    `json:"name"`
	Origin  string    `json:"origin"`
	Size    uint64    `json:"size"`            // as this organisation's blocks have it
	Quorate *cosigned `json:"quorate"`         // what a quorum has cosigned; null: nothing yet
	Newest  *cosigned `json:"newest"`          // what was signed last; null: nothing yet
	Error   string    `json:"error,omitempty"` // why the newest round brought no quorum
}

type cosigned struct {
	Size       uint64     `json:"size"`
	Root       string     `json:"root"` // hexadecimal
	Cosigners  []string   `json:"cosigners"`
	Since      *time.Time `json:"since"` // no cosignature is older; null: of an earlier run
	AgeSeconds *float64   `json:"age_seconds"`
}

type peerInfo struct {
	MSPID    string     `json:"msp_id"`
	URL      string     `json:"url"`
	Compared *time.Time `json:"compared"`        // null: not yet
	Error    string     `json:"error,omitempty"` // of the newest comparison
}

func (b *Bridge) serveHeads(w http.ResponseWriter, _ *http.Request) {
	b.writeJSON(w, http.StatusOK, b.headsInfo())
}

func (b *Bridge) headsInfo() *headsInfo {
	info := &headsInfo{Quorum: b.quorum(), Alarms: b.alarms.Load(), Peers: []peerInfo{}}
	now := b.cfg.Now()
	for _, log := range b.logs(b.index.View()) {
		st := b.heads.State(log)
		h := headInfo{Name: log.Name, Origin: log.Origin, Size: log.Log.Head().Size, Quorate: describe(st.Best, now), Newest: describe(st.Latest, now)}
		if st.Err != nil {
			h.Error = st.Err.Error()
		}
		info.Logs = append(info.Logs, h)
	}
	for _, p := range b.peers {
		out := peerInfo{MSPID: p.MSPID, URL: p.URL}
		if s := b.sight.get(p.MSPID); !s.At.IsZero() {
			at := s.At.UTC()
			out.Compared = &at
			if s.Err != nil {
				out.Error = s.Err.Error()
			}
		}
		info.Peers = append(info.Peers, out)
	}
	return info
}

func describe(cp *heads.Checkpoint, now time.Time) *cosigned {
	if cp == nil {
		return nil
	}
	c := &cosigned{Size: cp.Size, Root: hex.EncodeToString(cp.Root[:]), Cosigners: cp.Cosigners}
	if !cp.At.IsZero() {
		at, age := cp.At.UTC(), now.Sub(cp.At).Seconds()
		c.Since, c.AgeSeconds = &at, &age
	}
	return c
}

// alarmInfo is evidence of a split view.
type alarmInfo struct {
	Seen     time.Time `json:"seen"`
	Origin   string    `json:"origin"`
	Size     uint64    `json:"size"`
	OwnRoot  string    `json:"own_root"` // hexadecimal
	SignedBy []string  `json:"signed_by"`
	Note     string    `json:"note"` // the signed checkpoint, whose root is another
}

func (b *Bridge) serveAlarms(w http.ResponseWriter, _ *http.Request) {
	list := []alarmInfo{}
	for _, e := range b.watch.All() {
		a := alarmInfo{Seen: e.Seen, OwnRoot: hex.EncodeToString(e.OwnRoot[:]), SignedBy: e.Signers, Note: string(e.Note)}
		if cp, _, err := tlogproof.ReadUnverified(e.Note); err == nil {
			a.Origin, a.Size = cp.Origin, cp.Size
		}
		list = append(list, a)
	}
	b.writeJSON(w, http.StatusOK, list)
}

func (b *Bridge) servePolicy(w http.ResponseWriter, r *http.Request) {
	t := b.trust()
	if t == nil {
		b.serveNothing(w, r)
		return
	}
	b.writeText(w, t.File)
}
