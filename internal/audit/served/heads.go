package served

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/internal/audit"
	"github.com/certanchor/certanchor/internal/sct"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// claim is a head that somebody has signed. walkLogs compares it with the blocks.
type claim struct {
	log   string
	size  uint64
	root  [sha256.Size]byte
	where string // URL, and when it is not of now
	note  []byte // as it was served; nil: there is none
	by    []string

	bridge *bridge // nil: not served now
	kind   string  // one of those below; empty: it is from a bundle or an alarm
	times  []timestamp
	key    string // of CT heads: the key's SHA-256, hexadecimal
	right  bool   // it has the blocks' root
}

// Kinds of heads. What is remembered is apart for each.
const (
	kindCheckpoint = "checkpoint" // of the consortium
	kindSTH        = "get-sth"    // RFC 6962
	kindStatic     = "static"     // static-ct-api
)

// timestamp is the time in one signature.
type timestamp struct {
	by   string // key name
	at   wire.Millis
	skew time.Duration // how far it may be before what it covers
}

func (c *comparison) claimed(cl *claim) { c.claims[cl.log] = append(c.claims[cl.log], cl) }

// fetchHeads asks every bridge for all heads.
func (c *comparison) fetchHeads(ctx context.Context) error {
	var had atomic.Uint64
	c.progress("heads", 0, uint64(len(c.bridges)))
	if err := c.onEach(ctx, func(ctx context.Context, own *comparison, b *bridge) error {
		defer func() { c.progress("heads", had.Add(1), uint64(len(c.bridges))) }()
		return own.fetchFrom(ctx, b)
	}); err != nil {
		return err
	}
	for _, h := range c.seen.claims(c.logs) {
		c.claimed(h)
	}
	return nil
}

func (c *comparison) fetchFrom(ctx context.Context, b *bridge) error {
	if err := c.fetchKeys(ctx, b); err != nil {
		return err
	}
	for i := range c.logs {
		if err := c.fetchLog(ctx, b, &c.logs[i]); err != nil {
			return err
		}
	}
	return c.fetchAlarms(ctx, b)
}

func (c *comparison) fetchLog(ctx context.Context, b *bridge, l *audit.Log) error {
	path := "/logs/" + l.Name + "/checkpoint"
	signed, err := b.fetch.get(ctx, path, maxNote)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && notFound(err) && l.Size == 0: // a CA that the bridge has not heard of yet
	case err != nil:
		c.failed(0, b.URL+path, caName(l), itIsThere, err)
	default:
		c.checkpoint(b, l, b.URL+path, signed)
	}
	if l.CA == nil {
		return nil
	}
	return c.fetchCT(ctx, b, l)
}

// checkpoint takes a consortium checkpoint.
func (c *comparison) checkpoint(b *bridge, l *audit.Log, where string, signed []byte) {
	cp, n, err := tlogproof.ReadUnverified(signed)
	if err != nil {
		c.add(0, &Difference{Kind: KindSignature, Where: where, What: caName(l), Found: err.Error(), Blocks: "a checkpoint (C2SP tlog-checkpoint)"})
		return
	}
	if cp.Origin != l.Origin {
		c.add(0, &Difference{Kind: KindRoot, Where: where, What: caName(l) + ", origin", Found: cp.Origin, Blocks: l.Origin})
		return
	}
	b.Heads++
	b.sizes[l.Name] = cp.Size
	b.sites = append(b.sites, &site{bridge: b, log: l.Name, prefix: "/logs/" + l.Name, size: cp.Size})
	cl := &claim{log: l.Name, size: cp.Size, root: cp.Root, where: where, note: signed, bridge: b, kind: kindCheckpoint}
	cl.times, cl.by = c.signatures(where, l, n)
	c.claimed(cl)
}

// ctKeys are an organisation's key of one issuance log, and its names.
type ctKeys struct {
	origin string
	hex    string
	key    note.Verifier
}

// logList is what is read of a log list, version 3.
type logList struct {
	Operators []struct {
		Logs []struct {
			Key []byte `json:"key"`
			URL string `json:"url"`
		} `json:"logs"`
	} `json:"operators"`
}

// fetchKeys reads the log list. A bridge may have none: then it does not serve the CT interfaces.
func (c *comparison) fetchKeys(ctx context.Context, b *bridge) error {
	const path = "/log_list.json"
	var list logList
	err := b.fetch.json(ctx, path, &list)
	if ctx.Err() != nil || notFound(err) {
		return ctx.Err()
	}
	if err != nil {
		c.failed(0, b.URL+path, "log list", itIsThere, err)
		return nil
	}
	b.keys = map[string]*ctKeys{}
	for _, o := range list.Operators {
		for _, l := range o.Logs {
			_, origin, ok := strings.Cut(strings.TrimRight(l.URL, "/"), "://")
			name := origin[strings.LastIndexByte(origin, '/')+1:]
			key, err := publicKey(l.Key)
			if err == nil && ok {
				var v note.Verifier
				if v, err = sct.NewVerifier(origin, key); err == nil {
					b.keys[name] = &ctKeys{origin: origin, hex: fmt.Sprintf("%x", sha256.Sum256(l.Key)), key: v}
				}
			}
			if err != nil || !ok {
				c.add(0, &Difference{Kind: KindSignature, Where: b.URL + path, What: "log " + l.URL, Found: fmt.Sprintf("key %x (%v)", l.Key, err), Blocks: "a URL, and a P-256 key (RFC 6962 section 2.1.4)"})
			}
		}
	}
	return nil
}

// judgeHeads looks at what can be said of heads without the log's leaves.
func (c *comparison) judgeHeads(context.Context) error {
	for _, l := range c.logs {
		for _, cl := range c.claims[l.Name] {
			if cl.size > l.Size {
				c.add(0, &Difference{Kind: KindAhead, Where: cl.where, What: caName(&l), Found: fmt.Sprintf("size %d", cl.size), Blocks: fmt.Sprintf("size %d in all %d blocks that the ledger has", l.Size, c.Audit.Height())})
			}
			if cl.bridge != nil {
				c.compareSeen(cl)
			}
		}
	}
	return nil
}

// atSize compares the claims about a log's first size leaves. newest is the time of the last of them.
func (c *comparison) atSize(seq int, l *audit.Log, size uint64, root [sha256.Size]byte, newest wire.Millis) {
	for _, cl := range c.claims[l.Name] {
		if cl.size != size {
			continue
		}
		cl.right = cl.root == root
		if !cl.right {
			d := &Difference{Kind: KindRoot, Where: cl.where, What: fmt.Sprintf("%s, root of size %d", caName(l), size), Found: fmt.Sprintf("%x", cl.root), Blocks: fmt.Sprintf("%x", root)}
			if len(cl.by) > 0 {
				d.Found += ", signed by " + strings.Join(cl.by, ", ")
			}
			if cl.note != nil {
				d.Evidence = c.evidence(cl)
			}
			c.add(seq, d)
		}
		for _, t := range cl.times {
			if least := newest - wire.Millis(t.skew.Milliseconds()); size > 0 && t.at < least {
				c.add(seq, &Difference{Kind: KindTime, Where: cl.where, What: fmt.Sprintf("%s, size %d, time of the signature by %s", caName(l), size, t.by), Found: t.at.Time().Format(stamp), Blocks: "its newest entry is of " + newest.Time().Format(stamp)})
			}
		}
	}
}

const stamp = "2006-01-02T15:04:05.000Z"
