package fsm

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"time"
)

// model is the rules once more, in the plainest way: maps, copied whole. It
// knows nothing of pages, tables, lists or queues.
type model struct {
	limits   Limits
	sequence uint64
	now      time.Time
	cluster  Cluster
	origins  map[OriginID]Origin
	placed   map[Stream]Placement
}

func (m *model) clone() *model {
	c := *m
	c.origins, c.placed = maps.Clone(m.origins), maps.Clone(m.placed)
	return &c
}

func (m *model) placements() []Placement {
	return slices.SortedFunc(maps.Values(m.placed), func(a, b Placement) int { return a.Stream.Compare(b.Stream) })
}

func (m *model) streamsOn(id OriginID) (n int) {
	for _, p := range m.placed {
		if p.Origin == id {
			n++
		}
	}
	return n
}

func (m *model) usable(id OriginID, inc Incarnation) error {
	o, ok := m.origins[id]
	switch {
	case !ok:
		return ErrUnknownOrigin
	case o.Incarnation != inc:
		return ErrStale
	case o.State == Down:
		return ErrOriginDown
	case o.State == Draining:
		return ErrDraining
	case o.MaxStreams > 0 && m.streamsOn(id) >= int(o.MaxStreams):
		return ErrFull
	}
	return nil
}

func (m *model) full(vhost string) bool {
	inVHost := 0
	for s := range m.placed {
		if s.VHost == vhost {
			inVHost++
		}
	}
	return m.limits.Placements > 0 && len(m.placed) >= m.limits.Placements ||
		m.limits.PlacementsPerVHost > 0 && inVHost >= m.limits.PlacementsPerVHost
}

func (m *model) dropOn(id OriginID) {
	maps.DeleteFunc(m.placed, func(_ Stream, p Placement) bool { return p.Origin == id })
}

func (m *model) letGo(p Placement, h Holder, lost bool) {
	if !slices.Contains(p.Holders, h) {
		return
	}
	p.Holders = slices.DeleteFunc(slices.Clone(p.Holders), func(o Holder) bool { return o == h })
	if len(p.Holders) == 0 {
		p.Holders, p.IdleSince, p.Orphaned = nil, m.now, lost
	}
	m.placed[p.Stream] = p
}

func (m *model) expired(p Placement, now time.Time) bool {
	keep := ReleaseAfter
	if p.Orphaned {
		keep = OrphanAfter
	}
	return len(p.Holders) == 0 && now.Sub(p.IdleSince) >= keep
}

// apply applies one command and returns the refusal.
func (m *model) apply(c Command) error {
	m.sequence++
	switch c := c.(type) {
	case Place:
		return m.place(c)
	case Move:
		return m.move(c)
	case Unpublish:
		if p, ok := m.placed[c.Stream]; ok && p.Generation == c.Generation {
			p.Publishing = false
			m.placed[c.Stream] = p
		}
	case Release:
		if p, ok := m.placed[c.Stream]; ok && p.Generation == c.Generation {
			m.letGo(p, c.Holder, false)
		}
	case Undo:
		p, ok := m.placed[c.Stream]
		if !ok || p.Generation != c.Generation {
			break
		}
		if m.letGo(p, c.Holder, false); slices.Contains(p.Holders, c.Holder) && len(p.Holders) == 1 {
			delete(m.placed, c.Stream)
		}
	case Expire:
		p, ok := m.placed[c.Stream]
		if !ok || p.Generation != c.Generation {
			break
		}
		if !m.expired(p, m.now) {
			return ErrStale
		}
		delete(m.placed, c.Stream)
	case PeerGone:
		for _, p := range m.placements() {
			m.letGo(p, c.Holder, true)
		}
	case Forget:
		if _, ok := m.placed[c.Stream]; !ok {
			return ErrUnknownStream
		}
		delete(m.placed, c.Stream)
	case Found:
		if m.cluster.ID == "" {
			m.cluster = Cluster(c)
		}
	default:
		return m.applyToOrigin(c)
	}
	return nil
}

