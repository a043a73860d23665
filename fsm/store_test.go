package fsm

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
)

// seeded returns a source of randomness and tells the seed.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := maphash.Bytes(maphash.MakeSeed(), nil)
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// TestTableFindsWhatIsThere crowds one part with hashes whose homes lie side by
// side, the last of the slots included.
func TestTableFindsWhatIsThere(t *testing.T) {
	random := seeded(t)
	tab := table{seed: maphash.MakeSeed()}
	hashOf := func(n uint32) uint64 { // few homes, at the end and in the middle
		return []uint64{0xffffffff, 0xfffffff0, 0xe0000000, 0x7fffffff, 0}[n%5]
	}
	there := make(map[uint32]bool)
	for range 20_000 {
		n := random.Uint32N(40)
		if there[n] {
			tab.remove(hashOf(n), n)
		} else {
			tab.add(hashOf(n), n)
		}
		there[n] = !there[n]
		for n := range uint32(40) {
			if _, ok := tab.find(hashOf(n), func(record uint32) bool { return record == n }); ok != there[n] {
				t.Fatalf("find(%d) = %v; want %v", n, ok, there[n])
			}
		}
	}
}

// longName is the i-th of names of every length.
func longName(i int) string { return strings.Repeat("n", i%(MaxPart/2)) + strconv.Itoa(i) }

// TestSnapshotStandsStill: whatever happens after a snapshot was taken, in it is
// what was there then, though places and pages are used again.
func TestSnapshotStandsStill(t *testing.T) {
	s := started(Limits{})
	const many = 3 * pageSize
	for i := range many {
		c := placeOn("a", longName(i))
		c.Stream.App, c.Holder.Epoch = fmt.Sprint("app", i%7), uint64(i%5)
		log(s, c)
	}
	before := snapshotOf(t, s)
	snapshot := s.Snapshot()
	for i := range many {
		old := Stream{VHost: DefaultVHost, App: fmt.Sprint("app", i%7), Name: longName(i)}
		switch i % 4 {
		case 0:
			next := placeOn("b", strings.ToUpper(old.Name))
			next.Stream.App = "elsewhere" + strconv.Itoa(i%7)
			log(s, Forget{old}, next)
		case 1:
			log(s, Move{old, "b", run("1")})
		case 2:
			log(s, Place{Stream: old, Holder: Holder{"new", uint64(i)}, Publish: true})
		case 3:
			p, _ := s.Placement(old)
			log(s, Release{old, p.Generation, p.Holders[0]})
		}
	}
	log(s, RemoveOrigin{"a"}, PutOrigin{Origin: origin("c")})
	var after bytes.Buffer
	if _, err := snapshot.WriteTo(&after); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after.Bytes()) {
		t.Error("the snapshot changed after it was taken")
	}
}

// TestSnapshotIsReadWhileTheStateGoesOn is for the race detector above all.
func TestSnapshotIsReadWhileTheStateGoesOn(t *testing.T) {
	random := seeded(t)
	s := started(Limits{})
	for range 20 {
		snapshot := s.Snapshot()
		var want, got bytes.Buffer
		_, _ = snapshot.WriteTo(&want)
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = snapshot.WriteTo(&got)
		}()
		for reading := true; reading; {
			for range 100 {
				log(s, randomCommand(random, s))
			}
			select {
			case <-read:
				reading = false
			default:
			}
		}
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Fatal("the snapshot changed while it was read")
		}
	}
}

