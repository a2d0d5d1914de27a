package integration

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"

	ct "github.com/google/certificate-transparency-go"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctleaf"
	"github.com/certanchor/certanchor/network"
)

// recount is the ledger as somebody with nothing but its blocks sees it: every valid transaction replayed, every log
// rebuilt leaf by leaf and compared with the head the contract wrote.
type recount struct {
	logs   map[wire.CAID]*logCount
	states map[string][]byte
	blocks uint64
}

type logCount struct {
	leaves [][32]byte
	seen   map[string]uint64 // DER -> index
	keys   map[string]bool   // kind of entry and SubjectPublicKeyInfo
}

var errEnough = errors.New("enough blocks")

// recountLedger reads all blocks that the ledger holds now and checks them.
func recountLedger(ctx context.Context, l network.Ledger) (*recount, error) {
	height, err := l.Height(ctx)
	if err != nil {
		return nil, err
	}
	r := &recount{logs: map[wire.CAID]*logCount{}, states: map[string][]byte{}}
	var prev []byte
	err = l.Blocks(ctx, 0, func(b *network.Block) error {
		if b.Number != r.blocks || !bytes.Equal(b.PrevHash, prev) {
			return fmt.Errorf("block %d (after %d blocks) has previous hash %x, want %x", b.Number, r.blocks, b.PrevHash, prev)
		}
		prev = b.Hash
		for i := range b.Txs {
			if err := r.apply(&b.Txs[i]); err != nil {
				return fmt.Errorf("block %d: transaction %s: %w", b.Number, b.Txs[i].ID, err)
			}
		}
		if r.blocks++; r.blocks >= height {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		return nil, err
	}
	return r, r.checkHeads()
}

func (r *recount) apply(tx *network.Tx) error {
	if !tx.Valid {
		return nil
	}
	if tx.Function == wire.FnIssue {
		if err := r.applyIssue(tx); err != nil {
			return err
		}
	}
	for _, w := range tx.Writes {
		if w.Value == nil {
			delete(r.states, w.Key)
			continue
		}
		r.states[w.Key] = w.Value
	}
	return nil
}

func (r *recount) applyIssue(tx *network.Tx) error {
	var arg wire.IssueArg
	var res wire.IssueResult
	if err := errors.Join(wire.Decode(tx.Arg, &arg), wire.Decode(tx.Result, &res)); err != nil {
		return err
	}
	certs, err := arg.Certs()
	if err != nil {
		return err
	}
	log := r.logs[arg.CAID]
	if log == nil {
		log = &logCount{seen: map[string]uint64{}, keys: map[string]bool{}}
		r.logs[arg.CAID] = log
	}
	for i, der := range certs {
		e := res.Entries[i]
		if at, ok := log.seen[string(der)]; ok {
			if at != e.Index {
				return fmt.Errorf("certificate is in the log at %d and again at %d", at, e.Index)
			}
			continue // an identical retry
		}
		// Every request in these tests, a responder's too, has a key of its own: a second certificate for one is one too many.
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		pre, err := ctleaf.IsPrecert(der)
		if err != nil {
			return err
		}
		kind := map[bool]string{true: "precertificate", false: "certificate"}[pre]
		if log.keys[kind+string(cert.RawSubjectPublicKeyInfo)] {
			return fmt.Errorf("%s %x is the second for one request", kind, cert.SerialNumber)
		}
		log.keys[kind+string(cert.RawSubjectPublicKeyInfo)] = true
		if e.Index != uint64(len(log.leaves)) {
			return fmt.Errorf("index %d assigned, the log has %d leaves", e.Index, len(log.leaves))
		}
		hash, err := leafHash(arg.CAID, &e, der, pre)
		if err != nil || !bytes.Equal(hash[:], e.LeafHash) {
			return fmt.Errorf("leaf %d hashes to %x, recorded %x (%w)", e.Index, hash, e.LeafHash, err)
		}
		log.seen[string(der)] = e.Index
		log.leaves = append(log.leaves, hash)
	}
	return nil
}

// leafHash is of the entry that certificate transparency's own library gives a precertificate, and of this project's for a certificate.
func leafHash(ca wire.CAID, e *wire.LogEntry, der []byte, pre bool) ([32]byte, error) {
	if !pre {
		return ctleaf.Hash(e.Index, e.Time, der)
	}
	precert, err := ctx509.ParseCertificate(der)
	if ctx509.IsFatal(err) {
		return [32]byte{}, err
	}
	tbs, err := ctx509.RemoveCTPoison(precert.RawTBSCertificate)
	if err != nil {
		return [32]byte{}, err
	}
	return ct.LeafHashForLeaf(&ct.MerkleTreeLeaf{LeafType: ct.TimestampedEntryLeafType, TimestampedEntry: &ct.TimestampedEntry{
		Timestamp: uint64(e.Time), EntryType: ct.PrecertLogEntryType, Extensions: ctleaf.Extensions(e.Index)[2:],
		PrecertEntry: &ct.PreCert{IssuerKeyHash: ca, TBSCertificate: tbs},
	}})
}

// checkHeads compares every log's root, computed by golang.org/x/mod's tree, with its head on the ledger.
func (r *recount) checkHeads() error {
	for id, log := range r.logs {
		var head wire.LogHead
		if err := wire.Decode(r.states[wire.LogHeadKey(id)], &head); err != nil {
			return err
		}
		if head.Size != uint64(len(log.leaves)) {
			return fmt.Errorf("log %s: head says %d, blocks hold %d", id, head.Size, len(log.leaves))
		}
		root, err := referenceRoot(log.leaves)
		if err != nil {
			return err
		}
		if !bytes.Equal(root[:], head.Root) {
			return fmt.Errorf("log %s: head's root %x, blocks give %x", id, head.Root, root)
		}
	}
	return nil
}

func referenceRoot(leaves [][32]byte) (tlog.Hash, error) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = stored[x]
		}
		return out, nil
	})
	for i, leaf := range leaves {
		hashes, err := tlog.StoredHashesForRecordHash(int64(i), tlog.Hash(leaf), reader)
		if err != nil {
			return tlog.Hash{}, err
		}
		stored = append(stored, hashes...)
	}
	return tlog.TreeHash(int64(len(leaves)), reader)
}

// index returns where a certificate stands in its CA's log.
func (r *recount) index(ca wire.CAID, der []byte) (uint64, error) {
	log := r.logs[ca]
	if log == nil {
		return 0, fmt.Errorf("CA %s has no log", ca)
	}
	i, ok := log.seen[string(der)]
	if !ok {
		return 0, fmt.Errorf("certificate %s... is not on the ledger", hex.EncodeToString(der[:16]))
	}
	return i, nil
}

// record returns a certificate's record.
func (r *recount) record(ca wire.CAID, serial wire.Serial) (*wire.CertRecord, error) {
	var rec wire.CertRecord
	return &rec, wire.Decode(r.states[wire.CertKey(ca, serial)], &rec)
}
