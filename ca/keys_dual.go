package ca

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/dual"
	"github.com/certanchor/certanchor/internal/keystate"
)

// resumes reports whether a change brings a suspended key back into use. To destroy it needs no second operator: whoever fears for a key does not have to ask.
func resumes(from, to keystate.State) bool {
	return from == keystate.Suspended && (to == keystate.Active || to == keystate.Retired)
}

// resumption is what an operation of the kind key-resume is about.
type resumption struct {
	CAID string `json:"ca_id"`
	Seq  uint64 `json:"seq"` // of the record that suspended the key
	To   string `json:"to"`
	By   string `json:"by"`
	How  string `json:"how"`
	Why  string `json:"why"`
}

// resumeUnderDual asks for approvals if the policy wants them.
func (s *Server) resumeUnderDual(w http.ResponseWriter, c *client, g *Server, change KeyChange) (bool, error) {
	if err := g.custody.states.Check(g.stateChange(change)); err != nil {
		return true, err
	}
	last := g.custody.states.Last()
	contents, err := json.Marshal(resumption{CAID: g.issuer.id.String(), Seq: last.Seq, To: string(change.To), By: change.By, How: change.How, Why: change.Why})
	if err != nil {
		return true, err
	}
	return s.underDual(w, c, dual.KindKeyResume, 1, map[string]string{
		"key": g.issuer.id.String(), "to": string(change.To), "why": change.Why, "suspended": last.Time.UTC().Format(caapi.TimeFormat), "suspended_by": last.By,
	}, contents)
}

// resumeApproved resumes a key. The approval is for one suspension: a later one needs another.
func (s *Server) resumeApproved(ctx context.Context, _ dual.Operation, contents []byte) (any, error) {
	var r resumption
	if err := json.Unmarshal(contents, &r); err != nil {
		return nil, fmt.Errorf("couldn't read the approved change: %w", err)
	}
	g, err := s.generation(r.CAID)
	if err != nil {
		return nil, err
	}
	to, err := keystate.Parse("to", r.To)
	if err != nil {
		return nil, err
	}
	last := g.custody.states.Last()
	if last.Seq == r.Seq+1 && last.To == to { // done, by a process that died before it could say so
		return g.Key(ctx)
	}
	if last.Seq != r.Seq {
		return nil, fmt.Errorf("the key is %s: what was approved is the end of an earlier suspension", last.String())
	}
	if err := g.ChangeKey(ctx, KeyChange{To: to, By: r.By, How: r.How + ", approved", Why: r.Why, ends: r.Seq}); err != nil {
		return nil, err
	}
	return g.Key(ctx)
}
