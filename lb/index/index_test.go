package index

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"srsx/fsm"
	"srsx/lb"
)

var start = time.UnixMilli(1_700_000_000_000).UTC()

func origins(ids ...lb.OriginID) []lb.Origin {
	var all []lb.Origin
	for _, id := range ids {
		all = append(all, lb.Origin{ID: id, Incarnation: lb.Incarnation{Server: string(id), PID: "1"}, Weight: lb.DefaultWeight})
	}
	return all
}

func stream(i int) lb.Stream {
	return lb.Stream{VHost: lb.DefaultVHost, App: fmt.Sprint("app", i%3), Name: strings.Repeat("x", i%20) + strconv.Itoa(i)}
}

func place(i int, id lb.OriginID) fsm.Place {
	return fsm.Place{
		Stream: stream(i), Origin: id, Incarnation: lb.Incarnation{Server: string(id), PID: "1"},
		Holder: lb.Holder{Peer: "p", Epoch: 1}, Publish: i%2 == 0,
	}
}

// follower is a state and an index that follows it.
type follower struct {
	state *fsm.State
	index *Index
}

func follow(ids ...lb.OriginID) *follower {
	f := &follower{fsm.NewState(fsm.Limits{}), New()}
	for _, o := range origins(ids...) {
		f.apply(fsm.PutOrigin{Origin: o})
	}
	return f
}

func (f *follower) apply(commands ...fsm.Command) {
	for _, r := range f.state.Apply(f.state.Index()+1, start.Add(time.Duration(f.state.Index())*time.Second), commands...) {
		for _, c := range r.Changes {
			f.index.Follow(f.state, c)
		}
	}
}

// agree fails unless an index says what a state says.
func agree(t *testing.T, x *Index, s *fsm.State) {
	t.Helper()
	if got, want := x.Len(), s.Len(); got != want {
		t.Errorf("Len = %d; want %d", got, want)
	}
	if got, want := x.Origins(), s.Origins(); !reflect.DeepEqual(got, want) {
		t.Errorf("Origins = %v; want %v", got, want)
	}
	want := slices.SortedFunc(s.Placements(), func(a, b lb.Placement) int { return a.Stream.Compare(b.Stream) })
	if got := slices.Collect(x.Placements()); !reflect.DeepEqual(got, want) {
		t.Errorf("Placements = %+v; want %+v", got, want)
	}
	for _, p := range want {
		got, o, ok := x.Lookup(p.Stream)
		if wantOrigin, _ := s.Origin(p.Origin); !ok || !reflect.DeepEqual(got, p) || !reflect.DeepEqual(o, wantOrigin) {
			t.Errorf("Lookup(%s) = %+v, %+v, %v; want %+v, %+v", p.Stream, got, o, ok, p, wantOrigin)
		}
	}
}

func TestIndexFollowsEveryCommand(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	f := follow("a", "b", "c")
	pick := func() lb.OriginID { return lb.OriginID("abc"[random.IntN(3)]) }
	for range 800 {
		i, id := random.IntN(60), pick()
		s, inc := stream(i), lb.Incarnation{Server: string(id), PID: "1"}
		p, _ := f.state.Placement(s)
		var batch []fsm.Command
		for range 1 + random.IntN(3) {
			switch random.IntN(12) {
			case 0, 1, 2:
				c := place(i, id)
				c.Holder.Epoch = random.Uint64N(3)
				batch = append(batch, c)
			case 3:
				batch = append(batch, fsm.Release{Stream: s, Generation: p.Generation, Holder: lb.Holder{Peer: "p", Epoch: 1}})
			case 4:
				batch = append(batch, fsm.Unpublish{Stream: s, Generation: p.Generation})
			case 5:
				batch = append(batch, fsm.Move{Stream: s, To: id, Incarnation: inc})
			case 6:
				batch = append(batch, fsm.Forget{Stream: s})
			case 7:
				batch = append(batch, fsm.PeerGone{Holder: lb.Holder{Peer: "p", Epoch: random.Uint64N(3)}})
			case 8:
				batch = append(batch, fsm.SetUp{ID: id, Incarnation: inc, Up: random.IntN(3) > 0})
			case 9:
				batch = append(batch, fsm.Expire{Stream: s, Generation: p.Generation})
			case 10:
				// In one entry: followers see only what it comes to.
				batch = append(batch, fsm.RemoveOrigin{ID: id}, fsm.PutOrigin{Origin: origins(id)[0]}, place(i, id))
			case 11:
				batch = append(batch, fsm.Found{ID: "cluster"})
			}
		}
		f.apply(batch...)
		if _, ok := f.state.Origin(id); !ok {
			f.apply(fsm.PutOrigin{Origin: origins(id)[0]})
		}
		if agree(t, f.index, f.state); t.Failed() {
			t.Fatalf("after %+v", batch)
		}
	}
	for i := range 60 {
		f.apply(fsm.Forget{Stream: stream(i)})
	}
	agree(t, f.index, f.state)
}

