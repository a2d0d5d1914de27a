package ctapi

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/mail"
	"net/url"
	"strings"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/sct"
)

// mergeDelay is what the list states as maximum merge delay, in seconds. A leaf is in the tree before its SCT exists; a minute is for a server
// that restarts before somebody could look.
const mergeDelay = 60

// Operator is an organisation in a log list.
type Operator struct {
	Name  string
	Email []string
	Logs  []ListedLog
}

// ListedLog is one log in a list, under one organisation's key and prefixes.
type ListedLog struct {
	Description string
	Key         []byte    // DER SubjectPublicKeyInfo
	Submission  string    // URL: of the RFC 6962 interface
	Monitoring  string    // URL: of the static-ct-api files
	Since       time.Time // when its state began
	Pending     bool      // it takes no submissions, and no SCTs of it are to be expected
	ReadOnly    *TreeHead // it took submissions, and takes none now: its SCTs stay valid, and this is its head for as long as that lasts
	Test        bool
}

// TreeHead is the size and root of a log.
type TreeHead struct {
	Size uint64
	Root [sha256.Size]byte
}

// Listed describes the log, as a usable one, for a list. monitoring is the URL that Static is reached at, since when it became usable.
func (l *Log) Listed(description, monitoring string, since wire.Millis) ListedLog {
	return ListedLog{Description: description, Key: l.key.SPKI(), Submission: l.prefix, Monitoring: monitoring, Since: since.Time()}
}

// LogList writes a log list of version 3 (https://www.gstatic.com/ct/log_list/v3/log_list_schema.json). Every log is in it twice, as what RFC
// 6962 clients read and as a tiled log. at is the time of the list. Errors name what cannot be in one.
func LogList(version string, at time.Time, operators []Operator) ([]byte, error) {
	list := listJSON{Version: version, Time: timestamp(at), Operators: []operatorJSON{}}
	if strings.Trim(version, "0123456789.") != "" || version == "" {
		return nil, wire.Errorf(wire.InvalidArgument, "version", version, "must be digits with dots")
	}
	for i, o := range operators {
		where := fmt.Sprintf("operators[%d]", i)
		if o.Name == "" {
			return nil, wire.Errorf(wire.InvalidArgument, where+".name", "", "must not be empty")
		}
		for _, address := range o.Email {
			if _, err := mail.ParseAddress(address); err != nil {
				return nil, wire.Errorf(wire.InvalidArgument, where+".email", address, "must be an e-mail address: %v", err)
			}
		}
		out := operatorJSON{Name: o.Name, Email: append([]string{}, o.Email...), Logs: []logJSON{}, Tiled: []tiledJSON{}}
		for k, log := range o.Logs {
			if err := out.add(fmt.Sprintf("%s.logs[%d]", where, k), log); err != nil {
				return nil, err
			}
		}
		list.Operators = append(list.Operators, out)
	}
	text, err := json.MarshalIndent(list, "", "  ")
	return append(text, '\n'), err
}

func (o *operatorJSON) add(where string, log ListedLog) error {
	id, err := sct.IDOf(log.Key)
	if err != nil {
		return fmt.Errorf("%s.key: %w", where, err)
	}
	for field, prefix := range map[string]string{"submission_url": log.Submission, "monitoring_url": log.Monitoring} {
		if u, err := url.Parse(prefix); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			return wire.Errorf(wire.InvalidArgument, where+"."+field, prefix, "must be a URL, http or https, without query and fragment")
		}
	}
	common := commonJSON{
		Description: log.Description, LogID: id[:], Key: log.Key, MMD: mergeDelay, Type: "prod",
		State: stateJSON{Usable: &sinceJSON{timestamp(log.Since)}},
	}
	switch {
	case log.Pending:
		common.State = stateJSON{Pending: common.State.Usable}
	case log.ReadOnly != nil:
		common.State = stateJSON{ReadOnly: &readOnlyJSON{timestamp(log.Since), headJSON{log.ReadOnly.Root[:], log.ReadOnly.Size}}}
	}
	if log.Test {
		common.Type = "test"
	}
	o.Logs = append(o.Logs, logJSON{common, slash(log.Submission)})
	o.Tiled = append(o.Tiled, tiledJSON{common, slash(log.Submission), slash(log.Monitoring)})
	return nil
}

// slash ends a prefix as the lists in use have it.
func slash(prefix string) string { return strings.TrimRight(prefix, "/") + "/" }

func timestamp(t time.Time) string { return t.UTC().Truncate(time.Second).Format(time.RFC3339) }

type listJSON struct {
	Version   string         `json:"version"`
	Time      string         `json:"log_list_timestamp"`
	Operators []operatorJSON `json:"operators"`
}

type operatorJSON struct {
	Name  string      `json:"name"`
	Email []string    `json:"email"`
	Logs  []logJSON   `json:"logs"`
	Tiled []tiledJSON `json:"tiled_logs"`
}

type commonJSON struct {
	Description string    `json:"description,omitempty"`
	LogID       []byte    `json:"log_id"`
	Key         []byte    `json:"key"`
	MMD         int       `json:"mmd"`
	State       stateJSON `json:"state"`
	Type        string    `json:"log_type"`
}

type logJSON struct {
	commonJSON
	URL string `json:"url"`
}

type tiledJSON struct {
	commonJSON
	Submission string `json:"submission_url"`
	Monitoring string `json:"monitoring_url"`
}

type stateJSON struct {
	Pending  *sinceJSON    `json:"pending,omitempty"`
	Usable   *sinceJSON    `json:"usable,omitempty"`
	ReadOnly *readOnlyJSON `json:"readonly,omitempty"`
}

type readOnlyJSON struct {
	Timestamp string   `json:"timestamp"`
	Final     headJSON `json:"final_tree_head"`
}

type headJSON struct {
	Root []byte `json:"sha256_root_hash"`
	Size uint64 `json:"tree_size"`
}

type sinceJSON struct {
	Timestamp string `json:"timestamp"`
}
