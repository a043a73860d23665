package main

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"srsx/proxy"
	"srsx/test/origintest"
	"srsx/test/peertest"
)

// reloadWith writes the configuration anew, sends SIGHUP and waits for the nth
// answer of that message.
func (p *peer) reloadWith(t *testing.T, config, message string) map[string]any {
	t.Helper()
	before := len(p.logged(message))
	p.writeConfig(t, config)
	p.signals <- syscall.SIGHUP
	eventually(t, message, func() bool { return len(p.logged(message)) > before })
	return p.logged(message)[before]
}

func staticOrigin(o *origintest.Origin, id, more string) string {
	return fmt.Sprintf("  - {id: %s, rtmp: [%q], http: [%q]%s}\n", id, o.RTMP(), o.HTTP(), more)
}

func TestReloadAppliesWhatCanChange(t *testing.T) {
	one, two := origintest.Start(t, origintest.Config{}), origintest.Start(t, origintest.Config{})
	p := startPeer(t, options{config: "origins:\n" + staticOrigin(one, "one", "")})
	encoder := p.publish(t, "cam")
	if got := p.origins(t)["one"]; !got.Static || got.State != "up" || got.IP != "127.0.0.1" {
		t.Fatalf("static origin = %+v", got)
	}

	const done = "configuration reloaded"
	said := p.reloadWith(t, "origins:\n"+staticOrigin(one, "one", ", weight: 7")+staticOrigin(two, "two", ", labels: [big]")+
		"rules:\n  - {match: \"*/live/big*\", pool: big}\nlog-level: debug\n", done)
	if said["static_origins"] != 2.0 || said["rules"] != 1.0 {
		t.Errorf("reload says %v; want two static origins and one rule", said)
	}
	if o := p.origins(t); o["one"].Weight != 7 || o["two"].State != "up" {
		t.Errorf("origins after the reload = %+v", o)
	}
	p.publish(t, "big1")
	if got := p.homeOf(t, "live/big1"); got != "two" {
		t.Errorf("a stream of the new rule is on %s; want two", got)
	}
	select {
	case <-encoder.ended:
		t.Error("a reload ended a session")
	default:
	}

	p.reloadWith(t, "origins:\n"+staticOrigin(two, "two", ""), done)
	<-encoder.ended // its origin is gone
	eventually(t, "the line of its end", func() bool {
		return slices.ContainsFunc(p.logged("session ended"), func(l map[string]any) bool { return l["reason"] == proxy.ErrRemoved.Error() })
	})
	if got := p.state(t, "one"); got != "" {
		t.Errorf("origin that left the file is %s", got)
	}
}

// What an operator did to a static origin stays, as long as its entry does.
func TestReloadLeavesUnchangedOriginsAlone(t *testing.T) {
	one, gone := origintest.Start(t, origintest.Config{}), origintest.Start(t, origintest.Config{})
	config := "origins:\n" + staticOrigin(one, "one", "") + staticOrigin(gone, "gone", "")
	p := startPeer(t, options{config: config})
	p.must(t, "origin", "drain", "one")
	p.must(t, "origin", "weight", "one", "9")
	p.must(t, "origin", "remove", "gone")
	p.reloadWith(t, config+"log-level: debug\n", "configuration reloaded")
	if got := p.origins(t)["one"]; got.State != "draining" || got.Weight != 9 {
		t.Errorf("origin = %+v; want it draining with weight 9", got)
	}
	if got := p.state(t, "gone"); got != "" {
		t.Errorf("a removed origin is %s after a reload", got)
	}
}

func TestReloadSaysWhatWaitsForARestart(t *testing.T) {
	p := startPeer(t, options{config: "node: a\n"})
	said := p.reloadWith(t, "node: b\nplace-timeout: 1s\nslow-start: 1s\nlog-level: warn\ntoken: new\nvhosts: [a.example]\nlimits: {sessions: 5}\n"+
		"origins:\n  - {id: later, address: 10.0.0.9}\ntrusted: [10.0.0.0/8]\n", "changed settings wait for a restart")
	var names []string
	list, _ := said["settings"].([]any)
	for _, name := range list {
		names = append(names, fmt.Sprint(name))
	}
	// The flags of the peer win over slow-start and node.
	want := []string{"limits", "origins (of those that register)", "place-timeout", "token", "trusted", "vhosts"}
	if !slices.Equal(names, want) {
		t.Errorf("waits for a restart: %v; want %v", names, want)
	}
}

func TestAReloadWithAMistakeChangesNothing(t *testing.T) {
	one := origintest.Start(t, origintest.Config{})
	p := startPeer(t, options{config: "origins:\n" + staticOrigin(one, "one", "")})
	for _, config := range []string{
		"origins: []\norigin-ttl: x\n",
		"origins: []\nrules: [{match: x, pool: y}]\n",
		"origins:\n  - {id: two, rtmp: [1935]}\n",
		"origins: [\n",
	} {
		p.reloadWith(t, config, "configuration not reloaded")
		if got := p.state(t, "one"); got != "up" {
			t.Errorf("after a reload of %q the origin is %q; want it untouched", config, got)
		}
	}
}

func TestAStaticOriginIsNoListenerOfOurs(t *testing.T) {
	port := peertest.FreePort(t)
	addr := "127.0.0.1:" + port
	for _, endpoint := range []string{addr, "localhost:" + port, "[::ffff:127.0.0.1]:" + port, "peer9:" + port} {
		code, _, errs := command("agent", "-rtmp", addr, "-http", "off", "-api", "off", "-rtc", "off", "-srt", "off", "-system-api", "off", "-node", "peer9",
			"-data-dir", t.TempDir(), "-config", writeFile(t, fmt.Sprintf("origins: [{id: loop, rtmp: [%q]}]\n", endpoint)))
		requireOneLine(t, endpoint, code, exitRefused, errs, `origin "loop"`, "own listener")
	}
	p := startPeer(t, options{config: "origins: []\n"})
	said := p.reloadWith(t, fmt.Sprintf("origins: [{id: loop, rtmp: [%q]}]\n", p.rtmp), "configuration not reloaded whole")
	if text, _ := said["err"].(string); !strings.Contains(text, "own listener") || p.state(t, "loop") != "" {
		t.Errorf("reload of a loop = %v; want it refused", said)
	}
}
