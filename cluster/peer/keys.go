package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"srsx/cluster/gossip"
	"srsx/cluster/keyring"
	"srsx/cluster/port"
)

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

// rings changes the key ring of every peer that is alive and returns the rings
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

func (p *Peer) answerRing(_ context.Context, _ port.Peer, request []byte) ([]byte, error) {
	var change ringChange
	if err := json.Unmarshal(request, &change); err != nil {
		return nil, err
	}
	if err := change.apply(p.ring); err != nil {
		return nil, err
	}
	return json.Marshal(p.ring.List())
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
