package answers

import (
	"hash/maphash"
	"sync"
)

// shards keep goroutines out of each other's way.
const shards = 64

// Cache keeps answers by request, up to a number of octets. What is asked about stays, what was asked about once goes first (the clock
// algorithm): who asks about every certificate once does not drive out those that everybody asks about. It is safe for concurrent use.
type Cache struct {
	versions *Versions
	seed     maphash.Seed
	limit    int // octets of each shard
	shards   [shards]shard
}

type shard struct {
	mu   sync.RWMutex // guards what follows
	m    map[string]*Answer
	ring []*Answer
	hand int
	size int
}

// LeastCache is the least size of a Cache: some answers in each shard.
const LeastCache = 1 << 20

// NewCache returns an empty cache of at most size octets, roughly; size is at least LeastCache.
func NewCache(versions *Versions, size int) *Cache {
	c := &Cache{versions: versions, seed: maphash.MakeSeed(), limit: max(size, LeastCache) / shards}
	for i := range c.shards {
		c.shards[i].m = map[string]*Answer{}
	}
	return c
}

func (c *Cache) shard(key []byte) *shard { return &c.shards[maphash.Bytes(c.seed, key)%shards] }

// Get returns what is kept for key, if nothing it depends on has changed; nil otherwise. Time is the caller's business. Nothing is allocated.
func (c *Cache) Get(key []byte) *Answer {
	s := c.shard(key)
	s.mu.RLock()
	a := s.m[string(key)]
	s.mu.RUnlock()
	if a == nil || !c.versions.Current(&a.Stamp) {
		return nil
	}
	if !a.used.Load() {
		a.used.Store(true)
	}
	return a
}

// Put keeps an answer, unless what it was decided from has changed: then it is dropped, and what is kept stays.
func (c *Cache) Put(key []byte, a *Answer) {
	a.key = string(key)
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.versions.Current(&a.Stamp) || a.size() > c.limit {
		return
	}
	if old := s.m[a.key]; old != nil {
		if c.versions.Current(&old.Stamp) && old.Made.After(a.Made) {
			return // a slow signer's
		}
		s.remove(old)
	}
	for s.size+a.size() > c.limit {
		s.evict()
	}
	a.pos = len(s.ring)
	s.ring = append(s.ring, a)
	s.m[a.key] = a
	s.size += a.size()
}

// evict removes the first answer from the hand on that nobody has asked for since the hand was there.
func (s *shard) evict() {
	for {
		s.hand %= len(s.ring)
		a := s.ring[s.hand]
		unused := !a.used.Swap(false)
		if unused {
			s.remove(a) // the last of the ring takes its place, and is not looked at before the next round
		}
		s.hand++
		if unused {
			return
		}
	}
}

func (s *shard) remove(a *Answer) {
	last := len(s.ring) - 1
	s.ring[a.pos] = s.ring[last]
	s.ring[a.pos].pos = a.pos
	s.ring[last] = nil
	s.ring = s.ring[:last]
	delete(s.m, a.key)
	s.size -= a.size()
}

// Size returns how many answers there are and how many octets they take, roughly.
func (c *Cache) Size() (answers, octets int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		answers += len(s.m)
		octets += s.size
		s.mu.RUnlock()
	}
	return answers, octets
}
