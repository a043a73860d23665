package srt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/srt/wire"
)

const (
	// resend is how often an unanswered handshake is sent, as libsrt does.
	resend = 250 * time.Millisecond
	// maxCollisions is how often an origin may choose an id that the client's
	// address has already.
	maxCollisions = 3
)

var (
	errOld       = errors.New("caller speaks only version 4 of the handshake, which has no stream id")
	errSilent    = errors.New("origin does not answer the handshake")
	errGarbage   = errors.New("origin's answer is no handshake of version 5")
	errCollision = errors.New("origin chose a socket id that the client's address has already")
)

// rejectedError is the origin's own refusal.
type rejectedError struct{ reason wire.Reason }

func (r rejectedError) Error() string { return "origin rejected the handshake: " + r.reason.String() }

// attempt is one handshake with one address of an origin.
type attempt struct {
	at      *upstream
	answers chan answer
}

// answer is what came of a step.
type answer struct {
	cookie uint32 // of an answered induction
	up     bool
	err    error
}

// reach does the handshake with the session's origin, and with others as long
// as they cannot be reached and the caller waits.
func (f *flow) reach(ctx context.Context) error {
	ctx, cancel := context.WithDeadline(ctx, f.arrived.Add(f.server.config.Patience))
	defer cancel()
	for collisions := 0; ; {
		err := f.ask(ctx, f.session.Origin())
		switch {
		case errors.Is(err, errCollision) && collisions < maxCollisions:
			collisions++
		case !errors.Is(err, proxy.ErrUnreachable) || ctx.Err() != nil:
			return err
		default:
			if unreachable := f.session.Unreachable(ctx, err); unreachable != nil {
				return unreachable
			}
		}
	}
}

// ask tries an origin's addresses in turn. An error that matches
// [proxy.ErrUnreachable] means that none answered.
func (f *flow) ask(ctx context.Context, origin lb.Origin) error {
	addrs, err := resolve(ctx, origin.Endpoints.SRT)
	if err != nil {
		return fmt.Errorf("origin %s: %w", origin.ID, err)
	}
	for _, addr := range addrs {
		if err = f.askAt(ctx, addr); err == nil || !errors.Is(err, proxy.ErrUnreachable) || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("origin %s: %w", origin.ID, err)
	}
	return nil
}

// resolve returns the addresses of the first endpoint over UDP.
func resolve(ctx context.Context, endpoints []string) ([]netip.AddrPort, error) {
	i := slices.IndexFunc(endpoints, func(e string) bool { return !strings.HasPrefix(e, "tcp://") })
	if i < 0 {
		return nil, fmt.Errorf("%w: %s", proxy.ErrNotServed, lb.SRT)
	}
	host, service, err := net.SplitHostPort(strings.TrimPrefix(endpoints[i], "udp://"))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", proxy.ErrUnreachable, err)
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", proxy.ErrUnreachable, err)
	}
	ips := make([]netip.Addr, 1)
	if ips[0], err = netip.ParseAddr(host); err != nil {
		if ips, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host); err != nil {
			return nil, fmt.Errorf("%w: %w", proxy.ErrUnreachable, err)
		}
	}
	addrs := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		addrs[i] = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return addrs, nil
}

// askAt does the handshake with one address. When it returns nil the flow is
// up.
func (f *flow) askAt(ctx context.Context, addr netip.AddrPort) error {
	u, err := f.server.origins.take(addr, f)
	if err != nil {
		return fmt.Errorf("%w: %w", proxy.ErrUnreachable, err)
	}
	a := &attempt{at: u, answers: make(chan answer, 4)}
	f.mu.Lock()
	f.attempt = a
	f.mu.Unlock()
	err = f.shake(ctx, a)
	f.mu.Lock()
	f.attempt = nil
	up := f.up.Load()
	f.mu.Unlock()
	if up {
		return nil // it may have come up while its time ran out
	}
	f.server.origins.give(u, f)
	return err
}

