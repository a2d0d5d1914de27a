package oplog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/framelog"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// errFirst ends the reading of a file after its first record.
var errFirst = errors.New("first record read")

// NameIn reads which CA and name a file of a log says it is of. Errors: framelog.ErrDamaged and others for a file that has no first record.
func NameIn(file string) (id wire.CAID, name string, err error) {
	first, err := firstRecord(file)
	if err != nil {
		return id, "", err
	}
	copy(id[:], first.CAID)
	return id, first.Name, nil
}

func firstRecord(file string) (*Record, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var first *Record
	_, err = frameMagic.Scan(f, st.Size(), func(data []byte, _ framelog.Position) error {
		r, err := decode(data)
		if err != nil {
			return err
		}
		first = r
		return errFirst
	})
	if first != nil && first.Kind == Begins {
		return first, nil
	}
	if errors.Is(err, errFirst) {
		err = nil
	}
	return nil, errors.Join(fmt.Errorf("%s: %w: it has no first record", file, framelog.ErrDamaged), err)
}

// NameOf is the name of the log of the CA in dir: that of its newest generation that can be read, or of the backup that dir was made from;
// empty if there is neither.
func NameOf(dir string) (string, error) {
	all, err := generations(filepath.Join(dir, DirName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if _, name, err := NameIn(filepath.Join(dir, DirName, fileName(all[i]))); err == nil {
			return name, nil
		}
	}
	return markedName(dir)
}

func markedName(dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, RestoredFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var r Restored
	if json.Unmarshal(data, &r) != nil { // it only marks: whatever it holds
		return "", nil
	}
	if err := wire.CheckOperatorsName(r.Name); err != nil {
		return "", fmt.Errorf("%s: name %q: %w", filepath.Join(dir, RestoredFile), r.Name, err)
	}
	return r.Name, nil
}

// settleName finds the log's name before it is loaded. A log without a name of which there is nothing but its first record, as a further bridge
// leaves that was started without one, takes the name that is wanted.
func (l *Log) settleName(dir string, want *string, all []uint64) error {
	name, err := NameOf(dir)
	if err != nil {
		return err
	}
	l.name = name
	if want == nil || *want == name {
		return nil
	}
	if err := wire.CheckOperatorsName(*want); err != nil {
		return fmt.Errorf("name of the operators' log %q: %w", *want, err)
	}
	if len(all) == 0 && name == "" {
		l.name = *want
		return nil
	}
	if name == "" && len(all) == 1 && all[0] == 0 {
		taken, err := l.rename(*want)
		if taken || err != nil {
			return err
		}
	}
	return fmt.Errorf("operators' log %s: is called %q, and ca.operators_log.name says %q: must be the same; to begin another log, stop the CA bridge, move the directory away and keep it",
		l.dir, name, *want)
}

// rename puts a log with a name in the place of one that has nothing but its first record; false: it has more.
func (l *Log) rename(name string) (bool, error) {
	path := filepath.Join(l.dir, fileName(0))
	st, err := os.Stat(path)
	if err != nil || st.Size() > framelog.HeaderBytes+MaxRecord {
		return false, err
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	c := newChain(l.caID[:], 0)
	end, err := frameMagic.Scan(f, st.Size(), func(data []byte, pos framelog.Position) error { _, err := c.add(data, pos); return err })
	if err != nil || c.begin == nil || c.tree.size() > 1 || end != st.Size() {
		return false, nil // load says what is wrong with it
	}
	first := *c.begin
	first.Name = name
	l.name = name
	return true, keyfile.Replace(path, frameMagic.Encode(0, [][]byte{encode(&first)}), 0o600)
}
