package ca

import (
	"errors"

	"github.com/certanchor/certanchor/internal/oplog"
)

// recordedOffline runs fn, which changes something in the directory of a CA that does not run, with a record in the operators' log before and
// after it. A directory that was restored from a backup takes records only once its bridge has asked the ledger; until then fn runs
// without: what a restore has brought back, such as a key that was suspended, must not have to be started first.
func recordedOffline(dir string, e oplog.Entry, fn func() error) (err error) {
	log, err := oplog.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	e.How = commandLine
	seq, err := log.Record(e)
	if errors.Is(err, oplog.ErrRestored) {
		return fn()
	}
	if err != nil {
		return err
	}
	err = fn()
	return errors.Join(err, log.End(seq, outcomeOf(err, 0), "", nil))
}
