package relay

import (
	"bytes"
	"net/netip"
	"testing"
	"time"
)

func TestAnswerGoesWhereTheCheckCameFrom(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.ticket(true)
	var clients []*client
	var checks [][]byte
	var at netip.AddrPort
	for range 5 {
		c := b.client(t)
		request := check(t, ticket)
		c.send(request)
		_, at = receive(t, b.origin)
		clients, checks = append(clients, c), append(checks, request)
	}
	for i := range checks { // in another order than they came
		i = len(checks) - 1 - i
		b.originSends(t, at, success(t, checks[i]))
	}
	for i, c := range clients {
		if got, _ := receive(t, c.conn); !bytes.Equal(got, success(t, checks[i])) {
			t.Errorf("client %d got the answer to another's check", i)
		}
	}
	// An answer is for one request, and one nobody asked for is for nobody.
	b.originSends(t, at, success(t, checks[0]))
	b.originSends(t, at, success(t, check(t, ticket)))
	b.originSends(t, at, media(7))
	if got, _ := receive(t, clients[0].conn); !bytes.Equal(got, media(7)) {
		t.Errorf("the first client got %x; want the media that came after", got)
	}
}

func TestMediaGoesWhereTheClientNominates(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.ticket(false)
	first, second, third := b.client(t), b.client(t), b.client(t)
	at := b.join(t, first, ticket)
	arrives := func(c *client, n int, why string) {
		t.Helper()
		b.originSends(t, at, media(n))
		if got, _ := receive(t, c.conn); !bytes.Equal(got, media(n)) {
			t.Fatalf("%s: got %x; want media %d", why, got, n)
		}
	}
	arrives(first, 1, "the only path")
	b.join(t, second, ticket)
	arrives(first, 2, "nothing is nominated, nothing was sent by the second")
	second.send(media(3))
	receive(t, b.origin)
	arrives(second, 4, "the client sends by the second")
	b.join(t, third, ticket, useCandidate{})
	arrives(third, 5, "the third is nominated")
	b.join(t, first, ticket)
	first.send(media(6))
	receive(t, b.origin)
	arrives(third, 7, "the nomination stands")
	b.join(t, second, ticket, useCandidate{})
	arrives(second, 8, "nominated anew")
}

// A client whose address changed below it goes on from the new one, soon by its
// media and later by its checks alone.
func TestFlowFollowsAChangedAddress(t *testing.T) {
	for name, c := range map[string]struct {
		silence time.Duration
		media   bool
		follows bool
	}{
		"media soon": {mediaSilence / 2, true, false}, "media": {mediaSilence * 2, true, true},
		"check soon": {checkSilence / 2, false, false}, "check": {checkSilence * 2, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "127.0.0.1:0", Config{})
			ticket := b.ticket(false)
			before, after := b.client(t), b.client(t)
			at := b.join(t, before, ticket, useCandidate{})
			b.pass(c.silence)
			after.send(media(1))
			b.join(t, after, ticket)
			if c.media {
				after.send(media(2))
				if got, _ := receive(t, b.origin); !bytes.Equal(got, media(2)) {
					t.Fatalf("the origin got %x; want what came after the address proved itself", got)
				}
			}
			b.originSends(t, at, media(3))
			to := before
			if c.follows {
				to = after
			}
			if got, _ := receive(t, to.conn); !bytes.Equal(got, media(3)) {
				t.Errorf("got %x; want the origin's media", got)
			}
		})
	}
}

// A check that was seen on the wire is no use from elsewhere.
func TestReplayedCheckIsDropped(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.ticket(false)
	c, thief := b.client(t), b.client(t)
	at := b.join(t, c, ticket)
	request := check(t, ticket, useCandidate{})
	c.send(request)
	receive(t, b.origin)
	thief.send(request)
	eventually(t, "the replay is counted", func() bool { return b.dropped(dropReplay) == 1 })
	c.send(request) // the client may repeat it
	if got, _ := receive(t, b.origin); !bytes.Equal(got, request) {
		t.Errorf("the origin got %x; want the repeated check", got)
	}
	b.originSends(t, at, media(1))
	if got, _ := receive(t, c.conn); !bytes.Equal(got, media(1)) {
		t.Errorf("the client got %x; want the media", got)
	}
}

func TestPathsOfAClientAreBounded(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.ticket(false)
	chosen := b.client(t)
	at := b.join(t, chosen, ticket, useCandidate{})
	var others []*client
	for range 3 * maxPaths {
		b.pass(tick)
		c := b.client(t)
		b.join(t, c, ticket)
		others = append(others, c)
	}
	b.mu.RLock()
	paths := len(b.paths)
	b.mu.RUnlock()
	if paths != maxPaths {
		t.Errorf("%d paths; want %d", paths, maxPaths)
	}
	others[0].send(media(1)) // one that had to go is a stranger
	eventually(t, "its media is dropped", func() bool { return b.dropped(dropStranger) == 1 })
	b.originSends(t, at, media(2))
	if got, _ := receive(t, chosen.conn); !bytes.Equal(got, media(2)) {
		t.Errorf("the chosen path got %x; want the media", got)
	}
	b.pass(pathTime + time.Second)
	b.join(t, chosen, ticket)
	b.look()
	b.mu.RLock()
	defer b.mu.RUnlock()
	if len(b.paths) != 1 {
		t.Errorf("%d paths a minute later; want the one that lives", len(b.paths))
	}
}

// A browser tab may use its port for the next session.
func TestPortIsUsedForAnotherSession(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	c := b.client(t)
	first := b.join(t, c, b.ticket(true))
	second := b.join(t, c, b.ticket(true))
	c.send(media(1))
	if _, from := receive(t, b.origin); from != second {
		t.Errorf("media comes from %v; want the second session's %v, not the first's %v", from, second, first)
	}
	b.originSends(t, first, media(2)) // nobody listens there any more
	b.originSends(t, second, media(3))
	if got, _ := receive(t, c.conn); !bytes.Equal(got, media(3)) {
		t.Errorf("got %x; want the second session's media", got)
	}
}

// A socket at all addresses answers from the one that was asked.
func TestAnswersLeaveFromTheAddressThatWasAsked(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", "[::]:0"} {
		b := newBench(t, listen, Config{})
		ticket := b.ticket(true)
		var at netip.AddrPort
		for _, ip := range []string{"127.0.0.1", "127.0.0.2", "127.3.3.3"} {
			c := newClient(t, "127.0.0.1", netip.AddrPortFrom(netip.MustParseAddr(ip), b.front.Port()))
			request := check(t, ticket, useCandidate{})
			c.send(request)
			_, at = receive(t, b.origin)
			b.originSends(t, at, success(t, request))
			if _, from := receive(t, c.conn); from != c.to {
				t.Errorf("%s: answer from %v; want %v", listen, from, c.to)
			}
			b.originSends(t, at, media(1))
			if _, from := receive(t, c.conn); from != c.to {
				t.Errorf("%s: media from %v; want %v", listen, from, c.to)
			}
		}
	}
}

func TestIPv6(t *testing.T) {
	b := newBench(t, "[::]:0", Config{})
	c := newClient(t, "::1", netip.AddrPortFrom(netip.MustParseAddr("::1"), b.front.Port()))
	ticket := b.ticket(true)
	request := check(t, ticket)
	c.send(request)
	_, at := receive(t, b.origin)
	b.originSends(t, at, success(t, request))
	if got, from := receive(t, c.conn); !bytes.Equal(got, success(t, request)) || from != c.to {
		t.Errorf("got %x from %v; want the answer from %v", got, from, c.to)
	}
}
