package tiles

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/problem"
	"github.com/certanchor/certanchor/internal/tiles/gzipped"
	"github.com/certanchor/certanchor/internal/tiles/intact"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// Cache-Control values.
const (
	forever = "public, max-age=31536000, immutable"
	fresh   = "no-cache" // the specifications allow a few seconds; who has just seen an SCT wants the head that covers it
)

// Config of a Handler.
type Config struct {
	Log merklelog.Log

	// Checkpoint returns the signed note of a head, no older than the one it returned before.
	Checkpoint func(context.Context) ([]byte, error)

	// Static makes it static-ct-api, and is nil for tlog-tiles.
	Static *Static

	Cache  *Cache       // for full tiles of entries; one may serve many Handlers; default none
	Logger *slog.Logger // default slog.Default
}

// Static is what static-ct-api has beside tlog-tiles.
type Static struct {
	// Chain certifies every entry: DER, the issuer first, up to the root. Data tiles are immutable and name it, so it must be the same
	// each time that the log is served.
	Chain [][]byte
}

// Handler serves a log. Its paths are relative to the log's prefix: use http.StripPrefix.
type Handler struct {
	log        merklelog.Log
	checkpoint func(context.Context) ([]byte, error)
	logger     *slog.Logger
	cache      *Cache // nil: none
	entries    string // the word for entries in a path
	others     string // further paths, for error messages
	encode     func(merklelog.Entry) ([]byte, error)
	issuers    map[string][]byte // by path
}

// New makes a Handler. Errors: a field that must not be empty is.
func New(c Config) (*Handler, error) {
	if c.Log == nil || c.Checkpoint == nil {
		return nil, errors.New("tiles: Log and Checkpoint must be set")
	}
	h := &Handler{log: c.Log, checkpoint: c.Checkpoint, logger: c.Logger, cache: c.Cache, entries: "entries", encode: bundleEntry}
	if h.logger == nil {
		h.logger = slog.Default()
	}
	if c.Static == nil {
		return h, nil
	}
	if len(c.Static.Chain) == 0 {
		return nil, errors.New("tiles: Static.Chain must have the issuer at least")
	}
	fingerprints := make([]byte, 0, sha256.Size*len(c.Static.Chain))
	h.issuers = map[string][]byte{}
	for _, der := range c.Static.Chain {
		sum := sha256.Sum256(der)
		fingerprints = append(fingerprints, sum[:]...)
		h.issuers[hex.EncodeToString(sum[:])] = der
	}
	h.entries, h.others = "data", " or issuer/<SHA-256>"
	h.encode = func(e merklelog.Entry) ([]byte, error) { return dataEntry(e, fingerprints) }
	return h, nil
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h.serve(w, r); err != nil {
		problem.Write(w, h.logger, err)
	}
}

// serve returns an error if nothing has been answered yet.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request) error {
	path := strings.TrimPrefix(r.URL.Path, "/")
	kind, rest, _ := strings.Cut(path, "/")
	if path != "checkpoint" && kind != "tile" && (kind != "issuer" || h.issuers == nil) {
		return wire.Errorf(wire.NotFound, "path", path, "must be checkpoint, tile/<L>/<N>[.p/<W>], tile/%s/<N>[.p/<W>]%s", h.entries, h.others)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return problem.New(http.StatusMethodNotAllowed, string(wire.InvalidArgument), "method", r.Method, "must be GET or HEAD")
	}
	// Nothing in these paths needs escaping; two spellings of one tile would be two for a cache.
	if r.URL.RawPath != "" {
		return wire.Errorf(wire.InvalidArgument, "path", r.URL.RawPath, "must not be percent-encoded")
	}
	switch kind {
	case "checkpoint":
		return h.serveCheckpoint(w, r)
	case "issuer":
		return h.serveIssuer(w, rest)
	}
	return h.serveTile(w, r, rest)
}

func (h *Handler) serveCheckpoint(w http.ResponseWriter, r *http.Request) error {
	note, err := h.checkpoint(r.Context())
	if err != nil {
		return err
	}
	h.write(w, tlogproof.ContentType, fresh, note)
	return nil
}

func (h *Handler) serveIssuer(w http.ResponseWriter, fingerprint string) error {
	der, ok := h.issuers[fingerprint]
	if !ok {
		return wire.Errorf(wire.NotFound, "issuer", fingerprint, "must be the SHA-256, in lower-case hexadecimal digits, of a certificate that an entry's chain names (c2sp.org/static-ct-api)")
	}
	h.write(w, "application/pkix-cert", forever, der)
	return nil
}

const octets = "application/octet-stream"

func (h *Handler) serveTile(w http.ResponseWriter, r *http.Request, path string) error {
	t, err := parseTile(path, h.entries)
	if err != nil {
		return err
	}
	if size := h.log.Head().Size; !t.within(size) {
		return wire.Errorf(wire.NotFound, "tile", path, "must lie within the log, whose size is %d: ask for the partial tile", size)
	}
	if !t.entries {
		hashes, err := intact.Hashes(h.log, 8*t.level, t.first(), t.width)
		if err != nil {
			return fmt.Errorf("tile %s: %w", path, err)
		}
		body := make([]byte, 0, len(hashes)*sha256.Size)
		for _, hash := range hashes {
			body = append(body, hash...)
		}
		h.write(w, octets, forever, body)
		return nil
	}
	return h.serveEntries(w, r, path, t)
}

func (h *Handler) serveEntries(w http.ResponseWriter, r *http.Request, path string, t tile) error {
	send := func(body []byte) error { return gzipped.Write(w, r, body) }
	key := cacheKey{log: h, index: t.index, gzip: gzipped.Accepted(r)}
	body := []byte(nil)
	if t.width == fullWidth {
		body = h.cache.get(key)
		send = func(body []byte) error { return gzipped.WriteCoded(w, body, key.gzip) }
	}
	if body == nil {
		var err error
		if body, err = h.cut(t); err != nil {
			return fmt.Errorf("tile %s: %w", path, err)
		}
		if t.width == fullWidth {
			if key.gzip {
				body = gzipped.Compress(body)
			}
			h.cache.put(key, body)
		}
	}
	w.Header().Set("Content-Type", octets)
	w.Header().Set("Cache-Control", forever)
	if err := send(body); err != nil {
		h.logger.Debug("answer not delivered", "error", err)
	}
	return nil
}

// cut makes a tile of entries.
func (h *Handler) cut(t tile) ([]byte, error) {
	entries, err := intact.Entries(h.log, t.first(), t.last())
	if err != nil {
		return nil, err
	}
	encoded := make([][]byte, len(entries))
	for i, e := range entries {
		if encoded[i], err = h.encode(e); err != nil {
			return nil, fmt.Errorf("entry %d: %w", t.first()+uint64(i), err)
		}
	}
	return slices.Concat(encoded...), nil
}

func (h *Handler) write(w http.ResponseWriter, contentType, cache string, body []byte) {
	header := w.Header()
	header.Set("Content-Type", contentType)
	header.Set("Cache-Control", cache)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	if _, err := w.Write(body); err != nil {
		h.logger.Debug("answer not delivered", "error", err)
	}
}
