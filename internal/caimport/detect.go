package caimport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// content is what a file holds, by its beginning.
type content int

const (
	isOther content = iota
	isEmpty
	isIndex
	isCerts
	isCRL
	isCertDB
)

func (c content) String() string {
	return [...]string{"file of another kind", "empty file", "index.txt", "certificates", "CRL", "SQLite database"}[c]
}

// peekBytes is how much of a file is looked at: a text may stand before the first PEM block, as in what `openssl ca` writes.
const peekBytes = 64 << 10

// recognise looks at a file's beginning.
func recognise(path string) (c content, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	begin := make([]byte, peekBytes)
	n, err := io.ReadFull(f, begin)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return 0, err
	}
	return contentOf(begin[:n]), nil
}

func contentOf(begin []byte) content {
	switch {
	case len(begin) == 0:
		return isEmpty
	case bytes.HasPrefix(begin, []byte("SQLite format 3\x00")):
		return isCertDB
	case looksDER(begin):
		return contentOfDER(begin)
	case len(begin) > 1 && bytes.IndexByte([]byte("VRE"), begin[0]) >= 0 && begin[1] == '\t':
		return isIndex
	}
	cert, list := -1, bytes.Index(begin, []byte("-----BEGIN X509 CRL-----"))
	for label := range certLabels {
		if i := bytes.Index(begin, []byte("-----BEGIN "+label+"-----")); i >= 0 && (cert < 0 || i < cert) {
			cert = i
		}
	}
	switch {
	case list >= 0 && (cert < 0 || list < cert):
		return isCRL
	case cert >= 0:
		return isCerts
	}
	return isOther
}

// contentOfDER tells a Certificate from a CertificateList: of their first four fields, the last is validity, a SEQUENCE, or thisUpdate, a
// time. All of that may be cut off by the end of begin, but for the very first headers.
func contentOfDER(begin []byte) content {
	tbs, ok := inside(begin)
	if ok {
		tbs, ok = inside(tbs)
	}
	if !ok {
		return isOther
	}
	s := cryptobyte.String(tbs)
	var list bool
	version := asn1.Tag(0).Constructed().ContextSpecific()
	if s.PeekASN1Tag(version) {
		return isCerts
	}
	if s.PeekASN1Tag(asn1.SEQUENCE) {
		list = true // a CertificateList of version 1 has no version
	} else if !s.SkipASN1(asn1.INTEGER) {
		return isOther
	}
	for range 2 { // signature and issuer
		if !s.SkipASN1(asn1.SEQUENCE) {
			return isOther
		}
	}
	switch {
	case s.PeekASN1Tag(asn1.UTCTime) || s.PeekASN1Tag(asn1.GeneralizedTime):
		return isCRL
	case s.PeekASN1Tag(asn1.SEQUENCE) && !list:
		return isCerts
	}
	return isOther
}

// inside returns what of a SEQUENCE's content is there.
func inside(b []byte) ([]byte, bool) {
	if _, ok := derLength(b); !ok {
		return nil, false
	}
	head := 2
	if b[1] > 0x80 {
		head += int(b[1] & 0x7f)
	}
	return b[head:], true
}

// Inputs names what is to be imported.
type Inputs struct {
	Any      []string // recognised by content; "-": standard input, certificates; a directory of openssl's or of certificates
	Index    []string // openssl's index.txt
	Newcerts string   // the directory of its certificates; default: newcerts beside each index.txt, if there is one
	Certs    []string // files or directories of certificates; "-": standard input
	CRLs     []string
	CertDBs  []string
}

// sources makes them, in the order of the fields. stdin is a file with what standard input had.
func (in *Inputs) sources(ca *Authority, stdin string) (all []source, err error) {
	for _, path := range in.Any {
		one, err := in.recognised(ca, path, stdin)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	for _, path := range in.Index {
		all = append(all, in.index(path))
	}
	for _, path := range in.Certs {
		one, err := certsAt(path, stdin)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	for _, path := range in.CRLs {
		all = append(all, &crlFile{path: path, ca: ca})
	}
	for _, path := range in.CertDBs {
		all = append(all, &certDB{path: path, ca: ca})
	}
	if len(all) == 0 {
		return nil, errors.New("there must be at least one source")
	}
	return all, nil
}

func (in *Inputs) index(path string) source {
	x := &index{path: path, newcerts: in.Newcerts}
	if beside := filepath.Join(filepath.Dir(path), "newcerts"); x.newcerts == "" && isDir(beside) {
		x.newcerts = beside
	}
	return x
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func certsAt(path, stdin string) (source, error) {
	if path == "-" {
		return &certFile{path: stdin, shown: "standard input"}, nil
	}
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	if isDir(path) {
		return &tree{path: path}, nil
	}
	return &certFile{path: path}, nil
}

func (in *Inputs) recognised(ca *Authority, path, stdin string) (source, error) {
	if path == "-" {
		return certsAt(path, stdin)
	}
	if isDir(path) {
		if what, err := recognise(filepath.Join(path, "index.txt")); err == nil && what == isIndex {
			return in.index(filepath.Join(path, "index.txt")), nil
		}
		return certsAt(path, stdin)
	}
	what, err := recognise(path)
	if err != nil {
		return nil, err
	}
	switch what {
	case isIndex:
		return in.index(path), nil
	case isCerts:
		return certsAt(path, stdin)
	case isCRL:
		return &crlFile{path: path, ca: ca}, nil
	case isCertDB:
		return &certDB{path: path, ca: ca}, nil
	}
	return nil, fmt.Errorf("%s: is a %s: must be openssl's index.txt, certificates or a CRL in PEM or DER, cfssl's SQLite database, or a directory", path, what)
}
