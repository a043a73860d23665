package quorum

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	lookEvery = time.Second
	stepTime  = 5 * time.Second // for a step to be taken up and committed
	noteEvery = 10 * time.Second
)

// Raft is what a Keeper needs of Raft; [*raft.Raft] is one.
type Raft interface {
	GetConfiguration() raft.ConfigurationFuture
	VerifyLeader() raft.Future
	CurrentTerm() uint64
	LastIndex() uint64
	AddVoter(id raft.ServerID, address raft.ServerAddress, prevIndex uint64, timeout time.Duration) raft.IndexFuture
	AddNonvoter(id raft.ServerID, address raft.ServerAddress, prevIndex uint64, timeout time.Duration) raft.IndexFuture
	DemoteVoter(id raft.ServerID, prevIndex uint64, timeout time.Duration) raft.IndexFuture
	RemoveServer(id raft.ServerID, prevIndex uint64, timeout time.Duration) raft.IndexFuture
}

// Config is what a Keeper needs.
type Config struct {
	Self     raft.ServerID
	Raft     Raft
	Settings Settings

	Cluster  func() string // UUID
	Commands func() uint16 // version in use
	Peers    func() []Peer
	// Contacts asks every other server of a configuration how far it is, all at
	// once, and returns who answered in time.
	Contacts func(ctx context.Context, c raft.Configuration) map[raft.ServerID]Contact
	// Answered asks Raft and waits for its answer, which may not come while its disk
	// hangs.
	Answered func(ctx context.Context, ask func() raft.Future) error
	// Changed tells that Peers has changed: gossip wakes the Keeper.
	Changed <-chan struct{}

	Log *slog.Logger
}

// Keeper keeps the configuration of Raft fitting while this peer leads. It makes
// every change there is, an operator's too, so that none is decided upon what
// another has changed meanwhile: Raft does not tell the index of a configuration
// that it would have to be given for that.
type Keeper struct {
	cfg Config

	mu    sync.Mutex // held from a look to the end of the step that follows
	watch *Watch
	noted map[string]time.Time // when a note was last logged
}

// NewKeeper returns one for a term of leadership that begins now.
func NewKeeper(cfg Config) *Keeper {
	return &Keeper{cfg: cfg, watch: NewWatch(), noted: make(map[string]time.Time)}
}

// Serve looks at every change and every second, until ctx ends: with the
// leadership of this peer.
func (k *Keeper) Serve(ctx context.Context) error {
	ticks := time.NewTicker(lookEvery)
	defer ticks.Stop()
	for {
		if err := k.fit(ctx); err != nil && ctx.Err() == nil {
			k.cfg.Log.WarnContext(ctx, "membership is not up to date", "err", err)
		}
		select {
		case <-ticks.C:
		case <-k.cfg.Changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// MayLeave returns an error as [MayLeave] does, by what is so now.
func (k *Keeper) MayLeave(ctx context.Context, id raft.ServerID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, err := k.look(ctx)
	if err != nil {
		return err
	}
	return MayLeave(s, id)
}

// Remove takes a server out of the configuration at the word of an operator, and
// comes back when that is committed; it may be out already. It returns an error as
// [MayLeave] does when that would cost the majority. A server that gossip shows
// alive is let in again: declare makes gossip know that it is gone, once it is
// certain that it may go.
func (k *Keeper) Remove(ctx context.Context, id raft.ServerID, declare func(context.Context)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, err := k.look(ctx)
	if err != nil {
		return err
	}
	if err := MayLeave(s, id); err != nil {
		return err
	}
	declare(ctx)
	if !slices.ContainsFunc(s.Config.Servers, func(s raft.Server) bool { return s.ID == id }) {
		return nil
	}
	step := *newPicture(s, k.cfg.Settings).step(Remove, id, "by the word of an operator")
	return k.take(ctx, step)
}

// fit takes one step after the other until the configuration fits.
func (k *Keeper) fit(ctx context.Context) error {
	for ctx.Err() == nil {
		more, err := k.fitOnce(ctx)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

func (k *Keeper) fitOnce(ctx context.Context) (more bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, err := k.look(ctx)
	if err != nil {
		return false, err
	}
	step, notes := Next(s, k.cfg.Settings)
	k.tell(ctx, notes)
	if step == nil {
		return false, nil
	}
	return true, k.take(ctx, *step)
}

// look asks everybody and returns what is so now.
func (k *Keeper) look(ctx context.Context) (Situation, error) {
	var future raft.ConfigurationFuture
	err := k.cfg.Answered(ctx, func() raft.Future {
		future = k.cfg.Raft.GetConfiguration()
		return future
	})
	if err != nil {
		return Situation{}, fmt.Errorf("read configuration: %w", err)
	}
	c := future.Configuration()
	peers := k.cfg.Peers()
	contacts := k.cfg.Contacts(ctx, c)
	standings := k.watch.Observe(Observation{
		Now:      time.Now(),
		Quorum:   k.cfg.Answered(ctx, k.cfg.Raft.VerifyLeader) == nil,
		Config:   c,
		Peers:    peers,
		Contacts: contacts,
		Term:     k.cfg.Raft.CurrentTerm(),
		Last:     k.cfg.Raft.LastIndex(),
	})
	return Situation{
		Self:      k.cfg.Self,
		Cluster:   k.cfg.Cluster(),
		Commands:  k.cfg.Commands(),
		Config:    c,
		Peers:     peers,
		Standings: standings,
	}, nil
}

func (k *Keeper) tell(ctx context.Context, notes []Note) {
	now := time.Now()
	maps.DeleteFunc(k.noted, func(_ string, at time.Time) bool { return now.Sub(at) >= noteEvery })
	for _, n := range notes {
		if _, told := k.noted[n.Text]; !told {
			k.noted[n.Text] = now
			k.cfg.Log.WarnContext(ctx, "peer is left as it is", "id", n.ID, "reason", n.Text)
		}
	}
}

// take carries out a step and returns when it is committed.
func (k *Keeper) take(ctx context.Context, s Step) error {
	const anyIndex = 0
	r := k.cfg.Raft
	asks := map[Action]func() raft.Future{
		Add:     func() raft.Future { return r.AddNonvoter(s.ID, s.Address, anyIndex, stepTime) },
		Move:    func() raft.Future { return r.AddNonvoter(s.ID, s.Address, anyIndex, stepTime) }, // of a voter it changes the address alone
		Promote: func() raft.Future { return r.AddVoter(s.ID, s.Address, anyIndex, stepTime) },
		Demote:  func() raft.Future { return r.DemoteVoter(s.ID, anyIndex, stepTime) },
		Remove:  func() raft.Future { return r.RemoveServer(s.ID, anyIndex, stepTime) },
	}
	ask, known := asks[s.Do]
	if !known {
		return errors.New("unknown step " + string(s.Do))
	}
	if err := k.cfg.Answered(ctx, ask); err != nil {
		return fmt.Errorf("%s %s: %w", s.Do, s.ID, err)
	}
	k.cfg.Log.InfoContext(ctx, "membership changed", "action", s.Do, "peer", s.Name, "id", s.ID, "reason", s.Reason)
	return nil
}
