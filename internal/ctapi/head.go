package ctapi

import (
	"context"
	"fmt"
	"net/http"

	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/sct"
	"github.com/certanchor/certanchor/internal/tiles/intact"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

// head is a signed tree head.
type head struct {
	sct.STH
	signature []byte // digitally-signed
	note      []byte // the same as a static-ct-api checkpoint
}

// is reports whether h, which may be nil, is a signature of now: of the same tree, and not earlier.
func (h *head) is(now merklelog.Head) bool {
	return h != nil && h.Size == now.Size && h.Root == now.Root && h.Time >= now.Time
}

// newestHead returns a head that is no older than the log's at the time of the call. Of all that were returned before none is larger
// or later, and none contradicts it.
func (l *Log) newestHead() (*head, error) {
	want := l.log.Head()
	if last := l.signed(); last.is(want) && l.reached.Load() {
		return last, nil
	}
	l.signing.Lock()
	defer l.signing.Unlock()
	last, now := l.signed(), l.log.Head()
	if l.reached.Load() && last != nil && last.Size >= want.Size && last.Time >= want.Time &&
		(last.Size < now.Size || last.Size == now.Size && last.Root == now.Root) {
		return last, nil // signed while this call waited: one signature and one write serve all who wait
	}
	if err := l.checkHead(now, last); err != nil {
		return nil, err
	}
	if last.is(now) {
		l.reached.Store(true)
		return last, nil
	}
	h, err := l.nextHead(now, last)
	if err != nil {
		return nil, err
	}
	if l.guard != nil {
		if err := l.guard.Store(h.STH); err != nil {
			return nil, fmt.Errorf("log %s: couldn't keep the head of size %d, which must not be signed unless it is kept: %w", l.caID, h.Size, err)
		}
	}
	l.mu.Lock()
	l.head = h
	l.mu.Unlock()
	l.reached.Store(true)
	return h, nil
}

// headOver returns a signed head of a tree of at least size. Requires size <= the log's.
func (l *Log) headOver(size uint64) (*head, error) {
	if last := l.signed(); last != nil && last.Size >= size && l.reached.Load() {
		return last, nil
	}
	return l.newestHead()
}

func (l *Log) signed() *head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// nextHead signs what follows last, which may be nil.
func (l *Log) nextHead(now merklelog.Head, last *head) (*head, error) {
	next := sct.STH{Size: now.Size, Root: now.Root, Time: now.Time}
	// RFC 6962 3.5: the timestamp MUST be at least as recent as the most recent SCT timestamp in the tree.
	if now.Size > 0 {
		newest, err := intact.Entries(l.log, now.Size-1, now.Size)
		if err != nil {
			return nil, err
		}
		next.Time = max(next.Time, newest[0].Time)
	}
	// RFC 6962 3.5: each subsequent timestamp MUST be more recent than the timestamp of the previous update.
	if last != nil && last.Size == next.Size {
		next.Time = max(next.Time, last.Time)
	} else if last != nil {
		next.Time = max(next.Time, last.Time+1)
	}
	return l.signHead(next)
}

func (l *Log) signHead(sth sct.STH) (_ *head, err error) {
	h := &head{STH: sth}
	if h.signature, err = l.key.SignSTH(h.STH); err != nil {
		return nil, err
	}
	body := tlogproof.Checkpoint{Origin: l.Origin(), Size: h.Size, Root: h.Root}
	if h.note, err = body.Sign(l.key.CheckpointSigner(body.Origin, h.Time)); err != nil {
		return nil, err
	}
	return h, nil
}

func (l *Log) checkpoint(context.Context) ([]byte, error) {
	h, err := l.newestHead()
	if err != nil {
		return nil, err
	}
	return h.note, nil
}

// sthAnswer is RFC 6962 section 4.3.
type sthAnswer struct {
	Size      uint64 `json:"tree_size"`
	Time      int64  `json:"timestamp"`
	Root      []byte `json:"sha256_root_hash"`
	Signature []byte `json:"tree_head_signature"`
}

func (l *Log) getSTH(*http.Request) (*answer, error) {
	h, err := l.newestHead()
	if err != nil {
		return nil, err
	}
	return &answer{
		body:  sthAnswer{Size: h.Size, Time: int64(h.Time), Root: h.Root[:], Signature: h.signature},
		cache: fresh,
	}, nil
}
