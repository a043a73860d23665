package gossip

import (
	"net/netip"

	"github.com/google/uuid"
	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls: from many goroutines, and mostly while it
// holds its lock, so nothing here waits or calls memberlist.
type delegate struct{ g *Gossip }

var (
	_ memberlist.Delegate         = delegate{}
	_ memberlist.EventDelegate    = delegate{}
	_ memberlist.AliveDelegate    = delegate{}
	_ memberlist.MergeDelegate    = delegate{}
	_ memberlist.ConflictDelegate = delegate{}
)

// NodeMeta returns what this peer says of itself.
func (d delegate) NodeMeta(int) []byte { return *d.g.meta.Load() }

// NotifyAlive keeps out who does not belong here. It is the gate that counts:
// gossip of a third peer brings strangers too.
func (d delegate) NotifyAlive(node *memberlist.Node) error {
	m, err := memberOf(node)
	if err != nil {
		return err
	}
	return d.g.roster.admit(m.Meta, m.Gossip)
}

// NotifyMerge refuses to join with another cluster before any of it is taken in.
func (d delegate) NotifyMerge(nodes []*memberlist.Node) error {
	var theirs []Member
	for _, node := range nodes {
		present := node.State == memberlist.StateAlive || node.State == memberlist.StateSuspect
		// What cannot be read is refused one by one by NotifyAlive.
		if m, err := memberOf(node); err == nil && present {
			theirs = append(theirs, m)
		}
	}
	return d.g.roster.mergeWith(theirs)
}

// NotifyConflict hears of a known peer at another address.
func (d delegate) NotifyConflict(_, other *memberlist.Node) {
	if m, err := memberOf(other); err == nil {
		d.g.roster.conflict(m.Meta, m.Gossip)
	}
}

// NotifyJoin hears of a peer that is reached again, or for the first time.
func (d delegate) NotifyJoin(node *memberlist.Node) { d.NotifyUpdate(node) }

// NotifyUpdate hears of a peer that says something else of itself.
func (d delegate) NotifyUpdate(node *memberlist.Node) {
	// NotifyAlive has read it a moment ago.
	if m, err := memberOf(node); err == nil {
		d.g.roster.alive(m.Meta, m.Gossip)
	}
}

// NotifyLeave hears of a peer that is silent or has said good-bye; memberlist
// does not tell which.
func (d delegate) NotifyLeave(node *memberlist.Node) { d.g.roster.silent(node.Name) }

// LocalState gives who is out for good to the other end of every exchange, so
// that it is known after a split and to those who come later.
func (d delegate) LocalState(bool) []byte { return d.g.roster.departures() }

// MergeRemoteState takes in what LocalState gave there.
func (d delegate) MergeRemoteState(buf []byte, _ bool) { d.departed(buf) }

func (d delegate) departed(buf []byte) {
	epochs, err := decodeDepartures(buf)
	if err != nil {
		d.g.log.Debug("unreadable message of a peer", "err", err)
		return
	}
	d.g.roster.depart(epochs)
}

// NotifyMsg takes in a message that a peer sent to this one.
func (d delegate) NotifyMsg(buf []byte) {
	if len(buf) == 0 {
		return
	}
	switch buf[0] {
	case messageDepartures:
		d.departed(buf[1:])
	case messagePayload:
		r := reader{left: buf[1:]}
		from, to := r.uuid(), r.uuid()
		if r.failed || to != d.g.id || d.g.onMessage == nil {
			return // meant for who had this address before
		}
		d.g.onMessage(from, append([]byte(nil), r.left...))
	default: // of a later release
	}
}

// GetBroadcasts has nothing to add: what must arrive goes by stream.
func (d delegate) GetBroadcasts(int, int) [][]byte { return nil }

// memberOf reads who a node of memberlist is. Its name there is the peer's id,
// which cannot change hands as a name can.
func memberOf(node *memberlist.Node) (Member, error) {
	meta, err := decodeMeta(node.Meta)
	if err != nil {
		return Member{}, err
	}
	if meta.ID != node.Name {
		return Member{}, errOtherID
	}
	addr, ok := netip.AddrFromSlice(node.Addr)
	if !ok || node.Port == 0 {
		return Member{}, errNoAddress
	}
	return Member{Meta: meta, Gossip: netip.AddrPortFrom(addr.Unmap(), node.Port)}, nil
}

func appendUUID(b []byte, id string) []byte {
	parsed, err := uuid.Parse(id)
	if err != nil {
		parsed = uuid.Nil // ids were checked where they came in
	}
	return append(b, parsed[:]...)
}
