package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/catalogue"
	"github.com/certanchor/certanchor/internal/dual"
)

// paramBulk names the bulk that an operation of the kind revoke starts.
const paramBulk = "bulk"

// Further parameters of such an operation.
const (
	paramSPKI  = "spki"  // the key of a bulk by key
	paramScope = "scope" // of a sweep
)

// isSweep reports whether a bulk revokes every certificate with a compromised key, those too that are recorded after its list was made.
func isSweep(v caapi.Bulk) bool {
	return v.SPKI != "" && v.Operation == caapi.OperationRevoke && v.Reason == wire.KeyCompromise.String()
}

// sweepNeedsApproval: nobody knows how many certificates a sweep will revoke, so none is below a limit.
func (s *Server) sweepNeedsApproval() bool { return s.dual.policy.Load().Asks(dual.KindRevoke) }

// bulkUnderDual is underDual for a planned bulk that revokes or holds: with the digest of its list, the operators sign exactly that. A repetition
// gets the operation that waits already.
func (s *Server) bulkUnderDual(w http.ResponseWriter, c *client, j *bulk) (waits bool, err error) {
	v, _ := j.view()
	if s.dual.policy.Load() == nil || v.State != caapi.BulkPlanned || v.Operation == caapi.OperationRelease {
		return false, nil
	}
	sweep := isSweep(v)
	if sweep && !s.sweepNeedsApproval() || !sweep && v.Total == 0 {
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
	for name, value := range map[string]string{"reason": v.Reason, "invalidity_date": v.InvalidityDate, paramSPKI: v.SPKI} {
		if value != "" {
			params[name] = value
		}
	}
	if sweep {
		params[paramScope] = "every certificate with the key, those recorded later too"
		return true, s.askApprovals(w, c, dual.KindRevoke, params, contents)
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

// blockWaiting keeps the keys of certificates that are to be revoked for keyCompromise from new ones while the operation waits for signatures, and is carried out.
func (s *Server) blockWaiting(rec *dual.Record, contents []byte) error {
	if rec.Operation.Kind != dual.KindRevoke {
		return nil
	}
	compromised := wire.KeyCompromise.String()
	var keys []catalogue.Key
	if spki := rec.Operation.Params[paramSPKI]; spki != "" && rec.Operation.Params["reason"] == compromised {
		k, err := catalogue.ParseKey(spki)
		if err != nil {
			return err
		}
		keys = append(keys, k)
	}
	for line := range bytes.Lines(contents) {
		var r caapi.ListedCertificate // a RevokeRequest has the same fields
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		if r.Reason != compromised {
			continue
		}
		more, err := s.keysOf(r.Serial)
		if err != nil {
			return err
		}
		keys = append(keys, more...)
	}
	return s.blocked.blockWhile(rec.Client, rec.Operation.ID(), keys...)
}

// keysOf finds the keys of the certificates with a serial number, of all generations of the CA's key.
func (s *Server) keysOf(text string) (keys []catalogue.Key, err error) {
	serial, err := wire.ParseSerial(text)
	if err != nil {
		return nil, err
	}
	for _, g := range s.line.list() {
		c, err := g.catalogue.Get(serial)
		if err != nil {
			return nil, err
		}
		if c != nil && len(c.Key) == len(catalogue.Key{}) {
			keys = append(keys, catalogue.Key(c.Key))
			continue
		}
		e := g.book.findSerial(serial) // recorded a moment ago
		if e == nil {
			continue
		}
		r, err := g.journal.read(e.pos)
		if err != nil {
			return nil, err
		}
		cert, err := x509.ParseCertificate(r.Cert)
		if err != nil {
			return nil, err
		}
		keys = append(keys, catalogue.KeyOf(cert.RawSubjectPublicKeyInfo))
	}
	return keys, nil
}

// waits reports whether an operation may still be carried out: what it blocks is blocked.
func (s *Server) waits(operation string) bool {
	r, err := s.dual.store.Get(operation)
	return err == nil && (r.State == dual.Pending || r.State == dual.Approved)
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
