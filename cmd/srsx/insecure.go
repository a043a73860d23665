package main

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"srsx/proxy"
)

// insecurities are what strangers may do at this peer, each as a warning.
func (a *agent) insecurities() []string {
	var warnings []string
	if ln := a.control["system-api"]; ln != nil && a.config.registerToken == "" && !proxy.AddrPortOf(ln.Addr()).Addr().IsLoopback() {
		warnings = append(warnings, "the system API listens beyond this host and -register-token is not set: "+
			"anybody who reaches it may register an origin in -origin-allow and get streams")
	}
	switch {
	case !a.keyless:
	case a.config.tlsCert == "":
		warnings = append(warnings, "-encrypt is not set: anybody who reaches -gossip and -cluster may join, "+
			"read and change what the cluster agrees on, and take peers out")
	default:
		warnings = append(warnings, "-encrypt is not set: certificates do not protect -gossip, and anybody who reaches it may "+
			"read who is there and take peers out")
	}
	return warnings
}

// withoutKey reports whether a peer of a cluster is heard beyond this host and
// has no key: none is set, and none was kept, which would win.
func (a *agent) withoutKey() bool {
	if a.config.encrypt != "" || loopback(a.config.gossip) && loopback(a.config.cluster) {
		return false
	}
	_, err := os.Stat(a.dir.Path("keyring")) // of srsx/cluster/peer
	return errors.Is(err, fs.ErrNotExist)
}

// loopback reports whether a listener, host:port, is for this host only.
func loopback(listener string) bool {
	host, _, err := net.SplitHostPort(listener)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}
