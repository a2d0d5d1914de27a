package testnetwork

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
)

//go:embed templates/*.tmpl
var templateFiles embed.FS

// A JSON string is a YAML string too, whatever the path has in it.
var templates = template.Must(template.New("").Option("missingkey=error").Funcs(template.FuncMap{
	"quote": func(s string) (string, error) {
		quoted, err := json.Marshal(s)
		return string(quoted), err
	},
}).ParseFS(templateFiles, "templates/*.tmpl"))

type peerConfig struct {
	Node, MSPID                            string
	Address, Operations, ChaincodeCallback string
	MSP, TLSCert, TLSKey, TLSCA            string
	Data, Snapshots, Builder               string
}

type ordererConfig struct {
	Node, MSPID                 string
	Host                        string
	Port                        int
	Operations, Admin           string
	MSP, TLSCert, TLSKey, TLSCA string
	AllTLSCAs                   []string
	Ledger, WAL, RaftSnapshots  string
}

type channelConfig struct {
	BFT  bool
	Orgs []channelOrg
}

type channelOrg struct {
	Number                      int
	Name, Host                  string
	MSPID, MSP                  string
	OrdererMSPID, OrdererMSP    string
	OrdererCert, OrdererTLSCert string
	PeerPort, OrdererPort       int
}

const loopback = "127.0.0.1"

func (l layout) peerConfig(org int) peerConfig {
	name := NodeName(org, RolePeer)
	return peerConfig{
		Node: name, MSPID: MSPID(org),
		Address: l.address(org, portPeer), Operations: l.address(org, portPeerOperations),
		ChaincodeCallback: l.address(org, portPeerChaincode),
		MSP:               l.msp(org, RolePeer),
		TLSCert:           l.tls(org, RolePeer, "cert.pem"), TLSKey: l.tls(org, RolePeer, "key.pem"), TLSCA: l.tlsCA(org),
		Data: l.dataDir(name), Snapshots: filepath.Join(l.dataDir(name), "snapshots"), Builder: l.builderDir(org),
	}
}

func (l layout) ordererConfig(org, orgs int) ordererConfig {
	name := NodeName(org, RoleOrderer)
	config := ordererConfig{
		Node: name, MSPID: OrdererMSPID(org),
		Host: loopback, Port: l.port(org, portOrderer),
		Operations: l.address(org, portOrdererOperations), Admin: l.address(org, portOrdererAdmin),
		MSP:     l.msp(org, RoleOrderer),
		TLSCert: l.tls(org, RoleOrderer, "cert.pem"), TLSKey: l.tls(org, RoleOrderer, "key.pem"), TLSCA: l.tlsCA(org),
		Ledger: filepath.Join(l.dataDir(name), "ledger"), WAL: filepath.Join(l.dataDir(name), "wal"),
		RaftSnapshots: filepath.Join(l.dataDir(name), "raft-snapshots"),
	}
	for other := 1; other <= orgs; other++ {
		config.AllTLSCAs = append(config.AllTLSCAs, l.tlsCA(other))
	}
	return config
}

func (l layout) channelConfig(orgs int, consensus string) channelConfig {
	config := channelConfig{BFT: consensus == BFT}
	for org := 1; org <= orgs; org++ {
		config.Orgs = append(config.Orgs, channelOrg{
			Number: org, Name: OrgName(org), Host: loopback,
			MSPID: MSPID(org), MSP: l.msp(org, RolePeer),
			OrdererMSPID: OrdererMSPID(org), OrdererMSP: l.msp(org, RoleOrderer),
			OrdererCert:    filepath.Join(l.msp(org, RoleOrderer), "signcerts", "cert.pem"),
			OrdererTLSCert: l.tls(org, RoleOrderer, "cert.pem"),
			PeerPort:       l.port(org, portPeer), OrdererPort: l.port(org, portOrderer),
		})
	}
	return config
}

// writeConfig renders every node's configuration and the channel's. It is repeated at each start, because a network that
// moved to another certanchor program must not keep the old one's.
func (l layout) writeConfig(orgs int, consensus string) error {
	if err := l.render("configtx.yaml", l.path("config", "configtx.yaml"), l.channelConfig(orgs, consensus)); err != nil {
		return err
	}
	for org := 1; org <= orgs; org++ {
		if err := errors.Join(
			l.render("core.yaml", filepath.Join(l.configDir(NodeName(org, RolePeer)), "core.yaml"), l.peerConfig(org)),
			l.render("orderer.yaml", filepath.Join(l.configDir(NodeName(org, RoleOrderer)), "orderer.yaml"), l.ordererConfig(org, orgs)),
		); err != nil {
			return err
		}
	}
	return nil
}

func (l layout) render(name, file string, data any) error {
	var out bytes.Buffer
	if err := templates.ExecuteTemplate(&out, name+".tmpl", data); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return writeAtomic(file, out.Bytes(), 0o644)
}

// writeAtomic replaces file in one step: a reader sees the old content or the new.
func writeAtomic(file string, content []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // after a successful rename there is nothing left to remove
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Chmod(mode), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}
