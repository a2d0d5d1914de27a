package anchor

import (
	"errors"
	"strconv"
	"strings"
	"sync"

	"github.com/certanchor/certanchor/chaincode/wire"
	"github.com/certanchor/certanchor/network"
)

// call is one caller's request on its way.
type call[Req, Res any] struct {
	req  Req
	done chan outcome[Res] // buffered: deliver never waits

	mu      sync.Mutex // guards what follows
	flying  bool       // part of a transaction that is being submitted
	maybe   bool       // part of an earlier one whose outcome is unknown
	txID    string     // of that one
	left    bool       // the caller has its answer and is gone
	settled bool       // deliver was called
}

type outcome[Res any] struct {
	res     Res
	receipt network.Receipt
	err     error
}

// present returns the calls to submit and marks them as flying. Callers that left are dropped, but not from a batch that
// may have committed: it is submitted again exactly as it was, as long as anyone waits for it.
func present[Req, Res any](batch []*call[Req, Res]) []*call[Req, Res] {
	var here, all []*call[Req, Res]
	for _, c := range batch {
		c.mu.Lock()
		if !c.left {
			here = append(here, c)
		}
		if !c.left || c.maybe {
			all = append(all, c)
		}
		c.flying = !c.left
		c.mu.Unlock()
	}
	if len(here) == 0 {
		return nil
	}
	return all
}

// leave is the caller giving up because of cause. If an outcome was delivered meanwhile, that is the answer.
func (c *call[Req, Res]) leave(stage string, cause error) outcome[Res] {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settled {
		return <-c.done
	}
	c.left = true
	if c.flying || c.maybe {
		return outcome[Res]{err: &network.UnknownOutcomeError{TxID: c.txID, Stage: stage, Err: cause}}
	}
	return outcome[Res]{err: &network.UnavailableError{Stage: stage, Err: cause}}
}

// deliver gives the caller its answer, if it is still there.
func (c *call[Req, Res]) deliver(o outcome[Res]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left || c.settled {
		return
	}
	c.flying, c.settled = false, true
	c.done <- o
}

// back notes the end of an attempt that decided nothing.
func (c *call[Req, Res]) back(nothingWritten bool, txID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flying = false
	if !nothingWritten {
		c.maybe = true
		if txID != "" {
			c.txID = txID
		}
	}
}

// refuse delivers the contract's refusal. After an attempt of unknown outcome it proves only that this attempt had not
// committed yet: its envelope may still be on its way, so the outcome stays unknown.
func (c *call[Req, Res]) refuse(stage string, err error) {
	c.mu.Lock()
	maybe, txID := c.maybe, c.txID
	c.mu.Unlock()
	err = aboutOne(err)
	if maybe {
		err = &network.UnknownOutcomeError{TxID: txID, Stage: stage, Err: err}
	}
	c.deliver(outcome[Res]{err: err})
}

// culprit finds which entry of the batch a refusal is about: the contract names it certs[3] or changes[3].serial.
func culprit(err error) (int, bool) {
	var we *wire.Error
	if !errors.As(err, &we) {
		return 0, false
	}
	_, i, _, ok := indexed(we.Field)
	return i, ok
}

// aboutOne takes the position in the batch out of a refusal: it means nothing to the caller of a single entry.
func aboutOne(err error) error {
	var we *wire.Error
	var rejected *network.RejectedError
	if !errors.As(err, &we) || !errors.As(err, &rejected) {
		return err
	}
	list, _, rest, ok := indexed(we.Field)
	if !ok {
		return err
	}
	one := *we
	one.Field = strings.TrimPrefix(rest, ".")
	if list == "certs" {
		one.Field = "certificate" + rest
	} else if one.Field == "" {
		one.Field = strings.TrimSuffix(list, "s")
	}
	return &network.RejectedError{Function: rejected.Function, Reason: &one}
}

// indexed splits list[i]rest.
func indexed(field string) (list string, i int, rest string, ok bool) {
	list, tail, ok := strings.Cut(field, "[")
	if !ok {
		return "", 0, "", false
	}
	digits, rest, ok := strings.Cut(tail, "]")
	if !ok {
		return "", 0, "", false
	}
	i, err := strconv.Atoi(digits)
	return list, i, rest, err == nil && i >= 0 && list != ""
}
