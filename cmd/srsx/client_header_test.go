package main

import (
	"fmt"
	"testing"

	"srsx/test/origintest"
)

// Which origins are told of their clients is asked for in the file: of a static
// origin by its id, of one that registers by its server id or its device id.
func TestOriginsAreToldOfTheirClientsWhereAsked(t *testing.T) {
	static, plain := origintest.Start(t, origintest.Config{}), origintest.Start(t, origintest.Config{})
	p := startPeer(t, options{config: fmt.Sprintf(`
origins:
  - {id: static, rtmp: ["%s"], labels: [static], client_header: true}
  - {id: plain, rtmp: ["%s"], labels: [plain]}
  - {id: vid-told, labels: [server], client_header: true}
  - {id: device-told, labels: [device], client_header: true}
  - {id: vid-else, labels: [else]}
rules:
  - {match: "*/live/static", pool: static}
  - {match: "*/live/plain", pool: plain}
  - {match: "*/live/server", pool: server}
  - {match: "*/live/device", pool: device}
  - {match: "*/live/else", pool: else}
`, static.RTMP(), plain.RTMP())})
	for name, test := range map[string]struct {
		origin *origintest.Origin
		told   bool
	}{
		"static": {static, true},
		"plain":  {plain, false},
		"server": {p.originAt(t, origintest.Config{Server: "vid-told"}), true},
		"device": {p.originAt(t, origintest.Config{Server: "vid-any", DeviceID: "device-told"}), true},
		"else":   {p.originAt(t, origintest.Config{Server: "vid-else", DeviceID: "device-any"}), false},
	} {
		client, err := p.connect(t, "\xf3\x00\x04\xcb\x00\x71\x07") // a proxy's word for 203.0.113.7, from loopback
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Publish(name); err != nil {
			t.Fatalf("publish %s: %v", name, err)
		}
		client.Close()
		seen := test.origin.Seen("publish")
		if len(seen) != 1 {
			t.Fatalf("%s: its origin saw %d publishes; want the one", name, len(seen))
		}
		if client := seen[0].Client; client.IsValid() != test.told || test.told && client.Addr().String() != "203.0.113.7" {
			t.Errorf("%s: the origin was told of %v; want told = %v, 203.0.113.7", name, client, test.told)
		}
	}
}

func TestReloadSaysThatClientHeadersWaitForARestart(t *testing.T) {
	const entry = "origins:\n  - {id: a, rtmp: [\"127.0.0.1:1\"]%s}\n"
	p := startPeer(t, options{config: fmt.Sprintf(entry, "")})
	said := p.reloadWith(t, fmt.Sprintf(entry, ", client_header: true"), "changed settings wait for a restart")
	if list, _ := said["settings"].([]any); len(list) != 1 || list[0] != "origins (client_header)" {
		t.Errorf("waits for a restart: %v; want origins (client_header)", said["settings"])
	}
}
