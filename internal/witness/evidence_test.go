package witness

import (
	"bytes"
	"testing"
)

// Evidence is kept for years and handed to others: what is read back is exactly what was written.
func FuzzParseEvidence(f *testing.F) {
	const signed = "testchannel/status\n7\nR1h4xuHBjLPCh6zv4Xb6jHzkXtBKpcAWuDO1vyXcLdQ=\n\n\u2014 testchannel/Org2MSP hkdkRQ==\n"
	e := Evidence{Note: []byte(signed), Signers: []string{"testchannel/Org2MSP", "testchannel/Org3MSP/cosigner"}, OwnRoot: [32]byte{1, 2, 3}, Seen: at}
	f.Add(e.Marshal())
	f.Add([]byte(evidenceHeader + "seen 2026-05-01T14:00:00+02:00\nown-root AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nsigned-by a\n\n" + signed))
	f.Add([]byte(evidenceHeader + "2026-05-01T12:00:00Z\nAQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\na\n\n"))
	f.Add([]byte(evidenceHeader + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ParseEvidence(data)
		if err == nil && !bytes.Equal(e.Marshal(), data) {
			t.Fatalf("%q has a second form, %q", data, e.Marshal())
		}
	})
}
