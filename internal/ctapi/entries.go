package ctapi

import (
	"errors"
	"fmt"
	"net/http"

	"golang.org/x/crypto/cryptobyte"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/tiles/intact"
)

// Limits of a get-entries answer. RFC 6962 4.6 lets a log return fewer entries than asked for.
const (
	maxPage      = 256
	maxPageBytes = 4 << 20 // as far as one is left: the first entry is always returned
	pageStep     = 32      // entries are read in steps of this many
)

// leafEntry is one entry as RFC 6962 sections 4.6 and 4.8 have it.
type leafEntry struct {
	LeafInput []byte `json:"leaf_input"`
	ExtraData []byte `json:"extra_data"`
}

type entriesAnswer struct {
	Entries []leafEntry `json:"entries"`
}

// getEntries is RFC 6962 section 4.6.
func (l *Log) getEntries(r *http.Request) (*answer, error) {
	q, err := query(r)
	if err != nil {
		return nil, err
	}
	start, err := q.number("start")
	if err != nil {
		return nil, err
	}
	end, err := q.number("end")
	if err != nil {
		return nil, err
	}
	if start > end {
		return nil, wire.Errorf(wire.InvalidArgument, "start", number(start), "must be at most end, %d", end)
	}
	if err := l.checkReached(); err != nil {
		return nil, err
	}
	size := l.log.Head().Size
	if start >= size {
		return nil, wire.Errorf(wire.InvalidArgument, "start", number(start), "must be below the size of the log, %d", size)
	}
	// What the log's end cut short is longer tomorrow.
	cache := settled
	if end >= size {
		end, cache = size-1, fresh
	}
	page, err := l.page(start, min(end, start+maxPage-1)+1)
	if err != nil {
		return nil, err
	}
	return &answer{body: entriesAnswer{page}, cache: cache}, nil
}

// page returns entries from start on, below stop, as many as fit.
func (l *Log) page(start, stop uint64) ([]leafEntry, error) {
	var page []leafEntry
	for total := 0; start < stop; start += pageStep {
		entries, err := intact.Entries(l.log, start, min(start+pageStep, stop))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			entry, err := l.leafEntry(e)
			if err != nil {
				return nil, err
			}
			if total += len(entry.LeafInput) + len(entry.ExtraData); total > maxPageBytes && len(page) > 0 {
				return page, nil
			}
			page = append(page, entry)
		}
	}
	return page, nil
}

func (l *Log) leafEntry(e merklelog.Entry) (leafEntry, error) {
	out := leafEntry{LeafInput: e.Leaf}
	switch e.Kind {
	case merklelog.X509:
		// RFC 6962 4.6: for an X509ChainEntry extra_data is its certificate_chain.
		out.ExtraData = l.vector
	case merklelog.Precert:
		// For a PrecertChainEntry it is the precertificate as submitted and its chain: the whole structure.
		b := cryptobyte.NewBuilder(make([]byte, 0, 3+len(e.DER)+len(l.vector)))
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(e.DER) })
		b.AddBytes(l.vector)
		var err error
		if out.ExtraData, err = b.Bytes(); err != nil {
			return out, err
		}
	default:
		return out, fmt.Errorf("log %s: entry of kind %d: must be a certificate or precertificate", l.caID, e.Kind)
	}
	return out, nil
}

// certificateChain encodes ASN.1Cert certificate_chain<0..2^24-1> (RFC 6962 section 3.1).
func certificateChain(chain [][]byte) ([]byte, error) {
	b := cryptobyte.NewBuilder(nil)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, der := range chain {
			b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(der) })
		}
	})
	out, err := b.Bytes()
	if err != nil {
		return nil, errors.New("ctapi: the CA's chain is longer than 2^24-1 octets (RFC 6962 section 3.1)")
	}
	return out, nil
}
