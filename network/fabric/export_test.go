package fabric

import "context"

// EndorseAlone has only the own organisation endorse, as one would that does not ask the others.
func (l *Ledger) EndorseAlone(ctx context.Context, function string, arg []byte) (*Envelope, error) {
	return l.endorseBy(ctx, function, arg, []string{l.cfg.MSPID})
}
