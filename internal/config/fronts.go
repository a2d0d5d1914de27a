package config

import (
	"encoding/base64"
	"fmt"

	"github.com/certanchor/certanchor/internal/sct"
)

// Front says where an organisation signs SCTs for a CA: by the URL and key of a log, or by a log list that has them.
type Front struct {
	URL     string `yaml:"url,omitempty"`      // submission prefix of the log, https://host/logs/<CA ID>
	Key     string `yaml:"key,omitempty"`      // its key, base64 of DER SubjectPublicKeyInfo, as a log list has it
	LogList string `yaml:"log_list,omitempty"` // instead of both: the file of an organisation's /log_list.json, fetched and checked by the operator
	TLSCA   string `yaml:"tls_ca,omitempty"`   // roots for its TLS certificate, PEM file; default: the system's
}

func (f *File) checkFronts(fronts []Front) error {
	for i, x := range fronts {
		key := fmt.Sprintf("ca.fronts[%d]", i)
		if x.LogList != "" {
			if x.URL != "" || x.Key != "" {
				return &Error{File: f.Path, Key: key, Value: x.LogList, Rule: "must have either log_list, or url and key"}
			}
			continue
		}
		if !isURL(x.URL) || x.Key == "" {
			return &Error{File: f.Path, Key: key, Value: x.URL, Rule: "needs url (http or https) and key, or log_list"}
		}
		der, err := base64.StdEncoding.DecodeString(x.Key)
		if err == nil {
			_, err = sct.IDOf(der)
		}
		if err != nil {
			return &Error{File: f.Path, Key: key + ".key", Value: x.Key, Rule: "must be base64 of a log's key: " + err.Error()}
		}
	}
	return nil
}

func frontPaths(fronts []Front) []*string {
	var ps []*string
	for i := range fronts {
		ps = append(ps, &fronts[i].LogList, &fronts[i].TLSCA)
	}
	return ps
}
