package crls

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/crl"
)

// scopes tells which shards a certificate belongs to: the URLs that are stamped into it. It remembers the answers, since each costs a lookup of
// the certificate.
type scopes struct {
	ledger Ledger

	mu    sync.Mutex
	known map[wire.CAID]map[uint64]uint32 // by index in the CA's log: a place in lists; guarded by mu
	count int
	lists [][]string // distinct lists of URLs
	place map[string]uint32
}

// keptScopes bounds what is remembered: some 30 octets each.
const keptScopes = 8 << 20

// logIndex is where a certificate stands in its CA's log; of one with only a precertificate, which has the same extensions, where that does.
func logIndex(rec *wire.CertRecord) uint64 {
	switch {
	case rec.Final != nil:
		return rec.Final.Index
	case rec.Pre != nil:
		return rec.Pre.Index
	}
	return noIndex
}

// noIndex is where a serial number stands whose certificate the ledger does not have. No shard lists it: what URLs are stamped into the
// certificate is not known.
const noIndex = math.MaxUint64

// has reports whether the certificate that stands there in the CA's log belongs to scope.
func (s *scopes) has(id wire.CAID, index uint64, scope string) (bool, error) {
	if scope == "" || index == noIndex {
		return scope == "", nil
	}
	s.mu.Lock()
	at, found := s.known[id][index]
	var urls []string
	if found {
		urls = s.lists[at]
	}
	s.mu.Unlock()
	if !found {
		var err error
		if urls, err = s.read(id, index); err != nil {
			return false, err
		}
		s.remember(id, index, urls)
	}
	return slices.Contains(urls, scope), nil
}

func (s *scopes) read(id wire.CAID, at uint64) ([]string, error) {
	log, ok := s.ledger.Issuance(id)
	if !ok {
		return nil, fmt.Errorf("CA %s has no log", id)
	}
	entries, err := log.Entries(at, at+1)
	if err != nil {
		return nil, err
	}
	urls, err := crl.Points(entries[0].DER)
	if err != nil {
		return nil, fmt.Errorf("entry %d of the log of %s: %w", at, id, err)
	}
	return urls, nil
}

func (s *scopes) remember(id wire.CAID, at uint64, urls []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || s.count >= keptScopes {
		s.known, s.place, s.lists, s.count = map[wire.CAID]map[uint64]uint32{}, map[string]uint32{}, nil, 0
	}
	key := strings.Join(urls, "\x00")
	n, found := s.place[key]
	if !found {
		n = uint32(len(s.lists))
		s.place[key], s.lists = n, append(s.lists, urls)
	}
	if s.known[id] == nil {
		s.known[id] = map[uint64]uint32{}
	}
	s.known[id][at] = n
	s.count++
}
