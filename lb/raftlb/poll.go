package raftlb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"srsx/lb"
	"srsx/lb/liveness"
)

// What one peer sees of an origin moves nobody's streams: where its own network
// is broken, a healthy origin looks dead. So the leader has the voters probe, and
// proposes what a majority of them found.

// pollTimeout bounds one round: a probe takes up to two seconds.
const pollTimeout = 3 * time.Second

// inquiry asks a voter what it sees of one run of an origin, in JSON.
type inquiry struct {
	Origin      lb.OriginID
	Incarnation lb.Incarnation
	Alive       bool   // whether it answers; else whether it does not
	Index       uint64 // of the log, at which the voter knows of it too
}

var errSeenDead = errors.New("a majority of the voters does not reach it")

// poll implements liveness.Config.Poll. Who asks the same meanwhile shares the
// round.
func (l *leadership) poll(_ context.Context, o lb.Origin) error {
	down := o.State == lb.Down
	q := inquiry{Origin: o.ID, Incarnation: o.Incarnation, Alive: down}
	_, err, _ := l.rounds.Do(fmt.Sprint(q), func() (any, error) { //nolint:contextcheck // the round is not only this caller's
		q.Index = l.index()
		return nil, l.round(q)
	})
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", liveness.ErrUnsettled, err)
	case down:
		return nil
	default:
		return errSeenDead
	}
}

func (l *leadership) round(q inquiry) error {
	ctx, cancel := context.WithTimeout(l.life, pollTimeout)
	defer cancel()
	question, err := json.Marshal(q)
	if err != nil {
		return err
	}
	return l.node.Majority(ctx, question)
}

// Witness answers an inquiry of the leader by what this peer sees.
func (b *Balancer) Witness(ctx context.Context, _ string, question []byte) bool {
	node, err := b.peer()
	if err != nil {
		return false
	}
	var q inquiry
	if json.Unmarshal(question, &q) != nil || node.Await(ctx, q.Index) != nil {
		return false
	}
	o, known := b.replica.Origin(q.Origin)
	if !known || o.Incarnation != q.Incarnation {
		return false
	}
	err = b.config.Probe.Ask(ctx, o)
	if q.Alive || ctx.Err() != nil { // a probe that was cut off says nothing
		return err == nil
	}
	return err != nil && !errors.Is(err, liveness.ErrNothingToProbe)
}