func TestLookupOfWhatIsNotThere(t *testing.T) {
	f := follow("a")
	if _, _, ok := f.index.Lookup(stream(1)); ok {
		t.Error("an empty index found a stream")
	}
	f.apply(place(1, "a"))
	there := stream(1)
	for _, s := range []lb.Stream{
		{VHost: there.VHost, App: there.App, Name: there.Name + "1"},
		{VHost: there.VHost, App: there.App, Name: there.Name[1:]},
		{VHost: there.VHost, App: "other", Name: there.Name},
		{VHost: "other", App: there.App, Name: there.Name},
		{VHost: there.App, App: there.VHost, Name: there.Name},
	} {
		if p, _, ok := f.index.Lookup(s); ok {
			t.Errorf("Lookup(%s) = %+v; want nothing", s, p)
		}
	}
	if _, ok := f.index.Origin("b"); ok {
		t.Error("an unknown origin was found")
	}
	f.index.Remove(stream(2))
	agree(t, f.index, f.state)
}

func TestPlacementOfUnknownOriginIsNotShown(t *testing.T) {
	x := New()
	x.Put(lb.Placement{Stream: stream(1), Origin: "a", Generation: 1})
	if _, _, ok := x.Lookup(stream(1)); ok || x.Len() != 0 {
		t.Error("a placement was shown without its origin")
	}
	x.RemoveOrigin("a")
}

func TestResetTakesTheWholeState(t *testing.T) {
	f := follow("a", "b")
	for i := range 5000 {
		f.apply(place(i, "a"))
	}
	other := follow("b", "c")
	for i := range 1500 {
		other.apply(place(i*2, "c"))
	}
	f.index.Reset(other.state)
	agree(t, f.index, other.state)
	other.index = f.index
	other.apply(place(1, "b"))
	agree(t, f.index, other.state)
	f.index.Reset(fsm.NewState(fsm.Limits{}))
	agree(t, f.index, fsm.NewState(fsm.Limits{}))
}

// TestMemoryIsUsedAgain: names that come and go take no more than those that
// are there at one time, whatever their length.
func TestMemoryIsUsedAgain(t *testing.T) {
	f := follow("a")
	f.apply(place(1_000_000, "a")) // never empty, so nothing is simply thrown away
	const at = 3000
	for i := range at {
		f.apply(place(i, "a"))
	}
	full := len(*f.index.table.Load().words.pages.Load())
	for i := range 5 * at {
		held := place(i+at, "a")
		held.Holder.Epoch = uint64(i) // and so are holders
		other := fsm.Place{Stream: lb.Stream{VHost: "v", App: strconv.Itoa(i), Name: "s"}, Origin: "a", Incarnation: held.Incarnation}
		f.apply(fsm.Forget{Stream: stream(i)}, held)
		f.apply(place(i+at, "a")) // held by two
		f.apply(fsm.PeerGone{Holder: held.Holder})
		f.apply(other)
		f.apply(fsm.Forget{Stream: other.Stream})
	}
	if terms, paths := len(f.index.table.Load().terms.entries), len(f.index.table.Load().paths.entries); terms > 10 || paths > 10 {
		t.Errorf("%d terms and %d paths; want the few that were there at one time", terms, paths)
	}
	if now := len(*f.index.table.Load().words.pages.Load()); now > full+1 {
		t.Errorf("%d pages; want %d as before", now, full)
	}
	agree(t, f.index, f.state)
}

// TestReadersSeeWholePlacements: all that a reader gets at once was put at once,
// however fast the writer changes, removes and reuses.
func TestReadersSeeWholePlacements(t *testing.T) {
	x := New()
	for _, o := range origins("o0", "o1", "o2", "o3", "o4", "o5", "o6") {
		x.PutOrigin(o)
	}
	holders := make([][]lb.Holder, 5)
	for i := range holders {
		holders[i] = []lb.Holder{{Peer: "p", Epoch: uint64(i)}}
	}
	// of is the placement of generation g, every field of which follows from g.
	of := func(s lb.Stream, g uint64) lb.Placement {
		id := lb.OriginID(fmt.Sprint("o", g%7))
		return lb.Placement{
			Stream: s, Origin: id, Incarnation: lb.Incarnation{Server: string(id), PID: "1"}, Generation: g,
			PlacedAt: time.UnixMilli(int64(g)).UTC(), Publishing: g%2 == 0, Holders: holders[g%5], Orphaned: g%3 == 0,
		}
	}
	const streams = 64
	var running atomic.Bool
	running.Store(true)
	var readers sync.WaitGroup
	var found atomic.Int64
	for r := range 4 {
		readers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(r), 1))
			for running.Load() {
				s := stream(random.IntN(streams))
				p, o, ok := x.Lookup(s)
				if !ok {
					continue
				}
				found.Add(1)
				if want := of(s, p.Generation); !reflect.DeepEqual(p, want) || o.ID != want.Origin {
					t.Errorf("Lookup = %+v on %s; want %+v", p, o.ID, want)
					return
				}
			}
		})
	}
	readers.Go(func() {
		for running.Load() {
			for p := range x.Placements() {
				if want := of(p.Stream, p.Generation); !reflect.DeepEqual(p, want) {
					t.Errorf("Placements gave %+v; want %+v", p, want)
					return
				}
			}
		}
	})
	random := rand.New(rand.NewPCG(9, 9))
	for g := uint64(1); g < 50_000 && !t.Failed(); g++ {
		if s := stream(random.IntN(streams)); random.IntN(3) == 0 {
			x.Remove(s)
		} else {
			x.Put(of(s, g))
		}
	}
	running.Store(false)
	readers.Wait()
	if found.Load() == 0 {
		t.Error("the readers found nothing to check")
	}
}
