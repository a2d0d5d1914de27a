package ccaas

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrNotOurs is returned by Detect for packages of another type.
var ErrNotOurs = errors.New("not a chaincode-as-a-service package")

// Detect is the external builder's detect step: nil means that Build takes the package whose metadata.json is in metadataDir.
func Detect(metadataDir string) error {
	content, err := os.ReadFile(filepath.Join(metadataDir, "metadata.json"))
	if err != nil {
		return err
	}
	var m metadata
	if err := json.Unmarshal(content, &m); err != nil {
		return fmt.Errorf("metadata.json: %w", err)
	}
	if m.Type != packageType {
		return fmt.Errorf("metadata.json: type %q: %w", m.Type, ErrNotOurs)
	}
	return nil
}

// Build is the build step: it checks connection.json in sourceDir and keeps it in outputDir.
func Build(sourceDir, outputDir string) error {
	connection, err := readConnection(sourceDir)
	if err != nil {
		return err
	}
	return writeConnection(outputDir, connection)
}

// Release is the release step: it hands connection.json to the peer, with the client certificate and key it is to use, in PEM.
func Release(outputDir, releaseDir, clientCertFile, clientKeyFile string) error {
	connection, err := readConnection(outputDir)
	if err != nil {
		return err
	}
	cert, err := os.ReadFile(clientCertFile)
	if err != nil {
		return fmt.Errorf("client certificate: %w", err)
	}
	key, err := os.ReadFile(clientKeyFile)
	if err != nil {
		return fmt.Errorf("client key: %w", err)
	}
	connection.ClientCert, connection.ClientKey = string(cert), string(key)
	return writeConnection(filepath.Join(releaseDir, "chaincode", "server"), connection)
}

func readConnection(dir string) (Connection, error) {
	var connection Connection
	content, err := os.ReadFile(filepath.Join(dir, "connection.json"))
	if err != nil {
		return connection, err
	}
	if err := json.Unmarshal(content, &connection); err != nil {
		return connection, fmt.Errorf("connection.json: %w", err)
	}
	switch {
	case connection.Address == "":
		return connection, errors.New("connection.json: address is empty")
	case !connection.TLSRequired || !connection.ClientAuthRequired:
		return connection, errors.New("connection.json: tls_required and client_auth_required must be true: the peer and its chaincode authenticate each other")
	case connection.RootCert == "":
		return connection, errors.New("connection.json: root_cert is empty")
	}
	return connection, nil
}

func writeConnection(dir string, connection Connection) error {
	content, err := json.Marshal(connection)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "connection.json"), content, 0o600)
}
