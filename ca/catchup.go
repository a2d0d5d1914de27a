package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/network"
)

// errCaughtUp ends the reading of blocks.
var errCaughtUp = errors.New("caught up")

// catchUp takes into a restored journal the certificates of this CA that the ledger has and the backup lacks, as issued to nobody knows
// whom. What was signed and not anchored before the old disk was lost is not on the ledger: it was never released, and never will be.
//
// A journal has every certificate in a block up to the newest one that it names: a certificate is journalled before it is submitted, so
// before its block, and the block is named after that. say is told of the progress.
func (s *Server) catchUp(ctx context.Context, say func(error)) error {
	height, err := s.height(ctx)
	if err != nil {
		return err
	}
	from, taken := s.book.newestBlock(), 0
	err = s.ledger.Blocks(ctx, from, func(b *network.Block) error {
		if b.Number >= height {
			return errCaughtUp
		}
		if b.Number%progressBlocks == 0 {
			say(problem.New(503, problem.CodeUnavailable, "ca", s.issuer.id.String(),
				fmt.Sprintf("was restored from a backup and reads the ledger first: block %d of %d; nothing was changed", b.Number, height)))
		}
		for i := range b.Txs {
			n, err := s.takeIn(b, &b.Txs[i])
			if err != nil {
				return fmt.Errorf("block %d, transaction %s: %w", b.Number, b.Txs[i].ID, err)
			}
			taken += n
		}
		if b.Number+1 == height {
			return errCaughtUp
		}
		return nil
	})
	if !errors.Is(err, errCaughtUp) {
		return err
	}
	s.log.Info("the restored CA has caught up with the ledger", "from_block", from, "height", height, "certificates_taken_in", taken)
	return nil
}

const progressBlocks = 1000

// takeIn journals the certificates of a transaction that the journal does not have.
func (s *Server) takeIn(b *network.Block, tx *network.Tx) (n int, err error) {
	if !tx.Valid || tx.Function != wire.FnIssue {
		return 0, nil
	}
	var (
		arg    wire.IssueArg
		result wire.IssueResult
	)
	if err := errors.Join(wire.Decode(tx.Arg, &arg), wire.Decode(tx.Result, &result)); err != nil {
		return 0, err
	}
	if arg.CAID != s.issuer.id {
		return 0, nil
	}
	ders, err := arg.Certs()
	if err != nil {
		return 0, err
	}
	if len(ders) != len(result.Entries) {
		return 0, fmt.Errorf("%d certificates have %d places in the log", len(ders), len(result.Entries))
	}
	for i, der := range ders {
		// A precertificate is a promise, and not what a requester gets. The ledger keeps its serial from being used again.
		if pre, err := ctleaf.IsPrecert(der); err != nil || pre {
			if err != nil {
				return n, err
			}
			continue
		}
		took, err := s.takeCertificate(b, tx, der, &result.Entries[i])
		if err != nil {
			return n, err
		}
		if took {
			n++
		}
	}
	return n, nil
}

func (s *Server) takeCertificate(b *network.Block, tx *network.Tx, der []byte, place *wire.LogEntry) (bool, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return false, err
	}
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		return false, err
	}
	if s.book.findSerial(serial) != nil {
		return false, nil // what has no outcome yet is the resolver's
	}
	if err := s.note(&record{Kind: kindSigned, Serial: serial, Cert: der, Request: make([]byte, len(digest{}))}); err != nil {
		return false, err
	}
	return true, s.note(&record{Kind: kindAnchored, Serial: serial, Log: place, Block: b.Number, TxID: tx.ID})
}

// newestBlock is the newest that a certificate is known to be in.
func (b *book) newestBlock() (newest uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.bySerial {
		newest = max(newest, e.block)
	}
	return newest
}
