package fabric

import (
	"math"
	"sync"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// counted is a chaincode service that knows how many transactions are running, counting from the peer's message to the answer
// that was sent, so that a stop can wait for them.
type counted struct {
	peer.ChaincodeServer
	closing chan struct{} // closed by close

	mu      sync.Mutex // guards what follows
	running int
	idle    chan struct{} // closed when running falls to 0; nil while nobody waits
}

func newCounted(s peer.ChaincodeServer) *counted {
	return &counted{ChaincodeServer: s, closing: make(chan struct{})}
}

// Connect serves one peer until it goes or close is called. A peer stays connected for as long as it lives, so a stop has to end
// the stream from this side; returning from here does so after what was sent.
func (c *counted) Connect(stream peer.Chaincode_ConnectServer) error {
	s := &countedStream{Chaincode_ConnectServer: stream, counted: c}
	defer s.abandon()
	ended := make(chan error, 1)
	go func() { ended <- c.ChaincodeServer.Connect(s) }() // ends with the stream
	select {
	case err := <-ended:
		return err
	case <-c.closing:
		return status.Error(codes.Unavailable, "the chaincode server is stopping")
	}
}

// close ends all streams. It is called once.
func (c *counted) close() { close(c.closing) }

func (c *counted) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running += n
	if c.running == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
}

func (c *counted) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running
}

// drain waits until no transaction is running, at most for the given time. One caller at a time.
func (c *counted) drain(most time.Duration) {
	c.mu.Lock()
	if c.running == 0 {
		c.mu.Unlock()
		return
	}
	idle := make(chan struct{})
	c.idle = idle
	c.mu.Unlock()
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
}

// countedStream sees a peer's transactions come and their answers go.
type countedStream struct {
	peer.Chaincode_ConnectServer
	counted *counted

	mu      sync.Mutex // guards running
	running int        // transactions of this peer; an answer after abandon is not counted
}

func (s *countedStream) Recv() (*peer.ChaincodeMessage, error) {
	m, err := s.Chaincode_ConnectServer.Recv()
	if err != nil {
		return m, err
	}
	if t := m.GetType(); t == peer.ChaincodeMessage_TRANSACTION || t == peer.ChaincodeMessage_INIT {
		s.mu.Lock()
		s.running++
		s.mu.Unlock()
		s.counted.add(1)
	}
	return m, nil
}

func (s *countedStream) Send(m *peer.ChaincodeMessage) error {
	err := s.Chaincode_ConnectServer.Send(m)
	if t := m.GetType(); t == peer.ChaincodeMessage_COMPLETED || t == peer.ChaincodeMessage_ERROR {
		s.forget(1)
	}
	return err
}

// abandon forgets the transactions of a peer that has gone.
func (s *countedStream) abandon() { s.forget(math.MaxInt) }

// forget takes at most n transactions off the count.
func (s *countedStream) forget(n int) {
	s.mu.Lock()
	n = min(n, s.running)
	s.running -= n
	s.mu.Unlock()
	s.counted.add(-n)
}
