// Package ccaas packages chaincode that runs as a service and is the peers' external builder for it.
//
// Fabric's own ccaas_builder is another module and drops fields it does not know. This one also keeps the peer's private key
// out of the package, which every member of the channel may read: Release adds it from the organisation's own files.
package ccaas

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// packageType is what Detect claims.
const packageType = "ccaas"

// Connection is a package's connection.json, as the peer reads it.
type Connection struct {
	Address            string `json:"address"`      // host:port of the chaincode server
	DialTimeout        string `json:"dial_timeout"` // a Go duration
	TLSRequired        bool   `json:"tls_required"`
	ClientAuthRequired bool   `json:"client_auth_required"`
	RootCert           string `json:"root_cert"`             // PEM, issuer of the server's certificate
	ClientCert         string `json:"client_cert,omitempty"` // PEM; absent from the package, added by Release
	ClientKey          string `json:"client_key,omitempty"`  // PEM; absent from the package, added by Release
}

type metadata struct {
	Type  string `json:"type"`
	Label string `json:"label"`
}

// Package returns a chaincode package. The same arguments always give the same bytes, so the package's ID is known before any
// peer has seen it.
func Package(label string, connection Connection) ([]byte, error) {
	if connection.ClientKey != "" {
		return nil, errors.New("connection: client_key is set, a private key does not belong in a chaincode package")
	}
	connectionJSON, err := json.Marshal(connection)
	if err != nil {
		return nil, err
	}
	code, err := archive(file{"connection.json", connectionJSON})
	if err != nil {
		return nil, err
	}
	metadataJSON, err := json.Marshal(metadata{Type: packageType, Label: label})
	if err != nil {
		return nil, err
	}
	return archive(file{"metadata.json", metadataJSON}, file{"code.tar.gz", code})
}

// PackageID is the ID that a peer gives to the package once it is installed.
func PackageID(label string, pkg []byte) string {
	return fmt.Sprintf("%s:%x", label, sha256.Sum256(pkg))
}

type file struct {
	name    string
	content []byte
}

// archive is a gzipped tar in which nothing depends on when or where it is made.
func archive(files ...file) ([]byte, error) {
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	tarball := tar.NewWriter(compressed)
	for _, f := range files {
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: f.name, Size: int64(len(f.content)), Mode: 0o644,
			ModTime: time.Unix(0, 0).UTC(), Format: tar.FormatUSTAR,
		}
		if err := tarball.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := io.Copy(tarball, bytes.NewReader(f.content)); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(tarball.Close(), compressed.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
