package ca

import (
	"bytes"
	"context"
	"encoding/json"
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
	if err := s.checkAKI(r.Context(), q.aki, q.serial); err != nil {
		return err
	}
	req := caapi.RevokeRequest{Serial: q.serial.String(), Reason: q.reason.String()}
	pending := &captured{ResponseWriter: w}
	if needs, err := s.revokeUnderDual(pending, c, req); err != nil {
		return err
	} else if needs {
		return s.answer(w, http.StatusAccepted, &cfsslAnswer{
			Result: json.RawMessage(pending.body.Bytes()), Messages: []cfsslMessage{},
			Errors: []cfsslMessage{{http.StatusAccepted, "nothing is revoked yet: operators must approve " + w.Header().Get("Location")}},
		})
	}
	change, acknowledged, err := s.Revoke(context.WithoutCancel(r.Context()), req)
	if err != nil {
		return err
	}
	w.Header().Set("Location", caapi.PathCertificates+"/"+change.Serial) // in hexadecimal, where the request had it decimal
	s.log.Info("status changed", "client", c.name, "serial", change.Serial, "state", change.State, "reason", change.Reason,
		"changed", change.Changed, "block", change.Block, "acknowledged", acknowledged, "api", "cfssl")
	if !acknowledged {
		return s.answerCFSSL(w, change, cfsslMessage{cfsslStillToCome, change.Detail})
	}
	return s.answerCFSSL(w, change)
}

// captured keeps an answer for the envelope.
type captured struct {
	http.ResponseWriter
	body bytes.Buffer
}

func (c *captured) WriteHeader(int)             {}
func (c *captured) Write(b []byte) (int, error) { return c.body.Write(b) }
