package fsm

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The generators draw from few values, so that commands meet.
func drawStream(t *rapid.T) Stream {
	n := rapid.IntRange(0, 40).Draw(t, "stream")
	return Stream{
		VHost: []string{DefaultVHost, "v"}[n%2], App: "app" + strconv.Itoa(n%3),
		Name: string(bytes.Repeat([]byte{'n'}, n)) + strconv.Itoa(n),
	}
}

func drawID(t *rapid.T) OriginID {
	return rapid.SampledFrom([]OriginID{"a", "b", "c"}).Draw(t, "origin")
}

func drawRun(t *rapid.T) Incarnation {
	return run(rapid.SampledFrom([]string{"1", "1", "1", "2"}).Draw(t, "run"))
}

func drawHolder(t *rapid.T) Holder {
	return Holder{Peer: rapid.SampledFrom([]string{"p", "q"}).Draw(t, "peer"), Epoch: rapid.Uint64Range(1, 2).Draw(t, "epoch")}
}

// drawCommand draws a command; generations are mostly those of the model.
func drawCommand(t *rapid.T, m *model) Command {
	s := drawStream(t)
	generation := m.placed[s].Generation
	if rapid.IntRange(0, 9).Draw(t, "stale") == 0 {
		generation--
	}
	switch rapid.IntRange(0, 25).Draw(t, "command") {
	default:
		return Place{Stream: s, Origin: drawID(t), Incarnation: drawRun(t), Holder: drawHolder(t), Publish: rapid.Bool().Draw(t, "publish")}
	case 1, 2, 3:
		return Release{Stream: s, Generation: generation, Holder: drawHolder(t)}
	case 4:
		return Unpublish{Stream: s, Generation: generation}
	case 5:
		return Undo{Stream: s, Generation: generation, Holder: drawHolder(t)}
	case 6, 7:
		return Expire{Stream: s, Generation: generation}
	case 8:
		return PeerGone{Holder: drawHolder(t)}
	case 9:
		return Move{Stream: s, To: drawID(t), Incarnation: drawRun(t)}
	case 10:
		return Forget{Stream: s}
	case 11, 12, 13:
		o := origin(string(drawID(t)))
		o.Incarnation, o.MaxStreams = drawRun(t), rapid.Uint32Range(0, 12).Draw(t, "cap")
		return PutOrigin{Origin: o}
	case 14, 15:
		return SetUp{ID: drawID(t), Incarnation: drawRun(t), Up: rapid.IntRange(0, 3).Draw(t, "up") > 0}
	case 16:
		return Drain{ID: drawID(t), Until: rapid.SampledFrom([]time.Time{{}, m.now, m.now.Add(time.Minute)}).Draw(t, "until")}
	case 17:
		return DrainOver{ID: drawID(t)}
	case 18, 19:
		return Ready{ID: drawID(t)}
	case 20:
		return Weigh{ID: drawID(t), Weight: rapid.Uint32Range(0, 300).Draw(t, "weight")}
	case 21:
		return RemoveOrigin{ID: drawID(t)}
	case 22:
		return Found{ID: rapid.SampledFrom([]string{"one", "two"}).Draw(t, "id"), Secret: Secret{byte(len(m.placed))}}
	}
}

// machine is a state beside its model, and a snapshot taken earlier.
type machine struct {
	state *State
	model *model

	snapshot *Snapshot
	then     *model // when the snapshot was taken
}

func (m *machine) step(t *rapid.T) {
	m.model.now = m.model.now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 5000, 200_000}).Draw(t, "ms")) * time.Millisecond)
	// As in a log, a batch is proposed without knowing what it will do.
	var batch []Command
	for range rapid.IntRange(1, 8).Draw(t, "batch") {
		batch = append(batch, drawCommand(t, m.model))
	}
	for i, r := range m.state.Apply(m.state.Index()+1, m.model.now, batch...) {
		if want := m.model.apply(batch[i]); !errors.Is(r.Err, want) {
			t.Fatalf("%T%+v = %v; want %v", batch[i], batch[i], r.Err, want)
		} else if r.Err != nil && len(r.Changes) > 0 {
			t.Fatalf("%T%+v was refused and changed %+v", batch[i], batch[i], r.Changes)
		}
	}
}

func (m *machine) takeSnapshot(*rapid.T) { m.snapshot, m.then = m.state.Snapshot(), m.model.clone() }

