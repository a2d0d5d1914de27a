package testnetwork

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	lifecycle "github.com/hyperledger/fabric-admin-sdk/pkg/chaincode"

	"github.com/certanchor/certanchor/test-network/ccaas"
)

// The chaincode definition every organisation approves.
const (
	chaincodeVersion  = "1"
	chaincodeSequence = 1
	packageLabel      = Chaincode
)

// writePackage makes an organisation's chaincode package: where its server is, and whom its certificate is from.
func (l layout) writePackage(org int) error {
	ca, err := os.ReadFile(l.tlsCA(org))
	if err != nil {
		return err
	}
	pkg, err := ccaas.Package(packageLabel, ccaas.Connection{
		Address: l.address(org, portChaincode), DialTimeout: "2s",
		TLSRequired: true, ClientAuthRequired: true, RootCert: string(ca),
	})
	if err != nil {
		return err
	}
	return writeAtomic(l.packageFile(org), pkg, 0o644)
}

func (l layout) packageID(org int) (string, error) {
	pkg, err := os.ReadFile(l.packageFile(org))
	if err != nil {
		return "", err
	}
	return ccaas.PackageID(packageLabel, pkg), nil
}

// writeBuilder makes the programs that an organisation's peer runs as its external builder. A peer runs bin/detect and so on
// without arguments of ours, so these are scripts of one line that do nothing but add them.
func (l layout) writeBuilder(org int, executable string) error {
	client := fmt.Sprintf(" --client-cert %s --client-key %s",
		shellQuote(l.tls(org, RoleChaincode, "client-cert.pem")), shellQuote(l.tls(org, RoleChaincode, "client-key.pem")))
	dir := filepath.Join(l.builderDir(org), "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, step := range []struct{ name, flags string }{{"detect", ""}, {"build", ""}, {"release", client}} {
		script := fmt.Sprintf("#!/bin/sh\nexec %s chaincode-builder %s%s \"$@\"\n", shellQuote(executable), step.name, step.flags)
		if err := writeAtomic(filepath.Join(dir, step.name), []byte(script), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// shellQuote makes one word of any path.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// install puts the organisation's package on its peer.
func (n *Network) install(ctx context.Context, org int, admin *administration) error {
	pkg, err := os.ReadFile(n.packageFile(org))
	if err != nil {
		return err
	}
	result, err := lifecycle.NewPeer(admin.conn, admin.id).Install(ctx, bytes.NewReader(pkg))
	if err != nil {
		return fmt.Errorf("%s: installing the chaincode: %w", NodeName(org, RolePeer), err)
	}
	if want := ccaas.PackageID(packageLabel, pkg); result.GetPackageId() != want {
		return fmt.Errorf("%s: installed chaincode is %s, expected %s", NodeName(org, RolePeer), result.GetPackageId(), want)
	}
	return nil
}

func (n *Network) definition(packageID string) *lifecycle.Definition {
	return &lifecycle.Definition{
		ChannelName: Channel, Name: Chaincode, Version: chaincodeVersion, Sequence: chaincodeSequence, PackageID: packageID,
	}
}

// approve approves the definition for the organisation. The orderers may not have found a leader yet, so it is tried until ctx
// ends; an attempt whose outcome was lost shows as approved.
func (n *Network) approve(ctx context.Context, org int, admin *administration) error {
	packageID, err := n.packageID(org)
	if err != nil {
		return err
	}
	gateway := lifecycle.NewGateway(admin.conn, admin.id)
	err = retry(ctx, func(ctx context.Context) error {
		err := gateway.Approve(ctx, n.definition(packageID))
		if err == nil {
			return nil
		}
		if _, queryErr := gateway.QueryApproved(ctx, Channel, Chaincode, chaincodeSequence); queryErr == nil {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: approving the chaincode: %w", OrgName(org), err)
	}
	return nil
}

// commitDefinition commits the definition once the organisations have approved it, from the first organisation.
func (n *Network) commitDefinition(ctx context.Context, admin *administration) error {
	gateway := lifecycle.NewGateway(admin.conn, admin.id)
	err := retry(ctx, func(ctx context.Context) error {
		err := gateway.Commit(ctx, n.definition(""))
		if err == nil {
			return nil
		}
		if committed, queryErr := gateway.QueryCommittedWithName(ctx, Channel, Chaincode); queryErr == nil && committed.GetSequence() == chaincodeSequence {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("committing the chaincode definition: %w", err)
	}
	return nil
}

// attemptTimeout bounds one attempt of a retried call.
const attemptTimeout = 15 * time.Second

// permanent is an error that trying again would not mend.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// retry calls fn until it succeeds, fails for good or ctx ends, and then returns fn's last error as well.
func retry(ctx context.Context, fn func(context.Context) error) error {
	tick := time.NewTicker(4 * pollEvery)
	defer tick.Stop()
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := fn(attempt)
		cancel()
		if err == nil || errors.As(err, new(permanent)) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; the last attempt: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}
