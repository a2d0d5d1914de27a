package interop

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/certificate-transparency-go/loglist3"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctapi"
)

var listTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func list(t testing.TB, f *fixture) *loglist3.LogList {
	t.Helper()
	text, err := ctapi.LogList("1.2", listTime, []ctapi.Operator{
		{Name: "Org1MSP", Email: []string{"ops@org1.example"}, Logs: []ctapi.ListedLog{f.log.Listed("Test CA", f.base+"/static", wire.MillisOf(listTime))}},
		{Name: "Org2MSP"},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := loglist3.NewFromJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	// Nothing that the schema does not know.
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	if err := strict.Decode(new(loglist3.LogList)); err != nil {
		t.Error(err)
	}
	return l
}

func listedLog(t testing.TB, f *fixture) *loglist3.Log {
	t.Helper()
	found := list(t, f).FindLogByURL(f.base)
	if found == nil {
		t.Fatalf("no log at %s", f.base)
	}
	return found
}

// What a read-only log has beside its state's time is what others look for.
func TestReadOnlyLogIsReadByOthers(t *testing.T) {
	f := newFixture(t)
	listed := f.log.Listed("Test CA", f.base+"/static", wire.MillisOf(listTime))
	listed.ReadOnly = &ctapi.TreeHead{Size: 7, Root: [32]byte{1, 2}}
	text, err := ctapi.LogList("1", listTime, []ctapi.Operator{{Name: "Org1MSP", Logs: []ctapi.ListedLog{listed}}})
	if err != nil {
		t.Fatal(err)
	}
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	var l loglist3.LogList
	if err := strict.Decode(&l); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*loglist3.LogStates{l.Operators[0].Logs[0].State, l.Operators[0].TiledLogs[0].State} {
		if s.LogStatus() != loglist3.ReadOnlyLogStatus || !s.ReadOnly.Timestamp.Equal(listTime) || s.ReadOnly.FinalTreeHead.TreeSize != 7 ||
			!bytes.Equal(s.ReadOnly.FinalTreeHead.SHA256RootHash, listed.ReadOnly.Root[:]) {
			t.Errorf("state is %+v", s)
		}
	}
}

func TestLogListIsReadByOthers(t *testing.T) {
	f := newFixture(t)
	l := list(t, f)
	if l.Version != "1.2" || !l.LogListTimestamp.Equal(listTime) || len(l.Operators) != 2 || l.Operators[0].Name != "Org1MSP" || l.Operators[0].Email[0] != "ops@org1.example" {
		t.Errorf("list is %+v", l)
	}
	id := f.key.ID()
	log := l.FindLogByKeyHash(id)
	if log == nil || log.URL != f.base+"/" || !bytes.Equal(log.Key, f.key.SPKI()) || log.MMD < 1 || log.Type != "prod" ||
		log.State.LogStatus() != loglist3.UsableLogStatus || !log.State.Usable.Timestamp.Equal(listTime) {
		t.Errorf("log is %+v", log)
	}
	if len(l.Operators[0].TiledLogs) != 1 {
		t.Fatal("no tiled log")
	}
	tiled := l.Operators[0].TiledLogs[0]
	if !bytes.Equal(tiled.LogID, id[:]) || tiled.SubmissionURL != f.base+"/" || tiled.MonitoringURL != f.base+"/static/" || tiled.State.LogStatus() != loglist3.UsableLogStatus {
		t.Errorf("tiled log is %+v", tiled)
	}
}
