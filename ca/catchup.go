package ca

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
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
			n, err := s.takeIn(ctx, b, &b.Txs[i])
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
	// Which keys are in other hands is in the ledger too: those that were blocked after the backup was made are known before anything is issued.
	if err := s.catalogue.WaitHeight(ctx, height); err != nil {
		return fmt.Errorf("the catalogue of the restored CA: %w", err)
	}
	s.log.Info("the restored CA has caught up with the ledger", "from_block", from, "height", height, "certificates_taken_in", taken)
	return nil
}

const progressBlocks = 1000

// takeIn journals the certificates of a transaction that the journal does not have.
func (s *Server) takeIn(ctx context.Context, b *network.Block, tx *network.Tx) (n int, err error) {
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
		took, err := s.takeCertificate(ctx, b, tx, der, &result.Entries[i])
		if err != nil {
			return n, err
		}
		if took {
			n++
		}
	}
	return n, nil
}

func (s *Server) takeCertificate(ctx context.Context, b *network.Block, tx *network.Tx, der []byte, place *wire.LogEntry) (bool, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return false, err
	}
	serial, err := wire.SerialOf(cert.SerialNumber)
	if err != nil {
		return false, err
	}
	if e := s.book.findSerial(serial); e != nil {
		return s.takeFinal(ctx, e, b, tx, cert, place)
	}
	if err := s.note(&record{Kind: kindSigned, Serial: serial, Cert: der, Request: make([]byte, len(digest{}))}); err != nil {
		return false, err
	}
	return true, s.note(&record{Kind: kindAnchored, Serial: serial, Log: place, Block: b.Number, TxID: tx.ID})
}

// takeFinal journals the certificate of a precertificate that the journal has: another one that this process signed would be refused. All else that has no
// outcome yet is the resolver's, which has not begun. Killed in between, it goes on at the stage that the journal then has.
func (s *Server) takeFinal(ctx context.Context, e *entry, b *network.Block, tx *network.Tx, cert *x509.Certificate, place *wire.LogEntry) (bool, error) {
	if st, _ := s.book.stateOf(e); st != stateSigned || e.stage == stageSigned || e.stage == stageFinal {
		return false, nil
	}
	if e.stage == stagePrecert {
		values, err := s.readState(ctx, wire.CertKey(s.issuer.id, e.serial))
		if err != nil {
			return false, err
		}
		var rec wire.CertRecord
		if err := wire.Decode(values[0], &rec); err != nil {
			return false, err
		}
		if rec.Pre == nil {
			return false, fmt.Errorf("certificate %s: its precertificate is in the journal, and not on the ledger", e.serial)
		}
		if err := s.note(&record{Kind: kindPreAnchored, Serial: e.serial, Log: rec.Pre}); err != nil {
			return false, err
		}
	}
	if e.stage == stagePreAnchored {
		list, err := embeddedSCTs(cert)
		if err != nil {
			return false, fmt.Errorf("certificate %s: %w", e.serial, err)
		}
		if err := s.note(&record{Kind: kindStamped, Serial: e.serial, SCTs: list}); err != nil {
			return false, err
		}
	}
	if err := s.note(&record{Kind: kindFinal, Serial: e.serial, Cert: cert.Raw}); err != nil {
		return false, err
	}
	return true, s.note(&record{Kind: kindAnchored, Serial: e.serial, Log: place, Block: b.Number, TxID: tx.ID})
}

// embeddedSCTs is the SignedCertificateTimestampList in a certificate (RFC 6962 section 3.3).
func embeddedSCTs(cert *x509.Certificate) (list []byte, err error) {
	for _, ext := range cert.Extensions {
		if ext.Id.Equal(ctleaf.OIDSCTList) {
			rest, err := asn1.Unmarshal(ext.Value, &list)
			if err != nil || len(rest) > 0 || len(list) == 0 {
				return nil, fmt.Errorf("its SCT list must be an OCTET STRING: %w", errors.Join(err, errBadDraft))
			}
			return list, nil
		}
	}
	return nil, errors.New("it has a precertificate and no SCT list")
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
