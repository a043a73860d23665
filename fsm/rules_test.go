package fsm

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// log applies commands one by one, a second apart, and returns the last result.
func log(s *State, commands ...Command) (last Result) {
	for _, c := range commands {
		last = s.Apply(s.Index()+1, s.Now().Add(time.Second), c)[0]
	}
	return last
}

// started is a state at epoch with origins a and b.
func started(limits Limits) *State {
	s := NewState(limits)
	s.Apply(1, epoch, PutOrigin{Origin: origin("a")}, PutOrigin{Origin: origin("b")})
	return s
}

func placeOn(id, name string) Place {
	return Place{Stream: named(name), Origin: OriginID(id), Incarnation: run("1"), Holder: peerA}
}

func heldByB(c Place) Place { c.Holder = peerB; return c }

func kinds(changes []Change) []ChangeKind {
	var all []ChangeKind
	for _, c := range changes {
		all = append(all, c.Kind)
	}
	return all
}

// TestRules: what the last command of each log does to stream s.
func TestRules(t *testing.T) {
	s, other := named("s"), run("2")
	down := SetUp{ID: "a", Incarnation: run("1"), Reason: "silent"}
	up := SetUp{ID: "a", Incarnation: run("1"), Up: true}
	published := placeOn("a", "s")
	published.Publish = true
	restarted := but("a", func(o *Origin) { o.Incarnation = other })
	// Origins a and b were commands 1 and 2: the first of a log has number 3.
	for name, c := range map[string]struct {
		limits  Limits
		log     []Command
		err     error
		changes []ChangeKind
		on      string   // where s is then; empty: nowhere
		held    []Holder // by whom
	}{
		"placed":          {log: []Command{placeOn("a", "s")}, changes: []ChangeKind{Placed}, on: "a", held: []Holder{peerA}},
		"published":       {log: []Command{published}, changes: []ChangeKind{Placed, Published}, on: "a", held: []Holder{peerA}},
		"said again":      {log: []Command{published, published}, on: "a", held: []Holder{peerA}},
		"published later": {log: []Command{placeOn("a", "s"), published}, changes: []ChangeKind{Published}, on: "a", held: []Holder{peerA}},
		"the first wins":  {log: []Command{placeOn("a", "s"), heldByB(placeOn("b", "s"))}, changes: []ChangeKind{Held}, on: "a", held: []Holder{peerA, peerB}},
		"the first wins, wherever the other would go": {
			log: []Command{placeOn("a", "s"), heldByB(placeOn("nowhere", "s"))}, changes: []ChangeKind{Held}, on: "a", held: []Holder{peerA, peerB},
		},
		"unknown origin":             {log: []Command{placeOn("x", "s")}, err: ErrUnknownOrigin},
		"another incarnation":        {log: []Command{Place{Stream: s, Origin: "a", Incarnation: other, Holder: peerA}}, err: ErrStale},
		"origin down":                {log: []Command{down, placeOn("a", "s")}, err: ErrOriginDown},
		"origin draining":            {log: []Command{Drain{ID: "a"}, placeOn("a", "s")}, err: ErrDraining},
		"origin ready again":         {log: []Command{Drain{ID: "a"}, Ready{ID: "a"}, placeOn("a", "s")}, changes: []ChangeKind{Placed}, on: "a", held: []Holder{peerA}},
		"draining through a restart": {log: []Command{Drain{ID: "a"}, PutOrigin{Origin: restarted}, Place{Stream: s, Origin: "a", Incarnation: other}}, err: ErrDraining},
		"draining through an outage": {log: []Command{down, Drain{ID: "a"}, up, placeOn("a", "s")}, err: ErrDraining},
		"draining keeps what it has": {log: []Command{placeOn("a", "s"), Drain{ID: "a"}, heldByB(placeOn("b", "s"))}, changes: []ChangeKind{Held}, on: "a", held: []Holder{peerA, peerB}},
		"full by the origin's cap":   {log: []Command{PutOrigin{Origin: but("a", func(o *Origin) { o.MaxStreams = 1 })}, placeOn("a", "x"), placeOn("a", "s")}, err: ErrFull},
		"room again under the origin's cap": {
			log:     []Command{PutOrigin{Origin: but("a", func(o *Origin) { o.MaxStreams = 1 })}, placeOn("a", "x"), Forget{named("x")}, placeOn("a", "s")},
			changes: []ChangeKind{Placed}, on: "a", held: []Holder{peerA},
		},
		"full in all":       {limits: Limits{Placements: 1}, log: []Command{placeOn("a", "x"), placeOn("a", "s")}, err: ErrFull},
		"full in the vhost": {limits: Limits{PlacementsPerVHost: 1}, log: []Command{placeOn("a", "x"), placeOn("a", "s")}, err: ErrFull},
		"room in another vhost": {
			limits: Limits{PlacementsPerVHost: 1}, changes: []ChangeKind{Placed}, on: "a", held: []Holder{peerA},
			log: []Command{Place{Stream: Stream{VHost: "v", App: "live", Name: "s"}, Origin: "a", Incarnation: run("1")}, placeOn("a", "s")},
		},
		"room again in the vhost": {
			limits: Limits{PlacementsPerVHost: 2}, changes: []ChangeKind{Placed}, on: "a", held: []Holder{peerA},
			log: []Command{placeOn("a", "x"), placeOn("a", "y"), Forget{named("x")}, placeOn("a", "s")},
		},
		"replaced when full": {
			limits: Limits{Placements: 1, PlacementsPerVHost: 1}, log: []Command{placeOn("a", "s"), down, heldByB(placeOn("b", "s"))},
			changes: []ChangeKind{Replaced}, on: "b", held: []Holder{peerB},
		},
		"down, not asked for":          {log: []Command{placeOn("a", "s"), down}, changes: []ChangeKind{OriginWentDown}, on: "a", held: []Holder{peerA}},
		"down, asked for":              {log: []Command{placeOn("a", "s"), down, heldByB(placeOn("b", "s"))}, changes: []ChangeKind{Replaced}, on: "b", held: []Holder{peerB}},
		"down, nowhere to go":          {log: []Command{placeOn("a", "s"), down, placeOn("x", "s")}, err: ErrUnknownOrigin, on: "a", held: []Holder{peerA}},
		"back before anybody asked":    {log: []Command{placeOn("a", "s"), down, up, heldByB(placeOn("b", "s"))}, changes: []ChangeKind{Held}, on: "a", held: []Holder{peerA, peerB}},
		"down twice":                   {log: []Command{down, down}},
		"up twice":                     {log: []Command{up}},
		"down, another incarnation":    {log: []Command{SetUp{ID: "a", Incarnation: other}}, err: ErrStale},
		"origin restarted":             {log: []Command{placeOn("a", "s"), PutOrigin{Origin: restarted}}, changes: []ChangeKind{Released, OriginCameUp}},
		"origin restarted while down":  {log: []Command{placeOn("a", "s"), down, PutOrigin{Origin: restarted}}, changes: []ChangeKind{Released, OriginCameUp}},
		"origin changed":               {log: []Command{placeOn("a", "s"), PutOrigin{Origin: but("a", func(o *Origin) { o.IP = "x" })}}, changes: []ChangeKind{OriginChanged}, on: "a", held: []Holder{peerA}},
		"origin changed while down":    {log: []Command{down, PutOrigin{Origin: origin("a")}, placeOn("a", "s")}, err: ErrOriginDown},
		"too many origins":             {limits: Limits{Origins: 2}, log: []Command{PutOrigin{Origin: origin("c")}}, err: ErrFull},
		"a known one among too many":   {limits: Limits{Origins: 2}, log: []Command{PutOrigin{Origin: origin("a")}}, changes: []ChangeKind{OriginChanged}},
		"origin removed":               {log: []Command{placeOn("a", "x"), placeOn("a", "s"), RemoveOrigin{"a"}}, changes: []ChangeKind{Released, Released, OriginRemoved}},
		"unknown origin removed":       {log: []Command{RemoveOrigin{"x"}}, err: ErrUnknownOrigin},
		"unknown origin up":            {log: []Command{SetUp{ID: "x", Up: true}}, err: ErrUnknownOrigin},
		"unknown origin drained":       {log: []Command{Drain{ID: "x"}}, err: ErrUnknownOrigin},
		"unknown origin's drain over":  {log: []Command{DrainOver{ID: "x"}}, err: ErrUnknownOrigin},
		"unknown origin ready":         {log: []Command{Ready{ID: "x"}}, err: ErrUnknownOrigin},
		"unknown origin weighed":       {log: []Command{Weigh{ID: "x"}}, err: ErrUnknownOrigin},
		"drain over":                   {log: []Command{placeOn("a", "s"), Drain{ID: "a", Until: epoch.Add(3 * time.Second)}, DrainOver{"a"}}, changes: []ChangeKind{Released, OriginDrained}},
		"drain over twice":             {log: []Command{Drain{ID: "a", Until: epoch}, DrainOver{"a"}, DrainOver{"a"}}, err: ErrStale},
		"drain over too soon":          {log: []Command{placeOn("a", "s"), Drain{ID: "a", Until: epoch.Add(time.Minute)}, DrainOver{"a"}}, err: ErrStale, on: "a", held: []Holder{peerA}},
		"drain over, no deadline":      {log: []Command{placeOn("a", "s"), Drain{ID: "a"}, DrainOver{"a"}}, err: ErrStale, on: "a", held: []Holder{peerA}},
		"drain over, ready again":      {log: []Command{placeOn("a", "s"), Drain{ID: "a", Until: epoch}, Ready{ID: "a"}, DrainOver{"a"}}, err: ErrStale, on: "a", held: []Holder{peerA}},
		"unpublished":                  {log: []Command{published, Unpublish{s, 3}}, changes: []ChangeKind{Unpublished}, on: "a", held: []Holder{peerA}},
		"unpublished twice":            {log: []Command{published, Unpublish{s, 3}, Unpublish{s, 3}}, on: "a", held: []Holder{peerA}},
		"unpublished, an older one":    {log: []Command{published, Unpublish{s, 2}}, on: "a", held: []Holder{peerA}},
		"released by one of two":       {log: []Command{placeOn("a", "s"), heldByB(placeOn("a", "s")), Release{s, 3, peerA}}, changes: []ChangeKind{Held}, on: "a", held: []Holder{peerB}},
		"released by the last":         {log: []Command{placeOn("a", "s"), Release{s, 3, peerA}}, changes: []ChangeKind{Held}, on: "a"},
		"released twice":               {log: []Command{placeOn("a", "s"), Release{s, 3, peerA}, Release{s, 3, peerA}}, on: "a"},
		"released by a stranger":       {log: []Command{placeOn("a", "s"), Release{s, 3, peerB}}, on: "a", held: []Holder{peerA}},
		"released, an older one":       {log: []Command{placeOn("a", "s"), Release{s, 2, peerA}}, on: "a", held: []Holder{peerA}},
		"released, nothing there":      {log: []Command{Release{s, 3, peerA}}},
		"held again in time":           {log: []Command{placeOn("a", "s"), Release{s, 3, peerA}, heldByB(placeOn("b", "s"))}, changes: []ChangeKind{Held}, on: "a", held: []Holder{peerB}},
		"undone":                       {log: []Command{placeOn("a", "s"), Undo{s, 3, peerA}}, changes: []ChangeKind{Released}},
		"undone, others hold it":       {log: []Command{placeOn("a", "s"), heldByB(placeOn("a", "s")), Undo{s, 3, peerA}}, changes: []ChangeKind{Held}, on: "a", held: []Holder{peerB}},
		"undone by a stranger":         {log: []Command{placeOn("a", "s"), Undo{s, 3, peerB}}, on: "a", held: []Holder{peerA}},
		"undone, an older one":         {log: []Command{placeOn("a", "s"), Undo{s, 2, peerA}}, on: "a", held: []Holder{peerA}},
		"moved":                        {log: []Command{published, Move{s, "b", run("1")}}, changes: []ChangeKind{Moved}, on: "b"},
		"moved to where it is":         {log: []Command{placeOn("a", "s"), Move{s, "a", run("1")}}, on: "a", held: []Holder{peerA}},
		"moved, not placed":            {log: []Command{Move{s, "a", run("1")}}, err: ErrUnknownStream},
		"moved to nowhere":             {log: []Command{placeOn("a", "s"), Move{s, "x", run("1")}}, err: ErrUnknownOrigin, on: "a", held: []Holder{peerA}},
		"moved away from a dead one":   {log: []Command{placeOn("a", "s"), down, Move{s, "b", run("1")}}, changes: []ChangeKind{Moved}, on: "b"},
		"released after the move":      {log: []Command{placeOn("a", "s"), Move{s, "b", run("1")}, heldByB(placeOn("b", "s")), Release{s, 3, peerB}}, on: "b", held: []Holder{peerB}},
		"forgotten":                    {log: []Command{placeOn("a", "s"), Forget{s}}, changes: []ChangeKind{Forgotten}},
		"forgotten, not placed":        {log: []Command{Forget{s}}, err: ErrUnknownStream},
		"a name of 513 bytes":          {log: []Command{placeOn("a", strings.Repeat("x", MaxPart+1))}, err: ErrTooLong},
		"expired too soon":             {log: []Command{placeOn("a", "s"), Release{s, 3, peerA}, Expire{s, 3}}, err: ErrStale, on: "a"},
		"expired while held":           {log: []Command{placeOn("a", "s"), Expire{s, 3}}, err: ErrStale, on: "a", held: []Holder{peerA}},
		"expired, an older one":        {log: []Command{placeOn("a", "s"), Expire{s, 2}}, on: "a", held: []Holder{peerA}},
		"peer lost, another holds it":  {log: []Command{placeOn("a", "s"), heldByB(placeOn("a", "s")), PeerGone{peerA}}, changes: []ChangeKind{Held}, on: "a", held: []Holder{peerB}},
		"peer lost":                    {log: []Command{placeOn("a", "s"), PeerGone{peerA}}, changes: []ChangeKind{Held}, on: "a"},
		"peer lost twice":              {log: []Command{placeOn("a", "s"), PeerGone{peerA}, PeerGone{peerA}}, on: "a"},
		"another run of the peer lost": {log: []Command{placeOn("a", "s"), PeerGone{Holder{peerA.Peer, 99}}}, on: "a", held: []Holder{peerA}},
		"orphan whose origin restarts": {log: []Command{placeOn("a", "s"), PeerGone{peerA}, PutOrigin{Origin: restarted}}, changes: []ChangeKind{Released, OriginCameUp}},
		"orphan, back at another peer": {log: []Command{placeOn("a", "s"), PeerGone{peerA}, heldByB(placeOn("b", "s"))}, changes: []ChangeKind{Held}, on: "a", held: []Holder{peerB}},
	} {
		t.Run(name, func(t *testing.T) {
			state := started(c.limits)
			before := len(c.log) - 1
			log(state, c.log[:before]...)
			hash := state.Hash()
			r := log(state, c.log[before])
			if !errors.Is(r.Err, c.err) || (r.Err == nil) != (c.err == nil) {
				t.Errorf("error = %v; want %v", r.Err, c.err)
			}
			if got := kinds(r.Changes); !reflect.DeepEqual(got, c.changes) {
				t.Errorf("changes = %v; want %v", got, c.changes)
			}
			p, placed := state.Placement(s)
			if on := string(p.Origin); on != c.on || !reflect.DeepEqual(p.Holders, c.held) {
				t.Errorf("s is on %q, held by %v; want %q, %v", on, p.Holders, c.on, c.held)
			}
			if placed && (len(p.Holders) == 0) == p.IdleSince.IsZero() {
				t.Errorf("held by %v, idle since %s", p.Holders, p.IdleSince)
			}
			if state.Hash() == hash {
				t.Error("index and time went on, the hash did not")
			}
		})
	}
}

