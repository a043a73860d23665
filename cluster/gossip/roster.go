package gossip

import (
	"cmp"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// How long those who are not there are remembered.
const (
	failedKept = 72 * time.Hour // as long as a stopped peer stays a member
	leftKept   = time.Hour      // long enough to be read in `srsx members`
)

// roster is who is known, whatever memberlist has forgotten meanwhile. Its
// methods are called from inside memberlist's lock: they never call back.
type roster struct {
	log    *slog.Logger
	events *queue

	mu        sync.Mutex
	self      Member             // guarded by mu, as all below
	known     map[string]*record // by id, without self
	departed  map[string]departure
	refusals  map[string]*refusal // by what was refused
	changed   bool                // since the last call of takeChanged
	lastJoin  time.Time           // when somebody was last seen who was not there before
	otherSelf time.Time           // when another address last spoke in our name, an older run
}

// record is what is known of one other peer.
type record struct {
	Member
	live    bool // memberlist takes it for alive
	foreign bool // turned out to belong to another cluster
}

func newRoster(self Member, log *slog.Logger) *roster {
	return &roster{
		log:      log,
		events:   newQueue(),
		self:     self,
		known:    make(map[string]*record),
		departed: make(map[string]departure),
		refusals: make(map[string]*refusal),
	}
}

// members returns everyone known, this peer included, ordered by name.
func (r *roster) members() []Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := []Member{r.self}
	for _, k := range r.known {
		if !k.foreign {
			all = append(all, k.Member)
		}
	}
	slices.SortFunc(all, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// recall takes in what an earlier run knew: peers that have yet to be met again.
func (r *roster) recall(remembered []Member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for _, m := range remembered {
		if m.ID == r.self.ID || m.check() != nil {
			continue
		}
		if m.State == Left {
			r.departed[m.ID] = departure{epoch: m.Epoch, at: m.Since}
		} else {
			// Its absence counts from now: while this peer was down, it has not
			// watched anybody.
			m.State, m.Since = Failed, now
		}
		r.known[m.ID] = &record{Member: m}
	}
}

// alive takes in what a peer that memberlist reaches says of itself.
func (r *roster) alive(meta Meta, at netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if meta.ID == r.self.ID {
		r.self.Gossip = at
		return
	}
	now := time.Now()
	k, ok := r.known[meta.ID]
	if !ok {
		k = &record{}
		r.known[meta.ID] = k
	}
	was := k.Member
	k.live, k.foreign = true, false
	k.Meta, k.Gossip = meta, at
	if d, out := r.departed[meta.ID]; out && meta.Epoch <= d.epoch {
		if k.State != Left {
			k.State, k.Since = Left, now
		}
		return
	}
	delete(r.departed, meta.ID)
	if k.State != Alive {
		k.State, k.Since = Alive, now
		r.lastJoin = now
		r.emit(Event{Kind: Joined, Member: k.Member, Was: was})
	} else if k.Member != was {
		r.emit(Event{Kind: Updated, Member: k.Member, Was: was})
	}
}

// silent takes in that memberlist no longer reaches a peer.
func (r *roster) silent(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, ok := r.known[id]
	if !ok {
		return
	}
	k.live = false
	if k.State != Alive {
		return
	}
	if k.Leaving {
		r.departLocked(id, k.Epoch)
		return
	}
	r.fail(k)
}

// depart takes in that runs of peers are out for good.
func (r *roster) depart(epochs map[string]uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, epoch := range epochs {
		r.departLocked(id, epoch)
	}
}

func (r *roster) departLocked(id string, epoch uint64) {
	if d, ok := r.departed[id]; ok && d.epoch >= epoch {
		return
	}
	now := time.Now()
	r.departed[id] = departure{epoch: epoch, at: now}
	r.changed = true
	if id == r.self.ID && epoch >= r.self.Epoch && !r.self.Leaving {
		r.log.Error("this peer was declared gone; start it again to join anew")
	}
	k, ok := r.known[id]
	if !ok || k.Epoch > epoch || k.State == Left {
		return
	}
	was := k.Member
	k.State, k.Since = Left, now
	r.emit(Event{Kind: HasLeft, Member: k.Member, Was: was})
}

func (r *roster) fail(k *record) {
	was := k.Member
	k.State, k.Since = Failed, time.Now()
	r.emit(Event{Kind: HasFailed, Member: k.Member, Was: was})
}

func (r *roster) emit(e Event) {
	r.changed = true
	r.events.put(e)
}

// update changes what this peer says of itself and returns it encoded.
func (r *roster) update(change func(*Meta)) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.self.Meta
	change(&next)
	next.ID, next.Epoch = r.self.ID, r.self.Epoch // who and which run this is does not change
	encoded, err := next.encode()
	if err != nil {
		return nil, err
	}
	r.self.Meta = next
	for _, k := range r.known {
		r.disownIfForeign(k)
	}
	return encoded, nil
}

// disownIfForeign forgets a newcomer that has gone into another cluster than
// ours. To memberlist it stays alive, for it answers.
func (r *roster) disownIfForeign(k *record) {
	ours := r.clusterLocked()
	if k.foreign || ours == "" || k.Cluster == "" || k.Cluster == ours {
		return
	}
	k.foreign = true
	if k.State == Alive {
		r.fail(k)
	}
}

// clusterLocked returns the cluster that this peer belongs to or, as a newcomer,
// the one it has met first: it must not carry news from one cluster to another.
func (r *roster) clusterLocked() string {
	if r.self.Cluster != "" {
		return r.self.Cluster
	}
	for _, k := range r.known {
		if k.live && !k.foreign && k.Cluster != "" {
			return k.Cluster
		}
	}
	return ""
}

// live returns the others that memberlist reaches, also those that are declared
// gone and run on.
func (r *roster) live() []Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.liveLocked()
}

