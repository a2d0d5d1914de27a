package chaincode

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"slices"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// registerCA records one organisation's assent to a CA, and puts the CA on the trust list when a majority has submitted
// identical bytes. Repeating it changes nothing, before and after.
func registerCA(t *transaction, arg []byte) ([]byte, error) {
	var a wire.RegisterCAArg
	if err := wire.Decode(arg, &a); err != nil {
		return nil, badArgument(arg, err)
	}
	cert, err := parseCertificate("cert", a.Cert)
	if err != nil {
		return nil, err
	}
	id := wire.CAIDOf(cert.RawSubjectPublicKeyInfo)
	digest := proposalDigest(wire.FnRegisterCA, arg)
	values, err := t.admit(administrators, wire.CAKey(id), wire.ProposalKey(digest))
	if err != nil {
		return nil, err
	}
	if values[0] != nil {
		return t.alreadyRegistered(id, values[0], &a)
	}
	if !slices.Contains(t.consortium.MSPs, a.OperatingMSP) {
		return nil, invalid("operating_msp", a.OperatingMSP, "must be an organisation of the consortium")
	}
	if err := checkCA(cert, a.Chain, t.now); err != nil {
		return nil, err
	}
	votes, isNew, err := t.vote(digest)
	if err != nil {
		return nil, err
	}
	result := &wire.RegisterCAResult{V: wire.Version, CAID: id, Votes: votes, Needed: t.consortium.Majority()}
	switch {
	case len(votes) >= result.Needed:
		result.Registered, result.Votes = true, nil
		t.closeProposal(digest, values[1] != nil, votes)
		t.enlist(id, cert, &a)
	case isNew:
		t.openProposal(digest, values[1] != nil, wire.FnRegisterCA, arg)
	}
	return wire.Encode(result), nil
}

// alreadyRegistered answers a RegisterCA for a CA that is on the trust list.
func (t *transaction) alreadyRegistered(id wire.CAID, entry []byte, a *wire.RegisterCAArg) ([]byte, error) {
	ca, err := decodeCA(id, entry)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(ca.Certs[0], a.Cert) || !slices.EqualFunc(ca.Chain, a.Chain, bytes.Equal) || ca.OperatingMSP != a.OperatingMSP {
		return nil, wire.Errorf(wire.AlreadyExists, "ca_id", id.String(), "is registered with another certificate, chain or operating organisation")
	}
	return wire.Encode(&wire.RegisterCAResult{V: wire.Version, CAID: id, Registered: true, Needed: t.consortium.Majority()}), nil
}

// enlist writes the trust list entry, an empty log and the status leaf that tells followers.
func (t *transaction) enlist(id wire.CAID, cert *x509.Certificate, a *wire.RegisterCAArg) {
	t.put(wire.CAKey(id), wire.Encode(&wire.CARecord{
		V: wire.Version, Certs: [][]byte{cert.Raw}, Chain: a.Chain, OperatingMSP: a.OperatingMSP,
		State: wire.CAActive, Registered: t.now, Change: 1, StateTime: t.now, Settled: 1,
	}))
	// RFC 6962 2.1: the hash of an empty list is the hash of an empty string.
	root := sha256.Sum256(nil)
	t.put(wire.LogHeadKey(id), wire.Encode(&wire.LogHead{V: wire.Version, Root: root[:], Time: t.now}))
	t.putLeaf(&wire.StatusLeaf{V: wire.Version, Kind: wire.LeafCA, CAID: id, Change: 1, State: uint(wire.CAActive), Time: t.now})
}

// putLeaf hands a change of status to the status log.
func (t *transaction) putLeaf(leaf *wire.StatusLeaf) {
	t.put(wire.PendingKey(leaf.Hash()), wire.Encode(leaf))
}

func decodeCA(id wire.CAID, entry []byte) (*wire.CARecord, error) {
	var ca wire.CARecord
	if err := wire.Decode(entry, &ca); err != nil {
		return nil, corrupt(wire.CAKey(id), err)
	}
	if len(ca.Certs) == 0 {
		return nil, corrupt(wire.CAKey(id), errors.New("it has no certificate"))
	}
	return &ca, nil
}
