//go:build !race

package srt_test

import (
	"net"
	"net/netip"
	"runtime"
	"testing"

	"srsx/proxy"
	"srsx/proxy/srt"
)

// The race detector has sync.Pool drop what it is given, now and then.
func TestRelayingAllocatesNothing(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", ":0"} {
		o := startOrigin(t, script{})
		s := serve(t, listen, proxy.RouterConfig{}, srt.Config{}, o)
		c := call(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.addr.Port()), 7).connect("live/cam")
		from := o.conclusion().from
		_ = o.conn.Close() // the test reads itself what its origin gets
		direct, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(o.addr()))
		if err != nil {
			t.Fatal(err)
		}
		up, down, b := data(c.peer, 1, make([]byte, 1316)...), data(c.id, 1, make([]byte, 1316)...), make([]byte, 2000)
		round := func() {
			_, _ = c.conn.Write(up)
			_, _ = direct.Read(b)
			_, _ = direct.WriteToUDPAddrPort(down, from)
			_, _ = c.conn.Read(b)
		}
		round()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		const rounds = 5000
		for range rounds {
			round()
		}
		runtime.ReadMemStats(&after)
		if per := float64(after.Mallocs-before.Mallocs) / (2 * rounds); per > 0.05 {
			t.Errorf("at %s: %.2f allocations a packet; want none", listen, per)
		}
		_ = direct.Close()
	}
}
