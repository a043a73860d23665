package fsm

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// path is what the streams of one app have in common.
type path struct {
	vhost, app string
	hash       uint64 // of both, by the table's seed
	uses       int    // placements
}

// paths keeps one of each as long as a placement has it.
type paths struct {
	arena[path]
	numbers map[[2]string]uint32 // by vhost and app
}

// take returns the number of a path for one more placement.
func (p *paths) take(vhost, app string, t *table) uint32 {
	n, ok := p.numbers[[2]string{vhost, app}]
	if !ok {
		vhost, app = strings.Clone(vhost), strings.Clone(app)
		n = p.add(path{vhost: vhost, app: app, hash: spread(t.text(vhost), t.text(app))})
		p.numbers[[2]string{vhost, app}] = n
	}
	return p.again(n)
}

// again takes a number that is in use for one more placement.
func (p *paths) again(n uint32) uint32 { p.edit(n).uses++; return n }

func (p *paths) giveBack(n uint32) {
	if e := p.edit(n); e.uses > 1 {
		e.uses--
		return
	}
	delete(p.numbers, [2]string{p.at(n).vhost, p.at(n).app})
	p.remove(n)
}

// tenure is who holds a placement, or since when nobody does. Many placements
// have the same one.
type tenure struct {
	holders   []Holder // sorted; never changed
	idleSince int64    // unix ms; 0: held
	orphaned  bool
	uses      int // placements
}

// tenures keeps one of each as long as a placement has it.
type tenures struct {
	arena[tenure]
	numbers map[string]uint32 // by key
	scratch []byte            // for keys that are only looked up
}

// take returns the number of a tenure for one more placement.
func (t *tenures) take(v tenure) uint32 {
	t.scratch = v.appendKey(t.scratch[:0])
	n, ok := t.numbers[string(t.scratch)]
	if !ok {
		v.holders, v.uses = slices.Clone(v.holders), 0
		for i := range v.holders {
			v.holders[i].Peer = strings.Clone(v.holders[i].Peer)
		}
		n = t.add(v)
		t.numbers[string(t.scratch)] = n
	}
	return t.again(n)
}

// again takes a number that is in use for one more placement.
func (t *tenures) again(n uint32) uint32 { t.edit(n).uses++; return n }

func (t *tenures) giveBack(n uint32) {
	e := t.edit(n)
	if e.uses > 1 {
		e.uses--
		return
	}
	t.scratch = e.appendKey(t.scratch[:0])
	delete(t.numbers, string(t.scratch))
	t.remove(n)
}

func (v tenure) appendKey(b []byte) []byte {
	b = binary.AppendVarint(append(b, flags(v.orphaned)), v.idleSince)
	for _, h := range v.holders {
		b = appendHolder(b, h)
	}
	return b
}

func (v tenure) has(h Holder) bool {
	_, has := v.find(h)
	return has
}

func (v tenure) find(h Holder) (at int, has bool) {
	return slices.BinarySearchFunc(v.holders, h, Holder.compare)
}

// with returns the tenure when h holds too.
func (v tenure) with(h Holder) tenure {
	at, _ := v.find(h)
	return tenure{holders: slices.Insert(slices.Clone(v.holders), at, h)}
}

// without returns the tenure when h holds no more, which it did.
func (v tenure) without(h Holder, now int64) tenure {
	if len(v.holders) == 1 {
		return tenure{idleSince: max(now, 1)}
	}
	at, _ := v.find(h)
	return tenure{holders: slices.Delete(slices.Clone(v.holders), at, at+1)}
}

func (h Holder) compare(o Holder) int {
	return cmp.Or(cmp.Compare(h.Peer, o.Peer), cmp.Compare(h.Epoch, o.Epoch))
}
