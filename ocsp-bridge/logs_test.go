package ocspbridge_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/lognames"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

func TestLogsProofsAndStatusOverHTTP(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(5)
	b := w.start("bridge", nil).ready()
	r := w.revoke(certs[2], wire.KeyCompromise)
	b.applied(r)
	id := w.ca.ID.String()

	var logs []struct {
		CAID   string `json:"ca_id"`
		Origin string `json:"origin"`
		Size   uint64 `json:"size"`
		VKey   string `json:"vkey"`
	}
	if b.get("/logs", &logs); len(logs) != 3 || logs[1].CAID != "" || logs[0].CAID != id || logs[0].Size != 6 || logs[0].Origin != lognames.Issuance(channel, w.ca.ID) {
		t.Fatalf("logs are %+v", logs)
	}
	key, err := note.NewVerifier(logs[0].VKey)
	if err != nil {
		t.Fatal(err)
	}
	_, signed := b.get("/logs/"+id+"/checkpoint", nil)
	cp, _, err := tlogproof.OpenCheckpoint(signed, logs[0].Origin, key)
	if err != nil || cp.Size != 6 {
		t.Fatalf("checkpoint %+v, %v", cp, err)
	}
	_, byIndex := b.get("/logs/"+id+"/proof?index=2", nil)
	_, bySerial := b.get("/logs/"+id+"/proof?serial="+hex.EncodeToString(certs[2].SerialNumber.Bytes()), nil)
	if !bytes.Equal(byIndex, bySerial) {
		t.Errorf("proofs differ:\n%s\n%s", byIndex, bySerial)
	}
	if p, err := tlogproof.Parse(byIndex); err != nil || p.Index != 2 {
		t.Errorf("proof %+v, %v", p, err)
	}
	var st struct {
		State, Reason string
		LogIndex      uint64 `json:"log_index"`
		ViewHeight    uint64 `json:"view_height"`
		Fresh         bool
	}
	if b.get("/v1/status/"+id+"/"+cctest.Serial(t, certs[2]).String(), &st); st.State != "revoked" || st.Reason != "keyCompromise" || st.LogIndex != 2 || st.ViewHeight != r.Block+1 || !st.Fresh {
		t.Errorf("status is %+v", st)
	}
	for path, want := range map[string]int{
		"/logs/xyz/checkpoint":                                400,
		"/logs/" + strings.Repeat("0", 64) + "/proof?index=0": 404,
		"/logs/" + strings.Repeat("0", 64) + "/checkpoint":    404,
		"/logs/" + id + "/proof":                              400,
		"/logs/" + id + "/proof?index=1&serial=1":             400,
		"/logs/" + id + "/proof?index=-1":                     400,
		"/logs/" + id + "/proof?index=6":                      404,
		"/logs/" + id + "/proof?serial=77":                    404,
		"/logs/" + id + "/proof?serial=zz":                    400,
		"/v1/status/" + id + "/77":                            404,
		"/v1/status/" + id + "/zz":                            400,
		"/v1/applied":                                         400,
		"/v1/applied?block=1&timeout=31s":                     400,
		"/healthz":                                            200,
		"/readyz":                                             200,
	} {
		if code, body := b.get(path, nil); code != want {
			t.Errorf("%s: %d, want %d: %s", path, code, want, body)
		}
	}
}

func TestAppliedWaitsForItsBlock(t *testing.T) {
	w := newWorld(t)
	b := w.start("bridge", nil).ready()
	height, err := w.conn.Height(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	type answer struct {
		code int
		body []byte
	}
	ask := func() chan answer {
		ch := make(chan answer, 1)
		go func() {
			code, body := b.get(fmt.Sprintf("/v1/applied?block=%d&timeout=5s", height), nil)
			ch <- answer{code, body}
		}()
		return ch
	}
	waiting := ask()
	w.issue(1) // becomes that block
	if a := <-waiting; a.code != http.StatusOK {
		t.Errorf("%d %s", a.code, a.body)
	}
	height++
	waiting = ask()
	for {
		select {
		case a := <-waiting:
			if a.code != http.StatusGatewayTimeout {
				t.Errorf("%d %s", a.code, a.body)
			}
			return
		default:
			w.clock.Advance(10 * time.Millisecond) // five seconds pass, by the bridge's clock
		}
	}
}
