package gossip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	joinPause  = time.Second // between two attempts of Join
	firstPause = time.Second // of the backoff while nobody is reached
	// While peers come in, everybody exchanges state with somebody at random now
	// and then: a packet of gossip that is lost among so many would otherwise be
	// missed until the next exchange, half a minute later. The pause grows with the
	// number of peers, so that all together exchange as often however many they are.
	settleFor   = 10 * time.Second
	settlePause = 500 * time.Millisecond // of up to ten peers
	settlePeers = 10
	movedPause  = 2 * time.Second // between rounds while others hold on to our old address
	movedFor    = time.Minute     // more than they take to give up on it
	joinsAtOnce = 16
	lookupTime  = 5 * time.Second
)

// errNoAnswer means that a seed was reached but ended the exchange without a
// word, as memberlist does with strangers.
var errNoAnswer = errors.New("hung up; has it another -cluster-name or -encrypt?")

// refusedError is why somebody who was reached, or this peer itself, did not want the
// other.
type refusedError struct{ error }

// Join meets the peers at seeds, tried again every second until one of them
// answers or ctx ends. Its error says in one line what each said last.
func (g *Gossip) Join(ctx context.Context, seeds ...string) error {
	var last error
	for {
		addrs, err := g.resolve(ctx, seeds)
		reached, joinErr := g.meet(ctx, addrs)
		if reached > 0 {
			g.hurryRejoin() // should the others hold on to an old address of ours
			return nil
		}
		err = errors.Join(err, joinErr)
		if err == nil {
			err = errSelf
		}
		// An attempt that ctx has cut short has nothing to tell.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-time.After(joinPause):
		case <-ctx.Done():
			return fmt.Errorf("join %s: %s", strings.Join(seeds, ","), oneLine(last))
		}
	}
}

// rejoinForEver keeps this peer together with those it should be with. The seeds
// are looked up anew each time, and whoever is missed is tried where it was last
// seen: after a long split, or a start of all, gossip alone knows nobody.
func (g *Gossip) rejoinForEver(ctx context.Context) {
	backoff := firstPause
	tried := sync.OnceFunc(func() { close(g.tried) })
	for {
		missed, err := g.resolve(ctx, g.seeds)
		missed = g.without(append(missed, g.roster.missed()...))
		if g.roster.settling() || g.moved() {
			missed = append(missed, g.anybody()...)
		}
		if err = g.meetMissed(ctx, missed, err); ctx.Err() == nil && !errors.As(err, new(refusedError)) {
			tried()
		}
		pause := jittered(g.rejoin)
		switch {
		case g.roster.settling():
			pause = min(pause, jittered(settlePause*time.Duration(1+len(g.live())/settlePeers)))
		case g.moved():
			pause = min(pause, movedPause)
		case len(g.live()) == 0:
			pause = min(pause, jittered(backoff))
			backoff = min(2*backoff, g.rejoin)
		default:
			backoff = firstPause
		}
		select {
		case <-time.After(pause):
		case <-g.hurry:
		case <-ctx.Done():
			return
		}
	}
}

// moved reports whether others held on to the address of an earlier run of this
// peer a moment ago. They take in the new one when they have given up on the old,
// and have to be told it then.
func (g *Gossip) moved() bool { return time.Since(g.roster.movedAt()) < movedFor }

func (g *Gossip) hurryRejoin() {
	select {
	case g.hurry <- struct{}{}:
	default:
	}
}

// anybody returns where one of those who are here is reached.
func (g *Gossip) anybody() []netip.AddrPort {
	live := g.live()
	if len(live) == 0 {
		return nil
	}
	return []netip.AddrPort{live[rand.IntN(len(live))].Gossip}
}

// meetMissed tries everyone who is missed; unresolved is what the lookup of the
// seeds left over.
func (g *Gossip) meetMissed(ctx context.Context, missed []netip.AddrPort, unresolved error) error {
	reached, err := g.meet(ctx, missed)
	err = errors.Join(unresolved, err)
	if reached > 0 || err == nil {
		g.joinError.Store(nil)
		return err
	}
	text := "nobody answers: " + oneLine(err)
	g.joinError.Store(&text)
	g.log.DebugContext(ctx, "no missing peer answers", "reason", text)
	return err
}

// without leaves out the addresses of those who are here.
func (g *Gossip) without(addrs []netip.AddrPort) []netip.AddrPort {
	here := make(map[netip.AddrPort]bool)
	for _, peer := range g.live() {
		here[peer.Gossip] = true
	}
	return slices.DeleteFunc(addrs, func(a netip.AddrPort) bool { return here[a] })
}

