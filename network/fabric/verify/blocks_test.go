package verify_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"github.com/hyperledger/fabric-protos-go-apiv2/orderer"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"

	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/fabric/verify"
)

// some returns the consenters with these numbers.
func (w *world) some(numbers ...uint32) map[uint32]*party {
	out := map[uint32]*party{}
	for _, n := range numbers {
		out[n] = w.orderers[n]
	}
	return out
}

func TestBlocksThatDoNotFollow(t *testing.T) {
	w := newWorld(t)
	good := w.next([]peer.TxValidationCode{ok}, w.call().envelope(t))
	edit := func(change func(*common.Block)) *common.Block {
		b := clone(good)
		change(b)
		return b
	}
	resealed := func(change func(*common.Block)) *common.Block {
		return edit(func(b *common.Block) { change(b); reseal(t, b, w.last, w.orderers) })
	}
	signedBy := func(signers map[uint32]*party) *common.Block {
		return edit(func(b *common.Block) { reseal(t, b, w.last, signers) })
	}
	const signatures = "metadata.signatures"
	swapped := maps.Clone(w.orderers)
	swapped[3] = w.orderers[4]
	swapped[4] = w.orderers[3]
	for _, c := range []struct {
		name  string
		block *common.Block
		field string
		says  string
	}{
		{"nothing", &common.Block{}, "header.number", "must be 2"},
		{"a block dropped", resealed(func(b *common.Block) { b.Header.Number++ }), "header.number", "must be 2"},
		{"the block before once more", w.blocks[1], "header.number", "must be 2"},
		{"of another chain", resealed(func(b *common.Block) { b.Header.PreviousHash[0] ^= 1 }), "header.previous_hash", ""},
		{"a bit of the data flipped", edit(func(b *common.Block) { b.Data.Data[0][9] ^= 1 }), "header.data_hash", ""},
		{"a bit of the data hash flipped", edit(func(b *common.Block) { b.Header.DataHash[0] ^= 1 }), "header.data_hash", ""},
		{"a transaction removed", edit(func(b *common.Block) { b.Data.Data = nil }), "header.data_hash", ""},
		{"other data under the same signatures", edit(func(b *common.Block) {
			b.Data.Data[0] = w.call().envelope(t)
			other := clone(b)
			reseal(t, other, w.last, nil)
			b.Header.DataHash = other.Header.DataHash
		}), signatures, "0 of 4 signatures verify"},
		{"an envelope with something after it", resealed(func(b *common.Block) { b.Data.Data[0] = append(b.Data.Data[0], b.Data.Data[0][:2]...) }), "data[0]", ""},
		{"no data", resealed(func(b *common.Block) { b.Data.Data = nil }), "data", "empty"},
		{"no flags", edit(func(b *common.Block) { b.Metadata.Metadata[2] = nil }), flagsField, "one for each"},
		{"too many flags", edit(func(b *common.Block) { b.Metadata.Metadata[2] = []byte{0, 0} }), flagsField, "one for each"},
		{"no metadata", edit(func(b *common.Block) { b.Metadata = nil }), flagsField, ""},
		{"no signatures", signedBy(nil), signatures, "0 of 0"},
		{"signed by one orderer", signedBy(w.some(1)), signatures, "1 of 1 signatures verify"},
		{"signed by two orderers", signedBy(w.some(1, 2)), signatures, "2 of 2 signatures verify"},
		{"signed by two orderers and a stranger", signedBy(map[uint32]*party{1: w.orderers[1], 2: w.orderers[2], 7: w.peers[0]}), signatures, "2 of 3"},
		{"signed by one orderer in the name of all", signedBy(map[uint32]*party{1: w.orderers[1], 2: w.orderers[1], 3: w.orderers[1], 4: w.orderers[1]}), signatures, "1 of 4"},
		{"signatures swapped", signedBy(swapped), signatures, "2 of 4"},
		{"another last configuration", edit(func(b *common.Block) { reseal(t, b, 1, w.orderers) }), "metadata.last_config", "must be 0"},
		{"a configuration among transactions", resealed(func(b *common.Block) {
			b.Data.Data = append(b.Data.Data, w.blocks[0].Data.Data[0])
			b.Metadata.Metadata[2] = []byte{0, 0}
		}), "type", "alone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := w.verifier()
			_, err := v.Block(c.block)
			tx := -1
			if c.field == "type" {
				tx = 1
			}
			refused(t, err, tx, c.field, c.says)
			if v.Height() != 2 {
				t.Errorf("it moved to %d", v.Height())
			}
			_, err = v.Block(good)
			must(t, err)
		})
	}
	three, v := signedBy(w.some(1, 2, 4)), w.verifier()
	_, err := v.Block(three)
	must(t, err) // is a quorum
	// A signature that is not the orderers' own does no harm.
	stray := edit(func(b *common.Block) {
		reseal(t, b, w.last, map[uint32]*party{1: w.orderers[1], 2: w.orderers[2], 3: w.peers[1], 4: w.orderers[4]})
	})
	_, err = w.verifier().Block(stray)
	must(t, err)
}