func TestCommandsOfOneEntryHaveTheirOwnGeneration(t *testing.T) {
	s := started(Limits{})
	results := s.Apply(2, epoch, placeOn("a", "x"), placeOn("nowhere", "y"), placeOn("a", "z"), placeOn("a", "u"), placeOn("a", "v"))
	if x, z := results[0].Placement.Generation, results[2].Placement.Generation; x != 3 || z != 5 {
		t.Errorf("generations = %d, %d; want 3, 5: refused commands count", x, z)
	}
	if s.Index() != 2 || s.Sequence() != 7 {
		t.Errorf("index, sequence = %d, %d; want 2, 7", s.Index(), s.Sequence())
	}
	for i, want := range []int{1, 0, 1, 1, 1} {
		if got := results[i].Changes; len(got) != want || cap(got) != want {
			t.Errorf("changes of command %d = %v; want %d, and no room to write into the next one's", i, got, want)
		}
	}
}

func TestTimeDoesNotGoBack(t *testing.T) {
	s := started(Limits{})
	for _, at := range []time.Time{epoch.Add(-time.Hour), {}, time.UnixMilli(-5)} {
		s.Apply(2, at, placeOn("a", "s"))
		if !s.Now().Equal(epoch) {
			t.Errorf("now = %s after a stamp of %s; want %s", s.Now(), at, epoch)
		}
	}
	s.Apply(3, epoch.Add(1500*time.Microsecond))
	if want := epoch.Add(time.Millisecond); !s.Now().Equal(want) {
		t.Errorf("now = %s; want whole milliseconds: %s", s.Now(), want)
	}
	s.Apply(4, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))
	if !s.Now().Equal(forever) {
		t.Errorf("now = %s; want no later than %s", s.Now(), forever)
	}
}

