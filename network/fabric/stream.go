package fabric

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hyperledger/fabric-gateway/pkg/client"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/certanchor/certanchor/network"
)

// Pauses between attempts to get a broken stream back. A connection that is down has its own pauses in gRPC.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = time.Second
)

// blockStream is one open call of the peer's deliver service.
type blockStream interface {
	Send(*common.Envelope) error
	Recv() (*peer.DeliverResponse, error)
}

// streamKind is which of the deliver service's streams to follow.
type streamKind struct {
	open   func(context.Context, peer.DeliverClient) (blockStream, error)
	number func(*peer.DeliverResponse) uint64
	holds  func(*peer.DeliverResponse) bool
}

// The streams wait for the connection rather than fail, so that they are back as soon as it is.
var (
	fullBlocks = streamKind{
		open: func(ctx context.Context, d peer.DeliverClient) (blockStream, error) {
			return d.Deliver(ctx, grpc.WaitForReady(true))
		},
		number: func(r *peer.DeliverResponse) uint64 { return r.GetBlock().GetHeader().GetNumber() },
		holds:  func(r *peer.DeliverResponse) bool { return r.GetBlock().GetHeader() != nil },
	}
	filteredBlocks = streamKind{
		open: func(ctx context.Context, d peer.DeliverClient) (blockStream, error) {
			return d.DeliverFiltered(ctx, grpc.WaitForReady(true))
		},
		number: func(r *peer.DeliverResponse) uint64 { return r.GetFilteredBlock().GetNumber() },
		holds:  func(r *peer.DeliverResponse) bool { return r.GetFilteredBlock() != nil },
	}
)

// finalError ends follow; other errors of a stream make it connect again.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// statusError is the deliver service's way to end a stream.
type statusError common.Status

func (e statusError) Error() string { return "deliver service: " + common.Status(e).String() }

// follow calls handle for every block from number next on, in order, without gap or repeat, over as many streams as it takes.
// It ends with ctx, with an error of handle, or when the peer cannot serve block next.
//
// A block arrives after it is committed: Fabric's block iterator waits for the lock under which a peer writes block and state
// (core/ledger/kvledger, blocksItr.Next), so a read that starts after handle was called sees the block's effects.
func (l *Ledger) follow(ctx context.Context, next uint64, kind streamKind, handle func(*peer.DeliverResponse) error) error {
	pause := firstPause
	for {
		reached, err := l.readStream(ctx, next, kind, handle)
		if err := l.explain(ctx, reached, err); err != nil {
			return err
		}
		if reached > next {
			pause = firstPause
		}
		next = reached
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, lastPause)
	}
}

// readStream reads one stream to its end and returns the number of the next block that is wanted.
func (l *Ledger) readStream(ctx context.Context, next uint64, kind streamKind, handle func(*peer.DeliverResponse) error) (uint64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the call on the peer's side too
	request, err := l.seek(next)
	if err != nil {
		return next, finalError{&network.UnavailableError{Stage: "request blocks", Err: err}}
	}
	stream, err := kind.open(ctx, l.deliver)
	if err != nil {
		return next, fmt.Errorf("open block stream: %w", err)
	}
	if err := stream.Send(request); err != nil {
		return next, fmt.Errorf("open block stream: %w", err)
	}
	for {
		r, err := stream.Recv()
		if err != nil {
			return next, fmt.Errorf("read block stream: %w", err)
		}
		if !kind.holds(r) {
			return next, statusError(r.GetStatus())
		}
		if got := kind.number(r); got != next {
			return next, fmt.Errorf("read block stream: peer sent block %d, asked for %d", got, next)
		}
		if err := handle(r); err != nil {
			return next, finalError{err}
		}
		next++
	}
}

// explain decides whether a stream's end is final (then it returns why) or worth another attempt (then it returns nil).
// next is the number of the block that did not come.
func (l *Ledger) explain(ctx context.Context, next uint64, err error) error {
	var final finalError
	if errors.As(err, &final) {
		return final.error
	}
	if ctx.Err() != nil {
		return l.because(ctx, err)
	}
	var status statusError
	if errors.As(err, &status) {
		switch common.Status(status) {
		case common.Status_NOT_FOUND:
			// Three things look alike: a channel the peer has not opened yet, a block that is still to come, and a block that
			// this peer does not have because it joined by snapshot. Only the last is final.
			if height, herr := l.Height(ctx); herr == nil && next < height {
				return &network.UnavailableError{Stage: fmt.Sprintf("read block %d", next),
					Err: fmt.Errorf("the peer has %d blocks but not this one; it probably joined by snapshot, use one with full history: %w", height, err)}
			}
		case common.Status_FORBIDDEN, common.Status_BAD_REQUEST:
			return &network.UnavailableError{Stage: fmt.Sprintf("read block %d", next), Err: err}
		}
	}
	l.log.Warn("block stream lost, connecting again", "next_block", next, "error", err)
	return nil
}

// seek builds the signed request for all blocks from number from on.
func (l *Ledger) seek(from uint64) (*common.Envelope, error) {
	request, err := l.network.NewBlockEventsRequest(client.WithStartBlock(from))
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	encoded, err := request.Bytes()
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	envelope := &common.Envelope{}
	if err := proto.Unmarshal(encoded, envelope); err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	if envelope.Signature, err = l.sign(request.Digest()); err != nil {
		return nil, fmt.Errorf("sign request: %w", err)
	}
	return envelope, nil
}
