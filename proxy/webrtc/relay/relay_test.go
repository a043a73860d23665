package relay

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	pion "github.com/pion/stun/v4"

	"srsx/proxy"
	"srsx/proxy/datagram"
	"srsx/proxy/webrtc/ufrag"
)

func TestCheckOpensAFlowAndMediaPassesUnchanged(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	c, ticket := b.client(t), b.ticket(true)
	at := b.join(t, c, ticket)
	for _, first := range []byte{20, 22, 63, 128, 144, 191} { // DTLS, SRTP and SRTCP
		what := append([]byte{first}, random(1200)...)
		c.send(what)
		if got, from := receive(t, b.origin); !bytes.Equal(got, what) || from != at {
			t.Errorf("the origin got %d bytes from %v; want what the client sent, from %v", len(got), from, at)
		}
		b.originSends(t, at, what)
		if got, from := receive(t, c.conn); !bytes.Equal(got, what) || from != b.front {
			t.Errorf("the client got %d bytes from %v; want what the origin sent, from %v", len(got), from, b.front)
		}
	}
}

// Two sessions have two addresses at the origin, which tells them apart by that.
func TestEachSessionHasItsOwnAddressAtTheOrigin(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	c, d := b.client(t), b.client(t)
	if first, second := b.join(t, c, b.ticket(true)), b.join(t, d, b.ticket(false)); first == second {
		t.Errorf("both sessions come from %v", first)
	}
	if n := b.Flows(); n != 2 {
		t.Errorf("Flows = %d; want 2", n)
	}
}

// strange is what comes from those who do not know the password of a session.
func strange(t *testing.T, ticket Ticket) map[string][]byte {
	t.Helper()
	valid := check(t, ticket, useCandidate{})
	wrong := ticket
	wrong.Password += "x"
	forged := ticket
	forged.Ufrag = "a" + ticket.Ufrag[1:]
	if forged.Ufrag == ticket.Ufrag {
		forged.Ufrag = "b" + ticket.Ufrag[1:]
	}
	elsewhere := ticket
	name, password := key.Make(ufrag.Route{Origin: proxy.ShortPrint{9}}, time.Now().Add(time.Hour))
	elsewhere.Ufrag, elsewhere.Password = name, password
	expired := ticket
	expired.Ufrag, expired.Password = key.Make(ufrag.Route{
		Origin: ticket.Incarnation.Short(), Stream: ufrag.HashStream(stream),
	}, time.Now().Add(-time.Hour))
	noName, _ := pion.Build(pion.TransactionID, pion.BindingRequest, pion.NewShortTermIntegrity(ticket.Password), pion.Fingerprint)
	noColon, _ := pion.Build(pion.TransactionID, pion.BindingRequest, pion.NewUsername(ticket.Ufrag),
		pion.NewShortTermIntegrity(ticket.Password), pion.Fingerprint)
	noIntegrity, _ := pion.Build(pion.TransactionID, pion.BindingRequest, pion.NewUsername(ticket.Ufrag+":c"), pion.Fingerprint)
	allocate, _ := pion.Build(pion.TransactionID, pion.NewType(pion.MethodAllocate, pion.ClassRequest), pion.NewUsername(ticket.Ufrag+":c"),
		pion.NewShortTermIntegrity(ticket.Password), pion.Fingerprint)
	cases := map[string][]byte{
		"empty": {}, "one byte": {0}, "DTLS": append([]byte{22, 0xfe, 0xfd}, random(100)...), "RTP": media(1), "RTCP": append([]byte{0x80, 201}, random(30)...),
		"TURN": append([]byte{0x40, 0}, random(30)...), "other": random(1)[:0:0], "long": append([]byte{0x80}, random(maxDatagram)...),
		"wrong password": check(t, wrong), "forged ufrag": check(t, forged), "origin unknown": check(t, elsewhere), "expired": check(t, expired),
		"no user name": noName.Raw, "user name of one half": noColon.Raw, "no integrity": noIntegrity.Raw, "other method": allocate.Raw,
		"answer": success(t, valid), "no fingerprint": valid[:len(valid)-8], "huge": append([]byte{0}, random(60000)...),
	}
	for n := range valid {
		cases[fmt.Sprintf("first %d bytes", n)] = valid[:n]
	}
	return cases
}

// Nothing that does not know the password gets anywhere.
func TestStrangersLeaveNothing(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.ticket(true)
	cases := strange(t, ticket)
	c := b.client(t)
	for _, what := range cases {
		c.send(what)
	}
	// When this one comes through, all the others have been looked at.
	b.join(t, c, ticket)
	other := b.client(t) // now that there is a flow
	for _, what := range cases {
		other.send(what)
	}
	b.join(t, c, ticket)
	b.mu.RLock()
	defer b.mu.RUnlock()
	if len(b.open) != 1 || len(b.paths) != 1 || len(b.flows) != 1 {
		t.Errorf("%d flows, %d paths, %d ufrags; want 1 of each", len(b.open), len(b.paths), len(b.flows))
	}
	for _, why := range []drop{dropOther, dropLong, dropMalformed, dropStranger, dropUnknown, dropIntegrity} {
		if b.dropped(why) == 0 {
			t.Errorf("nothing was dropped as %s", why)
		}
	}
}

