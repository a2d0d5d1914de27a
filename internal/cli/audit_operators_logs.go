package cli

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/oplog"
	"github.com/certanchor/certanchor/internal/pemcert"
)

// unshownLog is one that the ledger has, and that was not given.
type unshownLog struct {
	Name       string    `json:"name"` // empty: the first bridge's
	Generation uint64    `json:"generation"`
	Size       uint64    `json:"size"`
	Root       string    `json:"root"`
	Anchored   time.Time `json:"last_anchored"`
}

func (u unshownLog) String() string {
	return fmt.Sprintf("not shown: %s, generation %d, size %d, root %s, last anchored %s", logName(u.Name), u.Generation, u.Size, u.Root, u.Anchored.Format(time.RFC3339))
}

func logName(name string) string {
	if name == "" {
		return "the log without a name"
	}
	return name
}

// unshown are the logs on the ledger that are not among logs.
func unshown(logs []logFiles, histories map[string][]oplog.Anchor) []unshownLog {
	all := []unshownLog{}
	for _, name := range slices.Sorted(maps.Keys(histories)) {
		if slices.ContainsFunc(logs, func(l logFiles) bool { return l.name == name }) {
			continue
		}
		h := histories[name]
		last := h[len(h)-1]
		all = append(all, unshownLog{name, last.Head.Generation, last.Head.Size, fmt.Sprintf("%x", last.Head.Root), last.Time.Time()})
	}
	return all
}

// logFiles are the generations of one log.
type logFiles struct {
	name  string
	files []string
}

// logs returns the logs that are given, each name once, and whose they must be.
func (f *operatorsFlags) logs() (logs []logFiles, id wire.CAID, err error) {
	if id, err = f.whose(); err != nil {
		return nil, id, err
	}
	if len(f.files) > 0 {
		return byName(f.files), id, nil
	}
	for _, dir := range f.caDirs {
		l := logFiles{}
		if l.name, err = oplog.NameOf(dir); err == nil {
			l.files, err = oplog.Files(dir)
		}
		if err != nil {
			return nil, id, err
		}
		if slices.ContainsFunc(logs, func(o logFiles) bool { return o.name == l.name }) {
			return nil, id, fmt.Errorf("--dir %s: holds %s, as another --dir does: of a CA's bridges each has a name of its own", dir, logName(l.name))
		}
		logs = append(logs, l)
	}
	return logs, id, nil
}

// whose is the CA of all logs.
func (f *operatorsFlags) whose() (id wire.CAID, err error) {
	if f.caID != "" {
		if id, err = wire.ParseCAID(f.caID); err != nil {
			return id, fmt.Errorf("%w: --ca-id: %w", errUsage, err)
		}
		return id, nil
	}
	if len(f.caDirs) == 0 {
		return id, fmt.Errorf("%w: --ca-id: must be set with --file, unless --dir is", errUsage)
	}
	for i, dir := range f.caDirs {
		certs, err := pemcert.Read(filepath.Join(dir, "ca.pem"))
		if err != nil {
			return id, fmt.Errorf("--dir: %w", err)
		}
		of := wire.CAIDOf(certs[0].RawSubjectPublicKeyInfo)
		if i > 0 && of != id {
			return id, fmt.Errorf("--dir %s: is of the CA %s: must be of %s, as the first one", dir, of, id)
		}
		id = of
	}
	return id, nil
}

// byName groups files by the log that they say they are of. One that cannot say it is taken for one of the first log's.
func byName(files []string) (logs []logFiles) {
	var silent []string
	for _, file := range files {
		_, name, err := oplog.NameIn(file)
		if err != nil {
			silent = append(silent, file)
			continue
		}
		i := slices.IndexFunc(logs, func(l logFiles) bool { return l.name == name })
		if i < 0 {
			i, logs = len(logs), append(logs, logFiles{name: name})
		}
		logs[i].files = append(logs[i].files, file)
	}
	if len(logs) == 0 {
		logs = []logFiles{{}}
	}
	logs[0].files = append(logs[0].files, silent...)
	return logs
}
