package verify

import (
	"errors"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/protobuf/proto"
)

// isConfig tells whether a block is one with a configuration: that is alone in its block.
func isConfig(b *common.Block) bool {
	if len(b.GetData().GetData()) != 1 {
		return false
	}
	t := &transaction{}
	_, err := configOf(b.GetData().GetData()[0], t)
	return err == nil
}

// configOf reads the configuration in an envelope of that type.
func configOf(raw []byte, t *transaction) (*common.ConfigEnvelope, error) {
	var e common.Envelope
	var p common.Payload
	if err := proto.Unmarshal(raw, &e); err != nil {
		return nil, err
	}
	if err := proto.Unmarshal(e.GetPayload(), &p); err != nil {
		return nil, err
	}
	if err := proto.Unmarshal(p.GetHeader().GetChannelHeader(), &t.header); err != nil {
		return nil, err
	}
	if common.HeaderType(t.header.GetType()) != common.HeaderType_CONFIG {
		return nil, errors.New("not a configuration")
	}
	var c common.ConfigEnvelope
	return &c, proto.Unmarshal(p.GetData(), &c)
}

// A peer keeps the configuration in its state as well.
const peerConfigKey = "resourcesconfigtx.CHANNEL_CONFIG_KEY"

// applyConfig returns the configuration that a block brings.
func (v *Verifier) applyConfig(b *common.Block, up *updates) (*channel, error) {
	raw := b.GetData().GetData()[0]
	t := &transaction{verdict: valid}
	envelope, err := configOf(raw, t)
	if err != nil {
		return nil, faultf("data", "", "must be readable: %v", err)
	}
	t.id = t.header.GetTxId()
	if code := peer.TxValidationCode(flagsOf(b)[0]); code != peer.TxValidationCode_VALID {
		return nil, faultf(flagsField, code.String(), "must be VALID: orderers do not order an invalid configuration")
	}
	if id := t.header.GetChannelId(); id != v.cfg.Channel {
		return nil, faultf("channel", id, "must be %s", v.cfg.Channel)
	}
	var next *channel
	if v.height == 0 {
		if next, err = newChannel(v.cfg.Channel, envelope.GetConfig()); err != nil {
			return nil, faultf(configField, "", "must be supported: %v", err)
		}
	} else {
		if t = v.channel.readTransaction(0, raw); t.verdict != valid {
			return nil, faultf("data[0]", t.verdict.code.String(), "must be valid: %s", t.verdict.why)
		}
		if next, err = v.channel.next(envelope); err != nil {
			return nil, err
		}
	}
	encoded, err := proto.Marshal(envelope.GetConfig())
	if err != nil {
		return nil, err
	}
	up.changed[string([]byte{configPrefix})] = encoded
	up.changed[string(stateKey{key: peerConfigKey}.stored(versionPrefix))] = encodeVersion(v.height, 0)
	if t.id != "" {
		up.changed[string(txKey(t.id))] = encodeVersion(v.height, 0)
	}
	return next, nil
}
