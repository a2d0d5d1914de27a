package bundle

import (
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/revmap"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// Parts is what a bundle is made from. All logs are this organisation's own; each checkpoint is of its log, cosigned, in canonical order
// (tlogproof.Assemble, as witness.Gather returns it).
type Parts struct {
	Channel string
	CAKey   []byte // DER SubjectPublicKeyInfo of the CA

	Issuance Log
	Entries  []EntryRef // the certificate's, then its precertificate's: all that there are, within the checkpoint

	Map         Log
	TickIndex   uint64          // of the leaf that CA, Cert and Holder are proved for; usually the checkpoint's last
	CA          *wire.MapCA     // what the map has for the CA
	CAProof     *revmap.Proof   // its inclusion
	Cert        *wire.MapCert   // what the map has for the certificate; nil: nothing
	CertProof   *revmap.Proof   // its inclusion or absence
	Holder      *wire.MapHolder // what the map has for the holder of the certificate's key; nil: nothing
	HolderProof *revmap.Proof   // its inclusion or absence
	Rules       []wire.Rule     // about the CA, as of the Tick, sorted by N

	Status Log      // needed only with Newer
	Newer  []uint64 // indexes of later status leaves about the certificate or the CA, sorted: those that make it worse
}

// Log is a log with a checkpoint.
type Log struct {
	merklelog.Log
	Checkpoint []byte // signed note
}

// EntryRef names an issuance log entry.
type EntryRef struct {
	Kind  Kind
	Index uint64
	Time  wire.Millis // the leaf's timestamp
}

// Make builds a bundle. It does not verify it: whoever serves bundles calls Verify on what Make returns, with the policy, before sending it.
func Make(p *Parts) ([]byte, error) {
	b := &Bundle{V: version, Channel: p.Channel, CAKey: p.CAKey}
	for _, e := range p.Entries {
		proof, err := p.Issuance.prove(e.Index)
		if err != nil {
			return nil, fmt.Errorf("bundle: issuance log: %w", err)
		}
		proof.Time = e.Time
		b.Entries = append(b.Entries, Entry{Kind: e.Kind, Proof: proof.Marshal()})
	}
	var err error
	if b.Tick, err = p.Map.leaf(p.TickIndex); err != nil {
		return nil, fmt.Errorf("bundle: map log: %w", err)
	}
	b.CA = Value{Value: wire.Encode(p.CA), Proof: p.CAProof.Marshal()}
	b.Cert = Value{Proof: p.CertProof.Marshal()}
	if p.Cert != nil {
		b.Cert.Value = wire.Encode(p.Cert)
	}
	b.Holder = Value{Proof: p.HolderProof.Marshal()}
	if p.Holder != nil {
		b.Holder.Value = wire.Encode(p.Holder)
	}
	for i := range p.Rules {
		b.Rules = append(b.Rules, wire.Encode(&p.Rules[i]))
	}
	for _, i := range p.Newer {
		l, err := p.Status.leaf(i)
		if err != nil {
			return nil, fmt.Errorf("bundle: status log: %w", err)
		}
		b.Newer = append(b.Newer, l)
	}
	return b.Marshal()
}

// prove returns the inclusion of a leaf in the checkpoint's tree.
func (l Log) prove(index uint64) (*tlogproof.Proof, error) {
	cp, _, err := tlogproof.ReadUnverified(l.Checkpoint)
	if err != nil {
		return nil, err
	}
	path, err := merklelog.Inclusion(l.Log, index, cp.Size)
	if err != nil {
		return nil, err
	}
	return &tlogproof.Proof{Index: index, Path: path, Checkpoint: l.Checkpoint}, nil
}

// leaf returns an entry with its proof.
func (l Log) leaf(index uint64) (Leaf, error) {
	proof, err := l.prove(index)
	if err != nil {
		return Leaf{}, err
	}
	entries, err := l.Entries(index, index+1)
	if err != nil {
		return Leaf{}, err
	}
	return Leaf{Leaf: entries[0].Leaf, Proof: proof.MarshalBare()}, nil
}
