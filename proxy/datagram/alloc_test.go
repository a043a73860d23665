//go:build !race

package datagram

import "testing"

// Neither a datagram nor a run of them costs memory. The race detector has
// sync.Pool drop what it is given, now and then.
func TestRelayDoesNotAllocate(t *testing.T) {
	sink := listen(t, "127.0.0.1:0")
	arrived := make(chan struct{}, 6)
	serve(t, sink, func([]byte, Way, *Sender) { arrived <- struct{}{} })
	front := listen(t, "127.0.0.1:0")
	to := Way{Remote: sink.Addr()}
	serve(t, front, func(b []byte, _ Way, out *Sender) { out.Queue(front, b, to) })
	source := dial(t, front.Addr(), nil)
	var out Sender
	b := make([]byte, 6*1316)
	frame := func() {
		for i := range 6 {
			out.Queue(source, b[i*1316:][:1316], Way{})
		}
		out.Flush()
		for range 6 {
			<-arrived
		}
	}
	for range 100 {
		frame() // the rooms are made
	}
	// What the runtime allocates for itself is less than one in a hundred.
	if allocations := testing.AllocsPerRun(1000, frame); allocations > 0 {
		t.Errorf("%v allocations a frame; want none", allocations)
	}
}
