package rtmp

import (
	"errors"
	"testing"
)

func TestStreamsKeepTheirIDsWhereTheyCan(t *testing.T) {
	s := newStreams(1, 1, 1)
	s.remove(1)
	for _, origin := range []uint32{1, 2, 1} { // SRS says 1 each time, nginx counts
		if err := s.create(5); err != nil {
			t.Fatal(err)
		}
		if client, ok := s.created(5, origin); !ok || client != origin {
			t.Errorf("created(%d) = %d, %v; want the same", origin, client, ok)
		}
	}
	if _, ok := s.created(5, 9); ok {
		t.Error("an answer to no createStream made a stream")
	}
}

func TestStreamsOfOtherNumbersDoNotMix(t *testing.T) {
	s := newStreams(2, 1, 2) // the client's second is the origin's first
	_ = s.create(5)
	client, ok := s.created(5, 2)
	if !ok || client != 3 {
		t.Fatalf("created = %d, %v; want 3, as the client knows 1 and 2", client, ok)
	}
	for client, origin := range map[uint32]uint32{0: 0, 2: 1, 3: 2, 7: 7} {
		if got := s.atOrigin(client); got != origin {
			t.Errorf("atOrigin(%d) = %d; want %d", client, got, origin)
		}
		if got := s.atClient(origin); got != client {
			t.Errorf("atClient(%d) = %d; want %d", origin, got, client)
		}
	}
}

func TestStreamsAreBounded(t *testing.T) {
	s := newStreams(1, 1, 1)
	var err error
	for n := 0; err == nil && n < 1000; n++ {
		err = s.create(1)
	}
	if !errors.Is(err, errStreams) {
		t.Errorf("createStream without an answer for ever: %v; want errStreams", err)
	}
	s = newStreams(1, 1, 1)
	for id := uint32(1); id < 10_000; id++ { // one after the other is fine
		s.remove(id)
		if err := s.create(1); err != nil {
			t.Fatal(err)
		}
		if client, _ := s.created(1, id+1); client != id+1 {
			t.Fatalf("created(%d) = %d", id+1, client)
		}
	}
	if n := len(s.toOrigin) + len(s.toClient); n > 2*maxStreams {
		t.Errorf("%d entries for one stream", n)
	}
}
