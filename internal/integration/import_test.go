package integration

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caimport"
	"github.com/certanchor/certanchor/internal/caimport/importtest"
	testnetwork "github.com/certanchor/certanchor/test-network"
)

// anOutsideCAIsImported registers a CA of openssl's, imports it through one organisation's peer, and reads it at another's. Nobody
// has a certificate to answer for this CA by OCSP, and the audit, which asks responders about everything, must know that.
func (f *fabricCase) anOutsideCAIsImported(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	outside := importtest.NewOpenSSL(t)
	outside.Issue(1200) // more than one transaction
	outside.Revoke("01", "-crl_reason", "keyCompromise")
	outside.Revoke("02", "-crl_reason", "certificateHold")
	for org := 1; org <= 3; org++ {
		admin, err := f.d.Ledger(ctx, org, testnetwork.Admin)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			_, err := ca.Register(ctx, admin, outside.Cert.Raw, nil, f.operator.MSPID())
			return err
		})
		if err := admin.Close(); err != nil {
			t.Error(err)
		}
	}
	var authority *caimport.Authority
	eventually(t, func() (err error) {
		authority, err = caimport.FindAuthority(ctx, f.operator, outside.ID)
		return err
	})
	plan, err := caimport.NewPlan(authority, caimport.Inputs{Any: []string{outside.Dir}}, "", caimport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	state, err := caimport.LoadState(filepath.Join(t.TempDir(), "state"), f.operator.Channel(), outside.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	if counts, err := plan.Resume(ctx, state); err != nil || counts.Bad > 0 || counts.Items() != 1200 {
		t.Fatalf("%+v, %v", counts, err)
	}
	out, err := caimport.Import(ctx, plan, &caimport.Submitter{Ledger: f.operator, CAID: outside.ID}, state, func(uint64) {})
	if err != nil || out.Items != 1200 || out.Changed != 1200 {
		t.Fatalf("%+v, %v", out, err)
	}
	other, err := f.d.Ledger(ctx, 4, testnetwork.Operator)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	}()
	for serial, want := range map[byte]wire.CertState{1: wire.CertRevoked, 2: wire.CertHeld, 3: wire.CertValid} {
		eventually(t, func() error {
			values, err := caimport.ReadKeys(ctx, other, []string{wire.CertKey(outside.ID, wire.Serial{serial})})
			if err == nil && values[0] == nil {
				err = errors.New("not there yet")
			}
			if err != nil {
				return err
			}
			var rec wire.CertRecord
			if err := wire.Decode(values[0], &rec); err != nil {
				return err
			}
			if rec.State != want || !rec.Imported || rec.SerialOnly() {
				t.Errorf("%02x is %+v at another organisation, want state %d", serial, rec, want)
			}
			return nil
		})
	}
}
