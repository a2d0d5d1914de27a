package ca

import (
	"context"
	"net/http"

	"github.com/certanchor/certanchor/internal/caapi"
)

// cfsslRevoke revokes through Server.Revoke. cfssl's answer has an empty result; this one also says what became of the certificate and
// where the ledger says so. A change that is committed, but that some responder has not applied yet, has a message about it.
func (s *Server) cfsslRevoke(w http.ResponseWriter, r *http.Request, c *client) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	q, err := parseCFSSLRevocation(body)
	if err != nil {
		return err
	}
	if err := s.checkAKI(q.aki); err != nil {
		return err
	}
	change, acknowledged, err := s.Revoke(context.WithoutCancel(r.Context()), caapi.RevokeRequest{Serial: q.serial.String(), Reason: q.reason.String()})
	if err != nil {
		return err
	}
	s.log.Info("status changed", "client", c.name, "serial", change.Serial, "state", change.State, "reason", change.Reason,
		"changed", change.Changed, "block", change.Block, "acknowledged", acknowledged, "api", "cfssl")
	if !acknowledged {
		return s.succeed(w, change, cfsslMessage{cfsslStillToCome, change.Detail})
	}
	return s.succeed(w, change)
}
