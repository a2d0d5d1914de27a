package answers

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certanchor/certanchor/chaincode/wire"
)

var (
	start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ca    = wire.CAID(sha256.Sum256([]byte("a CA")))
)

func serial(n int) wire.Serial {
	return append(wire.Serial{1}, binary.BigEndian.AppendUint32(nil, uint32(n))...)
}

// stamp reads the stamp of certificate n.
func stamp(v *Versions, n int) Stamp {
	return v.Read(v.Cert(ca, serial(n)), v.CA(ca), v.Cert(ca, serial(1<<20)))
}

func made(v *Versions, n int, der string) *Answer {
	return &Answer{DER: []byte(der), ThisUpdate: start, NextUpdate: start.Add(time.Hour), Made: start, Until: start.Add(time.Hour), Due: time.Minute, Dead: 2 * time.Minute, Stamp: stamp(v, n)}
}

func TestAStampIsCurrentUntilWhatItIsOfChanges(t *testing.T) {
	for what, touch := range map[string]func(*Versions) Slot{
		"certificate": func(v *Versions) Slot { return v.Cert(ca, serial(1)) },
		"CA":          func(v *Versions) Slot { return v.CA(ca) },
		"signer":      func(v *Versions) Slot { return v.Cert(ca, serial(1<<20)) },
	} {
		v := NewVersions(start)
		before := stamp(v, 1)
		v.Begin([]Slot{touch(v), touch(v)}, start)
		during := stamp(v, 1)
		if v.Current(&before) || v.Current(&during) {
			t.Errorf("%s: current while it changes: %v before, %v during", what, v.Current(&before), v.Current(&during))
		}
		v.End()
		after := stamp(v, 1)
		if v.Current(&before) || v.Current(&during) || !v.Current(&after) {
			t.Errorf("%s: after the change: %v, %v, %v, want false, false, true", what, v.Current(&before), v.Current(&during), v.Current(&after))
		}
	}
	v := NewVersions(start)
	s := stamp(v, 1)
	for n := 2; n < 100; n++ {
		if slot := v.Cert(ca, serial(n)); slot != s.slots[0] && slot != s.slots[1] && slot != s.slots[2] {
			v.Begin([]Slot{slot}, start)
			v.End()
		}
	}
	if !v.Current(&s) {
		t.Error("changes of other certificates count")
	}
}

func TestASecondWithAChangeInItIsKnown(t *testing.T) {
	v := NewVersions(start)
	s := stamp(v, 1)
	if !v.ChangedSince(&s, start) || v.ChangedSince(&s, start.Add(time.Second)) {
		t.Error("what was before the start is not taken for unknown")
	}
	v.Begin([]Slot{v.Cert(ca, serial(1))}, start.Add(10*time.Second+time.Millisecond))
	v.End()
	v.Begin([]Slot{v.Cert(ca, serial(1))}, start) // a clock that was set back
	v.End()
	if !v.ChangedSince(&s, start.Add(10*time.Second)) || v.ChangedSince(&s, start.Add(11*time.Second)) {
		t.Error("the second of the change is not the one that counts")
	}
}

func TestAnAnswersAgeDecides(t *testing.T) {
	a := &Answer{ThisUpdate: start, Made: start.Add(time.Second), NextUpdate: start.Add(time.Hour), Until: start.Add(time.Hour), Due: 10 * time.Second, Dead: 20 * time.Second}
	newer := start.Add(5 * time.Second)
	for _, c := range []struct {
		at     time.Duration
		newest time.Time
		want   State
	}{
		{time.Second, newer, Ready},
		{9 * time.Second, newer, Ready},
		{10 * time.Second, newer, Due},
		{11 * time.Second, start, Ready}, // nothing newer could be said
		{19 * time.Second, newer, Due},
		{20 * time.Second, newer, Gone},
		{20 * time.Second, start, Gone},
		{-time.Second, newer, Gone}, // the clock was set back
	} {
		if got := a.State(start.Add(c.at), c.newest); got != c.want {
			t.Errorf("after %s, newest %s: %d, want %d", c.at, c.newest, got, c.want)
		}
	}
	a.Until = start.Add(3 * time.Second)
	if got := a.State(start.Add(3*time.Second), start); got != Gone {
		t.Errorf("at its end: %d, want Gone", got)
	}
}

func TestAnAnswerFromBeforeAChangeIsNeitherKeptNorGiven(t *testing.T) {
	v := NewVersions(start)
	c := NewCache(v, LeastCache)
	key := []byte("key")
	early := made(v, 1, "good")
	c.Put(key, early)
	if c.Get(key) != early {
		t.Fatal("an answer is not kept")
	}
	slow := made(v, 1, "good, signed slowly")
	v.Begin([]Slot{v.Cert(ca, serial(1))}, start)
	between := made(v, 1, "good, decided while the block is applied")
	c.Put(key, between)
	if c.Get(key) != nil {
		t.Fatal("given while the change is applied")
	}
	v.End()
	if c.Put(key, between); c.Get(key) != nil {
		t.Fatal("decided during the change, kept after it")
	}
	revoked := made(v, 1, "revoked")
	c.Put(key, revoked)
	c.Put(key, slow)
	if got := c.Get(key); got != revoked {
		t.Fatalf("%+v, want the revocation: a slow good has replaced it", got)
	}
}

func TestAChangeThatIsUnderWayCanBeWaitedFor(t *testing.T) {
	v := NewVersions(start)
	<-v.Settled() // none is
	v.Begin([]Slot{v.Cert(ca, serial(1))}, start)
	settled := v.Settled()
	select {
	case <-settled:
		t.Fatal("settled while a change is under way")
	default:
	}
	v.End()
	<-settled
	<-v.Settled()
}

