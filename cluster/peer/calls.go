package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"srsx/cluster"
	"srsx/cluster/gossip"
	"srsx/cluster/keyring"
	"srsx/cluster/port"
	"srsx/cluster/rpc"
)

// The requests between peers that are of no interest to consensus. The numbers
// never change; those below 64 are the node's.
const (
	kindVitals byte = 64
	kindRing   byte = 65
)

// calls carries the node's requests.
type calls struct{ *rpc.Exchange }

func (c calls) Call(ctx context.Context, to string, kind byte, request []byte) ([]byte, error) {
	reply, err := c.Exchange.Call(ctx, port.Target{ID: to}, kind, request)
	if errors.Is(err, rpc.ErrNotExecuted) {
		return nil, fmt.Errorf("%w: %w", cluster.ErrUnsent, err)
	}
	return reply, err
}

func (c calls) Handle(kind byte, answer func(ctx context.Context, from string, request []byte) ([]byte, error)) {
	c.Exchange.Handle(kind, func(ctx context.Context, from port.Peer, request []byte) ([]byte, error) {
		return answer(ctx, from.ID, request)
	})
}

func (p *Peer) serveCalls() {
	p.calls.Handle(kindVitals, func(context.Context, port.Peer, []byte) ([]byte, error) {
		return json.Marshal(p.vitals())
	})
	p.calls.Handle(kindRing, func(_ context.Context, _ port.Peer, request []byte) ([]byte, error) {
		var change ringChange
		if err := json.Unmarshal(request, &change); err != nil {
			return nil, err
		}
		if err := change.apply(p.ring); err != nil {
			return nil, err
		}
		return json.Marshal(p.ring.List())
	})
}

func (p *Peer) vitals() Vitals {
	if p.config.Vitals == nil {
		return Vitals{}
	}
	return p.config.Vitals()
}

// Member is one peer as this one sees it.
type Member struct {
	gossip.Member

	Vitals // zero when it did not answer
}

const vitalsTimeout = 500 * time.Millisecond

// Members returns all peers, this one included, ordered by name.
func (p *Peer) Members(ctx context.Context) []Member {
	ctx, cancel := context.WithTimeout(ctx, vitalsTimeout)
	defer cancel()
	known := p.gossip.Members()
	members := make([]Member, len(known))
	var asking sync.WaitGroup
	for i, m := range known {
		members[i].Member = m
		switch {
		case m.ID == p.id:
			members[i].Vitals = p.vitals()
		case m.State == gossip.Alive:
			asking.Go(func() {
				answer, err := p.calls.Call(ctx, port.Target{ID: m.ID}, kindVitals, nil)
				if err == nil {
					_ = json.Unmarshal(answer, &members[i].Vitals) // a peer of another version
				}
			})
		}
	}
	asking.Wait()
	return members
}

// ringChange is one change of the key ring, or none.
type ringChange struct {
	Install     string // base64
	Use, Remove keyring.Fingerprint
}

func (c ringChange) apply(ring *keyring.Ring) error {
	switch {
	case c.Install != "":
		key, err := keyring.Parse(c.Install)
		if err != nil {
			return err
		}
		return ring.Install(key)
	case c.Use != "":
		return ring.Use(c.Use)
	case c.Remove != "":
		return ring.Remove(c.Remove)
	default:
		return nil
	}
}

// Rings changes the key ring of every peer that is alive and returns the rings
// of those that did it, by name. The error names those that did not.
func (p *Peer) rings(ctx context.Context, change ringChange) (map[string][]keyring.Fingerprint, error) {
	request, err := json.Marshal(change)
	if err != nil {
		return nil, err
	}
	rings := make(map[string][]keyring.Fingerprint)
	var failed []error
	for _, m := range p.gossip.Members() {
		if m.State != gossip.Alive {
			continue
		}
		ring, err := p.ringOf(ctx, m, change, request)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", m.Name, err))
			continue
		}
		rings[m.Name] = ring
	}
	return rings, errors.Join(failed...)
}

func (p *Peer) ringOf(ctx context.Context, m gossip.Member, change ringChange, request []byte) (ring []keyring.Fingerprint, err error) {
	if m.ID == p.id {
		err = change.apply(p.ring)
		return p.ring.List(), err
	}
	answer, err := p.calls.Call(ctx, port.Target{ID: m.ID}, kindRing, request)
	if err != nil {
		return nil, err
	}
	return ring, json.Unmarshal(answer, &ring)
}

// Keys returns the ring of every peer that is alive, by name.
func (p *Peer) Keys(ctx context.Context) (map[string][]keyring.Fingerprint, error) {
	return p.rings(ctx, ringChange{})
}

// InstallKey adds a key, in base64, to the ring of every peer that is alive.
func (p *Peer) InstallKey(ctx context.Context, key string) error {
	_, err := p.rings(ctx, ringChange{Install: key})
	return err
}

// UseKey makes an installed key the one in use.
func (p *Peer) UseKey(ctx context.Context, name keyring.Fingerprint) error {
	_, err := p.rings(ctx, ringChange{Use: name})
	return err
}

// RemoveKey forgets a key that is not in use.
func (p *Peer) RemoveKey(ctx context.Context, name keyring.Fingerprint) error {
	_, err := p.rings(ctx, ringChange{Remove: name})
	return err
}