// Whoever forges the address of a victim has nothing sent there, and not more
// than three times of what he sends himself if he knows a session's password.
func TestNoAmplification(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.ticket(true)
	victim := b.client(t)
	for _, what := range strange(t, ticket) {
		victim.send(what)
	}
	request := check(t, ticket)
	owner := b.client(t)
	b.join(t, owner, ticket) // by now all the others have been looked at
	_ = victim.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	if n, _, err := victim.conn.ReadFrom(make([]byte, 2048)); err == nil {
		t.Errorf("a stranger was sent %d bytes; want none", n)
	}
	victim.send(request)
	got, from := receive(t, b.origin)
	b.originSends(t, from, success(t, got))
	if answer, _ := receive(t, victim.conn); len(answer) > 3*len(request) {
		t.Errorf("%d bytes are answered by %d; want at most three times as many", len(request), len(answer))
	}
	// The path of media is another's, until this one shows by more than a check
	// that somebody is there.
	b.originSends(t, from, media(1))
	receive(t, owner.conn)
	_ = victim.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	if n, _, err := victim.conn.ReadFrom(make([]byte, 2048)); err == nil {
		t.Errorf("media of %d bytes went to an address that only checked", n)
	}
}

// A hundred thousand addresses cost nothing, whatever they send.
func TestFloodFromFreshAddressesKeepsNothing(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	wrong := b.ticket(true)
	wrong.Password += "x"
	unknown := Ticket{Ufrag: "abcdefgh", Password: wrong.Password}
	datagrams := [][]byte{check(t, wrong), check(t, unknown), media(1), random(200)}
	socket := &datagram.Socket{}
	for i := range 100_000 {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		for _, what := range datagrams {
			from := source{socket: socket, way: datagram.Way{Remote: netip.AddrPortFrom(addr, uint16(i))}}
			if p := b.fromClient(from, nil, what, nil); p != nil {
				t.Fatal("a stranger has a path")
			}
		}
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if n := len(b.open) + len(b.paths) + len(b.flows) + len(b.expected) + len(b.ended) + len(b.opening); n != 0 {
		t.Errorf("%d things are kept; want none", n)
	}
	if n := len(b.asked); n > questionBurst+questionRate*int(patience/time.Second) || n == 0 {
		t.Errorf("the peers were asked %d times", n)
	}
}

func TestSteadyMediaAllocatesNothing(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	c, ticket := b.client(t), b.ticket(true)
	b.join(t, c, ticket, useCandidate{})
	b.mu.RLock()
	var p *path
	for _, p = range b.paths {
	}
	b.mu.RUnlock()
	from := source{way: p.way, socket: p.socket}
	up, down := media(1), media(2)
	request := check(t, ticket, useCandidate{})
	var out datagram.Sender
	for name, pass := range map[string]func(){
		"from the client": func() { b.fromClient(from, p, up, &out) },
		"from the origin": func() { p.flow.fromOrigin(down, datagram.Way{}, &out) },
		"a check":         func() { b.fromClient(from, p, request, &out) },
	} {
		pass()
		if n := testing.AllocsPerRun(200, func() { pass(); out.Flush() }); n > 0 {
			t.Errorf("%s: %v allocations a datagram; want none", name, n)
		}
	}
}

func TestOriginsChecksReachTheClient(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.ticket(false)
	first, second := b.client(t), b.client(t)
	at := b.join(t, first, ticket)
	b.join(t, second, ticket)
	own, _ := pion.Build(pion.TransactionID, pion.BindingRequest, pion.NewUsername("client:"+ticket.Ufrag), pion.NewShortTermIntegrity("theirs"), pion.Fingerprint)
	b.originSends(t, at, own.Raw)
	for _, c := range []*client{first, second} { // any of the two may be what works
		if got, _ := receive(t, c.conn); !bytes.Equal(got, own.Raw) {
			t.Errorf("got %x; want the origin's check", got)
		}
	}
	second.send(success(t, own.Raw))
	if got, _ := receive(t, b.origin); !bytes.Equal(got, success(t, own.Raw)) {
		t.Errorf("the origin got %x; want the client's answer", got)
	}
}

// What an origin sends that is nothing of WebRTC stays here.
func TestOriginSendsNonsense(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	c := b.client(t)
	at := b.join(t, c, b.ticket(false))
	for _, what := range [][]byte{{}, {0}, {64, 1, 2}, append([]byte{0}, random(40)...), random(1)[:0]} {
		b.originSends(t, at, what)
	}
	b.originSends(t, at, append([]byte{0x80}, random(maxDatagram+100)...)) // cut off
	b.originSends(t, at, media(1))
	got, _ := receive(t, c.conn)
	if !bytes.Equal(got, media(1)) {
		t.Errorf("the client got %d bytes; want the media", len(got))
	}
}

// An origin whose port is closed for a moment loses no session.
func TestOriginsPortMayCloseForAMoment(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	c := b.client(t)
	at := b.join(t, c, b.ticket(true))
	addr := net.UDPAddrFromAddrPort(proxy.AddrPortOf(b.origin.LocalAddr()))
	_ = b.origin.Close()
	for range 20 { // each is refused by ICMP
		c.send(media(1))
		time.Sleep(time.Millisecond)
	}
	again, err := net.ListenUDP("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	b.origin = again
	t.Cleanup(func() { _ = again.Close() })
	c.send(media(2))
	eventually(t, "media comes as before", func() bool {
		got, from := receive(t, again)
		return bytes.Equal(got, media(2)) && from == at
	})
}
