package srttest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	gosrt "github.com/datarhei/gosrt"
)

// Latency is what callers ask for: long enough that a busy machine is no loss.
const Latency = time.Second

// Call connects to addr; passphrase may be empty.
func Call(addr, streamID, passphrase string) (gosrt.Conn, error) {
	config := gosrt.DefaultConfig()
	config.StreamId, config.Passphrase = streamID, passphrase
	config.ReceiverLatency, config.PeerLatency = Latency, Latency
	conn, err := gosrt.Dial("srt", addr, config)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", streamID, err)
	}
	return conn, nil
}

// Messages carry a number, so that a player knows what it missed.
const (
	magic   = 0x53525458
	message = 1316 // bytes: seven packets of MPEG-TS, as encoders send
	pace    = 40 * time.Millisecond
)

// Publisher sends numbered messages until the test ends or the connection does.
type Publisher struct {
	mu  sync.Mutex
	err error // guarded by mu; why it ended
}

// StartPublisher publishes a path.
func StartPublisher(tb testing.TB, addr, path string) *Publisher {
	tb.Helper()
	conn, err := Call(addr, Publish(path), "")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Publisher{}
	var running sync.WaitGroup
	running.Go(func() {
		defer conn.Close() //nolint:errcheck // it ends either way
		err := send(ctx, conn)
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
	})
	tb.Cleanup(func() { cancel(); running.Wait() })
	return p
}

func send(ctx context.Context, conn gosrt.Conn) error {
	b := make([]byte, message)
	binary.BigEndian.PutUint32(b, magic)
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for n := uint32(0); ; n++ {
		binary.BigEndian.PutUint32(b[4:], n)
		if _, err := conn.Write(b); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Err returns why the connection ended, nil while it has not.
func (p *Publisher) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Player counts what a publisher sends.
type Player struct {
	mu   sync.Mutex
	seen Played // guarded by mu
}

// Played is what a player got.
type Played struct {
	Messages, Lost uint32
	Longest        time.Duration // between two messages
	Err            error         // why the connection ended; nil: it has not
}

var errForeign = errors.New("a message that no publisher sends")

// StartPlayer plays a path until the test ends.
func StartPlayer(tb testing.TB, addr, path string) *Player {
	tb.Helper()
	conn, err := Call(addr, Request(path), "")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Player{}
	var running sync.WaitGroup
	running.Go(func() { p.run(conn) })
	tb.Cleanup(func() { _ = conn.Close(); running.Wait() })
	return p
}

func (p *Player) run(conn gosrt.Conn) {
	b := make([]byte, 2*message)
	var last uint32
	at := time.Now()
	for {
		n, err := conn.Read(b)
		if err == nil && (n != message || binary.BigEndian.Uint32(b) != magic) {
			err = errForeign
		}
		p.mu.Lock()
		if err != nil {
			p.seen.Err = err
			p.mu.Unlock()
			return
		}
		number := binary.BigEndian.Uint32(b[4:])
		if p.seen.Messages > 0 {
			p.seen.Lost += number - last - 1
			p.seen.Longest = max(p.seen.Longest, time.Since(at))
		}
		p.seen.Messages++
		p.mu.Unlock()
		last, at = number, time.Now()
	}
}

// Seen returns what the player got so far.
func (p *Player) Seen() Played {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}
