package node

import (
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/ca"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/ctapi"
	"github.com/certanchor/certanchor/internal/sct"
)

// TestFrontsAreFoundInALogList: the one of this CA that takes submissions, of whichever lists there are.
func TestFrontsAreFoundInALogList(t *testing.T) {
	dir := t.TempDir()
	res, err := ca.Init(ca.InitOptions{Dir: filepath.Join(dir, "ca"), Subject: pkix.Name{CommonName: "T"}, Passphrase: []byte("correct horse battery")})
	if err != nil {
		t.Fatal(err)
	}
	id := wire.CAIDOf(res.Certificate.RawSubjectPublicKeyInfo).String()
	listed := func(name, url string, pending bool) ctapi.ListedLog {
		key, err := sct.LoadOrCreate(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return ctapi.ListedLog{Key: key.SPKI(), Submission: url, Monitoring: url, Since: time.Now(), Pending: pending}
	}
	write := func(logs ...ctapi.ListedLog) string {
		text, err := ctapi.LogList("1", time.Now(), []ctapi.Operator{{Name: "Org2MSP", Logs: logs}})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "list.json")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	want := listed("a", "https://org2.example/logs/"+id, false)
	others := []ctapi.ListedLog{listed("b", "https://org2.example/logs/00"+id[2:], false), listed("c", "https://org2.example/old/"+id, true)}
	section := &config.CA{Dir: filepath.Join(dir, "ca"), Fronts: []config.Front{
		{LogList: write(append(others, want)...)}, {URL: "https://org3.example/x", Key: base64.StdEncoding.EncodeToString(others[0].Key)},
	}}
	got, err := caFronts("c.yaml", section)
	own := wire.CAIDOf(res.Certificate.RawSubjectPublicKeyInfo)
	if err != nil || len(got) != 3 || got[0].CAID == own || got[1].CAID != own || got[1].URL != want.Submission || string(got[1].Key) != string(want.Key) || got[1].HTTP == nil ||
		got[2].CAID != own || got[2].URL != "https://org3.example/x" {
		t.Fatalf("%+v, %v", got, err)
	}
	for name, tc := range map[string]struct {
		front config.Front
		key   string
	}{
		"none of this CA":    {config.Front{LogList: write(others...)}, "ca.fronts[0].log_list"},
		"no list":            {config.Front{LogList: filepath.Join(dir, "a")}, "ca.fronts[0].log_list"},
		"no file":            {config.Front{LogList: filepath.Join(dir, "absent")}, "ca.fronts[0].log_list"},
		"roots that are not": {config.Front{URL: "https://x.example", Key: "AA==", TLSCA: filepath.Join(dir, "a")}, "ca.fronts[0].tls_ca"},
	} {
		section.Fronts = []config.Front{tc.front}
		_, err := caFronts("c.yaml", section)
		if e, ok := errors.AsType[*config.Error](err); !ok || e.Key != tc.key || e.Rule == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzListedFronts(f *testing.F) {
	id := strings.Repeat("1", 64)
	f.Add([]byte(`{"operators":[{"logs":[{"key":"AAAA","url":"https://x/logs/` + id + `/","state":{}}]}]}`))
	f.Add([]byte(`{"operators":[{"logs":[{"url":"/` + id + `","state":{"pending":{}}}]}]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		fronts, err := listedFronts(text)
		if err == nil && !json.Valid(text) {
			t.Fatalf("%+v", fronts)
		}
		for _, x := range fronts {
			if !strings.HasSuffix(x.URL, "/"+x.CAID.String()) && x.URL != x.CAID.String() {
				t.Errorf("a front of another CA: %s", x.URL)
			}
		}
	})
}
