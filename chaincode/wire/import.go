package wire

// FnImport records what one CA has issued and revoked before, or elsewhere: its history, and the status that it publishes itself.
const FnImport = "Import"

// ImportArg brings certificates of one CA onto the ledger with the status that the CA says they have. All items are recorded or none; a
// serial number occurs once. Only the CA's operating organisation may, in the role of an operator.
//
// Import merges, so it may be repeated, in whatever order: what the ledger has stays, what it does not have is added, and a status is
// only ever made worse. Nothing is released by it.
type ImportArg struct {
	V      uint         `cbor:"0,keyasint"`
	CAID   CAID         `cbor:"1,keyasint"`
	Packed []byte       `cbor:"2,keyasint,omitempty"` // PackCerts of the items' certificates, in their order; empty if none has one
	Items  []ImportItem `cbor:"3,keyasint"`           // 1 to MaxBatch
}

// ImportItem is one certificate, or the serial number of one that nobody has.
type ImportItem struct {
	HasCert    bool      `cbor:"0,keyasint,omitempty"` // it takes the next of Packed
	Serial     Serial    `cbor:"1,keyasint,omitempty"` // without a certificate
	State      CertState `cbor:"2,keyasint"`
	Reason     Reason    `cbor:"3,keyasint"`           // CertValid: Unspecified; CertHeld: CertificateHold; CertRevoked: any other
	Revoked    Millis    `cbor:"4,keyasint,omitempty"` // when the CA put it on hold or revoked it, as the CA says, not in the future; 0 when valid
	Invalidity Millis    `cbor:"5,keyasint,omitempty"` // CertRevoked only: RFC 5280 section 5.3.2 invalidityDate, not in the future; 0: not given
	NotAfter   Millis    `cbor:"6,keyasint,omitempty"` // without a certificate: its notAfter; 0: not known
}

// NewImportArg packs certs, the certificates of those items that have one, in order.
func NewImportArg(id CAID, items []ImportItem, certs [][]byte) *ImportArg {
	a := &ImportArg{V: Version, CAID: id, Items: items}
	if len(certs) > 0 {
		a.Packed = PackCerts(certs)
	}
	return a
}

// Certs returns the certificates of the items that have one, in order. Errors are those of UnpackCerts.
func (a *ImportArg) Certs() ([][]byte, error) {
	if len(a.Packed) == 0 {
		return nil, nil
	}
	return UnpackCerts(a.Packed)
}

// ImportResult has one entry for each item of the argument, in its order.
type ImportResult struct {
	V       uint          `cbor:"0,keyasint"`
	Entries []ImportEntry `cbor:"1,keyasint"`
}

// ImportEntry tells what became of an item.
type ImportEntry struct {
	Changed bool      `cbor:"0,keyasint"`           // false: the ledger knew as much already
	Log     *LogEntry `cbor:"1,keyasint,omitempty"` // where the certificate stands in the CA's log; nil: the ledger has the serial number only
}

func (a *ImportArg) version() uint    { return a.V }
func (r *ImportResult) version() uint { return r.V }
