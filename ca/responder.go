package ca

import (
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/oplog"
)

// httpResponder asks an OCSP bridge over HTTP.
type httpResponder struct {
	base   string
	client *http.Client
}

// longestPoll is what an OCSP bridge grants one poll; retryPoll is the pause after one that could not be made.
const (
	longestPoll = 30 * time.Second
	retryPoll   = 50 * time.Millisecond
)

// NewHTTPResponder is the OCSP bridge at the base URL. client may be nil.
func NewHTTPResponder(base string, client *http.Client) Responder {
	if client == nil {
		client = &http.Client{}
	}
	return &httpResponder{base: strings.TrimSuffix(base, "/"), client: client}
}

func (h *httpResponder) Name() string { return h.base }

// WaitApplied polls until the bridge confirms or ctx ends: a bridge that is just restarting gets its chance.
func (h *httpResponder) WaitApplied(ctx context.Context, block uint64) error {
	for {
		err := h.poll(ctx, block)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryPoll):
		}
	}
}

// poll asks once; the bridge answers 200 as soon as it has applied the block.
func (h *httpResponder) poll(ctx context.Context, block uint64) error {
	wait := longestPoll
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline))
	}
	if wait <= 0 {
		return errors.New("it has not confirmed in time")
	}
	q := url.Values{"block": {strconv.FormatUint(block, 10)}, "timeout": {wait.Truncate(time.Millisecond).String()}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.base+"/v1/applied?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answered %s", resp.Status)
	}
	return nil
}

// EnrollResponder issues the certificate of a delegated OCSP responder for a DER request, for a bridge in this process. It
// goes the way of every other certificate.
func (s *Server) EnrollResponder(ctx context.Context, caID wire.CAID, csr []byte) ([]byte, error) {
	if caID != s.issuer.id {
		return nil, wire.Errorf(wire.NotFound, "ca_id", caID.String(), "must be this CA, %s", s.issuer.id)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})
	var got *Issued
	err := s.operators.internally(ctx, oplog.Entry{Actor: "this process", Action: "enrol OCSP responder"}, func(ctx context.Context) (err error) {
		got, err = s.Issue(ctx, Request{CSR: string(text), Profile: ResponderProfile, Client: "this process", IdempotencyKey: rand.Text()})
		return err
	})
	if err != nil {
		return nil, err
	}
	return got.DER, nil
}
