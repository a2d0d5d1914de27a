package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/caapi"
	"github.com/certanchor/certanchor/internal/keystate"
)

// A CA whose key is rotated has several generations: each has a key, and so is a CA of its own on the ledger, with a journal and CRLs of its own. The
// directory of one holds that of the next, so that Config.Dir stays what it is. One process has them all: the first has the HTTP API, its
// clients, its dual control and the profiles, and passes on what is for another.

// nextDir is where the next generation of a CA's key is, within the directory of the one before.
const nextDir = "next"

// lineage is the generations that this process has, oldest first.
type lineage struct {
	mu  sync.RWMutex // guards all
	all []*Server
}

func (l *lineage) list() []*Server {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Clone(l.all)
}

func (l *lineage) add(s *Server) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, s)
}

// over reports whether a key in this state has issued its last certificate.
func over(s keystate.State) bool { return s == keystate.Retired || s == keystate.Destroyed }

// issuing is the generation that issues: the first that has not issued its last certificate.
func (s *Server) issuing() *Server {
	all := s.line.list()
	for _, g := range all {
		if !over(g.custody.state()) {
			return g
		}
	}
	return all[len(all)-1]
}

func (s *Server) issues() bool { return s.issuing() == s && s.custody.state() == keystate.Active }

// issuerFor is the generation that a request for a certificate goes to. id is that of the CA that is asked, zero for the one that issues.
func (s *Server) issuerFor(id wire.CAID) (*Server, error) {
	if id == (wire.CAID{}) {
		return s.issuing(), nil
	}
	if g := s.Generation(id); g != nil {
		return g, nil
	}
	return nil, wire.Errorf(wire.NotFound, "ca_id", id.String(), "must be this CA, or a generation of its key")
}

// Generation finds the CA, or a generation of its key, by its ID; nil: it is none of them.
func (s *Server) Generation(id wire.CAID) *Server {
	for _, g := range s.line.list() {
		if g.issuer.id == id {
			return g
		}
	}
	return nil
}

// generation is Generation for the text of an ID; an empty one is that of the generation that issues.
func (s *Server) generation(caID string) (*Server, error) {
	if caID == "" {
		return s.issuing(), nil
	}
	id, err := wire.ParseCAID(caID)
	if err != nil {
		return nil, err
	}
	if g := s.Generation(id); g != nil {
		return g, nil
	}
	return nil, wire.Errorf(wire.NotFound, "ca_id", caID, "must be this CA, or a generation of its key")
}

// issuerOf is the generation whose journal has a serial, else s.
func (s *Server) issuerOf(serial wire.Serial) *Server {
	for _, g := range s.line.list() {
		if g.book.findSerial(serial) != nil {
			return g
		}
	}
	return s
}

// first is the generation that has the HTTP API, and what all share: clients, dual control, profiles, the operators' log, blocked keys, bulks, supersessions.
func (s *Server) first() *Server { return s.line.list()[0] }

// holder is the generation that a certificate is of, by its journal, its catalogue or the ledger; for one that is unknown the one that issues. Errors: the ledger's.
func (s *Server) holder(ctx context.Context, serial wire.Serial) (*Server, error) {
	all := s.line.list()
	if len(all) == 1 || all[0] != s { // only the first passes on
		return s, nil
	}
	known, err := s.keepers(serial)
	if err != nil {
		return nil, err
	}
	if len(known) > 0 {
		return known[0], nil
	}
	keys := make([]string, len(all))
	for i, g := range all {
		keys[i] = wire.CertKey(g.issuer.id, serial)
	}
	values, err := s.readState(ctx, keys...)
	if err != nil {
		return nil, err
	}
	for i, g := range all {
		if values[i] != nil {
			return g, nil
		}
	}
	return s.issuing(), nil
}

// keepers are the generations that are known to have a certificate of this serial number, oldest first, but first that whose journal has it. More than one:
// other software signed with both keys, and numbers them.
func (s *Server) keepers(serial wire.Serial) (known []*Server, err error) {
	for _, g := range s.line.list() {
		if g.book.findSerial(serial) != nil {
			known = slices.Insert(known, 0, g)
			continue
		}
		c, err := g.catalogue.Get(serial)
		if err != nil {
			return nil, err
		}
		if c != nil {
			known = append(known, g)
		}
	}
	return known, nil
}

// describeGenerations lists all of them, oldest first.
func (s *Server) describeGenerations() (list []caapi.Generation) {
	for _, g := range s.line.list() {
		last := g.custody.states.Last()
		list = append(list, caapi.Generation{
			CAID: g.issuer.id.String(), Certificate: string(encodeCert(g.issuer.cert.Raw)), Chain: g.above(),
			KeyState: string(last.To), Since: last.Time.Format(caapi.TimeFormat), Issues: g.issues(),
		})
	}
	return list
}

// generationDir is one generation's directory.
type generationDir struct {
	dir  string
	cert *x509.Certificate
}

// generationsIn finds the CA in dir and those that Rotate made after it, oldest first. One that waits for its certificate is not among them.
func generationsIn(dir string) (all []generationDir, err error) {
	for {
		cert, _, err := LoadCertificate(dir)
		if errors.Is(err, fs.ErrNotExist) && len(all) > 0 {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, generationDir{dir, cert})
		dir = filepath.Join(dir, nextDir)
	}
}

// state reads the key's state.
func (g *generationDir) state() (keystate.State, error) {
	history, err := keystate.Read(filepath.Join(g.dir, keystate.File), keyName(g.cert))
	return keystate.StateOf(history), err
}

// generationIn finds one by its CA ID; an empty one is that of the generation that issues.
func generationIn(dir, caID string) (*generationDir, error) {
	all, err := generationsIn(dir)
	if err != nil {
		return nil, err
	}
	for i := range all {
		state, err := all[i].state()
		if err != nil {
			return nil, err
		}
		if caID == keyName(all[i].cert) || caID == "" && (!over(state) || i == len(all)-1) {
			return &all[i], nil
		}
	}
	return nil, wire.Errorf(wire.NotFound, "ca_id", caID, "must be that of the CA in %s, or of a generation of its key", dir)
}