// TestMemoryIsUsedAgain: what comes and goes takes no more memory than what is
// there at one time, and when all is gone none is left.
func TestMemoryIsUsedAgain(t *testing.T) {
	s := started(Limits{})
	log(s, placeOn("a", "stays"))
	const many = 2000
	stream := func(i int) Stream {
		return Stream{VHost: "v" + strconv.Itoa(i/3), App: "app" + strconv.Itoa(i/2), Name: longName(i)}
	}
	place := func(i int) Place {
		return Place{Stream: stream(i), Origin: "a", Incarnation: run("1"), Holder: Holder{"p", uint64(i % 100)}}
	}
	for i := range many {
		log(s, place(i))
	}
	st := &s.placed
	numbers := func() [4]int {
		return [4]int{int(st.records.used), len(st.names.pages), int(st.paths.used), int(st.tenures.used)}
	}
	full := numbers()
	for i := range 10 * many {
		p, _ := s.Placement(stream(i))
		log(s, place(i+1), Release{stream(i), p.Generation, p.Holders[0]}, Forget{stream(i)}, place(i+many))
	}
	now := numbers()
	for i, what := range []string{"records", "pages of names", "paths", "tenures"} {
		if now[i] > full[i]+full[i]/4+2 {
			t.Errorf("%d %s after churn; want about %d as before", now[i], what, full[i])
		}
	}
	if got := len(s.expiry.idle.items); got > 100 {
		t.Errorf("%d placements wait to expire; none is idle", got)
	}
	log(s, RemoveOrigin{"a"})
	if left := numbers(); left != [4]int{} || len(st.vhosts) != 0 {
		t.Errorf("%v and %d vhosts are left of nothing", left, len(st.vhosts))
	}
}

// TestReplayIsDeterministic: a log gives two machines the same bytes, though one
// of them was restarted from a snapshot on the way.
func TestReplayIsDeterministic(t *testing.T) {
	random := seeded(t)
	one, two := started(Limits{Placements: 300}), started(Limits{Placements: 300})
	for entry := range 400 {
		var batch []Command
		for range 1 + random.IntN(30) {
			batch = append(batch, randomCommand(random, one))
		}
		at, batch, err := DecodeBatch(AppendBatch(nil, epoch.Add(time.Duration(random.Int64N(int64(OrphanAfter)))), batch))
		if err != nil {
			t.Fatal(err)
		}
		index := one.Index() + 1 + random.Uint64N(3)
		one.Apply(index, at, batch...)
		two.Apply(index, at, batch...)
		if random.IntN(20) == 0 {
			if two, err = Restore(bytes.NewReader(snapshotOf(t, two)), Limits{Placements: 300}); err != nil {
				t.Fatal(err)
			}
		}
		if one.Hash() != two.Hash() {
			t.Fatalf("the hashes differ after entry %d", entry)
		}
	}
	same(t, two, one)
	if !bytes.Equal(snapshotOf(t, one), snapshotOf(t, two)) {
		t.Error("the snapshots differ")
	}
}

func randomCommand(random *rand.Rand, s *State) Command {
	stream := named(longName(random.IntN(500)))
	p, _ := s.Placement(stream)
	id := OriginID([]string{"a", "b", "c"}[random.IntN(3)])
	h := Holder{Peer: []string{"p", "q"}[random.IntN(2)], Epoch: random.Uint64N(2)}
	switch random.IntN(30) {
	default:
		return Place{Stream: stream, Origin: id, Incarnation: run("1"), Holder: h, Publish: random.IntN(2) == 0}
	case 1, 2, 3:
		return Release{Stream: stream, Generation: p.Generation, Holder: h}
	case 4, 5:
		return Expire{Stream: stream, Generation: p.Generation}
	case 6:
		return Unpublish{Stream: stream, Generation: p.Generation}
	case 7:
		return Undo{Stream: stream, Generation: p.Generation, Holder: h}
	case 8:
		return Move{Stream: stream, To: id, Incarnation: run("1")}
	case 9:
		return Forget{Stream: stream}
	case 10:
		return PeerGone{Holder: h}
	case 11:
		return PutOrigin{Origin: but(string(id), func(o *Origin) { o.Weight = random.Uint32N(5) })}
	case 12:
		return SetUp{ID: id, Incarnation: run("1"), Up: random.IntN(4) > 0}
	case 13:
		if random.IntN(10) == 0 {
			return RemoveOrigin{ID: id}
		}
		return Ready{ID: id}
	}
}
