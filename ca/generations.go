package ca

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/keystate"
)

// nextDir is where the next generation of a CA's key is, within the directory of the one before.
const nextDir = "next"

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

// generationIn finds one by its CA ID; an empty one is that of the generation that issues.
func generationIn(dir, caID string) (*generationDir, error) {
	all, err := generationsIn(dir)
	if err != nil {
		return nil, err
	}
	for i, g := range all {
		history, err := keystate.Read(filepath.Join(g.dir, keystate.File), keyName(g.cert))
		if err != nil {
			return nil, err
		}
		over := over(keystate.StateOf(history))
		if caID == keyName(g.cert) || caID == "" && (!over || i == len(all)-1) {
			return &all[i], nil
		}
	}
	return nil, wire.Errorf(wire.NotFound, "ca_id", caID, "must be that of the CA in %s, or of a generation of it", dir)
}

// over reports whether a key in this state has issued its last certificate.
func over(s keystate.State) bool { return s == keystate.Retired || s == keystate.Destroyed }

// generation finds one by its CA ID; an empty one is that of the generation that issues.
func (s *Server) generation(caID string) (*Server, error) {
	if caID == "" {
		return s, nil
	}
	id, err := wire.ParseCAID(caID)
	if err != nil {
		return nil, err
	}
	if id != s.issuer.id {
		return nil, wire.Errorf(wire.NotFound, "ca_id", caID, "must be this CA")
	}
	return s, nil
}

func (s *Server) issues() bool { return true }
