package index

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
	"time"

	"srsx/lb"
)

// shards is how many parts the table has. A writer holds up only readers of its
// own part, and growing one never takes long.
const shards = 256

// table maps streams to items. An item is some words in one piece:
//
//	generation
//	placed at, unix ms << 16, publishing, length of the name
//	number of the path, number of the terms
//	name, padded with zeros
//
// Nothing in them is a pointer: the collector has nothing to follow, however
// many streams there are.
type table struct {
	seed   maphash.Seed
	len    atomic.Int64
	words  words
	paths  dictionary[path, [2]string]
	terms  dictionary[terms, termsKey]
	shards [shards]shard
}

// The words of an item before the name.
const (
	wordGeneration = iota
	wordStamp
	wordShared
	wordName

	publishingBit = 1 << 15
	sizeMask      = 1<<15 - 1
)

// path is what the streams of one app have in common.
type path struct{ vhost, app string }

// terms is what placements on one origin with the same holders have in common.
type terms struct {
	termsKey

	holders   []lb.Holder
	idleSince time.Time
}

// termsKey tells terms apart. The state machine keeps one list for equal
// holders, so its first element stands for it; that another list with the same
// holders would count as different costs memory only.
type termsKey struct {
	origin      *origin
	incarnation lb.Incarnation
	first       *lb.Holder
	count       int
	idleSince   int64
	orphaned    bool
}

func newTable() *table {
	return &table{seed: maphash.MakeSeed(), paths: newDictionary[path, [2]string](), terms: newDictionary[terms, termsKey]()}
}

func (t *table) hash(s *lb.Stream) uint64 {
	const odd = 0x9e3779b97f4a7c15
	h := maphash.String(t.seed, s.VHost)
	h = h*odd ^ maphash.String(t.seed, s.App) // differs by place
	h = h*odd ^ maphash.String(t.seed, s.Name)
	return h ^ h>>29
}

func (t *table) shard(hash uint64) *shard { return &t.shards[hash>>56] }

// found is what the table has of a stream; what of it is shared never changes.
type found struct {
	generation, stamp uint64
	shared            *terms
}

// lookup reads without lock: what it read holds if no write to the shard began
// or was under way meanwhile. Should that go on happening, it takes the lock.
func (t *table) lookup(s *lb.Stream) (f found, ok bool) {
	const attempts = 4
	hash := t.hash(s)
	sh := t.shard(hash)
	for range attempts {
		before := sh.version.Load()
		if before%2 != 0 {
			continue
		}
		if f, ok = t.read(sh, uint32(hash), s); sh.version.Load() == before {
			return f, ok
		}
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return t.read(sh, uint32(hash), s)
}

// read returns what a shard says, which is nonsense if a writer is at it.
func (t *table) read(sh *shard, hash uint32, s *lb.Stream) (f found, ok bool) {
	_, at, ok := t.find(sh, hash, s)
	if !ok {
		return found{}, false
	}
	f.generation, f.stamp = t.words.load(at+wordGeneration), t.words.load(at+wordStamp)
	f.shared = t.terms.load(uint32(t.words.load(at + wordShared)))
	return f, f.shared != nil // it may go meanwhile
}

// find returns slot and item of a stream. It ends even when a writer moves slots
// about under it.
func (t *table) find(sh *shard, hash uint32, s *lb.Stream) (slot int, at uint32, ok bool) {
	slots := sh.load()
	for i, left := home(hash, len(slots)), len(slots); left > 0; i, left = after(i, len(slots)), left-1 {
		v := slots[i].Load()
		if v == 0 {
			break
		}
		if at := uint32(v) - 1; uint32(v>>32) == hash && t.is(at, s) {
			return i, at, true
		}
	}
	return 0, 0, false
}

// placement spells out what was found.
func (f *found) placement(s lb.Stream) lb.Placement {
	return lb.Placement{
		Stream: s, Origin: f.shared.origin.id, Incarnation: f.shared.incarnation,
		Generation: f.generation, PlacedAt: placedAt(f.stamp), Publishing: f.stamp&publishingBit != 0,
		Holders: f.shared.holders, IdleSince: f.shared.idleSince, Orphaned: f.shared.orphaned,
	}
}

// is reports whether an item is that of a stream.
func (t *table) is(at uint32, s *lb.Stream) bool {
	if t.words.load(at+wordStamp)&sizeMask != uint64(len(s.Name)) {
		return false
	}
	p := t.paths.load(uint32(t.words.load(at+wordShared) >> 32))
	return p != nil && p.app == s.App && p.vhost == s.VHost && t.words.holdText(at+wordName, s.Name)
}

func placedAt(stamp uint64) time.Time {
	if stamp>>16 == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(stamp >> 16)).UTC()
}