// TestExpiryAndOrphans: ten seconds after a release, ten minutes after a loss.
func TestExpiryAndOrphans(t *testing.T) {
	s := started(Limits{})
	at := func(d time.Duration, c Command) Result { return s.Apply(s.Index()+1, epoch.Add(d), c)[0] }
	at(0, placeOn("a", "released")) // 3
	at(0, placeOn("a", "lost"))     // 4
	at(0, Release{named("released"), 3, peerA})
	at(0, PeerGone{peerA})
	if p, _ := s.Placement(named("lost")); !p.Orphaned {
		t.Error("what a lost peer held alone is no orphan")
	}
	if p, _ := s.Placement(named("released")); p.Orphaned {
		t.Error("what a peer had released before it was lost is an orphan")
	}
	if err := at(ReleaseAfter-time.Millisecond, Expire{named("released"), 3}).Err; !errors.Is(err, ErrStale) {
		t.Errorf("Expire before ReleaseAfter = %v; want ErrStale", err)
	}
	if r := at(ReleaseAfter, Expire{named("released"), 3}); r.Err != nil || !reflect.DeepEqual(kinds(r.Changes), []ChangeKind{Released}) {
		t.Errorf("Expire after ReleaseAfter = %v, %v; want it released", r.Err, r.Changes)
	}
	if err := at(OrphanAfter-time.Millisecond, Expire{named("lost"), 4}).Err; !errors.Is(err, ErrStale) {
		t.Errorf("Expire before OrphanAfter = %v; want ErrStale", err)
	}
	held := at(OrphanAfter, heldByB(placeOn("b", "lost"))).Placement
	if held.Origin != "a" || held.Orphaned || held.Generation != 4 {
		t.Errorf("orphan that is held again = %+v; want the old placement, an orphan no more", held)
	}
	at(OrphanAfter, Release{named("lost"), 4, peerB})
	if r := at(OrphanAfter+ReleaseAfter, Expire{named("lost"), 4}); r.Err != nil || s.Len() != 0 {
		t.Errorf("Expire of a former orphan after ReleaseAfter = %v; want it released", r.Err)
	}
}

