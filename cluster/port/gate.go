package port

import (
	"net"
	"net/netip"
	"slices"
	"sync"
)

// gate counts who knocks and who is inside. Those who knock have proven nothing
// yet, so they never use up the places inside, and the places to knock from are
// never refused but taken over, oldest first: an honest handshake takes
// milliseconds, so it is the silent and the slow that have to go. An address
// that has its share takes over its own, so a flood hurts its neighbours only
// when it comes from more addresses than there are shares.
type gate struct {
	limits Limits

	mu      sync.Mutex
	waiting []*visitor // guarded by mu, as all below; oldest first
	inside  int
	perAddr map[netip.Addr]int // of those inside
}

type visitor struct {
	conn   *net.TCPConn
	addr   netip.Addr
	inside bool // guarded by gate.mu
}

func newGate(limits Limits) *gate {
	return &gate{limits: limits, perAddr: make(map[netip.Addr]int)}
}

// knock lets a connection begin its handshake, at the cost of another one's
// when too many are under way.
func (g *gate) knock(conn *net.TCPConn) *visitor {
	v := &visitor{conn: conn, addr: addrOf(conn)}
	g.mu.Lock()
	defer g.mu.Unlock()
	if displaced := g.displaced(v.addr); displaced >= 0 {
		_ = g.waiting[displaced].conn.SetLinger(0) // a flood should not leave its dead in the kernel
		_ = g.waiting[displaced].conn.Close()
		g.waiting = slices.Delete(g.waiting, displaced, displaced+1)
	}
	g.waiting = append(g.waiting, v)
	return v
}

// displaced returns the place of the one who has to go for one more from addr,
// or -1. The caller holds g.mu.
func (g *gate) displaced(addr netip.Addr) int {
	oldest, same := -1, 0
	for i, w := range g.waiting {
		if w.addr == addr {
			if same++; oldest < 0 {
				oldest = i
			}
		}
	}
	switch {
	case same >= g.limits.HandshakesPerAddr:
		return oldest
	case len(g.waiting) >= g.limits.Handshakes:
		return 0
	default:
		return -1
	}
}

// enter gives v a place inside, or returns [ErrTooMany].
func (g *gate) enter(v *visitor) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.inside >= g.limits.Conns:
		return refuse(ErrTooMany, "%d are open", g.inside)
	case g.perAddr[v.addr] >= g.limits.ConnsPerAddr:
		return refuse(ErrTooMany, "%d are open from %v", g.perAddr[v.addr], v.addr)
	}
	g.forget(v)
	v.inside = true
	g.inside++
	g.perAddr[v.addr]++
	return nil
}

// leave gives up whichever place v has.
func (g *gate) leave(v *visitor) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget(v)
	if !v.inside {
		return
	}
	v.inside = false
	g.inside--
	if g.perAddr[v.addr]--; g.perAddr[v.addr] == 0 {
		delete(g.perAddr, v.addr)
	}
}

// forget takes v out of the waiting ones. The caller holds g.mu.
func (g *gate) forget(v *visitor) {
	if i := slices.Index(g.waiting, v); i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
	}
}

func addrOf(conn *net.TCPConn) netip.Addr {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
