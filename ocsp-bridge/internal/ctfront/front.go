package ctfront

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/ctapi"
	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/sct"
	"github.com/certanchor/certanchor/internal/tiles"
	"github.com/certanchor/certanchor/network"
)

// CA is an entry of the trust list.
type CA struct {
	ID     wire.CAID
	Record *wire.CARecord
	Name   string // for people: the subject of its certificate
}

// Config of a Front. Record may be nil; a zero field of the last group takes its default.
type Config struct {
	Dir       string                                // keys, <caID>.pem, and heads that were signed, <caID>.head; one Front's at a time
	Keys      map[wire.CAID]crypto.Signer           // keys with randomised signatures, in tokens: <caID>.scts has what was signed; a log without one has a file
	Seal      *keyfile.Sealer                       // of keys in Dir
	PublicURL string                                // https://host[:port][/prefix] that clients use; the submission prefix of a log is PublicURL/logs/<caID>
	Operator  string                                // of the logs, in the log list: the organisation's MSP ID
	CAs       func() []CA                           // the trust list now
	Log       func(wire.CAID) (merklelog.Log, bool) // a CA's log in this organisation's blocks
	Submit    func(wire.CAID) ctapi.Submitter       // asked at each submission; its nil result: not here

	// Record is a certificate's record in those blocks, nil if there is none: what is in the log already is not submitted again.
	Record func(wire.CAID, wire.Serial) (*wire.CertRecord, error)

	MaxPending int              // submissions in progress, of each log; default ctapi's
	TileCache  int              // octets of data tiles kept in memory; default 64 MiB, negative: none
	Now        func() time.Time // default time.Now
	Logger     *slog.Logger     // default slog.Default
}

const defaultTileCache = 64 << 20

// Front serves the logs. It is safe for concurrent use.
type Front struct {
	cfg   Config
	tiles *tiles.Cache

	mu   sync.Mutex // guards what follows, and is held while a log is opened: its key is made once
	logs map[wire.CAID]*openLog
	keys map[wire.CAID]*sct.Key // of Config.Keys, opened
}

// openLog stays open as long as the Front: nothing leaves the trust list.
type openLog struct {
	api *ctapi.Log
	key *sct.Key
}

