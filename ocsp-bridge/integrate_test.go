package ocspbridge_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
	ocspbridge "github.com/certanchor/certanchor/ocsp-bridge"
)

// integrate moves what is pending into the status log, as an organisation's integrator does.
func (w *world) integrate() network.Receipt {
	w.t.Helper()
	height, err := w.conn.Height(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	pending, head := map[string][]byte{}, wire.StatusHead{}
	end := errors.New("end")
	err = w.conn.Blocks(w.t.Context(), 0, func(b *network.Block) error {
		for i := range b.Txs {
			for _, write := range b.Txs[i].Writes {
				if hash, ok := strings.CutPrefix(write.Key, wire.PendingPrefix); ok && b.Txs[i].Valid {
					if pending[hash], err = hex.DecodeString(hash); err != nil {
						return err
					}
					if write.Value == nil {
						delete(pending, hash)
					}
				}
				if write.Key == wire.StatusHeadKey && b.Txs[i].Valid {
					cctest.Decode(w.t, write.Value, &head)
				}
			}
		}
		if b.Number+1 == height {
			return end
		}
		return nil
	})
	if !errors.Is(err, end) {
		w.t.Fatal(err)
	}
	leaves := slices.SortedFunc(maps.Values(pending), slices.Compare)
	return w.submit(wire.FnIntegrate, cctest.IntegrateArg(head.Size, leaves...))
}

func TestChangeOfStatusReachesStatusLogAndMap(t *testing.T) {
	w := newWorld(t)
	certs := w.issue(1)
	b := w.start("bridge", func(c *ocspbridge.Config) { c.NoIntegrator = false }).ready()
	size := func(name string) uint64 {
		var logs []struct {
			Name string
			Size uint64
		}
		b.get("/logs", &logs)
		for _, l := range logs {
			if l.Name == name {
				return l.Size
			}
		}
		t.Fatalf("no log %s in %+v", name, logs)
		return 0
	}
	grows := func(name string, want uint64) {
		t.Helper()
		b.until(name+" log grows", func() (bool, string) {
			w.clock.Advance(time.Millisecond) // the integrator waits a little, by the bridge's clock
			got := size(name)
			return got == want, fmt.Sprint(got)
		})
	}
	grows("status", 1) // the CA's registration
	w.revoke(certs[0], wire.Superseded)
	grows("status", 2)
	w.nextTick()
	grows("map", 1)

	var st struct {
		By        []string
		StatusLog []struct {
			Index uint64
			Kind  string
		} `json:"status_log"`
		Pending     int
		Certificate struct{ Index uint64 }
	}
	b.get("/v1/status/"+w.ca.ID.String()+"/"+cctest.Serial(t, certs[0]).String(), &st)
	if fmt.Sprint(st) != "{[ca] [{1 certificate}] 0 {0}}" {
		t.Errorf("status is %+v", st)
	}
	code, metrics := b.get("/metrics", nil)
	for _, want := range []string{
		"certanchor_ledger_height_blocks", "certanchor_view_age_seconds", "certanchor_status_pending_changes 0", "certanchor_alarms 0",
		"certanchor_integrations_total", "certanchor_status_merge_delay_seconds_count", "certanchor_applied_blocks_total",
		`certanchor_log_size_entries{log="status"} 2`, `certanchor_log_cosignatures{log="`, `certanchor_log_cosigned_age_seconds{log="`,
	} {
		if code != http.StatusOK || !strings.Contains(string(metrics), want) {
			t.Errorf("metrics lack %s: %d", want, code)
		}
	}
}