func TestDueIsWhatTimeHasEnded(t *testing.T) {
	s := started(Limits{})
	s.Apply(2, epoch, placeOn("a", "one"), placeOn("a", "two"), placeOn("a", "lost"), placeOn("a", "held"), placeOn("a", "back"))
	s.Apply(3, epoch, Release{named("two"), 4, peerA}, Release{named("back"), 7, peerA}, Drain{ID: "b", Until: epoch.Add(time.Second)})
	s.Apply(4, epoch.Add(time.Second), Release{named("one"), 3, peerA}, heldByB(placeOn("a", "held")), heldByB(placeOn("a", "back")))
	s.Apply(5, epoch.Add(time.Second), PeerGone{peerA})
	one, two, lost, drain := Expire{named("one"), 3}, Expire{named("two"), 4}, Expire{named("lost"), 5}, DrainOver{"b"}
	for _, c := range []struct {
		after time.Duration
		limit int
		want  []Command
	}{
		{0, 9, nil},
		{time.Second, 9, []Command{drain}},
		{10 * time.Second, 9, []Command{drain, two}},
		{11 * time.Second, 9, []Command{drain, two, one}},
		{11 * time.Second, 2, []Command{drain, two}},
		{601 * time.Second, 9, []Command{drain, two, one, lost}},
	} {
		if got := s.Due(epoch.Add(c.after), c.limit); !reflect.DeepEqual(got, c.want) {
			t.Errorf("Due after %s, %d at most = %v; want %v", c.after, c.limit, got, c.want)
		}
	}
	for _, r := range s.Apply(6, epoch.Add(time.Hour), s.Due(epoch.Add(time.Hour), 9)...) {
		if r.Err != nil {
			t.Errorf("what is due is refused: %v", r.Err)
		}
	}
	if got := s.Due(epoch.Add(2*time.Hour), 9); len(got) != 0 || s.Len() != 2 {
		t.Errorf("Due = %v with %d left; want nothing, and the two that are held", got, s.Len())
	}
}