// shake sends what the caller would send, and again, until an answer ends it.
func (f *flow) shake(ctx context.Context, a *attempt) error {
	induction := f.hello.Inducing()
	induction.Told = wire.Told(a.at.addr.Addr())
	say := induction.Append(nil)
	a.at.send(say)
	again := time.NewTicker(resend)
	defer again.Stop()
	silence := time.NewTimer(f.server.config.OriginTimeout)
	defer silence.Stop()
	for said := time.Now(); ; {
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("%w: %w", proxy.ErrUnreachable, errSilent)
			}
			return context.Cause(ctx)
		case <-silence.C:
			return fmt.Errorf("%w: %w", proxy.ErrUnreachable, errSilent)
		case now := <-again.C:
			wire.Delay(say, now.Sub(said))
			said = now
			a.at.send(say)
		case got := <-a.answers:
			if got.up || got.err != nil {
				return got.err
			}
			// It lives. What it does now, such as asking others who this is, may
			// take as long as the caller waits.
			silence.Stop()
			say, said = f.concluding(a, got.cookie), time.Now()
			a.at.send(say)
		}
	}
}

// concluding returns the caller's conclusion for an origin, with the time that
// it was held here.
func (f *flow) concluding(a *attempt, cookie uint32) []byte {
	p := slices.Clone(f.conclusion)
	wire.SetCookie(p, cookie)
	wire.SetTold(p, a.at.addr.Addr())
	wire.Delay(p, time.Since(f.arrived))
	return p
}

// tell hands an answer to the attempt that it is for.
func (f *flow) tell(u *upstream, what answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.attempt == nil || f.attempt.at != u {
		return
	}
	select {
	case f.attempt.answers <- what:
	default: // copies of answers; the handshake is sent again
	}
}

// answered deals with a packet of an origin that is being asked. It runs in the
// reader of the upstream, so that media which follows an accepting answer at
// once is relayed and not lost.
func (f *flow) answered(u *upstream, p []byte) {
	h, err := wire.ParseHandshake(p)
	if err != nil {
		f.server.metrics.drop(dropMalformed)
		return
	}
	reason, rejected := h.Kind.Rejects()
	switch {
	case rejected:
		f.tell(u, answer{err: rejectedError{reason}})
	case h.Induces():
		f.tell(u, answer{cookie: h.Cookie})
	case h.Kind == wire.Conclusion && !h.Old() && h.SocketID != 0:
		f.establish(u, p, h)
	default:
		f.tell(u, answer{err: errGarbage})
	}
}

// establish relays the origin's consent, and everything from then on.
func (f *flow) establish(u *upstream, p []byte, h wire.Handshake) {
	f.mu.Lock()
	wanted := f.attempt != nil && f.attempt.at == u && !f.up.Load()
	err := error(nil)
	if wanted {
		f.at, f.originID = u, h.SocketID
		if f.server.table.join(f) {
			f.reply, f.replied = slices.Clone(p), time.Now()
			wire.SetCookie(f.reply, f.hello.Cookie)
			wire.SetTold(f.reply, f.who.addr.Addr())
			f.up.Store(true)
			f.server.send(f.reply, f.client)
		} else {
			err = errCollision
		}
	}
	f.mu.Unlock()
	if !wanted || err != nil {
		u.send(wire.AppendShutdown(nil, h.SocketID))
	}
	if wanted {
		f.tell(u, answer{up: err == nil, err: err})
	}
}

// Probe returns nil when something answers a handshake at an endpoint, as an
// origin that can be had does.
func Probe(ctx context.Context, endpoint string) error {
	addrs, err := resolve(ctx, []string{endpoint})
	if err != nil {
		return err
	}
	for _, addr := range addrs {
		if err = probe(ctx, addr); err == nil {
			return nil
		}
	}
	return err
}

func probe(ctx context.Context, addr netip.AddrPort) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	const anyID, mtu, window = 1, 1500, 8192
	induction := wire.Handshake{SocketID: anyID, MTU: mtu, Window: window}.Inducing()
	if _, err = conn.Write(induction.Append(nil)); err != nil {
		return err
	}
	b := make([]byte, wire.MaxHandshake)
	n, err := conn.Read(b)
	if err != nil {
		return fmt.Errorf("probe: %w", errors.Join(err, ctx.Err()))
	}
	_, err = wire.ParseHandshake(b[:n])
	return err
}
