// Command static-fsck checks a whole static-ct-api log with the parts that others' tools are made of: tessera's fsck package recomputes
// every tile and the root, sunlight's parser reads the entries, certificate-transparency-go checks what the hashes do not cover, which is
// the precertificates and the issuers. TesseraCT has such a program; its module cannot be had from every module proxy. Exit status 1:
// the log is not whole, and standard error says where.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	stdx509 "crypto/x509"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"filippo.io/sunlight"
	"github.com/google/certificate-transparency-go/x509"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
)

func main() {
	monitoring := flag.String("monitoring_url", "", "monitoring prefix of the log")
	origin := flag.String("origin", "", "origin of the log's checkpoints")
	key := flag.String("public_key", "", "the log's key, base64 of its SubjectPublicKeyInfo, as log lists have it")
	flag.Parse()
	entries, issuers, err := check(context.Background(), *monitoring, *origin, *key)
	if err != nil {
		fmt.Fprintln(os.Stderr, "static-fsck:", err)
		os.Exit(1)
	}
	fmt.Printf("%d entries and %d issuers are whole\n", entries, issuers)
}

func check(ctx context.Context, monitoring, origin, key string) (entries, issuers int, err error) {
	base, err := url.Parse(monitoring)
	if err != nil {
		return 0, 0, err
	}
	der, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return 0, 0, fmt.Errorf("public_key: %w", err)
	}
	public, err := stdx509.ParsePKIXPublicKey(der)
	if err != nil {
		return 0, 0, fmt.Errorf("public_key: %w", err)
	}
	verifier, err := sunlight.NewRFC6962Verifier(origin, public)
	if err != nil {
		return 0, 0, err
	}
	tiles, err := client.NewHTTPFetcher(base, nil)
	if err != nil {
		return 0, 0, err
	}
	l := &log{HTTPFetcher: tiles, base: base.String(), issuers: map[[32]byte]*x509.Certificate{}}
	if err := fsck.New(origin, verifier, l, l.hashes, fsck.Opts{N: 2}).Check(ctx); err != nil {
		return 0, 0, err
	}
	for _, e := range l.entries {
		if err := l.checkCertificate(ctx, e); err != nil {
			return 0, 0, fmt.Errorf("entry %d: %w", e.LeafIndex, err)
		}
	}
	return len(l.entries), len(l.issuers), nil
}

// log fetches what tlog-tiles and static-ct-api have in common with tessera's client, and data tiles itself.
type log struct {
	*client.HTTPFetcher
	base string

	entries []*sunlight.LogEntry
	issuers map[[32]byte]*x509.Certificate // by the SHA-256 of their DER
}

// ReadEntryBundle implements fsck.Fetcher: what tlog-tiles has at tile/entries, static-ct-api has at tile/data.
func (l *log) ReadEntryBundle(ctx context.Context, index uint64, partial uint8) ([]byte, error) {
	return l.get(ctx, strings.Replace(layout.EntriesPath(index, partial), "tile/entries/", "tile/data/", 1))
}

func (l *log) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.200s", path, resp.Status, body)
	}
	return body, err
}

// hashes reads a data tile and returns its entries' leaf hashes.
func (l *log) hashes(tile []byte) (hashes [][]byte, err error) {
	for len(tile) > 0 {
		var e *sunlight.LogEntry
		if e, tile, err = sunlight.ReadTileLeaf(tile); err != nil {
			return nil, err
		}
		if e.LeafIndex != int64(len(l.entries)) {
			return nil, fmt.Errorf("entry %d says that it is entry %d", len(l.entries), e.LeafIndex)
		}
		l.entries = append(l.entries, e)
		hashes = append(hashes, rfc6962.DefaultHasher.HashLeaf(e.MerkleTreeLeaf()))
	}
	return hashes, nil
}

// checkCertificate: the entry is what its issuer signed, and the chain leads on from there.
func (l *log) checkCertificate(ctx context.Context, e *sunlight.LogEntry) error {
	der := e.Certificate
	if e.IsPrecert {
		der = e.PreCertificate
	}
	cert, err := x509.ParseCertificate(der)
	if x509.IsFatal(err) {
		return err
	}
	if e.IsPrecert {
		tbs, err := x509.BuildPrecertTBS(cert.RawTBSCertificate, nil)
		if err != nil || !bytes.Equal(tbs, e.Certificate) {
			return fmt.Errorf("the precertificate is not that of the leaf (%v)", err)
		}
	}
	for i, fingerprint := range e.ChainFingerprints {
		issuer, err := l.issuer(ctx, fingerprint)
		if err == nil {
			err = cert.CheckSignatureFrom(issuer)
		}
		if err != nil {
			return fmt.Errorf("chain certificate %d: %w", i, err)
		}
		if i == 0 && e.IsPrecert && sha256.Sum256(issuer.RawSubjectPublicKeyInfo) != e.IssuerKeyHash {
			return fmt.Errorf("issuer_key_hash is not that of chain certificate 0")
		}
		cert = issuer
	}
	return nil
}

func (l *log) issuer(ctx context.Context, fingerprint [32]byte) (*x509.Certificate, error) {
	if c := l.issuers[fingerprint]; c != nil {
		return c, nil
	}
	der, err := l.get(ctx, fmt.Sprintf("issuer/%x", fingerprint))
	if err != nil {
		return nil, err
	}
	if sha256.Sum256(der) != fingerprint {
		return nil, fmt.Errorf("issuer/%x is another certificate", fingerprint)
	}
	c, err := x509.ParseCertificate(der)
	if x509.IsFatal(err) {
		return nil, err
	}
	l.issuers[fingerprint] = c
	return c, nil
}