func stampOf(p lb.Placement) uint64 {
	stamp := uint64(len(p.Stream.Name))
	if !p.PlacedAt.IsZero() {
		stamp |= uint64(p.PlacedAt.UnixMilli()) << 16
	}
	if p.Publishing {
		stamp |= publishingBit
	}
	return stamp
}

// put records a placement, new or changed.
func (t *table) put(p lb.Placement, o *origin) {
	key := termsKey{
		origin: o, incarnation: p.Incarnation, count: len(p.Holders),
		idleSince: p.IdleSince.UnixMilli(), orphaned: p.Orphaned,
	}
	if len(p.Holders) > 0 {
		key.first = &p.Holders[0]
	}
	shared := t.terms.take(key, func() (termsKey, *terms) {
		return key, &terms{termsKey: key, holders: p.Holders, idleSince: p.IdleSince}
	})
	hash := t.hash(&p.Stream)
	sh := t.shard(hash)
	sh.beginWrite()
	defer sh.endWrite()
	if _, at, known := t.find(sh, uint32(hash), &p.Stream); known {
		was := t.words.load(at + wordShared)
		t.fill(at, p, was&^(1<<32-1)|uint64(shared))
		t.terms.giveBack(uint32(was))
		return
	}
	path := t.paths.take([2]string{p.Stream.VHost, p.Stream.App}, func() ([2]string, *path) {
		// Copies: the stream's may be part of a whole batch of commands.
		vhost, app := strings.Clone(p.Stream.VHost), strings.Clone(p.Stream.App)
		return [2]string{vhost, app}, &path{vhost, app}
	})
	at := t.words.take(wordName + wordsOf(len(p.Stream.Name)))
	t.words.storeText(at+wordName, p.Stream.Name)
	t.fill(at, p, uint64(path)<<32|uint64(shared))
	sh.add(uint32(hash), at)
	t.len.Add(1)
}

func (t *table) fill(at uint32, p lb.Placement, shared uint64) {
	t.words.store(at+wordGeneration, p.Generation)
	t.words.store(at+wordStamp, stampOf(p))
	t.words.store(at+wordShared, shared)
}

// remove forgets a stream and reports whether it was known.
func (t *table) remove(s lb.Stream) bool {
	hash := t.hash(&s)
	sh := t.shard(hash)
	sh.beginWrite()
	defer sh.endWrite()
	slot, at, known := t.find(sh, uint32(hash), &s)
	if !known {
		return false
	}
	sh.remove(slot)
	shared := t.words.load(at + wordShared)
	t.words.giveBack(at, wordName+wordsOf(len(s.Name)))
	t.paths.giveBack(uint32(shared >> 32))
	t.terms.giveBack(uint32(shared))
	t.len.Add(-1)
	return true
}

// streams returns all streams in no order.
func (t *table) streams() []lb.Stream {
	all := make([]lb.Stream, 0, t.len.Load())
	for i := range t.shards {
		t.shards[i].each(func(at uint32) {
			p := t.paths.load(uint32(t.words.load(at+wordShared) >> 32))
			size := int(t.words.load(at+wordStamp) & sizeMask)
			all = append(all, lb.Stream{VHost: p.vhost, App: p.app, Name: t.words.text(at+wordName, size)})
		})
	}
	return all
}