func TestClusterIsFoundedOnce(t *testing.T) {
	s := NewState(Limits{})
	if c, ok := s.Cluster(); ok {
		t.Errorf("Cluster = %s before it was founded", c.ID)
	}
	log(s, Found{ID: ""})
	if r := log(s, Found{ID: "first", Secret: Secret{1}}); !reflect.DeepEqual(kinds(r.Changes), []ChangeKind{Founded}) {
		t.Errorf("changes = %v; want founded", r.Changes)
	}
	if r := log(s, Found{ID: "second", Secret: Secret{2}}); r.Err != nil || r.Changes != nil {
		t.Errorf("second Found = %v, %v; want neither error nor change", r.Err, r.Changes)
	}
	if c, ok := s.Cluster(); !ok || c != (Cluster{ID: "first", Secret: Secret{1}}) {
		t.Errorf("Cluster = %s, %v; want the first", c.ID, ok)
	}
}

func TestWeightOfAnOperatorStays(t *testing.T) {
	s := started(Limits{})
	log(s, Weigh{ID: "a", Weight: 7}, PutOrigin{Origin: but("a", func(o *Origin) { o.Weight, o.Incarnation = 900, run("2") })})
	if o, _ := s.Origin("a"); o.Weight != 7 || !o.WeightPinned {
		t.Errorf("weight = %d; want 7 as the operator set it", o.Weight)
	}
	log(s, PutOrigin{Origin: but("b", func(o *Origin) { o.Weight, o.WeightPinned = 900, true })})
	if o, _ := s.Origin("b"); o.Weight != 900 || o.WeightPinned {
		t.Errorf("weight = %d, pinned %v; want 900 as the origin says, and not pinned", o.Weight, o.WeightPinned)
	}
}

func TestPlacementsOfAnOriginGoOldestFirst(t *testing.T) {
	s := started(Limits{})
	var want []string
	for i := range 20 {
		id := []string{"a", "b"}[i%2]
		log(s, placeOn(id, fmt.Sprint("s", i)))
		if id == "a" && i != 6 {
			want = append(want, fmt.Sprint("s", i))
		}
	}
	log(s, Forget{named("s6")}, placeOn("a", "s6"))
	want = append(want, "s6")
	var got []string
	for _, c := range log(s, RemoveOrigin{"a"}).Changes {
		if c.Kind == Released {
			got = append(got, c.Stream.Name)
		}
	}
	if !reflect.DeepEqual(got, want) || s.Len() != 10 || s.StreamsOn("a") != 0 || s.StreamsOn("b") != 10 {
		t.Errorf("released %v, %d left; want %v, 10", got, s.Len(), want)
	}
}
