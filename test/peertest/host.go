package peertest

import (
	"context"
	"net"
	"net/http"
	"os/exec"
	"time"
)

// Host is a machine other than this one, at which a peer has the default ports.
type Host interface {
	IP() string
	Start(cmd *exec.Cmd) error
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

func start(at Host, cmd *exec.Cmd) error {
	if at == nil {
		return cmd.Start()
	}
	return at.Start(cmd)
}

func portsAt(h Host) *Ports {
	addr := func(port string) string { return net.JoinHostPort(h.IP(), port) }
	return &Ports{
		RTMP: addr("11935"), HTTP: addr("18080"), API: addr("11985"), RTC: addr("18000"), SRT: addr("20080"),
		System: addr("12025"), Cluster: addr("12026"),
		Gossip: addr("12027"), Pprof: "127.0.0.1:6060",
	}
}

// system is the system API as reached from the peer's own host, where one may
// do more than from others.
func (p *Peer) system() string {
	if p.Host == nil {
		return p.System
	}
	return "127.0.0.1:12025"
}

// client makes calls from the peer's own host: no kept connection that would
// count as a leak.
func (p *Peer) client() *http.Client {
	transport := &http.Transport{DisableKeepAlives: true}
	if p.Host != nil {
		transport.DialContext = p.Host.DialContext
	}
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}
