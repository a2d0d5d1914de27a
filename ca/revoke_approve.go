package ca

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/dual"
)

// paramBulk names the bulk that an operation of the kind revoke starts.
const paramBulk = "bulk"

// bulkUnderDual is underDual for a planned bulk that revokes or holds: with the digest of its list, the operators sign exactly that. A repetition
// gets the operation that waits already.
func (s *Server) bulkUnderDual(w http.ResponseWriter, c *client, j *bulk) (waits bool, err error) {
	v, _ := j.view()
	if s.dual.policy.Load() == nil || v.State != caapi.BulkPlanned || v.Operation == caapi.OperationRelease || v.Total == 0 {
		return false, nil
	}
	if known, err := s.waitingFor(v.ID); err != nil {
		return true, err
	} else if known != nil {
		d := s.describeOperation(known)
		w.Header().Set("Location", caapi.PathOperations+"/"+d.ID)
		return true, s.answer(w, http.StatusAccepted, caapi.Pending{Operation: &d})
	}
	contents, err := j.contents()
	if err != nil {
		return true, err
	}
	params := map[string]string{dual.ParamCount: strconv.Itoa(v.Total), paramBulk: v.ID, "digest": v.Digest, "operation": v.Operation, "source": v.Source}
	for name, value := range map[string]string{"reason": v.Reason, "invalidity_date": v.InvalidityDate, "spki": v.SPKI} {
		if value != "" {
			params[name] = value
		}
	}
	return s.underDual(w, c, dual.KindRevoke, v.Total, params, contents)
}

// waitingFor finds the operation that is to start a bulk, nil if there is none.
func (s *Server) waitingFor(id string) (*dual.Record, error) {
	all, err := s.dual.store.List()
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		if r.Operation.Params[paramBulk] == id && r.State == dual.Pending && s.now().Before(r.Operation.Expires) {
			return r, nil
		}
	}
	return nil, nil
}

// contents is the list for those who are to sign it: a caapi.ListedCertificate in each line.
func (j *bulk) contents() ([]byte, error) {
	items, _, err := j.results()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, i := range items {
		l := caapi.ListedCertificate{Serial: i.Serial, Reason: wire.Reason(i.Reason).String()}
		if i.Invalidity != 0 {
			l.InvalidityDate = i.Invalidity.Time().Format(caapi.TimeFormat)
		}
		if err := enc.Encode(l); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// bulkApproved is the executor of an operation that starts a bulk. Its outcome is the bulk as it ended.
func (s *Server) bulkApproved(ctx context.Context, id string) (any, error) {
	j, err := s.bulks.find(id)
	if err != nil {
		return nil, err
	}
	by := "dual control"
	if err := s.startBulk(ctx, by, j); err != nil {
		return nil, err
	}
	v := j.wait(ctx)
	if v.State != caapi.BulkDone {
		return nil, ctx.Err()
	}
	return v, nil
}