func (m *model) place(c Place) error {
	p, placed := m.placed[c.Stream]
	if placed && m.origins[p.Origin].State != Down {
		if !slices.Contains(p.Holders, c.Holder) {
			p.Holders = append(slices.Clone(p.Holders), c.Holder)
			slices.SortFunc(p.Holders, func(a, b Holder) int {
				return cmp.Or(cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Epoch, b.Epoch))
			})
		}
		p.Publishing = p.Publishing || c.Publish
		p.IdleSince, p.Orphaned = time.Time{}, false
		m.placed[c.Stream] = p
		return nil
	}
	if err := m.usable(c.Origin, c.Incarnation); err != nil {
		return err
	}
	if !placed && m.full(c.Stream.VHost) {
		return ErrFull
	}
	m.placed[c.Stream] = Placement{
		Stream: c.Stream, Origin: c.Origin, Incarnation: c.Incarnation, Generation: m.sequence,
		PlacedAt: m.now, Publishing: c.Publish, Holders: []Holder{c.Holder},
	}
	return nil
}

func (m *model) move(c Move) error {
	p, ok := m.placed[c.Stream]
	if !ok {
		return ErrUnknownStream
	}
	if p.Origin == c.To && p.Incarnation == c.Incarnation {
		return nil
	}
	if err := m.usable(c.To, c.Incarnation); err != nil {
		return err
	}
	m.placed[c.Stream] = Placement{
		Stream: c.Stream, Origin: c.To, Incarnation: c.Incarnation, Generation: m.sequence,
		PlacedAt: m.now, IdleSince: m.now,
	}
	return nil
}

func (m *model) applyToOrigin(c Command) error {
	if put, ok := c.(PutOrigin); ok {
		return m.put(put.Origin)
	}
	id := OriginID(reflect.ValueOf(c).FieldByName("ID").String())
	o, ok := m.origins[id]
	if !ok {
		return ErrUnknownOrigin
	}
	switch c := c.(type) {
	case SetUp:
		if o.Incarnation != c.Incarnation {
			return ErrStale
		}
		switch {
		case !c.Up:
			o.State = Down
		case o.State == Down:
			o.State, o.UpSince = Up, m.now
			if !o.DrainUntil.IsZero() {
				o.State = Draining
			}
		}
	case Drain:
		if o.DrainUntil = c.Until; c.Until.IsZero() {
			o.DrainUntil = forever
		}
		if o.State == Up {
			o.State = Draining
		}
	case DrainOver:
		if o.DrainUntil.IsZero() || o.DrainUntil.Equal(forever) || m.now.Before(o.DrainUntil) {
			return ErrStale
		}
		o.DrainUntil = forever
		m.dropOn(id)
	case Ready:
		if o.DrainUntil = (time.Time{}); o.State == Draining {
			o.State = Up
		}
	case Weigh:
		o.Weight, o.WeightPinned = c.Weight, true
	case RemoveOrigin:
		m.dropOn(id)
		delete(m.origins, id)
		return nil
	}
	m.origins[id] = o
	return nil
}

func (m *model) put(o Origin) error {
	old, known := m.origins[o.ID]
	switch {
	case !known && m.limits.Origins > 0 && len(m.origins) >= m.limits.Origins:
		return ErrFull
	case !known:
		o.State, o.UpSince = Up, m.now
	case old.Incarnation == o.Incarnation:
		o.State, o.UpSince, o.DrainUntil = old.State, old.UpSince, old.DrainUntil
	default:
		m.dropOn(o.ID)
		o.State, o.UpSince, o.DrainUntil = Up, m.now, old.DrainUntil
		if !old.DrainUntil.IsZero() {
			o.State = Draining
		}
	}
	if old.WeightPinned {
		o.Weight, o.WeightPinned = old.Weight, true
	}
	m.origins[o.ID] = o
	return nil
}