// New makes a Front, and the keys of the logs that are on the trust list now. Errors name the field that is missing or the key that cannot be
// read or made.
func New(cfg Config) (*Front, error) {
	if cfg.Dir == "" || cfg.Operator == "" || cfg.CAs == nil || cfg.Log == nil || cfg.Submit == nil {
		return nil, errors.New("ctfront: Dir, Operator, CAs, Log and Submit must be set")
	}
	if err := checkPublicURL(cfg.PublicURL); err != nil {
		return nil, err
	}
	if cfg.MaxPending < 0 {
		return nil, wire.Errorf(wire.InvalidArgument, "max_pending", fmt.Sprint(cfg.MaxPending), "must be at least 1")
	}
	cfg.PublicURL = strings.TrimRight(cfg.PublicURL, "/")
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.TileCache == 0 {
		cfg.TileCache = defaultTileCache
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("log keys: %w", err)
	}
	f := &Front{cfg: cfg, logs: map[wire.CAID]*openLog{}, keys: map[wire.CAID]*sct.Key{}, tiles: tiles.NewCache(cfg.TileCache)}
	for _, ca := range cfg.CAs() {
		if _, err := f.loadKey(ca.ID); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func checkPublicURL(public string) error {
	u, err := url.Parse(public)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.ContainsAny(public, " +\t\r\n") {
		return wire.Errorf(wire.InvalidArgument, "public_url", public, "must be the http or https URL that clients reach this server at, without query, fragment, spaces and plus signs: log names are made of it")
	}
	return nil
}

// ServeLog answers a request to a log. rest is what follows the submission prefix and a slash in the path as it was sent, before any unescaping:
// ct/v1/add-chain, static/checkpoint.
func (f *Front) ServeLog(w http.ResponseWriter, r *http.Request, ca wire.CAID, rest string) {
	log, err := f.open(ca)
	if err != nil {
		problem.Write(w, f.cfg.Logger, err)
		return
	}
	if file, ok := strings.CutPrefix(rest, "static/"); ok {
		log.api.Static().ServeHTTP(w, at(r, file))
		return
	}
	if name := strings.TrimPrefix(rest, "ct/v1/"); name == "add-chain" || name == "add-pre-chain" {
		// Said before the chain is read: there is nothing that the client could do better.
		if f.cfg.Submit(ca) == nil {
			problem.Write(w, f.cfg.Logger, f.elsewhere(ca))
			return
		}
		r = r.WithContext(countHops(r))
	}
	log.api.API().ServeHTTP(w, at(r, rest))
}

// at is r with another path. It stays as it was sent: whatever needs no escaping has one spelling.
func at(r *http.Request, path string) *http.Request {
	out := new(http.Request)
	*out = *r
	out.URL = new(url.URL)
	*out.URL = *r.URL
	out.URL.Path, out.URL.RawPath = "/"+path, ""
	if strings.Contains(path, "%") {
		out.URL.RawPath = out.URL.Path
	}
	return out
}

// elsewhere says where a CA's submissions go. RFC 6962 has no answer for a log without add-chain; a client that is told 503 would come back.
func (f *Front) elsewhere(id wire.CAID) error {
	who := "the organisation that operates the CA"
	if ca, ok := f.trusted(id); ok {
		who = ca.Record.OperatingMSP + ", which operates the CA"
	}
	return problem.New(http.StatusNotFound, string(wire.NotFound), "ca_id", id.String(), "must be a CA that "+f.cfg.Operator+" takes submissions for: send this one to "+who)
}

// Keys returns the key of a CA's log. Errors: a *wire.Error, NotFound, if the CA is not on the trust list.
func (f *Front) Keys(ca wire.CAID) (*sct.Key, error) {
	log, err := f.open(ca)
	if err != nil {
		return nil, err
	}
	return log.key, nil
}

func (f *Front) trusted(id wire.CAID) (CA, bool) {
	for _, ca := range f.cfg.CAs() {
		if ca.ID == id {
			return ca, true
		}
	}
	return CA{}, false
}

func (f *Front) open(id wire.CAID) (*openLog, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if log := f.logs[id]; log != nil {
		return log, nil
	}
	if _, ok := f.trusted(id); !ok {
		return nil, wire.Errorf(wire.NotFound, "ca_id", id.String(), "must be a registered CA")
	}
	tree, ok := f.cfg.Log(id)
	if !ok { // it is made with the trust list entry, so it is about to be there
		return nil, &network.UnavailableError{Stage: "opening log " + id.String(), Err: errors.New("its blocks are not there yet")}
	}
	key, err := f.loadKey(id)
	if err != nil {
		return nil, err
	}
	cfg := ctapi.Config{
		CAID: id, Log: tree, Key: key, Prefix: f.submission(id), MaxPending: f.cfg.MaxPending, Logger: f.cfg.Logger, TileCache: f.tiles,
		CA: func() (*wire.CARecord, error) {
			ca, ok := f.trusted(id)
			if !ok {
				return nil, nil //nolint:nilnil // as Config.CA has it: not registered
			}
			return ca.Record, nil
		},
		Submitter: &submitter{f, id},
		Guard:     &headFile{path: f.headPath(id), ca: id, key: key.ID()},
	}
	if f.cfg.Record != nil {
		cfg.Recorded = (&submitter{f, id}).recorded
	}
	api, err := ctapi.New(cfg)
	if err != nil {
		return nil, err
	}
	f.logs[id] = &openLog{api: api, key: key}
	return f.logs[id], nil
}

// loadKey reads or makes a log's key. A log whose heads were signed is not given another key: clients know it by the first.
func (f *Front) loadKey(id wire.CAID) (*sct.Key, error) {
	if signer := f.cfg.Keys[id]; signer != nil {
		if f.keys[id] != nil {
			return f.keys[id], nil
		}
		key, err := sct.NewRandomised(signer, filepath.Join(f.cfg.Dir, id.String()+".scts"))
		if err == nil {
			f.keys[id] = key
		}
		return key, err
	}
	path := filepath.Join(f.cfg.Dir, id.String()+".pem")
	key, err := sct.LoadSealed(path, f.cfg.Seal)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if _, serr := os.Stat(f.headPath(id)); !errors.Is(serr, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: but %s says that it has signed: bring the key back, or remove that file to begin a log with a new ID", err, f.headPath(id))
	}
	return sct.LoadOrCreateSealed(path, f.cfg.Seal)
}

func (f *Front) headPath(id wire.CAID) string { return filepath.Join(f.cfg.Dir, id.String()+".head") }

func (f *Front) submission(id wire.CAID) string { return f.cfg.PublicURL + "/logs/" + id.String() }
