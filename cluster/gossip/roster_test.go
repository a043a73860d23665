package gossip

import (
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
)

func testRoster() *roster {
	self := sampleMeta()
	self.ID, self.Name, self.Leaving = uuid.NewString(), "self", false
	return newRoster(Member{Meta: self, State: Alive}, slog.New(slog.DiscardHandler))
}

func testPeer(name string, r *roster) (Meta, netip.AddrPort) {
	m := sampleMeta()
	m.ID, m.Name, m.Cluster, m.Leaving, m.Epoch = uuid.NewString(), name, r.self.Cluster, false, 5
	return m, netip.MustParseAddrPort("127.0.0.1:9")
}

func (r *roster) state(name string) State {
	all := r.members()
	i := slices.IndexFunc(all, func(m Member) bool { return m.Name == name })
	if i < 0 {
		return 0
	}
	return all[i].State
}

func TestFailedIsRememberedForThreeDaysAndLeftForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRoster()
		failed, at := testPeer("failed", r)
		left, _ := testPeer("left", r)
		here, _ := testPeer("here", r)
		for _, m := range []Meta{failed, left, here} {
			r.alive(m, at)
		}
		r.silent(failed.ID)
		r.depart(map[string]uint64{left.ID: left.Epoch})
		r.silent(left.ID)
		for after, want := range map[time.Duration][3]State{
			0:                           {Failed, Left, Alive},
			leftKept:                    {Failed, Left, Alive},
			leftKept + time.Second:      {Failed, 0, Alive},
			failedKept:                  {Failed, 0, Alive},
			failedKept + time.Second:    {0, 0, Alive},
			10 * failedKept:             {0, 0, Alive},
			failedKept - 10*time.Second: {Failed, 0, Alive},
		} {
			again := testRoster()
			again.known, again.departed = cloned(r.known), maps.Clone(r.departed)
			again.prune(time.Now().Add(after))
			if got := [3]State{again.state("failed"), again.state("left"), again.state("here")}; got != want {
				t.Errorf("after %s: %v; want %v", after, got, want)
			}
		}
		// The word that it left outlives the list: it still holds against old news.
		r.prune(time.Now().Add(2 * leftKept))
		r.alive(left, at)
		if got := r.state("left"); got != Left {
			t.Errorf("old news of a departed peer makes it %s; want left", got)
		}
	})
}

func cloned(known map[string]*record) map[string]*record {
	c := make(map[string]*record)
	for id, k := range known {
		copied := *k
		c[id] = &copied
	}
	return c
}

func TestNamesAreHeldByThoseWhoMayComeBack(t *testing.T) {
	r := testRoster()
	holder, at := testPeer("media", r)
	rival, _ := testPeer("media", r)
	r.alive(holder, at)
	for _, c := range []struct {
		what    string
		do      func()
		refused bool
	}{
		{"alive", func() {}, true},
		{"failed", func() { r.silent(holder.ID) }, true},
		{"left", func() { r.depart(map[string]uint64{holder.ID: holder.Epoch}) }, false},
	} {
		c.do()
		if err := r.admit(rival, at); (err != nil) != c.refused {
			t.Errorf("rival of one that is %s: admit = %v; want refused: %t", c.what, err, c.refused)
		}
	}
	own, _ := testPeer("self", r)
	if err := r.admit(own, at); err == nil {
		t.Error("a rival for the own name is admitted")
	}
}

// TestWhoWasLeavingHasLeft is for the peer whose good-bye was lost, after it had
// announced it.
func TestWhoWasLeavingHasLeft(t *testing.T) {
	r := testRoster()
	m, at := testPeer("p", r)
	m.Leaving = true
	r.alive(m, at)
	r.silent(m.ID)
	if got := r.state("p"); got != Left {
		t.Errorf("state = %s; want left", got)
	}
}

func TestLateEventsAreDroppedOldestFirst(t *testing.T) {
	q := newQueue()
	for i := range maxQueued + 10 {
		q.put(Event{Member: Member{Meta: Meta{Epoch: uint64(i)}}})
	}
	if got := len(q.events); got != maxQueued {
		t.Fatalf("%d events wait; want %d", got, maxQueued)
	}
	if got := q.events[0].Member.Epoch; got != 10 {
		t.Errorf("the first that waits is %d; want 10", got)
	}
}

func TestLinesOfTheLibraryAreBoundedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuilder
		log := libraryLog(slog.New(slog.NewTextHandler(&out, nil)))
		for range 1000 {
			log.Print("[ERR] memberlist: Decrypt packet failed")
		}
		log.Print("[DEBUG] memberlist: not shown at this level, and not counted")
		if got := strings.Count(out.String(), "\n"); got != logLines {
			t.Errorf("%d lines of 1000; want %d", got, logLines)
		}
		if !strings.Contains(out.String(), `level=WARN msg=memberlist text="Decrypt packet failed"`) {
			t.Errorf("log = %q; want the level and the text apart", out.String())
		}
		time.Sleep(logWindow)
		log.Print("[WARN] memberlist: next")
		if !strings.Contains(out.String(), "text=next lines_dropped=980") {
			t.Errorf("log ends in %q; want the count of what was dropped", out.String()[len(out.String())-100:])
		}
	})
}

type lockedBuilder struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (l *lockedBuilder) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lockedBuilder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func TestRefusalsAreBounded(t *testing.T) {
	r := testRoster()
	for range 10 * maxRefusals {
		m, at := testPeer("x", r)
		m.Cluster = uuid.NewString()
		if err := r.admit(m, at); err == nil {
			t.Fatal("a peer of another cluster is admitted")
		}
	}
	if got := len(r.refusals); got > maxRefusals {
		t.Errorf("%d refusals are kept; want at most %d", got, maxRefusals)
	}
}
