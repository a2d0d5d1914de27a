package index

import (
	"encoding/hex"
	"fmt"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// applyImport appends the leaves of an Import, rebuilt from the certificates in its argument.
func (a *applier) applyImport() error {
	var (
		arg wire.ImportArg
		res wire.ImportResult
	)
	if err := wire.Decode(a.tx.Arg, &arg); err != nil {
		return a.diverges("Import argument", "unreadable", "%v", err)
	}
	if err := wire.Decode(a.tx.Result, &res); err != nil {
		return a.diverges("Import result", "unreadable", "%v", err)
	}
	certs, err := arg.Certs()
	if err != nil {
		return a.diverges("Import argument", "unreadable", "%v", err)
	}
	if len(res.Entries) != len(arg.Items) {
		return a.diverges("Import result", fmt.Sprint(len(res.Entries))+" entries", "the argument has %d items", len(arg.Items))
	}
	for i := range arg.Items {
		if !arg.Items[i].HasCert {
			continue
		}
		if len(certs) == 0 || res.Entries[i].Log == nil {
			return a.diverges("Import result", fmt.Sprintf("item %d", i), "must have a certificate and its place")
		}
		if err := a.applyLeaf(arg.CAID, certs[0], res.Entries[i].Log); err != nil {
			return err
		}
		certs = certs[1:]
	}
	if len(certs) > 0 {
		return a.diverges("Import argument", fmt.Sprintf("%d more certificates", len(certs)), "must have one for each item that says so")
	}
	return nil
}

// checkBare: a record that names no leaf was imported, and says nothing that only a certificate could tell. It may learn of its notAfter once.
func (a *applier) checkBare(name string, rec, old *wire.CertRecord) error {
	switch {
	case !rec.Imported:
		return a.diverges(name, "without a log entry", "every record must name its leaf, unless it was imported")
	case !old.SerialOnly():
		return a.diverges(name, "without a log entry", "it named one before")
	case len(rec.SPKIHash) != 0:
		return a.diverges(name+" key", hex.EncodeToString(rec.SPKIHash), "no certificate shows it")
	case old.NotAfter != 0 && rec.NotAfter != old.NotAfter:
		return a.diverges(name+" notAfter", fmt.Sprint(rec.NotAfter), "it was %d before", old.NotAfter)
	}
	return nil
}

// checkImported: that a record was imported stays, and who made it tells whether it was. What the CA asserted comes with an import alone, and
// never from the future.
func (a *applier) checkImported(name string, rec *wire.CertRecord, old *wire.CertRecord, isNew bool) error {
	imported := old.Imported
	if isNew {
		imported = a.tx.Function == wire.FnImport
	}
	if rec.Imported != imported {
		return a.diverges(name+" imported", fmt.Sprint(rec.Imported), "must be %t", imported)
	}
	if rec.Asserted != 0 && rec.Asserted != old.Asserted && (a.tx.Function != wire.FnImport || rec.Asserted < 0 || rec.Asserted > wire.MillisOf(a.tx.Time)) {
		return a.diverges(name+" asserted", fmt.Sprint(rec.Asserted), "must be from an Import, and not after its time, %d", wire.MillisOf(a.tx.Time))
	}
	// Nobody dates back what the ledger has told before.
	if rec.Antedated && !old.Antedated && (a.tx.Function != wire.FnImport || !old.SerialOnly() || old.Change != 0) {
		return a.diverges(name+" antedated", "true", "its CA's date counts only if it came with the record, or with the first status of a serial number")
	}
	if rec.Antedated && (!rec.Imported || rec.Asserted == 0 || rec.State == wire.CertValid) {
		return a.diverges(name+" antedated", "true", "must be imported, on hold or revoked, and have its CA's date")
	}
	return nil
}