func TestOfTwoAnswersTheOneMadeLaterIsKept(t *testing.T) {
	v := NewVersions(start)
	c := NewCache(v, LeastCache)
	newer, older := made(v, 1, "newer"), made(v, 1, "older")
	newer.Made = start.Add(time.Second)
	c.Put([]byte("k"), newer)
	c.Put([]byte("k"), older)
	if c.Get([]byte("k")) != newer {
		t.Error("the older one is kept")
	}
	if n, _ := c.Size(); n != 1 {
		t.Errorf("%d answers are kept, want 1", n)
	}
}

func TestMemoryIsBoundedAndWhatIsAskedForStays(t *testing.T) {
	v := NewVersions(start)
	c := NewCache(v, LeastCache)
	hot := [][]byte{}
	for i := range 50 {
		hot = append(hot, fmt.Appendf(nil, "hot %d", i))
		c.Put(hot[i], made(v, i, "an answer of some length, asked for again and again"))
	}
	for i := range 100_000 {
		c.Put(fmt.Appendf(nil, "once %d", i), made(v, i, "an answer that nobody asks for again"))
		if i%100 == 0 {
			for _, k := range hot {
				if c.Get(k) == nil {
					t.Fatalf("%s is gone after %d others", k, i)
				}
			}
		}
	}
	n, size := c.Size()
	if size > LeastCache || n < 500 {
		t.Errorf("%d answers of %d octets, want at most %d octets, and no needless emptiness", n, size, LeastCache)
	}
	rings := 0
	for i := range c.shards {
		for pos, a := range c.shards[i].ring {
			if a.pos != pos || c.shards[i].m[a.key] != a {
				t.Fatalf("shard %d: ring and map differ at %d", i, pos)
			}
			rings++
		}
	}
	if rings != n {
		t.Errorf("%d answers in rings, %d in maps", rings, n)
	}
	c.Put([]byte("k"), &Answer{DER: make([]byte, LeastCache), Stamp: stamp(v, 1)})
	if c.Get([]byte("k")) != nil {
		t.Error("an answer larger than a shard is kept")
	}
}

// A ledger of statuses that one goroutine changes and others answer from, through a cache: after a change can be read and was acknowledged, no
// answer from before it is given.
func TestNoAnswerFromBeforeAChangeIsGivenAfterIt(t *testing.T) {
	const certs, changes = 4, 4000
	var (
		v      = NewVersions(start)
		c      = NewCache(v, LeastCache)
		status [certs]atomic.Int64 // what readers of the ledger see
		acked  [certs]atomic.Int64 // what the changer has acknowledged
		kept   atomic.Int64
		wg     sync.WaitGroup
	)
	ctx, cancel := context.WithCancel(t.Context())
	for range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				n := i % certs
				key := []byte{byte(n)}
				least := acked[n].Load()
				var got int64
				if a := c.Get(key); a != nil {
					got = int64(binary.BigEndian.Uint64(a.DER))
					kept.Add(1)
				} else {
					st := stamp(v, n)
					got = status[n].Load()
					a := &Answer{DER: binary.BigEndian.AppendUint64(nil, uint64(got)), Stamp: st, Made: start}
					c.Put(key, a)
				}
				if got < least {
					t.Errorf("certificate %d: answer of change %d after change %d was acknowledged", n, got, least)
					return
				}
			}
		})
	}
	for i := range int64(changes) {
		n := int(i) % certs
		v.Begin([]Slot{v.Cert(ca, serial(n))}, start)
		runtime.Gosched() // others decide from what will be outdated
		status[n].Store(i)
		acked[n].Store(i) // what can be read counts at once, and not only when the changer has come to its end
		runtime.Gosched()
		v.End()
	}
	// The race is only one if answers were kept at all.
	for limit := time.Now().Add(30 * time.Second); kept.Load() < 1000 && time.Now().Before(limit); {
		runtime.Gosched()
	}
	cancel()
	wg.Wait()
	if kept.Load() < 1000 {
		t.Errorf("%d answers came from the cache, want some thousand", kept.Load())
	}
}

func TestSignersTurnAwayWhatIsTooMuchAtOnce(t *testing.T) {
	s := NewSigners(2, 3)
	var (
		wg      sync.WaitGroup
		release = make(chan struct{})
		most    atomic.Int64
		working atomic.Int64
		done    atomic.Int64
	)
	sign := func() ([]byte, error) {
		if n := working.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-release
		working.Add(-1)
		return []byte("signed"), nil
	}
	for range 5 {
		wg.Go(func() {
			if der, err := s.Do(sign); err != nil || string(der) != "signed" {
				t.Errorf("%q, %v", der, err)
			}
			done.Add(1)
		})
	}
	for limit := time.Now().Add(30 * time.Second); ; {
		if waiting, busy := s.Load(); waiting == 3 && busy == 2 {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("two do not work while three wait")
		}
	}
	for range 100 {
		if _, err := s.Do(sign); !errors.Is(err, ErrBusy) {
			t.Fatalf("the sixth: %v, want ErrBusy", err)
		}
	}
	close(release)
	wg.Wait()
	if most.Load() > 2 || done.Load() != 5 {
		t.Errorf("%d worked at a time, %d were signed, want at most 2, and 5", most.Load(), done.Load())
	}
	if _, err := s.Do(sign); err != nil {
		t.Errorf("after the rush: %v", err)
	}
}

func TestGetAllocatesNothing(t *testing.T) {
	v := NewVersions(start)
	c := NewCache(v, LeastCache)
	key := []byte("key")
	c.Put(key, made(v, 1, "good"))
	if n := testing.AllocsPerRun(1000, func() {
		if c.Get(key).State(start, start) != Ready {
			t.Fatal("not ready")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