func (r *roster) liveLocked() (live []Member) {
	for _, k := range r.known {
		if k.live && !k.foreign {
			live = append(live, k.Member)
		}
	}
	return live
}

// own returns this peer.
func (r *roster) own() Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.self
}

// find returns another peer by name or id. A name that several had means the
// one that has it now.
func (r *roster) find(nameOrID string) (Member, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k, ok := r.known[nameOrID]; ok {
		return k.Member, true
	}
	var found Member
	for _, k := range r.known {
		if k.Name == nameOrID && !k.foreign && (found.ID == "" || found.State == Left) {
			found = k.Member
		}
	}
	return found, found.ID != ""
}

// missed returns where those were last seen who should be here.
func (r *roster) missed() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	var addrs []netip.AddrPort
	for _, k := range r.known {
		if k.State == Failed && !k.foreign && k.Gossip.IsValid() {
			addrs = append(addrs, k.Gossip)
		}
	}
	return addrs
}

// settling reports whether peers are coming in.
func (r *roster) settling() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.lastJoin) < settleFor
}

// departures returns who is out for good, in the form for other peers.
func (r *roster) departures() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return encodeDepartures(r.departed)
}

// prune forgets who has been away for long.
func (r *roster) prune(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.known, func(_ string, k *record) bool {
		old := !k.live && (k.State == Failed && now.Sub(k.Since) > failedKept || k.State == Left && now.Sub(k.Since) > leftKept)
		r.changed = r.changed || old
		return old
	})
	maps.DeleteFunc(r.departed, func(id string, d departure) bool {
		k, ok := r.known[id]
		return now.Sub(d.at) > failedKept && (!ok || !k.live)
	})
	maps.DeleteFunc(r.refusals, func(_ string, f *refusal) bool { return now.Sub(f.last) > refusalKept })
}

// takeChanged returns what to remember if it has changed since the last call.
func (r *roster) takeChanged() (remember []Member, changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.changed {
		return nil, false
	}
	r.changed = false
	for _, k := range r.known {
		if !k.foreign {
			remember = append(remember, k.Member)
		}
	}
	slices.SortFunc(remember, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return remember, true
}
