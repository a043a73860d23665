package rtmp_test

import (
	"strings"
	"testing"
	"time"

	"srsx/proxy/rtmp/wire"
	"srsx/test/mediatest"
	"srsx/test/origintest"
	"srsx/test/proxytest"
)

// A message that has come whole goes on, whether or not the next one has begun,
// and is not lost when that never ends.
func TestWholeMessagesAreNotHeldUpByHalfOnes(t *testing.T) {
	origin := record(t, nil)
	p := within(t, patience, patiently, origin.origin())
	conn := p.raw(t)
	if err := shake(conn); err != nil {
		t.Fatal(err)
	}
	s := newSession()
	s.begin(nil)
	s.media(0, 7, 6, wire.TypeVideo, s.body(100, 0x17))
	s.Start(0, 8, mediatest.Message{CSID: 6, Type: wire.TypeVideo, StreamID: 1, Body: s.body(100_000, 0x27)})
	if _, err := conn.Write(s.Bytes()); err != nil {
		t.Fatal(err)
	}
	proxytest.Eventually(t, "the whole one is at the origin", func() bool { return origin.Heard(wire.TypeVideo) == 1 })
	whole, half := newSession(), newSession()
	whole.media(0, 9, 8, wire.TypeAudio, whole.body(100, 0xaf))
	half.Start(0, 10, mediatest.Message{CSID: 9, Type: wire.TypeAudio, StreamID: 1, Body: half.body(500, 0xaf)})
	if _, err := conn.Write(append(whole.Bytes(), half.Bytes()...)); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	heard := origin.Next(t)
	if last := heard[len(heard)-1]; last.Timestamp != 9 || last.Type != wire.TypeAudio {
		t.Errorf("the last message at the origin is %v; want the last whole one", last)
	}
}

// Nor by one that ends the connection.
func TestWholeMessageBeforeABrokenOneIsNotLost(t *testing.T) {
	origin := record(t, nil)
	p := within(t, patience, patiently, origin.origin())
	s := newSession()
	s.begin(nil)
	s.media(0, 7, 6, wire.TypeVideo, s.body(100, 0x17))
	s.Write([]byte{3<<6 | 9}) // on a chunk stream that has not begun
	replay(t, p.addr, s.Bytes())
	heard := origin.Next(t)
	if last := heard[len(heard)-1]; last.Timestamp != 7 {
		t.Errorf("the last message at the origin is %v; want the whole one", last)
	}
}

// A publisher that never pauses is not idle, though no read of it ends with a
// message.
func TestBusyPublisherIsNotIdle(t *testing.T) {
	origin := record(t, nil)
	p := before(t, impatient, origin.origin())
	conn := p.raw(t)
	if err := shake(conn); err != nil {
		t.Fatal(err)
	}
	s, flood := newSession(), newSession()
	s.begin(nil)
	for range 50 {
		flood.media(0, 1, 6, wire.TypeVideo, flood.body(5000, 0x27))
	}
	_, err := conn.Write(s.Bytes())
	for end := time.Now().Add(3 * idleTimeout); err == nil && time.Now().Before(end); {
		_, err = conn.Write(flood.Bytes())
	}
	if err != nil {
		t.Fatalf("cut while it sent: %v\n%s", err, p.Log)
	}
	awaitEnd(t, conn)
	p.awaitNoSessions(t)
	if log := p.Log.String(); !strings.Contains(log, "publisher sends nothing") {
		t.Errorf("and when it stops it is cut for another reason:\n%s", log)
	}
}

// A paced one is not either.
func TestPacedPublisherIsNotIdle(t *testing.T) {
	p := start(t, origintest.Script{}, impatient)
	p.publish(t, "s")
	c := p.dial(t)
	if err := c.Play("s"); err != nil {
		t.Fatal(err)
	}
	for number := uint32(0); number < 30; { // 1.2 s
		var err error
		if _, number, err = c.NextFrame(); err != nil {
			t.Fatal(err)
		}
	}
}
