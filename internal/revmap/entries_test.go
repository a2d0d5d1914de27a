package revmap

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"testing"

	"github.com/certanchor/certanchor/chaincode/wire"
)

type entryVectors struct {
	CAID     string        `json:"ca_id"`
	Serial   string        `json:"serial"`
	SPKIHash string        `json:"spki_hash"`
	Entries  []entryVector `json:"entries"`
	Root     string        `json:"root"`
	Proofs   []vectorProof `json:"proofs"`
}

type entryVector struct {
	About string `json:"about"`
	Text  string `json:"text"`
	Key   string `json:"key"`
	Value string `json:"value"`
}

// The keys and values in the documentation, made from their texts there, are the ones that package wire makes.
func TestDocumentedEntries(t *testing.T) {
	id, serial, spki, other := wire.CAID(sha256.Sum256([]byte("CA key"))), wire.Serial{0x1f, 0x02}, sha256.Sum256([]byte("key")), sha256.Sum256([]byte("other key"))
	v := entryVectors{CAID: hex.EncodeToString(id[:]), Serial: "1f02", SPKIHash: hex.EncodeToString(spki[:])}
	var entries []Entry
	for _, e := range []struct {
		about, text string
		key         [32]byte
		value       any
	}{
		{"CA", "ca/" + v.CAID, wire.CAMapKey(id), &wire.MapCA{V: 1, Change: 1, State: wire.CAActive, Time: 1767225600000, RulesHash: wire.RulesHash(nil)}},
		{"certificate", "cert/" + v.CAID + "/1f02", wire.CertMapKey(id, serial), &wire.MapCert{
			V: 1, Change: 1, State: wire.CertHeld, Reason: wire.CertificateHold, Time: 1767225601000,
			Quorum: &wire.MapQuorum{Reason: wire.PrivilegeWithdrawn, Time: 1767225602000, Change: 1},
		}},
		{"holder", "revoke/" + v.CAID + "/1f02/holder-" + v.SPKIHash, wire.HolderMapKey(id, serial, spki), &wire.MapHolder{
			V: 1, Reason: wire.KeyCompromise, Time: 1767225603000, Invalidity: 1767225600000, Change: 2,
		}},
		{"twin", fmt.Sprintf("revoke/%s/1f02/holder-%x", v.CAID, other), wire.HolderMapKey(id, serial, other), &wire.MapHolder{
			V: 1, Reason: wire.Superseded, Time: 1767225604000, Change: 1,
		}},
	} {
		if want := sha256.Sum256([]byte(e.text)); e.key != want {
			t.Errorf("%s: key is %x, the documentation's %x", e.about, e.key, want)
		}
		raw := wire.Encode(e.value)
		v.Entries = append(v.Entries, entryVector{e.about, e.text, hex.EncodeToString(e.key[:]), hex.EncodeToString(raw)})
		entries = append(entries, Entry{e.key, sha256.Sum256(raw)})
	}
	root := refRoot(entries, 0)
	v.Root = hex.EncodeToString(root)
	absent := wire.HolderMapKey(id, wire.Serial{0x1f, 0x03}, spki)
	for _, key := range [][32]byte{entries[0].Key, entries[1].Key, entries[2].Key, absent} {
		proof := refProof(entries, key)
		v.Proofs = append(v.Proofs, vectorProof{hex.EncodeToString(key[:]), Kind(proof[0]).String(), hex.EncodeToString(proof)})
	}
	documented(t, 1, v)
	if _, got := stored(t, entries); hex.EncodeToString(got[:]) != v.Root {
		t.Errorf("root is %x, the reference's %s", got, v.Root)
	}
}

// The sizes in the documentation are those of the largest values.
func TestValuesHaveTheDocumentedBounds(t *testing.T) {
	const most = wire.Millis(math.MaxInt64)
	for _, c := range []struct {
		bound int
		value any
	}{
		{63, &wire.MapCert{
			V: 1, Change: math.MaxUint64, State: 3, Reason: 10, Time: most, Invalidity: most,
			Quorum: &wire.MapQuorum{Reason: 10, Time: most, Invalidity: most, Change: 2},
		}},
		{27, &wire.MapHolder{V: 1, Reason: 10, Time: most, Invalidity: most, Change: 2}},
		{63, &wire.MapCA{V: 1, Change: math.MaxUint64, State: 2, Time: most, Rules: wire.MaxRules, RulesHash: make([]byte, 32)}},
	} {
		if n := len(wire.Encode(c.value)); n != c.bound {
			t.Errorf("%T has at most %d octets, documented are %d", c.value, n, c.bound)
		}
	}
}
