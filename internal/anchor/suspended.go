package anchor

import (
	"context"
	"errors"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// aboutCA reports whether a refusal is about the state of the CA, such as that it is suspended: no new certificate of the batch would be
// taken by itself, and every one that is recorded already would.
func aboutCA(err error) bool {
	we, ok := errors.AsType[*wire.Error](err)
	return ok && we.Field == "ca.state"
}

// recordedOf reads which of the certificates have a record.
func recordedOf(ledger network.Ledger, caID wire.CAID) func(context.Context, [][]byte) ([]bool, error) {
	return func(ctx context.Context, certs [][]byte) ([]bool, error) {
		keys := make([]string, len(certs))
		for i, der := range certs {
			// DER has a zero before what would be negative; what is no serial number has no record.
			keys[i] = wire.CAKey(caID)
			if serial := wire.Serial(strings.TrimPrefix(SerialIn(der), "\x00")); serial.Check() == nil {
				keys[i] = wire.CertKey(caID, serial)
			}
		}
		ctx, cancel := context.WithTimeout(ctx, headTimeout)
		defer cancel()
		values, err := read(ctx, ledger, keys...)
		if err != nil {
			return nil, err
		}
		recorded := make([]bool, len(certs))
		for i, v := range values {
			recorded[i] = v != nil && keys[i] != wire.CAKey(caID)
		}
		return recorded, nil
	}
}

// sift handles the refusal of a batch that is about the CA's state without trying its parts: it refuses what has no record, and returns
// the rest. ok is false when that could not be found out, did not help before, or is not needed.
func (l *lane[Req, Res]) sift(ctx context.Context, b *batch[Req, Res], err error) (rest []*batch[Req, Res], ok bool) {
	if l.recorded == nil || b.sifted || len(b.entries) == 1 || !aboutCA(err) {
		return nil, false
	}
	reqs := make([]Req, len(b.entries))
	for i, e := range b.entries {
		reqs[i] = e.req
	}
	recorded, readErr := l.recorded(ctx, reqs)
	if readErr != nil {
		return nil, false
	}
	keep := &batch[Req, Res]{culprits: b.culprits, sifted: true}
	for i, e := range b.entries {
		if recorded[i] {
			keep.entries = append(keep.entries, e)
		} else {
			l.refuse(e, l.function, err)
		}
	}
	if len(keep.entries) == 0 {
		return nil, true
	}
	return []*batch[Req, Res]{keep}, true
}
