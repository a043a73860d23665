package clustertest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"

	"srsx/cluster"
)

// Network joins hosts in memory. It may be cut between any two, one way or both:
// then nobody gets an error, only silence.
type Network struct {
	mu      sync.Mutex
	hosts   map[string]*host
	links   map[[2]string]*link
	resets  map[[2]string]bool // firewalls that make a live host look dead
	changed chan struct{}      // closed and replaced whenever reach may change
}

func newNetwork() *Network {
	return &Network{
		hosts: make(map[string]*host), links: make(map[[2]string]*link), resets: make(map[[2]string]bool),
		changed: make(chan struct{}),
	}
}

// host is one run of a process.
type host struct {
	id    string
	layer *layer
	dead  chan struct{}

	mu       sync.Mutex
	conns    []net.Conn
	handlers map[byte]handler
	fenced   bool // raft gets no connections
}

type handler func(ctx context.Context, from string, request []byte) ([]byte, error)

func (n *Network) start(id string) *host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := &host{id: id, dead: make(chan struct{}), handlers: make(map[byte]handler)}
	h.layer = &layer{net: n, host: h, accept: make(chan net.Conn)}
	n.hosts[id] = h
	n.stir()
	return h
}

// kill ends a process: its connections end, new ones are refused.
func (n *Network) kill(h *host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts[h.id] == h {
		delete(n.hosts, h.id)
	}
	h.end()
	n.stir()
}

func (h *host) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.dead:
		return
	default:
	}
	close(h.dead)
	h.hangUp()
}

// fence ends raft's connections and takes no new ones, as the cluster port does.
func (h *host) fence(shut bool) { //nolint:revive // the state itself, not a mode
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fenced = shut
	if shut {
		h.hangUp()
	}
}

func (h *host) hangUp() {
	for _, c := range h.conns {
		_ = c.Close()
	}
	h.conns = nil
}

func (h *host) adopt(c net.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.dead:
		return false
	default:
	}
	if h.fenced {
		return false
	}
	h.conns = append(h.conns, c)
	return true
}

func (n *Network) stir() {
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *Network) link(from, to string) *link {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.linkOf(from, to)
}

func (n *Network) linkOf(from, to string) *link {
	l := n.links[[2]string{from, to}]
	if l == nil {
		l = newLink()
		n.links[[2]string{from, to}] = l
	}
	return l
}

func (n *Network) cut(from, to string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.linkOf(from, to).set(cut)
	n.stir()
}

// reset makes a live host look dead to another.
func (n *Network) reset(from, to string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.resets[[2]string{from, to}] = on
	n.stir()
}

func (n *Network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.resets)
	for _, l := range n.links {
		l.set(false)
	}
	n.stir()
}

// reach returns the host that answers a dial now, a dead one when it refuses, and
// nil while the network says nothing; changed is closed when that may differ.
func (n *Network) reach(from, to string) (target *host, changed <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	reset := n.resets[[2]string{from, to}]
	if from != to && !reset && (!n.linkOf(from, to).open() || !n.linkOf(to, from).open()) {
		return nil, n.changed
	}
	h := n.hosts[to]
	if h == nil || reset {
		h = &host{id: to, dead: make(chan struct{})}
		h.layer = &layer{net: n, host: h}
		close(h.dead)
	}
	return h, n.changed
}

// processes implements cluster.Processes for one host.
type processes struct {
	net  *Network
	from string
}

// Dead implements cluster.Processes.
func (p processes) Dead(_ context.Context, id string) bool {
	h, _ := p.net.reach(p.from, id)
	if h == nil {
		return false
	}
	select {
	case <-h.dead:
		return true
	default:
		return false
	}
}

// AwaitDeath implements cluster.Processes.
func (p processes) AwaitDeath(ctx context.Context, id string) error {
	for {
		h, changed := p.net.reach(p.from, id)
		if h != nil {
			select {
			case <-h.dead:
				return nil
			default:
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// rpc implements cluster.RPC for one run of a host.
type rpc struct {
	net  *Network
	host *host
}

// Handle implements cluster.RPC.
func (r rpc) Handle(kind byte, answer func(ctx context.Context, from string, request []byte) ([]byte, error)) {
	r.host.mu.Lock()
	defer r.host.mu.Unlock()
	r.host.handlers[kind] = answer
}

// Call implements cluster.RPC.
func (r rpc) Call(ctx context.Context, to string, kind byte, request []byte) ([]byte, error) {
	target, err := r.pass(ctx, to)
	if err != nil {
		return nil, err
	}
	target.mu.Lock()
	answer := target.handlers[kind]
	target.mu.Unlock()
	select {
	case <-target.dead:
		return nil, fmt.Errorf("%w: call %s: %w", cluster.ErrUnsent, to, syscall.ECONNREFUSED)
	default:
	}
	if answer == nil {
		return nil, fmt.Errorf("%w: call %s: nobody answers", cluster.ErrUnsent, to)
	}
	return r.exchange(ctx, target, answer, request)
}

func (r rpc) exchange(ctx context.Context, target *host, answer handler, request []byte) ([]byte, error) {
	type response struct {
		reply []byte
		err   error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan response, 1)
	go func() {
		reply, err := answer(ctx, r.host.id, bytes.Clone(request))
		done <- response{bytes.Clone(reply), err}
	}()
	select {
	case d := <-done:
		if _, err := r.pass(ctx, target.id); err != nil {
			return nil, err
		}
		return d.reply, d.err
	case <-target.dead:
		return nil, fmt.Errorf("call %s: %w", target.id, syscall.ECONNRESET)
	case <-r.host.dead:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// pass waits until the network lets a message through both ways.
func (r rpc) pass(ctx context.Context, to string) (*host, error) {
	for {
		target, changed := r.net.reach(r.host.id, to)
		if target != nil {
			return target, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-r.host.dead:
			return nil, net.ErrClosed
		}
	}
}
