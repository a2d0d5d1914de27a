// Package msp verifies certificates of an organisation's people as its Fabric MSP does: roots, intermediates and revocation lists in an MSP
// folder.
package msp

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Folders of an MSP.
const (
	rootsDir         = "cacerts"
	intermediatesDir = "intermediatecerts"
	crlsDir          = "crls"
)

// Limits of an MSP folder.
const (
	maxFile  = 16 << 20 // octets
	maxFiles = 256      // in each folder
)

// Revocation lists that say less than all are not taken.
var (
	deltaIndicator = asn1.ObjectIdentifier{2, 5, 29, 27}
	issuingPoint   = asn1.ObjectIdentifier{2, 5, 29, 28}
)

// MSP is what says who belongs to an organisation. It is immutable.
type MSP struct {
	roots, intermediates *x509.CertPool
	authorities          []*x509.Certificate
	revoked              map[string]*revocations // by an authority's SubjectPublicKeyInfo
	Fingerprint          string                  // of the folder as it was read; see Fingerprint
}

type revocations struct {
	serials map[string]bool
	next    time.Time // when the newest list runs out
}

// Load reads an MSP folder: cacerts (at least one), intermediatecerts and crls, PEM or DER; other folders are not looked at. A list must be
// signed by one of the authorities and be complete. Errors name the file.
func Load(dir string) (*MSP, error) {
	m := &MSP{roots: x509.NewCertPool(), intermediates: x509.NewCertPool(), revoked: map[string]*revocations{}}
	var err error
	if m.Fingerprint, err = Fingerprint(dir); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		folder string
		pool   *x509.CertPool
	}{{rootsDir, m.roots}, {intermediatesDir, m.intermediates}} {
		err := eachBlock(filepath.Join(dir, f.folder), "CERTIFICATE", func(der []byte) error {
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				return err
			}
			if !cert.BasicConstraintsValid || !cert.IsCA {
				return fmt.Errorf("%s: must be a CA certificate", cert.Subject)
			}
			f.pool.AddCert(cert)
			m.authorities = append(m.authorities, cert)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if m.roots.Equal(x509.NewCertPool()) {
		return nil, fmt.Errorf("%s: must hold at least one root certificate", filepath.Join(dir, rootsDir))
	}
	return m, eachBlock(filepath.Join(dir, crlsDir), "X509 CRL", m.addCRL)
}

func (m *MSP) addCRL(der []byte) error {
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	for _, e := range crl.Extensions {
		if e.Id.Equal(deltaIndicator) || e.Id.Equal(issuingPoint) {
			return errors.New("must be a complete revocation list of all certificates")
		}
	}
	signer := ""
	for _, a := range m.authorities {
		if bytes.Equal(a.RawSubject, crl.RawIssuer) && crl.CheckSignatureFrom(a) == nil {
			signer = string(a.RawSubjectPublicKeyInfo)
			break
		}
	}
	if signer == "" {
		return fmt.Errorf("is signed by none of the MSP's authorities; its issuer is %s", crl.Issuer)
	}
	r := m.revoked[signer]
	if r == nil {
		r = &revocations{serials: map[string]bool{}}
		m.revoked[signer] = r
	}
	// Of several lists of one authority, all count, as in Fabric.
	for _, e := range crl.RevokedCertificateEntries {
		r.serials[e.SerialNumber.String()] = true
	}
	if crl.NextUpdate.After(r.next) {
		r.next = crl.NextUpdate
	}
	return nil
}

// Stale returns when the oldest of the revocation lists ran out, if one did before now. It counts all the same: Fabric heeds it too.
func (m *MSP) Stale(now time.Time) (time.Time, bool) {
	var oldest time.Time
	for _, r := range m.revoked {
		if !r.next.IsZero() && r.next.Before(now) && (oldest.IsZero() || r.next.Before(oldest)) {
			oldest = r.next
		}
	}
	return oldest, !oldest.IsZero()
}

// Verify checks that cert is that of a person or program of the organisation, valid now and not revoked: not of another organisation's, not a
// CA's, and not one that must not be used for TLS clients or signatures. Intermediates are the MSP's alone, as in Fabric.
func (m *MSP) Verify(cert *x509.Certificate, now time.Time) error {
	switch {
	case cert.IsCA:
		return errors.New("is a CA's, must be a person's or program's")
	case now.Before(cert.NotBefore):
		return fmt.Errorf("is valid from %s on, it is %s", cert.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case now.After(cert.NotAfter):
		return fmt.Errorf("has expired on %s", cert.NotAfter.UTC().Format(time.RFC3339))
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("has a key usage without digitalSignature")
	}
	chains, err := cert.Verify(x509.VerifyOptions{
		Roots: m.roots, Intermediates: m.intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return fmt.Errorf("is not one of this organisation's MSP: %w", err)
	}
	for _, chain := range chains {
		if err = m.notRevoked(chain); err == nil {
			return nil
		}
	}
	return err
}

func (m *MSP) notRevoked(chain []*x509.Certificate) error {
	for i, cert := range chain[:len(chain)-1] {
		if r := m.revoked[string(chain[i+1].RawSubjectPublicKeyInfo)]; r != nil && r.serials[cert.SerialNumber.String()] {
			return fmt.Errorf("is revoked: serial number %x of %s is on the MSP's revocation list", cert.SerialNumber, cert.Subject)
		}
	}
	return nil
}

// Fingerprint changes when a file of an MSP folder does.
func Fingerprint(dir string) (string, error) {
	h := sha256.New()
	for _, folder := range []string{rootsDir, intermediatesDir, crlsDir} {
		entries, err := os.ReadDir(filepath.Join(dir, folder))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		for _, e := range entries {
			st, err := os.Stat(filepath.Join(dir, folder, e.Name())) // as the file behind a link is
			if err != nil {
				return "", err
			}
			fmt.Fprintf(h, "%s/%q %d %d\n", folder, e.Name(), st.Size(), st.ModTime().UnixNano())
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// eachBlock calls fn with the DER of everything in a folder, which may be absent.
func eachBlock(dir, kind string, fn func(der []byte) error) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(entries) > maxFiles {
		return fmt.Errorf("%s: must hold at most %d files, it holds %d", dir, maxFiles, len(entries))
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if st, err := os.Stat(path); err != nil {
			return err
		} else if st.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		ders, err := readBlocks(path, kind)
		for i := 0; err == nil && i < len(ders); i++ {
			err = fn(ders[i])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func readBlocks(path, kind string) ([][]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("must have at most %d octets", maxFile)
	}
	if len(data) > 0 && data[0] == 0x30 { // DER begins so, PEM does not
		return [][]byte{data}, nil
	}
	var ders [][]byte
	for rest := bytes.TrimSpace(data); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != kind {
			return nil, fmt.Errorf("must hold PEM blocks %q and nothing else", kind)
		}
		ders = append(ders, block.Bytes)
	}
	if len(ders) == 0 {
		return nil, errors.New("is empty")
	}
	return ders, nil
}
