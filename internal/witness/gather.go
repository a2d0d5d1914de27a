package witness

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// ErrNoQuorum tells that too few witnesses cosigned.
var ErrNoQuorum = errors.New("too few cosignatures")

// Gathered is a checkpoint with the cosignatures that came.
type Gathered struct {
	Note      []byte           // in canonical order: tlogproof.Assemble
	Cosigners []string         // names of the keys, as they answered
	Failed    map[string]error // by name: who did not, and why; those who were not waited for have the context's error
}

// Gather asks all witnesses at once to cosign a checkpoint of log, signed by its server. It returns when all have answered; or, once quorum have, after grace
// more; or when ctx ends. Each witness is asked in a goroutine of its own, which ends with ctx at the latest. With fewer than quorum cosignatures the
// error is ErrNoQuorum, and the Gathered is returned none the less: its Failed say why, and one may be an *AheadError.
func Gather(ctx context.Context, checkpoint []byte, log merklelog.Log, quorum int, grace time.Duration, witnesses ...Witness) (*Gathered, error) {
	_, n, err := tlogproof.ReadUnverified(checkpoint)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		name string
		sig  note.Signature
		err  error
	}
	answers := make(chan answer, len(witnesses)) // nobody waits to be heard
	g := &Gathered{Failed: map[string]error{}}
	for _, w := range witnesses {
		g.Failed[w.Name()] = context.Canceled // until it answers
		go func() {
			sig, err := w.Add(ctx, checkpoint, log)
			answers <- answer{w.Name(), sig, err}
		}()
	}
	sigs := n.UnverifiedSigs
	var enough <-chan time.Time // nil: forever
collect:
	for range witnesses {
		select {
		case a := <-answers:
			if g.Failed[a.name] = a.err; a.err != nil {
				continue
			}
			delete(g.Failed, a.name)
			g.Cosigners, sigs = append(g.Cosigners, a.name), append(sigs, a.sig)
			if len(g.Cosigners) == quorum {
				timer := time.NewTimer(grace)
				defer timer.Stop()
				enough = timer.C
			}
		case <-enough:
			break collect
		case <-ctx.Done():
			break collect
		}
	}
	if g.Note, err = tlogproof.Assemble(n.Text, sigs...); err != nil {
		return nil, err
	}
	if got := len(g.Cosigners); got < quorum {
		errs := []error{fmt.Errorf("%w: %d of %d, must be at least %d", ErrNoQuorum, got, len(witnesses), quorum), ctx.Err()}
		for name, err := range g.Failed {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		return g, errors.Join(errs...)
	}
	return g, nil
}