func TestTheFirstBlockIsTheTrustedOne(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	v, err := verify.New(verify.Config{Channel: channelName, Chaincode: ccName, GenesisHash: hashOf(t, w.blocks[0])})
	must(t, err)
	_, err = v.Block(other.blocks[0])
	refused(t, err, -1, "header", "that is trusted")
	_, err = v.Block(w.blocks[0])
	must(t, err)
	for name, cfg := range map[string]verify.Config{
		"hash":        {Channel: channelName, Chaincode: ccName},
		"hash of":     {Channel: channelName, Chaincode: ccName, GenesisHash: []byte{1}},
		"first":       {Channel: channelName, Chaincode: ccName, Genesis: w.blocks[1]},
		"the hash":    {Channel: channelName, Chaincode: ccName, Genesis: w.blocks[0], GenesisHash: hashOf(t, other.blocks[0])},
		"must both":   {Genesis: w.blocks[0]},
		"another one": {Channel: "other", Chaincode: ccName, Genesis: w.blocks[0]},
	} {
		v, err := verify.New(cfg)
		if name == "another one" {
			must(t, err)
			_, err = v.Block(w.blocks[0])
			refused(t, err, -1, "channel", "must be other")
			continue
		}
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want an error with %q", err, name)
		}
	}
}

func TestAVerifierContinuesFromItsStore(t *testing.T) {
	w := newWorld(t)
	c := w.call()
	c.sets = append(c.sets, write(t, ccName, "k", "v"))
	w.add(ok, c.envelope(t))
	cfg := verify.Config{Channel: channelName, Chaincode: ccName, Genesis: w.blocks[0], Store: verify.NewMemory()}
	for _, b := range w.blocks { // opened again before each block
		v, err := verify.New(cfg)
		must(t, err)
		_, err = v.Block(b)
		must(t, err)
	}
	v, err := verify.New(cfg)
	must(t, err)
	if v.Height() != uint64(len(w.blocks)) || !bytes.Equal(v.Hash(), w.previous()) {
		t.Errorf("it stands at %d", v.Height())
	}
	_, err = v.Block(w.next([]peer.TxValidationCode{ok}, c.envelope(t)))
	must(t, err)
	cfg.Genesis = newWorld(t).blocks[0]
	if _, err := verify.New(cfg); err == nil || !strings.Contains(err.Error(), "channel with genesis") {
		t.Errorf("another channel's store: %v", err)
	}
}

func TestStreamOfVerifiedBlocks(t *testing.T) {
	w := newWorld(t)
	bad := clone(w.next([]peer.TxValidationCode{mvcc}, w.call().envelope(t)))
	raw := func(_ context.Context, from uint64, fn func(*common.Block) error) error {
		for _, b := range append(w.blocks[from:], bad) {
			if err := fn(b); err != nil {
				return err
			}
		}
		return nil
	}
	v, err := verify.New(verify.Config{Channel: channelName, Chaincode: ccName, Genesis: w.blocks[0]})
	must(t, err)
	got := 0
	err = v.Blocks(raw)(t.Context(), 0, func(*network.Block) error { got++; return nil })
	refused(t, err, 0, flagsField)
	if got != 2 {
		t.Errorf("%d blocks before the bad one", got)
	}
	if err := v.Blocks(raw)(t.Context(), 0, nil); err == nil || errors.As(err, new(*verify.Error)) {
		t.Errorf("from where it does not stand: %v", err)
	}
}