// readSnapshot reads a snapshot while the state has gone on.
func (m *machine) readSnapshot(t *rapid.T) {
	if m.snapshot == nil {
		t.Skip("none taken")
	}
	agreeWith(t, m.restored(t, m.snapshot), m.then)
}

// restart goes on from a snapshot of now.
func (m *machine) restart(t *rapid.T) { m.state = m.restored(t, m.state.Snapshot()) }

func (m *machine) restored(t *rapid.T, snapshot *Snapshot) *State {
	var b bytes.Buffer
	if _, err := snapshot.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	s, err := Restore(&b, m.model.limits)
	if err != nil {
		t.Fatal(err)
	}
	if s.Hash() != snapshot.Hash() {
		t.Fatal("the hash of what was restored differs")
	}
	return s
}

func agreeWith(t *rapid.T, s *State, m *model) {
	if got, want := placements(s), m.placements(); !slices.EqualFunc(got, want, func(a, b Placement) bool { return reflect.DeepEqual(a, b) }) {
		t.Fatalf("placements = %+v; want %+v", got, want)
	}
	origins := slices.SortedFunc(maps.Values(m.origins), func(a, b Origin) int { return cmp.Compare(a.ID, b.ID) })
	if got := s.Origins(); !slices.EqualFunc(got, origins, func(a, b Origin) bool { return reflect.DeepEqual(a, b) }) {
		t.Fatalf("origins = %+v; want %+v", got, origins)
	}
	for _, o := range origins {
		if got, want := s.StreamsOn(o.ID), m.streamsOn(o.ID); got != want {
			t.Fatalf("streams on %s = %d; want %d", o.ID, got, want)
		}
	}
	for n := range 41 {
		stream := Stream{
			VHost: []string{DefaultVHost, "v"}[n%2], App: "app" + strconv.Itoa(n%3),
			Name: string(bytes.Repeat([]byte{'n'}, n)) + strconv.Itoa(n),
		}
		got, ok := s.Placement(stream)
		if want, known := m.placed[stream]; ok != known || known && !reflect.DeepEqual(got, want) {
			t.Fatalf("Placement(%s) = %+v, %v; want %+v, %v", stream, got, ok, want, known)
		}
	}
	if c, _ := s.Cluster(); c != m.cluster || s.Sequence() != m.sequence || s.Len() != len(m.placed) {
		t.Fatalf("cluster %v, sequence %d, len %d; want %v, %d, %d", c.ID, s.Sequence(), s.Len(), m.cluster.ID, m.sequence, len(m.placed))
	}
	agreeOnDue(t, s, m)
}

// agreeOnDue compares what is due then and later with what the model would let
// expire; the order is that of time.
func agreeOnDue(t *rapid.T, s *State, m *model) {
	for _, now := range []time.Time{m.now, m.now.Add(ReleaseAfter), m.now.Add(OrphanAfter)} {
		want := make(map[Command]bool)
		for _, o := range m.origins {
			if !o.DrainUntil.IsZero() && !o.DrainUntil.Equal(forever) && !now.Before(o.DrainUntil) {
				want[DrainOver{ID: o.ID}] = true
			}
		}
		for _, p := range m.placed {
			if m.expired(p, now) {
				want[Expire{Stream: p.Stream, Generation: p.Generation}] = true
			}
		}
		got := make(map[Command]bool)
		for _, c := range s.Due(now, 1000) {
			got[c] = true
		}
		if !maps.Equal(got, want) {
			t.Fatalf("due at %s = %v; want %v", now, got, want)
		}
	}
}

// TestStateFollowsTheModel applies random logs to the state and to the model,
// with snapshots that are read later and restarts from them.
func TestStateFollowsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{
			Origins: rapid.IntRange(0, 3).Draw(t, "max origins"), Placements: rapid.SampledFrom([]int{0, 20}).Draw(t, "max placements"),
			PlacementsPerVHost: rapid.SampledFrom([]int{0, 8}).Draw(t, "max in a vhost"),
		}
		m := machine{
			state: NewState(limits),
			model: &model{limits: limits, now: epoch, origins: map[OriginID]Origin{}, placed: map[Stream]Placement{}},
		}
		t.Repeat(map[string]func(*rapid.T){
			"step":          m.step,
			"more":          m.step,
			"again":         m.step,
			"take snapshot": m.takeSnapshot,
			"read snapshot": m.readSnapshot,
			"restart":       m.restart,
			"":              func(t *rapid.T) { agreeWith(t, m.state, m.model) },
		})
	})
}
