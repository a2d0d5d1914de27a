package ocspbridge

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/cosign"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/policy"
	"github.com/certanchor/certanchor/internal/witness"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/index"
)

// Peer is another organisation's bridge: it cosigns this one's checkpoints, and is watched.
type Peer struct {
	MSPID       string
	URL         string       // base URL of its bridge
	LogKey      string       // signed-note verifier key of its log key
	CosignerKey string       // and of its cosigner key
	HTTP        *http.Client // default: one with a timeout
}

// Trust is a policy with the file that it is from.
type Trust struct {
	Policy *policy.Policy
	File   []byte
}

// peerTimeout bounds one request to a peer.
const peerTimeout = 5 * time.Second

// peer is a Peer with its keys read.
type peer struct {
	Peer
	logKey, cosigner note.Verifier
	witness          *witness.Remote
}

// readPeers checks the peers, and that the policy has them and this organisation. Errors name the key, the value and the rule.
func (b *Bridge) readPeers() error {
	channel := b.ledger.Channel()
	seen := map[string]bool{b.ledger.MSPID(): true}
	for i, p := range b.cfg.Peers {
		at := func(key, value, rule string) error { return fmt.Errorf("peers[%d].%s: %q: %s", i, key, value, rule) }
		if seen[p.MSPID] || p.MSPID == "" {
			return at("msp_id", p.MSPID, "must be another organisation, each one once")
		}
		seen[p.MSPID] = true
		if u, err := url.Parse(p.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			return at("url", p.URL, "must be the http or https base URL of its bridge")
		}
		p.URL = strings.TrimRight(p.URL, "/")
		log, err := note.NewVerifier(p.LogKey)
		if err != nil || log.Name() != lognames.Key(channel, p.MSPID) {
			return at("log_key", p.LogKey, "must be a signed-note verifier key named "+lognames.Key(channel, p.MSPID))
		}
		cosigner, err := cosign.NewVerifier(p.CosignerKey)
		if err != nil || cosigner.Name() != lognames.Cosigner(channel, p.MSPID) {
			return at("cosigner_key", p.CosignerKey, "must be a verifier key of type 4 named "+lognames.Cosigner(channel, p.MSPID))
		}
		if p.HTTP == nil {
			p.HTTP = &http.Client{Timeout: peerTimeout}
		}
		b.peers = append(b.peers, &peer{Peer: p, logKey: log, cosigner: cosigner, witness: &witness.Remote{
			URL: p.URL + witnessPrefix, Key: cosigner, HTTP: p.HTTP, Now: b.cfg.Now,
		}})
	}
	if b.cfg.Trust == nil {
		return nil
	}
	return b.checkPolicy(b.cfg.Trust.Policy)
}

// checkPolicy: what this organisation and its peers sign must count under the policy, and be enough.
func (b *Bridge) checkPolicy(p *policy.Policy) error {
	if p.Channel() != b.ledger.Channel() {
		return fmt.Errorf("policy: channel %q: must be the ledger's, %q", p.Channel(), b.ledger.Channel())
	}
	orgs := map[string]policy.Org{}
	for _, o := range p.Orgs() {
		orgs[o.MSPID] = o
	}
	own := policy.Org{MSPID: b.ledger.MSPID(), LogKey: b.key.VKey, CosignerKey: b.cosigner.VKey()}
	if orgs[own.MSPID] != own {
		return fmt.Errorf("policy: version %d: must have this organisation, %s, with the log key %s and the cosigner key %s", p.Version(), own.MSPID, own.LogKey, own.CosignerKey)
	}
	for i, peer := range b.peers {
		if (orgs[peer.MSPID] != policy.Org{MSPID: peer.MSPID, LogKey: peer.LogKey, CosignerKey: peer.CosignerKey}) {
			return fmt.Errorf("peers[%d]: %q: must be an organisation of the policy (version %d), with the keys that it has there", i, peer.MSPID, p.Version())
		}
	}
	if n := 1 + len(b.peers); n < p.Quorum() {
		return fmt.Errorf("peers: %d: with this organisation they must be at least the policy's quorum, %d: no checkpoint would ever have enough cosignatures", len(b.peers), p.Quorum())
	}
	return nil
}

// quorum is how many organisations must have cosigned what is served; without a policy this one is enough.
func (b *Bridge) quorum() int {
	if t := b.trust(); t != nil {
		return t.Policy.Quorum()
	}
	return 1
}

// trust returns the policy that relying parties are to use. An organisation that is alone and has none gets one: itself. nil: none is known.
func (b *Bridge) trust() *Trust { return b.trusted.Load() }

// foundTrust makes the policy of an organisation that is alone. It follows from its keys and the ledger alone: its fingerprint is pinned.
func (b *Bridge) foundTrust(v *index.View) error {
	if b.trust() != nil || len(b.peers) > 0 || len(v.Consortium.MSPs) != 1 {
		return nil
	}
	const interval = time.Millisecond
	age := max(ticksUntilStale*time.Duration(v.Consortium.TickInterval)*interval+time.Second-1, policy.MinMaxAge).Truncate(time.Second)
	p, err := policy.New(b.ledger.Channel(), 1, 1, min(age, policy.MaxMaxAge), policy.Org{
		MSPID: b.ledger.MSPID(), LogKey: b.key.VKey, CosignerKey: b.cosigner.VKey(),
	})
	if err != nil { // a name that a policy cannot have
		b.log.Warn("no policy for this organisation alone", "error", err)
		return nil
	}
	file, err := (&policy.Signed{Policy: p}).Marshal()
	if err != nil {
		return err
	}
	b.trusted.Store(&Trust{Policy: p, File: file})
	return nil
}

// logKeys are those whose checkpoints are listened to: the policy's, else this organisation's and its peers'.
func (b *Bridge) logKeys() []note.Verifier {
	if t := b.trust(); t != nil {
		return t.Policy.LogKeys()
	}
	keys := []note.Verifier{b.ownKey}
	for _, p := range b.peers {
		keys = append(keys, p.logKey)
	}
	return keys
}

// cosigners are those whose cosignature of another history convicts.
func (b *Bridge) cosigners() []note.Verifier {
	if t := b.trust(); t != nil {
		return t.Policy.Cosigners()
	}
	keys := []note.Verifier{b.cosigner.Verifier()}
	for _, p := range b.peers {
		keys = append(keys, p.cosigner)
	}
	return keys
}
