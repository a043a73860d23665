package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"
)

// Server is one member as raft knows it.
type Server struct {
	ID    string
	Addr  string // host:port of its cluster port
	Voter bool   // otherwise a replica
}

// Servers returns the members, by the latest configuration in this peer's log.
func (n *Node) Servers() []Server {
	var servers []Server
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		servers = append(servers, Server{ID: string(s.ID), Addr: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return servers
}

// Bootstrap founds a cluster of the given servers, of which this peer must be
// one that votes. ErrHasState: the peer has a log or a snapshot.
func (n *Node) Bootstrap(ctx context.Context, servers []Server) error {
	var c raft.Configuration
	for _, s := range servers {
		member := raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Addr)}
		if !s.Voter {
			member.Suffrage = raft.Nonvoter
		}
		c.Servers = append(c.Servers, member)
	}
	err := n.flights.answered(ctx, func() raft.Future { return n.raft.BootstrapCluster(c) })
	if errors.Is(err, raft.ErrCantBootstrap) {
		err = ErrHasState
	}
	if err != nil {
		return fmt.Errorf("found cluster: %w", err)
	}
	return nil
}

// HasState reports whether this peer has a log, a snapshot or a term: whether it
// is part of a cluster, or was.
func (n *Node) HasState() (bool, error) {
	return raft.HasExistingState(n.config.Logs, n.config.Stable, n.config.Snapshots)
}

// change is one change of membership. The numbers never change.
type change byte

const (
	addNonvoter change = 1
	promote     change = 2
	demote      change = 3
	remove      change = 4
	transfer    change = 5
)

func (c change) String() string {
	switch c {
	case addNonvoter:
		return "add"
	case promote:
		return "promote"
	case demote:
		return "demote"
	case remove:
		return "remove"
	case transfer:
		return "transfer leadership to"
	default:
		return fmt.Sprintf("change(%d)", byte(c))
	}
}

// AddNonvoter adds a replica; a member that votes goes on voting. It, Promote,
// Demote and Remove return once the change is agreed. They are safe to repeat
// after ErrUnknownOutcome, and any peer may call them.
//
// A member's address should never change: raft 1.8.0 reads it without the lock
// under which it writes it. The cluster port resolves node ids, which are the
// addresses.
func (n *Node) AddNonvoter(ctx context.Context, id, addr string) error {
	return n.change(ctx, addNonvoter, id, addr)
}

// Promote makes a member a voter. It should be close to the leader's log, see
// [Node.Position]: a voter far behind can stop the cluster.
func (n *Node) Promote(ctx context.Context, id string) error { return n.change(ctx, promote, id, "") }

// Demote makes a voter a replica.
func (n *Node) Demote(ctx context.Context, id string) error { return n.change(ctx, demote, id, "") }

// Remove takes a server out of the cluster. It is not told.
func (n *Node) Remove(ctx context.Context, id string) error { return n.change(ctx, remove, id, "") }

// TransferLeadership makes the given voter lead, or the one that is furthest if
// id is empty. ErrNotFresh: it does not answer or is too far behind; then nothing
// was done.
func (n *Node) TransferLeadership(ctx context.Context, id string) error {
	return n.change(ctx, transfer, id, "")
}

func (n *Node) change(ctx context.Context, c change, id, addr string) error {
	if err := n.refused(); err != nil && !errors.Is(err, ErrHalted) {
		return err
	}
	// The change may make the leader step down: that must not end the wait for
	// its answer, as it does with other requests.
	ctx, cancel := context.WithTimeout(ctx, n.config.Timeout)
	defer cancel()
	err := n.tryLeaders(ctx, func(_ context.Context, leader string) error {
		if leader == n.config.ID {
			return n.changeHere(ctx, c, id, addr)
		}
		request := appendBytes(appendBytes([]byte{byte(c)}, []byte(id)), []byte(addr))
		reply, err := n.config.RPC.Call(ctx, leader, kindChange, request)
		if errors.Is(err, ErrUnsent) {
			return err
		}
		if err != nil {
			return fmt.Errorf("%w: ask %s: %w", ErrUnknownOutcome, leader, err)
		}
		return (&message{rest: reply}).problem()
	}, refusedWhole)
	if err != nil {
		return fmt.Errorf("%s %s: %w", c, id, err)
	}
	return nil
}

func (n *Node) answerChange(ctx context.Context, from string, request []byte) ([]byte, error) {
	m := &message{rest: request}
	c, id, addr := change(m.octet()), m.text(), m.text()
	if m.end() != nil {
		return nil, malformed("change", from)
	}
	return appendError(nil, n.changeHere(ctx, c, id, addr)), nil
}

func (n *Node) changeHere(ctx context.Context, c change, id, addr string) error {
	if n.raft.State() != raft.Leader || n.fenced.Load() {
		return ErrNotLeader
	}
	servers := n.Servers()
	i := slices.IndexFunc(servers, func(s Server) bool { return s.ID == id })
	known := i >= 0
	if c != addNonvoter && !known && (c != transfer || id != "") {
		return ErrUnknownMember
	}
	server, timeout := raft.ServerID(id), n.config.Timeout
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var ask func() raft.Future
	switch c {
	case addNonvoter:
		ask = func() raft.Future { return n.raft.AddNonvoter(server, raft.ServerAddress(addr), 0, timeout) }
	case promote:
		ask = func() raft.Future { return n.raft.AddVoter(server, raft.ServerAddress(servers[i].Addr), 0, timeout) }
	case demote:
		ask = func() raft.Future { return n.raft.DemoteVoter(server, 0, timeout) }
	case remove:
		ask = func() raft.Future { return n.raft.RemoveServer(server, 0, timeout) }
	case transfer:
		return n.transferHere(ctx, id)
	default:
		return fmt.Errorf("%w: %s", ErrMixedVersions, c)
	}
	err := n.flights.answered(ctx, ask)
	switch {
	case notTaken(err):
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown), ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	default:
		return err
	}
}

// Answered asks Raft and waits for its answer, which may never come: not while its
// disk hangs, and not to what it was handed and had not looked at when it was shut
// down. So Close waits before that for what is under way, and lets nothing more be
// asked: ErrClosed.
func (n *Node) Answered(ctx context.Context, ask func() raft.Future) error {
	return n.flights.answered(ctx, ask)
}

// Raft is what keeps the members in line with who is there: see package quorum.
func (n *Node) Raft() *raft.Raft { return n.raft }
