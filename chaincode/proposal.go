package chaincode

import (
	"crypto/sha256"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// A decision of several organisations is a proposal, named by the digest of the very bytes it is about, and one vote key for
// each organisation that has submitted them. Every vote reads the keys of all organisations, so that two votes in one block
// cannot each miss the other: the later one fails the version check and is submitted again.

// A RegisterCA's proposal goes when it takes effect: the trust list entry answers whoever comes late. A Decide's stays, because what
// it did may have been undone by another one since.

// proposalDigest names the decision to execute function with arg.
func proposalDigest(function string, arg []byte) [sha256.Size]byte {
	return sha256.Sum256(append(append([]byte(function), 0), arg...))
}

// vote returns who assents to the proposal, sorted, the caller included, and whether the caller's assent is new.
func (t *transaction) vote(digest [sha256.Size]byte) (votes []string, isNew bool, err error) {
	keys := make([]string, len(t.consortium.MSPs))
	for i, msp := range t.consortium.MSPs {
		keys[i] = wire.VoteKey(digest, msp)
	}
	values, err := t.getMany(keys)
	if err != nil {
		return nil, false, err
	}
	for i, msp := range t.consortium.MSPs {
		if msp == t.caller.MSPID {
			isNew = values[i] == nil
		}
		if values[i] != nil || msp == t.caller.MSPID {
			votes = append(votes, msp)
		}
	}
	return votes, isNew, nil
}

// openProposal records the caller's vote, and what it is about when it is the first.
func (t *transaction) openProposal(digest [sha256.Size]byte, opened bool, function string, arg []byte) {
	if !opened {
		t.put(wire.ProposalKey(digest), wire.Encode(&wire.Proposal{V: wire.Version, Function: function, Arg: arg, Opened: t.now}))
	}
	t.put(wire.VoteKey(digest, t.caller.MSPID), wire.Encode(&wire.Vote{V: wire.Version, Time: t.now}))
}

// settleProposal marks a proposal that takes effect and removes its votes.
func (t *transaction) settleProposal(p *ballot, function string, arg []byte) {
	opened := t.now
	if p.proposal != nil {
		opened = p.proposal.Opened
	}
	t.put(wire.ProposalKey(p.digest), wire.Encode(&wire.Proposal{V: wire.Version, Function: function, Arg: arg, Opened: opened, Decided: t.now}))
	for _, msp := range p.votes {
		if msp != t.caller.MSPID || !p.isNew {
			t.delete(wire.VoteKey(p.digest, msp))
		}
	}
}

// closeProposal removes a proposal that takes effect, and its votes. The caller's own was never written.
func (t *transaction) closeProposal(digest [sha256.Size]byte, opened bool, votes []string) {
	if !opened {
		return
	}
	t.delete(wire.ProposalKey(digest))
	for _, msp := range votes {
		if msp != t.caller.MSPID {
			t.delete(wire.VoteKey(digest, msp))
		}
	}
}
