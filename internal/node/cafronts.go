package node

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/pemcert"
)

// caFronts reads where a CA gets SCTs. The keys come from files that its operator has put there, and not from the network: who could change them there
// could sign what is embedded.
func caFronts(file string, section *config.CA) ([]ca.Front, error) {
	if len(section.Fronts) == 0 {
		return nil, nil
	}
	cert, _, err := ca.LoadCertificate(section.Dir)
	if err != nil {
		return nil, err
	}
	id := wire.CAIDOf(cert.RawSubjectPublicKeyInfo)
	var fronts []ca.Front
	for i, c := range section.Fronts {
		bad := func(key, value string, err error) error {
			return &config.Error{File: file, Key: fmt.Sprintf("ca.fronts[%d].%s", i, key), Value: value, Rule: err.Error()}
		}
		client, err := frontClient(file, section, c.TLSCA)
		if err != nil {
			return nil, bad("tls_ca", c.TLSCA, err)
		}
		if c.LogList == "" {
			key, err := base64.StdEncoding.DecodeString(c.Key)
			if err != nil {
				return nil, bad("key", c.Key, err)
			}
			fronts = append(fronts, ca.Front{CAID: cmp.Or(caOf(c.URL), id), URL: c.URL, Key: key, HTTP: client})
			continue
		}
		text, err := os.ReadFile(c.LogList)
		if err != nil {
			return nil, bad("log_list", c.LogList, err)
		}
		listed, err := listedFronts(text)
		if err == nil && !slices.ContainsFunc(listed, func(f ca.Front) bool { return f.CAID == id }) {
			err = fmt.Errorf("must have a log of the CA %s that takes submissions", id)
		}
		if err != nil {
			return nil, bad("log_list", c.LogList, err)
		}
		for _, f := range listed {
			f.HTTP = client
			fronts = append(fronts, f)
		}
	}
	return fronts, nil
}

func frontClient(file string, section *config.CA, roots string) (*http.Client, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if roots != "" {
		certs, err := pemcert.Read(roots)
		if err != nil {
			return nil, err
		}
		t.RootCAs = x509.NewCertPool()
		for _, c := range certs {
			t.RootCAs.AddCert(c)
		}
	}
	if err := showCertificate(t, file, section); err != nil {
		return nil, err
	}
	return &http.Client{Transport: transport(t)}, nil
}

// caOf reads the CA's ID at the end of a submission prefix; zero: there is none.
func caOf(prefix string) wire.CAID {
	prefix = strings.TrimRight(prefix, "/")
	id, err := wire.ParseCAID(prefix[strings.LastIndexByte(prefix, '/')+1:])
	if err != nil {
		return wire.CAID{}
	}
	return id
}

// listedFronts finds CAs' logs in a log list of version 3, of all CAs: the CA's key may change. Logs that take no submissions are left out. Errors: it is no
// log list.
func listedFronts(text []byte) ([]ca.Front, error) {
	var list struct {
		Operators []struct {
			Logs []struct {
				Key   []byte `json:"key"`
				URL   string `json:"url"`
				State struct {
					Pending *struct{} `json:"pending"`
				} `json:"state"`
			} `json:"logs"`
		} `json:"operators"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("must be a log list, as /log_list.json of an OCSP bridge is: %w", err)
	}
	var fronts []ca.Front
	for _, o := range list.Operators {
		for _, l := range o.Logs {
			if id := caOf(l.URL); id != (wire.CAID{}) && l.State.Pending == nil {
				fronts = append(fronts, ca.Front{CAID: id, URL: strings.TrimRight(l.URL, "/"), Key: l.Key})
			}
		}
	}
	return fronts, nil
}