// update makes a change of the configuration as an administrator would have it signed, and the block that follows.
func (w *world) update(by []*party, change func(read, written *common.ConfigGroup, result *common.Config)) *common.ConfigEnvelope {
	t := w.t
	result := proto.Clone(w.config).(*common.Config)
	result.Sequence++
	bare := func() *common.ConfigGroup {
		root := newGroup()
		root.Version, root.ModPolicy = w.config.ChannelGroup.Version, "Admins"
		app := newGroup()
		app.Version = w.config.ChannelGroup.Groups["Application"].Version
		root.Groups["Application"] = app
		return root
	}
	read, written := bare(), bare()
	change(read, written, result)
	u := &common.ConfigUpdateEnvelope{ConfigUpdate: marshal(t, &common.ConfigUpdate{ChannelId: channelName, ReadSet: read, WriteSet: written})}
	for _, p := range by {
		h := marshal(t, &common.SignatureHeader{Creator: p.serialized(t), Nonce: []byte{9}})
		u.Signatures = append(u.Signatures, &common.ConfigSignature{SignatureHeader: h, Signature: p.sign(t, h, u.ConfigUpdate)})
	}
	return &common.ConfigEnvelope{Config: result, LastUpdate: &common.Envelope{Payload: marshal(t, &common.Payload{
		Header: &common.Header{ChannelHeader: marshal(t, &common.ChannelHeader{Type: int32(common.HeaderType_CONFIG_UPDATE), ChannelId: channelName})},
		Data:   marshal(t, u),
	})}}
}

// setAny is an update of one value of the application's.
func setAny(_, written *common.ConfigGroup, result *common.Config) {
	v := &common.ConfigValue{Version: 1, Value: []byte("two"), ModPolicy: "Admins"}
	written.Groups["Application"].Values["Any"] = v
	result.ChannelGroup.Groups["Application"].Values["Any"] = v
}

func TestConfigurationsNeedTheirPolicies(t *testing.T) {
	for _, c := range []struct {
		name   string
		by     func(*world) []*party
		change func(read, written *common.ConfigGroup, result *common.Config)
		field  string
	}{
		{"by a majority of administrators", func(w *world) []*party { return w.admins[:3] }, setAny, ""},
		{"by two of four administrators", func(w *world) []*party { return w.admins[:2] }, setAny, "configuration.signatures"},
		{"by clients", func(w *world) []*party { return w.clients }, setAny, "configuration.signatures"},
		{"by nobody, as a hostile quorum of orderers would", func(*world) []*party { return nil }, setAny, "configuration.signatures"},
		{"with more changed than was signed", func(w *world) []*party { return w.admins[:3] }, func(r, written *common.ConfigGroup, result *common.Config) {
			setAny(r, written, result)
			result.ChannelGroup.Groups["Application"].Policies["Endorsement"] = meta(t, common.ImplicitMetaPolicy_ANY, "Endorsement")
		}, "configuration"},
		{"with a sequence too high", func(w *world) []*party { return w.admins[:3] }, func(r, written *common.ConfigGroup, result *common.Config) {
			setAny(r, written, result)
			result.Sequence++
		}, "configuration.sequence"},
		{"with nothing changed", func(w *world) []*party { return w.admins }, func(_, _ *common.ConfigGroup, _ *common.Config) {}, "configuration.write_set"},
		{"of a version that is not the next", func(w *world) []*party { return w.admins }, func(r, written *common.ConfigGroup, result *common.Config) {
			setAny(r, written, result)
			written.Groups["Application"].Values["Any"].Version = 2
		}, "configuration.write_set"},
		{"read from another version", func(w *world) []*party { return w.admins }, func(read, written *common.ConfigGroup, result *common.Config) {
			setAny(read, written, result)
			read.Groups["Application"].Version = 7
		}, "configuration.read_set"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			v := w.verifier()
			b := w.addConfig(w.update(c.by(w), c.change))
			_, err := v.Block(b)
			if c.field != "" {
				refused(t, err, -1, c.field)
				return
			}
			must(t, err)
			_, err = v.Block(w.next([]peer.TxValidationCode{ok}, w.call().envelope(t)))
			must(t, err)
		})
	}
}