// meet exchanges states with each address and returns how many were other peers.
func (g *Gossip) meet(ctx context.Context, addrs []netip.AddrPort) (reached int, err error) {
	slices.SortFunc(addrs, netip.AddrPort.Compare)
	addrs = slices.DeleteFunc(slices.Compact(addrs), func(a netip.AddrPort) bool { return a == g.Addr() })
	errs := make([]error, len(addrs))
	var exchanges errgroup.Group
	exchanges.SetLimit(joinsAtOnce)
	for i, addr := range addrs {
		exchanges.Go(func() error {
			errs[i] = g.within(ctx, func() error { return g.exchange(addr) })
			return nil
		})
	}
	_ = exchanges.Wait()
	for i, e := range errs {
		switch {
		case e == nil:
			reached++
		case errors.Is(e, errSelf):
			errs[i] = nil
		default:
			errs[i] = fmt.Errorf("%s: %w", addrs[i], e)
		}
	}
	return reached, errors.Join(errs...)
}

// exchange joins one address. memberlist flattens errors into text, so the cause
// is read from there.
func (g *Gossip) exchange(addr netip.AddrPort) error {
	_, err := g.list.Join([]string{addr.String()})
	if err == nil {
		return nil
	}
	text := err.Error()
	var several interface{ WrappedErrors() []error }
	if errors.As(err, &several) && len(several.WrappedErrors()) > 0 {
		text = several.WrappedErrors()[0].Error()
	}
	text = strings.TrimPrefix(text, fmt.Sprintf("failed to join %s: ", addr))
	switch {
	case strings.Contains(text, errSelf.Error()):
		return errSelf
	case strings.HasPrefix(text, "dial "):
		return errors.New(text)
	case strings.HasSuffix(text, "EOF"), strings.HasSuffix(text, "connection reset by peer"):
		return refusedError{errNoAnswer}
	default:
		return refusedError{errors.New(text)}
	}
}

// resolve returns every address that the seeds mean now.
func (g *Gossip) resolve(ctx context.Context, seeds []string) ([]netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	var addrs []netip.AddrPort
	var errs []error
	for _, seed := range seeds {
		host, port, err := splitSeed(seed, g.port)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found, err := g.lookup(ctx, host)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", seed, err))
		}
		for _, addr := range found {
			addrs = append(addrs, netip.AddrPortFrom(addr.Unmap(), port))
		}
	}
	return addrs, errors.Join(errs...)
}

// splitSeed reads host, host:port, an IPv6 address with or without brackets, and
// one in brackets with a port.
func splitSeed(seed string, defaultPort uint16) (host string, port uint16, err error) {
	if addr, notLiteral := netip.ParseAddr(strings.Trim(seed, "[]")); notLiteral == nil {
		return addr.String(), defaultPort, nil
	}
	if !strings.Contains(seed, ":") {
		return seed, defaultPort, nil
	}
	host, text, err := net.SplitHostPort(seed)
	if err != nil {
		return "", 0, fmt.Errorf("address to join %q: %w", seed, err)
	}
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil || number == 0 || host == "" {
		return "", 0, fmt.Errorf("address to join %q is not host or host:port", seed)
	}
	return host, uint16(number), nil
}

// CheckSeed returns an error when text cannot be an address to join.
func CheckSeed(text string) error {
	if strings.TrimSpace(text) == "" {
		return errors.New("address to join is empty")
	}
	_, _, err := splitSeed(text, 1)
	return err
}

func lookupHost(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// advertised returns the address by which others reach this peer. Gossip works
// with addresses; names stay names in what Raft and RPC use.
func advertised(ctx context.Context, cfg Config) (netip.Addr, error) {
	if cfg.Advertise != "" {
		found, err := cfg.lookup(ctx, cfg.Advertise)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("address to advertise: %w", err)
		}
		return preferIPv4(found).Unmap(), nil
	}
	host, _, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("gossip address: %w", err)
	}
	if addr, err := netip.ParseAddr(host); err == nil && !addr.IsUnspecified() {
		return addr.Unmap(), nil
	}
	return firstAddress()
}

// firstAddress returns the first private address of this host, else the first
// other one, else loopback.
func firstAddress() (netip.Addr, error) {
	found, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("addresses of this host: %w", err)
	}
	var private, global []netip.Addr
	for _, a := range found {
		prefix, err := netip.ParsePrefix(a.String())
		switch {
		case err != nil:
		case prefix.Addr().IsPrivate():
			private = append(private, prefix.Addr())
		case prefix.Addr().IsGlobalUnicast():
			global = append(global, prefix.Addr())
		}
	}
	if len(private) > 0 {
		return preferIPv4(private), nil
	}
	if len(global) > 0 {
		return preferIPv4(global), nil
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
}

func preferIPv4(addrs []netip.Addr) netip.Addr {
	for _, a := range addrs {
		if a.Unmap().Is4() {
			return a.Unmap()
		}
	}
	return addrs[0]
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
