package ca

import "context"

// operation is something that a second operator may have to agree to.
type operation struct {
	by     string
	kind   string
	count  int               // certificates
	params map[string]string // what exactly
}

const operationRevoke = "revoke"

// approved returns nil if op may be done now.
func (s *Server) approved(context.Context, operation) error { return nil }