// TestANewConfigurationIsInForceFromTheNextBlockOn: an organisation is thrown out, and its endorsements do not count any more.
func TestANewConfigurationIsInForceFromTheNextBlockOn(t *testing.T) {
	w := newWorld(t)
	v := w.verifier()
	b := w.addConfig(w.update(w.admins[:3], func(read, written *common.ConfigGroup, result *common.Config) {
		app, now := written.Groups["Application"], result.ChannelGroup.Groups["Application"]
		app.Version, now.Version = 1, 1
		delete(now.Groups, "Org3MSP")
		for name, g := range now.Groups {
			app.Groups[name] = &common.ConfigGroup{Version: g.Version, ModPolicy: g.ModPolicy}
		}
		app.Policies, app.Values = now.Policies, now.Values
		was := read.Groups["Application"]
		was.Groups, was.Policies, was.Values = app.Groups, app.Policies, app.Values
	}))
	few := clone(b)
	reseal(t, few, w.last, w.some(1, 2))
	_, err := v.Block(few)
	refused(t, err, -1, "metadata.signatures")
	lie := clone(b)
	lie.Metadata.Metadata[2][0] = byte(peer.TxValidationCode_INVALID_CONFIG_TRANSACTION)
	_, err = v.Block(lie)
	refused(t, err, -1, flagsField)
	_, err = v.Block(b)
	must(t, err)
	data := w.call().envelope(t)
	_, err = v.Block(w.next([]peer.TxValidationCode{endorsement}, data)) // by 1, 2 and 3; of 1, 2 and 4 a majority is two
	refused(t, err, 0, flagsField, "must be VALID")
	c := w.call()
	c.endorsers = w.peers[1:3]
	_, err = v.Block(w.next([]peer.TxValidationCode{ok}, c.envelope(t)))
	refused(t, err, 0, flagsField, "must be ENDORSEMENT_POLICY_FAILURE")
}

// TestAWeakenedBlockValidationPolicyStillNeedsAQuorum: the policy is ANY, as a genesis block might have it.
func TestAWeakenedBlockValidationPolicyStillNeedsAQuorum(t *testing.T) {
	w := newWorld(t, func(w *world, root *common.ConfigGroup) {
		root.Groups["Orderer"].Policies["BlockValidation"] = meta(w.t, common.ImplicitMetaPolicy_ANY, "Writers")
	})
	b := w.next([]peer.TxValidationCode{ok}, w.call().envelope(t))
	few := clone(b)
	reseal(t, few, w.last, w.some(1, 2))
	_, err := w.verifier().Block(few)
	refused(t, err, -1, "metadata.signatures", "quorum of 3 of the 4")
	_, err = w.verifier().Block(b)
	must(t, err)
}

// TestRaftBlocksNeedTheirPolicy: orderers sign with their certificates there, and any of them is enough.
func TestRaftBlocksNeedTheirPolicy(t *testing.T) {
	w := newWorld(t, func(w *world, root *common.ConfigGroup) {
		root.Groups["Orderer"].Policies["BlockValidation"] = meta(w.t, common.ImplicitMetaPolicy_ANY, "Writers")
		root.Groups["Orderer"].Values["ConsensusType"].Value = marshal(w.t, &orderer.ConsensusType{Type: "etcdraft"})
	})
	sealedBy := func(b *common.Block, p *party) *common.Block {
		b = clone(b)
		value := marshal(t, &common.OrdererBlockMetadata{LastConfig: &common.LastConfig{}})
		h := marshal(t, &common.SignatureHeader{Creator: p.serialized(t), Nonce: []byte{1}})
		b.Metadata.Metadata[common.BlockMetadataIndex_SIGNATURES] = marshal(t, &common.Metadata{Value: value, Signatures: []*common.MetadataSignature{
			{SignatureHeader: h, Signature: p.sign(t, value, h, headerDER(t, b.Header))},
		}})
		return b
	}
	v, err := verify.New(verify.Config{Channel: channelName, Chaincode: ccName, Genesis: w.blocks[0]})
	must(t, err)
	_, err = v.Block(w.blocks[0])
	must(t, err)
	_, err = v.Block(sealedBy(w.blocks[1], w.peers[0]))
	refused(t, err, -1, "metadata.signatures")
	_, err = v.Block(sealedBy(w.blocks[1], w.orderers[2]))
	must(t, err)
}

func TestUnsupportedChannelsAreRefused(t *testing.T) {
	for name, option := range map[string]worldOption{
		"application capabilities": func(w *world, root *common.ConfigGroup) {
			root.Groups["Application"].Values["Capabilities"] = capabilities(w.t, "V1_3")
		},
		"channel capabilities": func(w *world, root *common.ConfigGroup) { root.Values["Capabilities"] = capabilities(w.t, "V1_3") },
		"MSP of type 1": func(w *world, root *common.ConfigGroup) {
			root.Groups["Application"].Groups["Org1MSP"].Values["MSP"].Value = marshal(w.t, &msp.MSPConfig{Type: 1})
		},
		"BlockValidation": func(w *world, root *common.ConfigGroup) { delete(root.Groups["Orderer"].Policies, "BlockValidation") },
	} {
		w := newWorld(t, option)
		v, err := verify.New(verify.Config{Channel: channelName, Chaincode: ccName, Genesis: w.blocks[0]})
		must(t, err)
		_, err = v.Block(w.blocks[0])
		refused(t, err, -1, "configuration", name)
	}
}
