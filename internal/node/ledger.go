// Package node builds running services from configuration.
package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/metrics"
	"github.com/certanchor/certanchor/network"
	"github.com/certanchor/certanchor/network/embedded"
	"github.com/certanchor/certanchor/network/fabric"
	"github.com/certanchor/certanchor/network/fabric/failover"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// OpenLedger connects to the configured ledger. role is what an embedded connection acts as when the configuration does not
// say; a Fabric identity carries its role in its certificate.
func OpenLedger(ctx context.Context, conf *config.File, role string) (network.Ledger, error) {
	if err := conf.Ledger.Check(conf.Path); err != nil {
		return nil, err
	}
	if conf.Ledger.Engine == config.EngineFabric {
		l, err := fabric.Open(ctx, *conf.Ledger.Fabric)
		if err != nil {
			return nil, fmt.Errorf("configuration %s: ledger.fabric: %w", conf.Path, err)
		}
		return l, nil
	}
	e := conf.Ledger.Embedded
	if e.Role != "" {
		role = e.Role
	}
	if err := checkRole(conf.Path, role); err != nil {
		return nil, err
	}
	if e.Socket != "" {
		return embedded.Dial(ctx, embedded.DialOptions{Socket: e.Socket, Role: role})
	}
	n, err := openEmbedded(conf)
	if err != nil {
		return nil, err
	}
	return &owned{Ledger: n.Connect(role), node: n}, nil
}

// verifiedDir is where an OCSP bridge that may read other organisations' peers keeps what their blocks are verified with, in its directory.
const verifiedDir = "verified"

// openBridgeLedger is OpenLedger for an OCSP bridge, which may go on with other organisations' peers while its own is away.
func openBridgeLedger(ctx context.Context, conf *config.File, bridge *ocspbridge.Config) (network.Ledger, error) {
	if err := conf.Ledger.Check(conf.Path); err != nil {
		return nil, err
	}
	if conf.Ledger.Engine != config.EngineFabric || len(conf.Ledger.Fabric.FallbackPeers) == 0 {
		return OpenLedger(ctx, conf, wire.RoleOperator)
	}
	l, err := failover.Open(ctx, *conf.Ledger.Fabric, filepath.Join(bridge.Dir, verifiedDir), cmp.Or(bridge.Log, slog.Default()))
	if err != nil {
		return nil, fmt.Errorf("configuration %s: ledger.fabric: %w", conf.Path, err)
	}
	bridge.Metrics = cmp.Or(bridge.Metrics, metrics.New())
	bridge.Metrics.Failover(func() metrics.FailoverState {
		s := l.State()
		m := metrics.FailoverState{Abroad: s.Abroad, Verified: s.Verified}
		for _, p := range s.Peers {
			m.Peers = append(m.Peers, metrics.FailoverPeer(p))
		}
		return m
	})
	return l, nil
}

func openEmbedded(conf *config.File) (*embedded.Node, error) {
	e := conf.Ledger.Embedded
	n, err := embedded.Open(embedded.Options{Dir: e.Dir, Channel: e.Channel, MSPID: e.MSPID, TickInterval: e.TickInterval})
	if err != nil {
		return nil, fmt.Errorf("configuration %s: ledger.embedded: %w", conf.Path, err)
	}
	return n, nil
}

func checkRole(file, role string) error {
	switch role {
	case wire.RoleOperator, wire.RoleAuditor, wire.RoleAdministrator:
		return nil
	}
	return &config.Error{File: file, Key: "ledger.embedded.role", Value: role, Rule: "must be operator, auditor or administrator"}
}

// owned is a connection whose process also holds the ledger's store.
type owned struct {
	network.Ledger
	node *embedded.Node
}

// Close closes the store too.
func (o *owned) Close() error { return errors.Join(o.Ledger.Close(), o.node.Close()) }
