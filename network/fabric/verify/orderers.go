package verify

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"
)

const signaturesField = "metadata.signatures"

// checkOrderers checks the orderers' signatures over a block's header, under the configuration before the block.
func (c *channel) checkOrderers(b *common.Block, header []byte) (*common.OrdererBlockMetadata, error) {
	metadata := b.GetMetadata().GetMetadata()
	if len(metadata) <= int(common.BlockMetadataIndex_SIGNATURES) {
		return nil, faultf(signaturesField, "none", "must be there")
	}
	var m common.Metadata
	if err := proto.Unmarshal(metadata[common.BlockMetadataIndex_SIGNATURES], &m); err != nil {
		return nil, faultf(signaturesField, "", "must be readable: %v", err)
	}
	var set []signed
	for _, s := range m.GetSignatures() {
		// Fabric's BFT orderers name themselves by number, others by their certificate.
		signer, by := []byte(nil), s.GetSignatureHeader()
		if number := s.GetIdentifierHeader(); c.bft && len(by) == 0 && len(number) > 0 {
			var h common.IdentifierHeader
			if err := proto.Unmarshal(number, &h); err != nil {
				return nil, faultf(signaturesField, "", "must be readable: %v", err)
			}
			signer, by = c.consenter(h.GetIdentifier()), number
		} else {
			var h common.SignatureHeader
			if err := proto.Unmarshal(by, &h); err != nil {
				return nil, faultf(signaturesField, "", "must be readable: %v", err)
			}
			signer = h.GetCreator()
		}
		if signer != nil {
			set = append(set, signed{signer, bytes.Join([][]byte{m.GetValue(), by, header}, nil), s.GetSignature()})
		}
	}
	signers := c.identities.signers(set)
	if err := c.checkQuorum(signers, len(m.GetSignatures())); err != nil {
		return nil, err
	}
	var said common.OrdererBlockMetadata
	if err := proto.Unmarshal(m.GetValue(), &said); err != nil {
		return nil, faultf(signaturesField, "", "must be over readable metadata: %v", err)
	}
	return &said, nil
}

func (c *channel) checkQuorum(signers []*identity, present int) error {
	var names []string
	for _, id := range signers {
		names = append(names, id.String())
	}
	value := fmt.Sprintf("%d of %d signatures verify (%s)", len(signers), present, strings.Join(names, ", "))
	p, _ := c.policy(blockValidation)
	if !p.satisfied(signers) {
		return faultf(signaturesField, value, "must satisfy the channel's policy %s: %s", blockValidation, p)
	}
	if !c.bft {
		return nil
	}
	// The policy says the same as long as nobody has weakened it; a quorum is what makes a BFT block final.
	consenters := 0
	for _, m := range c.consenters {
		cert, err := parsePEM(m.GetIdentity())
		if err == nil && slices.ContainsFunc(signers, func(id *identity) bool {
			return id.invalid == nil && id.msp.id == m.GetMspId() && id.cert.Equal(cert)
		}) {
			consenters++
		}
	}
	if consenters < c.quorum {
		return faultf(signaturesField, value, "must be by a quorum of %d of the %d consenters", c.quorum, len(c.consenters))
	}
	return nil
}
