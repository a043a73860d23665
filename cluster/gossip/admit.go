package gossip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Reasons to refuse a peer.
var (
	errOtherCluster = errors.New("belongs to another cluster")
	errNameTaken    = errors.New("name is taken")
	errSelf         = errors.New("that is this peer itself")
)

const (
	refusalKept   = time.Minute // Why speaks of what happens now
	refusalLogged = time.Minute // one line a minute for each refused peer
	maxRefusals   = 64
)

// refusal is a peer that was kept out, or whose neighbours keep this one out.
type refusal struct {
	text   string
	last   time.Time
	logged time.Time
}

// admit reports whether a peer may be a member here.
func (r *roster) admit(meta Meta, at netip.AddrPort) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if meta.ID == r.self.ID {
		return nil
	}
	if ours := r.clusterLocked(); ours != "" && meta.Cluster != "" && meta.Cluster != ours {
		if k, ok := r.known[meta.ID]; ok {
			k.Cluster = meta.Cluster
			r.disownIfForeign(k)
		}
		r.refuseLocked(meta.ID, fmt.Sprintf("%s at %s belongs to cluster %s, this peer to %s", meta.Name, at, meta.Cluster, ours))
		return errOtherCluster
	}
	if holder, taken := r.holderLocked(meta.Name); taken && holder.ID != meta.ID {
		r.refuseLocked(meta.ID, nameConflict(meta, at, holder))
		return errNameTaken
	}
	return nil
}

// holderLocked returns who has a name: this peer, or one that is alive or failed.
// A failed peer keeps its name, for it may come back any moment.
func (r *roster) holderLocked(name string) (Member, bool) {
	if name == r.self.Name {
		return r.self, true
	}
	for _, k := range r.known {
		if k.Name == name && k.State != Left && !k.foreign {
			return k.Member, true
		}
	}
	return Member{}, false
}

func nameConflict(meta Meta, at netip.AddrPort, holder Member) string {
	text := fmt.Sprintf("peer %s at %s calls itself %s, as does peer %s at %s", meta.ID, at, meta.Name, holder.ID, holder.Gossip)
	if holder.State == Failed {
		return text + ", which has failed; if that one is gone for good: srsx force-leave " + holder.Name
	}
	return text + "; give one of them another -node"
}

// mergeWith reports whether two sets of members may become one. It is asked at
// both ends of a join about what the other end knows.
func (r *roster) mergeWith(theirs []Member) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var others []Member
	for _, m := range theirs {
		switch {
		case m.ID != r.self.ID:
			others = append(others, m)
		case m.Gossip != r.self.Gossip:
			r.conflictLocked(m.Meta, m.Gossip)
		}
	}
	if len(others) == 0 {
		return errSelf
	}
	ours := r.clusterLocked()
	// Between two groups a conflict about one name keeps only the later holder
	// out, by admit: it must not keep a split from healing.
	newcomer := len(others) == 1 || len(r.liveLocked()) == 0
	for _, m := range others {
		switch {
		case ours != "" && m.Cluster != "" && m.Cluster != ours:
			text := fmt.Sprintf("%s at %s belongs to cluster %s, this peer to %s", m.Name, m.Gossip, m.Cluster, ours)
			r.refuseLocked(m.ID, text)
			return fmt.Errorf("%w: %s", errOtherCluster, text)
		case newcomer && m.Name == r.self.Name:
			text := nameConflict(m.Meta, m.Gossip, r.self)
			r.refuseLocked(m.ID, text)
			return fmt.Errorf("%w: %s", errNameTaken, text)
		}
	}
	return nil
}

// conflict takes in that a known peer was heard of at another address than where
// it is alive. Either it has moved and its former self has yet to be missed, or
// two processes run with one identity.
func (r *roster) conflict(meta Meta, at netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if meta.ID == r.self.ID {
		r.conflictLocked(meta, at)
	}
}

func (r *roster) conflictLocked(meta Meta, at netip.AddrPort) {
	if meta.Epoch < r.self.Epoch {
		r.otherSelf = time.Now()
		return
	}
	r.refuseLocked(meta.ID, fmt.Sprintf("a process at %s runs with the identity of this peer; was its data directory copied?", at))
}

// movedAt returns when others were last seen to hold on to the address of an
// earlier run of this peer; zero if never.
func (r *roster) movedAt() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.otherSelf
}

func (r *roster) refuseLocked(key, text string) {
	now := time.Now()
	f := r.refusals[key]
	if f == nil {
		if len(r.refusals) >= maxRefusals {
			r.dropOldestRefusal()
		}
		f = &refusal{}
		r.refusals[key] = f
	}
	news := f.text != text
	f.text, f.last = text, now
	if news || now.Sub(f.logged) >= refusalLogged {
		f.logged = now
		r.log.Error("peer refused", "reason", text)
	}
}

func (r *roster) dropOldestRefusal() {
	var oldest string
	for key, f := range r.refusals {
		if oldest == "" || f.last.Before(r.refusals[oldest].last) {
			oldest = key
		}
	}
	delete(r.refusals, oldest)
}

// why returns what keeps this peer and others apart now, or "".
func (r *roster) why(now time.Time) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var reasons []string
	if d, out := r.departed[r.self.ID]; out && d.epoch >= r.self.Epoch && !r.self.Leaving {
		reasons = append(reasons, "this peer was declared gone by force-leave or remove-peer; start it again to join anew")
	}
	for _, f := range r.refusals {
		if now.Sub(f.last) <= refusalKept {
			reasons = append(reasons, f.text)
		}
	}
	slices.Sort(reasons)
	return strings.Join(reasons, "; ")
}
