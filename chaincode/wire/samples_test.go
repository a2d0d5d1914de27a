package wire

import "bytes"

// sample is a value of every top-level type, by its rule's name in docs/ledger.cddl, with its encoding.
type sample struct {
	rule string
	v    versioned
	make func() versioned
	hex  string
}

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func caID(b byte) CAID { return CAID(fill(b, 32)) }

var entry = LogEntry{Index: 7, Time: 1767225600000, LeafHash: fill(0xee, 32)}

// samples freezes the format: these encodings are hashed into logs, so none may ever change.
var samples = []sample{
	{"consortium", &Consortium{V: 1, MSPs: []string{"Org1MSP", "Org2MSP"}, TickInterval: 15000}, func() versioned { return new(Consortium) },
		"a3000101" + "82674f7267314d5350674f7267324d5350" + "02193a98"},
	{"ca-record", &CARecord{V: 1, Certs: [][]byte{{1}}, OperatingMSP: "A", State: CAActive, Registered: 5, Change: 1}, func() versioned { return new(CARecord) },
		"a70001" + "01814101" + "0280" + "036141" + "0401" + "0505" + "0601"},
	{"cert-record", &CertRecord{V: 1, State: CertRevoked, Reason: KeyCompromise, StatusTime: 9, Invalidity: 8, Change: 2, Final: &entry, SPKIHash: fill(1, 32), NotAfter: 10}, func() versioned { return new(CertRecord) },
		"a90001" + "0103" + "0201" + "0309" + "0408" + "0502" + "06a30007011b0000019b76daa800025820" + hexOf(0xee, 32) + "085820" + hexOf(1, 32) + "090a"},
	{"log-head", &LogHead{V: 1, Size: 3, Root: fill(2, 32), Time: 4, Range: [][]byte{fill(4, 32), fill(5, 32)}}, func() versioned { return new(LogHead) },
		"a50001" + "0103" + "025820" + hexOf(2, 32) + "0304" + "04825820" + hexOf(4, 32) + "5820" + hexOf(5, 32)},
	{"clock", &Clock{V: 1, Epoch: 117815040, Time: 1767225600000}, func() versioned { return new(Clock) },
		"a30001" + "011a0705b700" + "021b0000019b76daa800"},
	{"proposal", &Proposal{V: 1, Function: "RegisterCA", Arg: []byte{0xa4, 0, 1, 1, 0x41, 1, 2, 0x80, 3, 0x61, 0x41}, Opened: 1}, func() versioned { return new(Proposal) },
		"a40001" + "016a52656769737465724341" + "024ba4000101410102800361410301"},
	{"vote", &Vote{V: 1, Time: 1}, func() versioned { return new(Vote) },
		"a200010101"},
	{"status-leaf", &StatusLeaf{V: 1, Kind: LeafCert, CAID: caID(3), Serial: Serial{1, 2}, Change: 1, State: uint(CertHeld), Reason: CertificateHold, Time: 6}, func() versioned { return new(StatusLeaf) },
		"a80001" + "0101" + "025820" + hexOf(3, 32) + "03420102" + "0401" + "0502" + "0606" + "0706"},
	{"init-arg", &InitArg{V: 1, MSPs: []string{"A"}, TickInterval: 100}, func() versioned { return new(InitArg) },
		"a30001" + "01816141" + "021864"},
	{"register-ca-arg", &RegisterCAArg{V: 1, Cert: []byte{1}, Chain: [][]byte{}, OperatingMSP: "A"}, func() versioned { return new(RegisterCAArg) },
		"a40001" + "014101" + "0280" + "036141"},
	{"register-ca-result", &RegisterCAResult{V: 1, CAID: caID(4), Registered: true, Needed: 2}, func() versioned { return new(RegisterCAResult) },
		"a50001" + "015820" + hexOf(4, 32) + "02f5" + "0380" + "0402"},
	{"issue-arg", &IssueArg{V: 1, CAID: caID(5), Certs: [][]byte{{1}, {2}}}, func() versioned { return new(IssueArg) },
		"a30001" + "015820" + hexOf(5, 32) + "028241014102"},
	{"issue-result", &IssueResult{V: 1, Entries: []LogEntry{entry}}, func() versioned { return new(IssueResult) },
		"a20001" + "0181a30007011b0000019b76daa800025820" + hexOf(0xee, 32)},
	{"set-status-arg", &SetStatusArg{V: 1, CAID: caID(6), Changes: []StatusChange{{Serial: Serial{1}, Op: OpRevoke, Reason: Superseded, Invalidity: 3}}}, func() versioned { return new(SetStatusArg) },
		"a30001" + "015820" + hexOf(6, 32) + "0281a4004101010102040303"},
	{"set-status-result", &SetStatusResult{V: 1, Results: []StatusResult{{State: CertRevoked, Reason: Superseded, Time: 2, Change: 1, Changed: true}}}, func() versioned { return new(SetStatusResult) },
		"a20001" + "0181a50003010402020301" + "04f5"},
	{"tick-arg", &TickArg{V: 1}, func() versioned { return new(TickArg) }, "a10001"},
	{"tick-result", &TickResult{V: 1, Epoch: 2, Time: 3}, func() versioned { return new(TickResult) }, "a3000101020203"},
	{"read-arg", &ReadArg{V: 1, Keys: []string{"a", "b"}}, func() versioned { return new(ReadArg) }, "a20001018261616162"},
	{"read-result", &ReadResult{V: 1, Values: [][]byte{{1}, nil}}, func() versioned { return new(ReadResult) }, "a20001" + "01824101f6"},
}

func hexOf(b byte, n int) string {
	const digits = "0123456789abcdef"
	return string(bytes.Repeat([]byte{digits[b>>4], digits[b&15]}, n))
}
