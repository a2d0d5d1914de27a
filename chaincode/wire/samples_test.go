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
	{"ca-record", &CARecord{V: 1, Certs: [][]byte{{1}}, OperatingMSP: "A", State: CASuspended, Registered: 5, Change: 3, StateTime: 6, SuspendedBy: "A", Rules: 1, Settled: 2}, func() versioned { return new(CARecord) },
		"ab0001018141010280036141040205050603070608614109010a02"},
	{"cert-record", &CertRecord{V: 1, State: CertRevoked, Reason: KeyCompromise, StatusTime: 9, Invalidity: 8, Change: 2, Final: &entry, Pre: &entry, SPKIHash: fill(1, 32), NotAfter: 10, Window: 11, Flaps: 2}, func() versioned { return new(CertRecord) },
		"ac0001" + "0103" + "0201" + "0309" + "0408" + "0502" + "06a30007011b0000019b76daa800025820" + hexOf(0xee, 32) +
			"07a30007011b0000019b76daa800025820" + hexOf(0xee, 32) + "085820" + hexOf(1, 32) + "090a" + "0a0b" + "0b02"},
	{"cert-record", &CertRecord{V: 1, State: CertValid, StatusTime: 9, Final: &entry, SPKIHash: fill(1, 32), NotAfter: 10}, func() versioned { return new(CertRecord) },
		"a80001" + "0101" + "0200" + "0309" + "0500" + "06a30007011b0000019b76daa800025820" + hexOf(0xee, 32) + "085820" + hexOf(1, 32) + "090a"},
	{"cert-record", &CertRecord{V: 1, State: CertRevoked, StatusTime: 9, Change: 1, Imported: true, Asserted: 7, Antedated: true}, func() versioned { return new(CertRecord) },
		"a80001" + "0103" + "0200" + "0309" + "0501" + "0cf5" + "0d07" + "0ef5"},
	{"log-head", &LogHead{V: 1, Size: 3, Root: fill(2, 32), Time: 4, Range: [][]byte{fill(4, 32), fill(5, 32)}}, func() versioned { return new(LogHead) },
		"a50001" + "0103" + "025820" + hexOf(2, 32) + "0304" + "04825820" + hexOf(4, 32) + "5820" + hexOf(5, 32)},
	{"clock", &Clock{V: 1, Epoch: 117815040, Time: 1767225600000}, func() versioned { return new(Clock) },
		"a30001" + "011a0705b700" + "021b0000019b76daa800"},
	{"proposal", &Proposal{V: 1, Function: "RegisterCA", Arg: []byte{0xa4, 0, 1, 1, 0x41, 1, 2, 0x80, 3, 0x61, 0x41}, Opened: 1}, func() versioned { return new(Proposal) },
		"a40001" + "016a52656769737465724341" + "024ba4000101410102800361410301"},
	{"proposal", &Proposal{V: 1, Function: "Decide", Arg: []byte{0xa1, 0, 1}, Opened: 1, Decided: 2}, func() versioned { return new(Proposal) },
		"a50001" + "0166446563696465" + "0243a10001" + "0301" + "0402"},
	{"vote", &Vote{V: 1, Time: 1}, func() versioned { return new(Vote) },
		"a200010101"},
	{"revocation", &Revocation{V: 1, Source: SourceHolder, SPKIHash: fill(6, 32), Reason: KeyCompromise, Time: 7, Invalidity: 6, Change: 2}, func() versioned { return new(Revocation) },
		"a700010101025820" + hexOf(0x06, 32) + "0301040705060602"},
	{"rule", &Rule{V: 1, N: 1, From: 2, To: 3, Reason: CACompromise, Time: 4, Invalidity: 1}, func() versioned { return new(Rule) },
		"a70001010102020303040205040601"},
	{"status-head", &StatusHead{V: 1, Size: 1, Root: fill(7, 32), Time: 4, Range: [][]byte{fill(7, 32)}, MSP: "A"}, func() versioned { return new(StatusHead) },
		"a600010101025820" + hexOf(0x07, 32) + "030404815820" + hexOf(0x07, 32) + "056141"},
	{"map-cert", &MapCert{V: 1, Change: 1, State: CertHeld, Reason: CertificateHold, Time: 2, Quorum: &MapQuorum{Reason: Superseded, Time: 3, Invalidity: 1, Change: 1}}, func() versioned { return new(MapCert) },
		"a60001010102020306040206a40004010302010301"},
	{"map-cert", &MapCert{V: 1, Change: 2, State: CertRevoked, Reason: Superseded, Time: 4, Invalidity: 3}, func() versioned { return new(MapCert) },
		"a6000101020203030404040503"},
	{"map-cert", &MapCert{V: 1, Change: 1, State: CertRevoked, Reason: Superseded, Time: 4, Imported: true, Asserted: 2, Antedated: true}, func() versioned { return new(MapCert) },
		"a8000101010203030404" + "0407f5080209f5"},
	{"map-holder", &MapHolder{V: 1, Reason: KeyCompromise, Time: 3, Invalidity: 1, Change: 2}, func() versioned { return new(MapHolder) },
		"a50001010102030301" + "0402"},
	{"map-ca", &MapCA{V: 1, Change: 1, State: CAActive, Time: 2, Rules: 0, RulesHash: RulesHash(nil)}, func() versioned { return new(MapCA) },
		"a600010101020103020400055820e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
	{"map-leaf", &MapLeaf{V: 1, Epoch: 2, Time: 3, StatusSize: 4, StatusRoot: fill(9, 32), MapRoot: fill(10, 32)}, func() versioned { return new(MapLeaf) },
		"a60001010202030304045820" + hexOf(0x09, 32) + "055820" + hexOf(0x0a, 32)},
	{"status-leaf", &StatusLeaf{V: 1, Kind: LeafRevocation, CAID: caID(3), Serial: Serial{1, 2}, Change: 1, State: uint(CertRevoked), Reason: Superseded, Time: 6, Invalidity: 5, Source: SourceHolder, SPKIHash: fill(4, 32)}, func() versioned { return new(StatusLeaf) },
		"ab00010103025820" + hexOf(0x03, 33) + "4201020401050306040706080509010a5820" + hexOf(0x04, 32)},
	{"status-leaf", &StatusLeaf{V: 1, Kind: LeafRule, CAID: caID(3), Change: 1, State: uint(CertRevoked), Reason: Superseded, Time: 6, From: 4, To: 5}, func() versioned { return new(StatusLeaf) },
		"a900010104025820" + hexOf(0x03, 32) + "04010503060407060b040c05"},
	{"status-leaf", &StatusLeaf{V: 1, Kind: LeafCert, CAID: caID(3), Serial: Serial{1, 2}, Change: 1, State: uint(CertHeld), Reason: CertificateHold, Time: 6}, func() versioned { return new(StatusLeaf) },
		"a80001" + "0101" + "025820" + hexOf(3, 32) + "03420102" + "0401" + "0502" + "0606" + "0706"},
	{"status-leaf", &StatusLeaf{V: 1, Kind: LeafCert, CAID: caID(3), Serial: Serial{1, 2}, Change: 1, State: uint(CertRevoked), Time: 6, Imported: true, Asserted: 2, Antedated: true}, func() versioned { return new(StatusLeaf) },
		"ab0001" + "0101" + "025820" + hexOf(3, 32) + "03420102" + "0401" + "0503" + "0600" + "0706" + "0df5" + "0e02" + "0ff5"},
	{"init-arg", &InitArg{V: 1, MSPs: []string{"A"}, TickInterval: 100}, func() versioned { return new(InitArg) },
		"a30001" + "01816141" + "021864"},
	{"register-ca-arg", &RegisterCAArg{V: 1, Cert: []byte{1}, Chain: [][]byte{}, OperatingMSP: "A"}, func() versioned { return new(RegisterCAArg) },
		"a40001" + "014101" + "0280" + "036141"},
	{"register-ca-result", &RegisterCAResult{V: 1, CAID: caID(4), Registered: true, Needed: 2}, func() versioned { return new(RegisterCAResult) },
		"a50001" + "015820" + hexOf(4, 32) + "02f5" + "0380" + "0402"},
	{"issue-arg", &IssueArg{V: 1, CAID: caID(5), Packed: fill(1, 3)}, func() versioned { return new(IssueArg) },
		"a30001" + "015820" + hexOf(5, 32) + "0243010101"},
	{"issue-result", &IssueResult{V: 1, Entries: []LogEntry{entry}}, func() versioned { return new(IssueResult) },
		"a20001" + "0181a30007011b0000019b76daa800025820" + hexOf(0xee, 32)},
	{"import-arg", &ImportArg{V: 1, CAID: caID(5), Packed: fill(1, 3), Items: []ImportItem{{HasCert: true, State: CertValid}, {Serial: Serial{1}, State: CertRevoked, Reason: Superseded, Revoked: 3, Invalidity: 2, NotAfter: 9}}}, func() versioned { return new(ImportArg) },
		"a40001" + "015820" + hexOf(5, 32) + "0243010101" + "0382" + "a300f502010300" + "a6014101" + "0203" + "0304" + "0403" + "0502" + "0609"},
	{"import-result", &ImportResult{V: 1, Entries: []ImportEntry{{Changed: true, Log: &entry}, {}}}, func() versioned { return new(ImportResult) },
		"a20001" + "0182" + "a200f501a30007011b0000019b76daa800025820" + hexOf(0xee, 32) + "a100f4"},
	{"set-status-arg", &SetStatusArg{V: 1, CAID: caID(6), Changes: []StatusChange{{Serial: Serial{1}, Op: OpRevoke, Reason: Superseded, Invalidity: 3}}}, func() versioned { return new(SetStatusArg) },
		"a30001" + "015820" + hexOf(6, 32) + "0281a4004101010102040303"},
	{"set-status-result", &SetStatusResult{V: 1, Results: []StatusResult{{State: CertRevoked, Reason: Superseded, Time: 2, Change: 1, Changed: true}}}, func() versioned { return new(SetStatusResult) },
		"a20001" + "0181a50003010402020301" + "04f5"},
	{"revoke-intent", &RevokeIntent{V: 1, Channel: "c", CAID: caID(6), Serial: Serial{1}, Reason: KeyCompromise, Invalidity: 1, Expires: 2, Nonce: fill(5, 16)}, func() versioned { return new(RevokeIntent) },
		"a80001016163025820" + hexOf(0x06, 32) + "0341010401050106020750" + hexOf(0x05, 16)},
	{"revoke-arg", &RevokeArg{V: 1, Cert: []byte{1}, Intent: []byte{2}, Signature: []byte{3}}, func() versioned { return new(RevokeArg) },
		"a40001014101024102034103"},
	{"revoke-result", &RevokeResult{V: 1, Reason: KeyCompromise, Time: 2, Change: 1, Changed: true}, func() versioned { return new(RevokeResult) },
		"a5000101010202030104f5"},
	{"decide-arg", &DecideArg{V: 1, Kind: DecideRule, CAID: caID(6), Change: 2, Reason: CACompromise, Invalidity: 1, From: 2, To: 3}, func() versioned { return new(DecideArg) },
		"a800010103025820" + hexOf(0x06, 32) + "03020502060107020803"},
	{"decide-arg", &DecideArg{V: 1, Kind: DecideRevoke, CAID: caID(6), Serial: Serial{1}, Reason: Superseded}, func() versioned { return new(DecideArg) },
		"a600010104025820" + hexOf(0x06, 32) + "03000441010504"},
	{"decide-result", &DecideResult{V: 1, Votes: []string{"A"}, Needed: 2}, func() versioned { return new(DecideResult) },
		"a4000101f4028161410302"},
	{"integrate-arg", &IntegrateArg{V: 1, Size: 2, Leaves: [][]byte{fill(1, 32)}}, func() versioned { return new(IntegrateArg) },
		"a30001010202815820" + hexOf(0x01, 32)},
	{"integrate-result", &IntegrateResult{V: 1, Size: 3, Root: fill(2, 32)}, func() versioned { return new(IntegrateResult) },
		"a300010103025820" + hexOf(0x02, 32)},
	{"tick-arg", &TickArg{V: 1}, func() versioned { return new(TickArg) }, "a10001"},
	{"tick-result", &TickResult{V: 1, Epoch: 2, Time: 3}, func() versioned { return new(TickResult) }, "a3000101020203"},
	{"operators-record", &OperatorsRecord{V: 1, Head: OperatorsHead{Generation: 1, Size: 2, Root: fill(3, 32)}, Time: 4, Lost: &OperatorsHead{Size: 5, Root: fill(6, 32)}}, func() versioned { return new(OperatorsRecord) },
		"a4000101a300010102025820" + hexOf(0x03, 32) + "020403a300000105025820" + hexOf(0x06, 32)},
	{"anchor-operators-arg", &AnchorOperatorsArg{V: 1, CAID: caID(6), Head: OperatorsHead{Size: 2, Root: fill(3, 32)}, Proof: [][]byte{fill(4, 32)}}, func() versioned { return new(AnchorOperatorsArg) },
		"a40001015820" + hexOf(0x06, 32) + "02a300000102025820" + hexOf(0x03, 32) + "03815820" + hexOf(0x04, 32)},
	{"anchor-operators-arg", &AnchorOperatorsArg{V: 1, CAID: caID(6), Head: OperatorsHead{Size: 2, Root: fill(3, 32)}, Proof: [][]byte{}, Name: "b-2"}, func() versioned { return new(AnchorOperatorsArg) },
		"a50001015820" + hexOf(0x06, 32) + "02a300000102025820" + hexOf(0x03, 32) + "03800563622d32"},
	{"anchor-operators-result", &AnchorOperatorsResult{V: 1, Head: OperatorsHead{Size: 2, Root: fill(3, 32)}, Time: 4, Changed: true}, func() versioned { return new(AnchorOperatorsResult) },
		"a4000101a300000102025820" + hexOf(0x03, 32) + "020403f5"},
	{"read-arg", &ReadArg{V: 1, Keys: []string{"a", "b"}}, func() versioned { return new(ReadArg) }, "a20001018261616162"},
	{"read-result", &ReadResult{V: 1, Values: [][]byte{{1}, nil}}, func() versioned { return new(ReadResult) }, "a20001" + "01824101f6"},
}

func hexOf(b byte, n int) string {
	const digits = "0123456789abcdef"
	return string(bytes.Repeat([]byte{digits[b>>4], digits[b&15]}, n))
}
