package ca

import (
	"errors"

	"github.com/certanchor/certanchor/internal/oplog"
)

// localHow is how the operators' log knows those who work on the CA's directory.
const localHow = "local"

// recordLocal does fn for somebody at the command line, and records it in the operators' log of the CA in dir, which does not run: before it begins, and how it ended.
func recordLocal(dir, by, action, target string, detail map[string]string, fn func() error) (err error) {
	log, err := oplog.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	seq, err := log.Record(oplog.Entry{Actor: by, How: localHow, Action: action, Target: target, Detail: detail})
	if err != nil {
		return err
	}
	outcome := oplog.Done
	if err = fn(); err != nil {
		outcome = "failed: " + err.Error()
	}
	return errors.Join(err, log.End(seq, outcome, target, nil))
}
