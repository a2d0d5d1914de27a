// Package fabric is the Hyperledger Fabric engine of package network: transactions are endorsed and submitted through the
// gateway of the organisation's own peer (fabric-gateway), reads are executed on that peer, and commits are learnt from its
// block stream.
//
// What is trusted: the organisation's own peer, for the validity flags of blocks and for its answers to reads. Orderers sign
// only a block's header, so nothing here makes another organisation's peer as good; package failover reads those, and package verify computes the flags.
//
// Reading order: config.go, ledger.go (the connection), query.go (reads), submit.go, endorsers.go and errors.go (writes, who
// endorses them, and what each failure means), commits.go (how an outcome is learnt), stream.go and blocks.go (the block stream), parse.go.
package fabric

import (
	"fmt"
	"net"
	"time"
)

// Config names the organisation's own peer and the identity to act as. Paths are to PEM files.
type Config struct {
	Endpoint   string `yaml:"endpoint" json:"endpoint"`       // host:port of the peer
	ServerName string `yaml:"server_name" json:"server_name"` // name expected in the peer's TLS certificate; empty: the host of Endpoint
	TLSCA      string `yaml:"tls_ca" json:"tls_ca"`           // roots for the peer's TLS certificate
	MSPID      string `yaml:"msp_id" json:"msp_id"`
	Cert       string `yaml:"cert" json:"cert"` // signing certificate of the client identity
	Key        string `yaml:"key" json:"key"`   // its private key, PKCS#8
	Channel    string `yaml:"channel" json:"channel"`
	Chaincode  string `yaml:"chaincode" json:"chaincode"`

	// Timeout ends calls whose context has no deadline; 0 means DefaultTimeout.
	Timeout time.Duration `yaml:"timeout" json:"timeout"`
	// Keepalive is how long the connection may be silent before the peer is asked whether it is alive; 0 means
	// DefaultKeepalive, which is also the least that gRPC allows. The peer's peer.keepalive.minInterval must not be longer.
	Keepalive time.Duration `yaml:"keepalive" json:"keepalive"`

	// FallbackPeers are peers of other organisations, read as the same identity while the own one is away (package failover). Open takes no notice of them.
	FallbackPeers []FallbackPeer `yaml:"fallback_peers,omitempty" json:"fallback_peers,omitempty"`
	// FallbackAfter is for how long the own peer delivers no block before they are; 0 means DefaultFallbackAfter. It should be more than the
	// ledger's tick interval, or a quiet ledger looks like a peer that is away, and less than the staleness.
	FallbackAfter time.Duration `yaml:"fallback_after,omitempty" json:"fallback_after,omitempty"`
	// GenesisBlock is a file with the channel's first block, by which others' blocks are verified. Empty: the one that the own peer serves first.
	GenesisBlock string `yaml:"genesis_block,omitempty" json:"genesis_block,omitempty"`
}

// FallbackPeer is a peer of another organisation.
type FallbackPeer struct {
	MSPID      string `yaml:"msp_id" json:"msp_id"`                               // of that organisation
	Endpoint   string `yaml:"endpoint" json:"endpoint"`                           // host:port
	ServerName string `yaml:"server_name,omitempty" json:"server_name,omitempty"` // as in Config
	TLSCA      string `yaml:"tls_ca" json:"tls_ca"`                               // roots for its TLS certificate
}

// Defaults of Config.
const (
	DefaultTimeout   = 30 * time.Second
	DefaultKeepalive = 10 * time.Second

	DefaultFallbackAfter = 20 * time.Second
)

// complete fills in the defaults and checks what is left. Its errors name the field, the value and the rule.
func (c Config) complete() (Config, error) {
	host, _, err := net.SplitHostPort(c.Endpoint)
	if err != nil || host == "" {
		return c, fmt.Errorf("endpoint: %q, must be host:port of the organisation's own peer", c.Endpoint)
	}
	for _, f := range []struct{ name, value string }{
		{"tls_ca", c.TLSCA}, {"msp_id", c.MSPID}, {"cert", c.Cert}, {"key", c.Key}, {"channel", c.Channel}, {"chaincode", c.Chaincode},
	} {
		if f.value == "" {
			return c, fmt.Errorf("%s: empty, must be set", f.name)
		}
	}
	if c.ServerName == "" {
		c.ServerName = host
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Keepalive == 0 {
		c.Keepalive = DefaultKeepalive
	}
	if c.Timeout < 0 {
		return c, fmt.Errorf("timeout: %v, must be positive", c.Timeout)
	}
	if c.Keepalive < DefaultKeepalive {
		return c, fmt.Errorf("keepalive: %v, must be at least %v", c.Keepalive, DefaultKeepalive)
	}
	return c, c.checkFallback()
}

// checkFallback checks what package failover is told.
func (c Config) checkFallback() error {
	if c.FallbackAfter < 0 || c.FallbackAfter > 0 && c.FallbackAfter < time.Second {
		return fmt.Errorf("fallback_after: %v, must be at least 1s, or 0 for %v", c.FallbackAfter, DefaultFallbackAfter)
	}
	for i, p := range c.FallbackPeers {
		host, _, err := net.SplitHostPort(p.Endpoint)
		switch {
		case err != nil || host == "":
			return fmt.Errorf("fallback_peers[%d].endpoint: %q, must be host:port of a peer of another organisation", i, p.Endpoint)
		case p.MSPID == "" || p.MSPID == c.MSPID:
			return fmt.Errorf("fallback_peers[%d].msp_id: %q, must be another organisation's: this one's is %s", i, p.MSPID, c.MSPID)
		case p.TLSCA == "":
			return fmt.Errorf("fallback_peers[%d].tls_ca: empty, must be set", i)
		}
	}
	return nil
}
