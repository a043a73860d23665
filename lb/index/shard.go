package index

import (
	"sync"
	"sync/atomic"
)

// shard is one part of the table: open addressing with linear probing, the home
// of a hash being its share of the length, so that any length will do.
type shard struct {
	mu      sync.Mutex    // held by the writer, and by readers that had no luck
	version atomic.Uint32 // odd while a write is under way
	slots   atomic.Pointer[[]atomic.Uint64]
	used    int // of the writer
}

// A slot is hash << 32 | address of the item and 1; 0 is empty.
func slotOf(hash, at uint32) uint64 { return uint64(hash)<<32 | uint64(at+1) }

func (sh *shard) beginWrite() {
	sh.mu.Lock()
	sh.version.Add(1)
}

func (sh *shard) endWrite() {
	sh.version.Add(1)
	sh.mu.Unlock()
}

// each calls visit with the items while nobody writes.
func (sh *shard) each(visit func(at uint32)) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	slots := sh.load()
	for i := range slots {
		if s := slots[i].Load(); s != 0 {
			visit(uint32(s) - 1)
		}
	}
}

func (sh *shard) load() []atomic.Uint64 {
	if slots := sh.slots.Load(); slots != nil {
		return *slots
	}
	return nil
}

func home(hash uint32, length int) int { return int(uint64(hash) * uint64(length) >> 32) }

func after(i, length int) int {
	if i++; i == length {
		return 0
	}
	return i
}

// add puts in an item that is not there.
func (sh *shard) add(hash, at uint32) {
	slots := sh.load()
	if (sh.used+1)*5 > len(slots)*4 {
		old := slots
		slots = make([]atomic.Uint64, len(old)+len(old)/4+8) // 64 to 80 % full
		for i := range old {
			if s := old[i].Load(); s != 0 {
				fill(slots, s)
			}
		}
		sh.slots.Store(&slots)
	}
	fill(slots, slotOf(hash, at))
	sh.used++
}

func fill(slots []atomic.Uint64, s uint64) {
	i := home(uint32(s>>32), len(slots))
	for slots[i].Load() != 0 {
		i = after(i, len(slots))
	}
	slots[i].Store(s)
}

// remove empties a slot and moves back what it had pushed away.
func (sh *shard) remove(i int) {
	slots := sh.load()
	sh.used--
	for j := after(i, len(slots)); ; j = after(j, len(slots)) {
		s := slots[j].Load()
		if s == 0 {
			break
		}
		h := home(uint32(s>>32), len(slots))
		stays := i < h && h <= j // it stands between its home and i
		if i > j {
			stays = i < h || h <= j
		}
		if !stays {
			slots[i].Store(s)
			i = j
		}
	}
	slots[i].Store(0)
}
