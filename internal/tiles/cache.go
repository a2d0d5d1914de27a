package tiles

import (
	"container/list"
	"sync"
)

// Cache keeps full tiles of entries, which never change: every monitor of a log asks for each of them, and cutting one costs milliseconds. Of
// those it has no room for, the one that was asked for longest ago goes. It is safe for concurrent use.
type Cache struct {
	most int

	mu    sync.Mutex // guards what follows
	size  int
	kept  map[cacheKey]*list.Element // of *cached
	order list.List                  // the one asked for last in front
}

type cacheKey struct {
	log   *Handler
	index uint64
	gzip  bool
}

type cached struct {
	key  cacheKey
	body []byte
}

// cachedOverhead is about what the Cache itself needs for each tile.
const cachedOverhead = 256

// NewCache makes a Cache of at most so many octets; nil, which keeps nothing, if most is not positive.
func NewCache(most int) *Cache {
	if most <= 0 {
		return nil
	}
	return &Cache{most: most, kept: map[cacheKey]*list.Element{}}
}

// get returns a tile as put got it, nil if it is not kept.
func (c *Cache) get(key cacheKey) []byte {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.kept[key]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return tileOf(e).body
}

// put keeps a tile, whose octets must not change any more.
func (c *Cache) put(key cacheKey, body []byte) {
	if c == nil || len(body)+cachedOverhead > c.most {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept[key] != nil { // another request was as fast
		return
	}
	c.kept[key] = c.order.PushFront(&cached{key, body})
	for c.size += len(body) + cachedOverhead; c.size > c.most; {
		last := c.order.Back()
		old := tileOf(last)
		c.order.Remove(last)
		delete(c.kept, old.key)
		c.size -= len(old.body) + cachedOverhead
	}
}

func tileOf(e *list.Element) *cached {
	tile, ok := e.Value.(*cached)
	if !ok { // put puts in nothing else
		panic("tiles: not a tile in the cache")
	}
	return tile
}
