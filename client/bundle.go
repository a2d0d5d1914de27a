package client

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/bundle"
)

// Which statement of a bundle does not hold, for errors.Is. The text of an error says more.
var (
	ErrBundleFormat     = bundle.ErrFormat     // it is not a bundle
	ErrBundlePolicy     = bundle.ErrPolicy     // too few organisations have signed, or others than the policy's
	ErrBundleNotIssued  = bundle.ErrNotIssued  // it does not show that the certificate is in its CA's log
	ErrBundleProof      = bundle.ErrProof      // it does not show the certificate's status
	ErrBundleStale      = bundle.ErrStale      // its view of the ledger is older than the policy allows, or of the future
	ErrBundleIncomplete = bundle.ErrIncomplete // it leaves out what could have made the status worse
)

const (
	// BundleExtension of a bundle's file name.
	BundleExtension = bundle.Extension

	// BundleContentType over HTTP.
	BundleContentType = bundle.ContentType
)

// Verdict is what a verified bundle shows about a certificate.
type Verdict struct {
	Status     Status    // Good or Revoked
	OnHold     bool      // Revoked, but the CA may lift it
	RevokedAt  time.Time // Revoked only: when the ledger recorded it, which nobody could date back
	Asserted   time.Time // Revoked only: of what was imported, since when, as the CA says; OCSP and CRLs tell it if the ledger never called the certificate good and it is earlier; zero: the CA says nothing else
	Reason     string    // Revoked only: RFC 5280's name of the reason
	Invalidity time.Time // Revoked only: since when the key is suspect (RFC 5280 section 5.3.2); zero if nobody said
	By         []string  // Revoked only: "ca", "holder", "quorum" or "rule <n>", all of them that did
	AsOf       time.Time // the ledger's time that Status is of
	Newer      int       // entries of the status log after AsOf that Status takes into account as well: they can only make it worse

	CAID        string    // the CA: see the function of this name
	CASuspended bool      // the CA may not issue now; what it has issued keeps its status
	Index       uint64    // in the CA's log, of the certificate, or of its precertificate if only that is shown
	Logged      time.Time // the timestamp of that entry

	LogCosigners    []string // MSP IDs of the organisations that vouch for the CA's log
	StatusCosigners []string // MSP IDs of the organisations that vouch for the status
}

// VerifyBundle checks, without any network, what the ledger said about cert at most policy.MaxAge() before now. A nil error means that the
// Verdict can be relied on; its Status may be either. It neither looks at cert's validity period and names, nor builds a chain:
// crypto/x509's Verify does.
//
// What has to be trusted: the policy file, the clock, and that the organisations do not conspire: the two quorums of a lie and of
// the truth have members in common, who would have signed both.
func VerifyBundle(policy *Policy, cert *x509.Certificate, data []byte, now time.Time) (*Verdict, error) {
	if policy == nil || policy.p == nil || cert == nil {
		return nil, errors.New("policy and certificate must both be given")
	}
	r, err := bundle.Verify(policy.p, cert, data, now)
	if errors.Is(err, ErrBundleStale) {
		return nil, stale(policy, data, now, err)
	}
	if err != nil {
		return nil, err
	}
	b, err := bundle.Parse(data)
	if err != nil {
		return nil, err
	}
	entry := r.Final
	if entry == nil {
		entry = r.Pre
	}
	v := &Verdict{
		Status: Good, AsOf: r.AsOf, Newer: len(b.Newer), CAID: r.CAID.String(), CASuspended: r.CA == wire.CASuspended,
		Index: entry.Index, Logged: entry.Time.Time(), LogCosigners: r.LogCosigners, StatusCosigners: r.StatusCosigners,
	}
	if r.Status.State == wire.CertValid {
		return v, nil
	}
	v.Status, v.OnHold, v.By = Revoked, r.Status.State == wire.CertHeld, r.By
	v.RevokedAt, v.Reason = r.Status.Time.Time(), r.Status.Reason.String()
	if r.Status.Asserted != 0 {
		v.Asserted = r.Status.Asserted.Time()
	}
	if r.Status.Invalidity != 0 {
		v.Invalidity = r.Status.Invalidity.Time()
	}
	return v, nil
}

// stale is err, of a bundle that holds otherwise, with times as they are written elsewhere.
func stale(policy *Policy, data []byte, now time.Time, err error) error {
	b, e := bundle.Parse(data)
	if e != nil {
		return err
	}
	var tick wire.MapLeaf
	if wire.Decode(b.Tick.Leaf, &tick) != nil {
		return err
	}
	is, at := tick.Time.Time().UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)
	if tick.Time.Time().After(now) {
		return fmt.Errorf("%w: its status is of %s, and this clock says %s", ErrBundleStale, is, at)
	}
	return fmt.Errorf("%w: its status is of %s, and it is %s: the policy allows %v", ErrBundleStale, is, at, policy.MaxAge())
}

// FetchBundle gets a new bundle of cert from LogURL. It is not verified: VerifyBundle does. Errors: ErrNotLogged; ErrUnavailable when there is none
// now: as before the first tick after the certificate's issuance; ErrTransport.
func (c *Client) FetchBundle(ctx context.Context, cert, issuer *x509.Certificate) ([]byte, error) {
	if err := checkIssued(cert, issuer); err != nil {
		return nil, err
	}
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		return nil, err
	}
	address := strings.TrimRight(c.LogURL, "/") + "/logs/" + CAID(issuer) + "/bundle?serial=" + serial.String()
	code, header, data, err := c.exchange(ctx, http.MethodGet, address, nil, "", bundle.MaxSize)
	switch t := mediaType(header); {
	case err != nil:
		return nil, err
	case code == http.StatusOK && t == bundle.ContentType:
		return data, nil
	case code == http.StatusOK:
		return nil, fmt.Errorf("%w: %s: content type %q: must be %s", ErrTransport, address, t, bundle.ContentType)
	case code == http.StatusNotFound:
		return nil, fmt.Errorf("%w: %s: %s", ErrNotLogged, address, detail(data))
	}
	return nil, c.refused(address, code, header, data)
}
