package ca

import "github.com/certanchor/certanchor/chaincode/wire"

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
