package integration
import ("testing";"time";"sort"; "github.com/certanchor/certanchor/chaincode/wire"; "github.com/certanchor/certanchor/chaincode/cctest")
func TestZZTick(t *testing.T) {
	n := ledgerNetwork(t)
	t.Log(n.TickInterval())
	f := &fabricLedger{Network: n}
	l := f.lend(t, 1, wire.RoleOperator, "")
	for range 3 { r := insistUntil(t, l, wire.FnTick, cctest.TickArg()); var tr wire.TickResult; must(t, wire.Decode(r.Result, &tr)); t.Log(time.Now(), r.Block, tr) }
	ca := f.register(t)
	var lat []time.Duration
	for range 100 { der, _ := ca.Issue(t); s := time.Now(); _, err := l.Submit(t.Context(), wire.FnIssue, ca.IssueArg(der)); if err != nil { t.Log(err) }; lat = append(lat, time.Since(s)) }
	sort.Slice(lat, func(i, j int) bool { return lat[i] < lat[j] })
	t.Log("p50", lat[50], "p90", lat[90], "p99", lat[99])
}
