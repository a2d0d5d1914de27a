package testnetwork

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// Role is what a node does.
type Role string

// The roles of an organisation's three nodes.
const (
	RolePeer      Role = "peer"
	RoleOrderer   Role = "orderer"
	RoleChaincode Role = "chaincode"
)

var roles = []Role{RolePeer, RoleOrderer, RoleChaincode}

// Ports of an organisation, as offsets into its block.
const (
	portPeer = iota
	portPeerOperations
	portPeerChaincode // where chaincode that dials the peer would; unused, but Fabric insists on listening
	portOrderer
	portOrdererOperations
	portOrdererAdmin
	portChaincode

	portsUsed   = portChaincode + 1
	portsPerOrg = 10 // a round number, so that a port says whose it is
)

var portNames = [portsUsed]struct {
	role Role
	use  string
}{
	portPeer:              {RolePeer, "peer"},
	portPeerOperations:    {RolePeer, "operations"},
	portPeerChaincode:     {RolePeer, "chaincode callback"},
	portOrderer:           {RoleOrderer, "orderer"},
	portOrdererOperations: {RoleOrderer, "operations"},
	portOrdererAdmin:      {RoleOrderer, "admin"},
	portChaincode:         {RoleChaincode, "chaincode"},
}

// NodeName is how a node is called everywhere, for example "org1.peer".
func NodeName(org int, role Role) string { return OrgName(org) + "." + string(role) }

// OrgName is an organisation's short name, for example "org1".
func OrgName(org int) string { return "org" + strconv.Itoa(org) }

// MSPID is the membership service provider of an organisation's peer and clients.
func MSPID(org int) string { return fmt.Sprintf("Org%dMSP", org) }

// OrdererMSPID is the membership service provider of an organisation's orderer.
func OrdererMSPID(org int) string { return fmt.Sprintf("Org%dOrdererMSP", org) }

// parseNode splits a node's name; ok is false when it is not one of a network of orgs organisations.
func parseNode(name string, orgs int) (org int, role Role, ok bool) {
	first, second, _ := strings.Cut(name, ".")
	number, found := strings.CutPrefix(first, "org")
	org, err := strconv.Atoi(number)
	role = Role(second)
	ok = found && err == nil && org >= 1 && org <= orgs && NodeName(org, role) == name &&
		(role == RolePeer || role == RoleOrderer || role == RoleChaincode)
	return org, role, ok
}

// layout knows every path and port of a network.
type layout struct {
	dir      string
	basePort int
}

func (l layout) path(elem ...string) string {
	return filepath.Join(append([]string{l.dir}, elem...)...)
}

func (l layout) port(org, offset int) int { return l.basePort + (org-1)*portsPerOrg + offset }

func (l layout) address(org, offset int) string {
	return "127.0.0.1:" + strconv.Itoa(l.port(org, offset))
}

func (l layout) stateFile() string         { return l.path("network.json") }
func (l layout) lockFile() string          { return l.path("network.lock") }
func (l layout) runFile(n string) string   { return l.path("run", n+".json") }
func (l layout) runLock(n string) string   { return l.path("run", n+".lock") }
func (l layout) logFile(n string) string   { return l.path("logs", n+".log") }
func (l layout) configDir(n string) string { return l.path("config", n) }
func (l layout) dataDir(n string) string   { return l.path("data", n) }
func (l layout) genesisBlock() string      { return l.path("config", "genesis.block") }
func (l layout) builderDir(org int) string { return l.path("config", OrgName(org)+".builder") }
func (l layout) packageFile(org int) string {
	return l.path("config", OrgName(org)+".chaincode.tar.gz")
}

// org is a path inside an organisation's directory of keys and certificates.
func (l layout) org(org int, elem ...string) string {
	return l.path(append([]string{"orgs", OrgName(org)}, elem...)...)
}

// Files of an organisation.
func (l layout) tlsCA(org int) string { return l.org(org, "tlsca", "cert.pem") }
func (l layout) user(org int, identity, file string) string {
	return l.org(org, "users", identity, file)
}
func (l layout) tls(org int, role Role, file string) string {
	return l.org(org, string(role), "tls", file)
}
func (l layout) msp(org int, role Role) string { return l.org(org, string(role), "msp") }
