package fsm

import "hash/maphash"

// slices of the table; each grows by itself, so that growing never takes long.
const tableParts = 256

// table finds placements by the hash of their stream: open addressing with
// linear probing, the home of a hash being its share of the length, so that a
// part may have any length. The seed is random: no client can make names that
// collide, and nothing that peers agree on depends on it.
type table struct {
	seed  maphash.Seed
	parts [tableParts]part
}

type part struct {
	slots []slot
	used  int
}

// slot is empty when record is 0.
type slot struct {
	hash   uint32
	record uint32 // number of the record and 1
}

// spread mixes the hash of a path and of a name.
func spread(path, name uint64) uint64 {
	x := (path ^ name>>32 ^ name<<32) * 0x9e3779b97f4a7c15
	return x ^ x>>29
}

func (t *table) text(s string) uint64 { return maphash.String(t.seed, s) }

func (t *table) part(hash uint64) *part { return &t.parts[hash>>56] }

func (p *part) home(hash uint32) int {
	return int(uint64(hash) * uint64(len(p.slots)) >> 32)
}

func (p *part) after(i int) int {
	if i++; i == len(p.slots) {
		return 0
	}
	return i
}

// find returns the record under a hash that is the one meant.
func (t *table) find(hash uint64, meant func(record uint32) bool) (record uint32, ok bool) {
	p := t.part(hash)
	if len(p.slots) == 0 {
		return 0, false
	}
	short := uint32(hash)
	for i := p.home(short); p.slots[i].record != 0; i = p.after(i) {
		if s := p.slots[i]; s.hash == short && meant(s.record-1) {
			return s.record - 1, true
		}
	}
	return 0, false
}

// add puts in a record that is not there.
func (t *table) add(hash uint64, record uint32) {
	p := t.part(hash)
	if (p.used+1)*5 > len(p.slots)*4 {
		p.grow()
	}
	p.put(slot{uint32(hash), record + 1})
	p.used++
}

func (p *part) put(s slot) {
	i := p.home(s.hash)
	for p.slots[i].record != 0 {
		i = p.after(i)
	}
	p.slots[i] = s
}

// grow adds a quarter: a part is between 64 and 80 % full.
func (p *part) grow() {
	old := p.slots
	p.slots = make([]slot, len(old)+len(old)/4+8)
	for _, s := range old {
		if s.record != 0 {
			p.put(s)
		}
	}
}

// remove takes out a record that is there.
func (t *table) remove(hash uint64, record uint32) {
	p := t.part(hash)
	i := p.home(uint32(hash))
	for p.slots[i].record != record+1 {
		i = p.after(i)
	}
	if p.used--; p.used == 0 {
		p.slots = nil
		return
	}
	p.close(i)
}

// close moves back what the emptied slot i had pushed away.
func (p *part) close(i int) {
	for j := p.after(i); p.slots[j].record != 0; j = p.after(j) {
		home := p.home(p.slots[j].hash)
		stays := i < home && home <= j // it stands between its home and i
		if i > j {
			stays = i < home || home <= j
		}
		if !stays {
			p.slots[i] = p.slots[j]
			i = j
		}
	}
	p.slots[i] = slot{}
}
