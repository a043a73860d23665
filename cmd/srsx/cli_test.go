package main

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"srsx/test/mediatest"
	"srsx/test/origintest"
)

// twoOrigins is a peer with origins o1 and o2, which are quiet after their
// first heartbeat so that nothing that is shown changes by itself.
func twoOrigins(t *testing.T) *peer {
	t.Helper()
	p := startPeer(t, options{})
	for _, id := range []string{"o1", "o2"} {
		p.originAt(t, origintest.Config{Server: id, DeviceID: "dev-" + id, Interval: time.Minute})
	}
	return p
}

func other(id string) string {
	if id == "o1" {
		return "o2"
	}
	return "o1"
}

func TestReadingCommandsShowWhatTheAPISays(t *testing.T) {
	p := twoOrigins(t)
	p.publish(t, "one")
	client, err := mediatest.Dial(t.Context(), mediatest.Target{Addr: p.rtmp, TCURL: "rtmp://h/deep/er"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := client.Publish("two"); err != nil {
		t.Fatal(err)
	}
	const placements = "/api/v1/placements"
	one, deep := placements+"/__defaultVhost__/live/one", placements+"/__defaultVhost__/deep%2Fer/two"
	home := p.homeOf(t, "live/one")
	for _, test := range []struct {
		command, path string
		shows         []string // in the table
	}{
		{"members", "/api/v1/members", []string{"NAME", "ADDR", "STATE", "ROLE", "VERSION", "STREAMS", "SESSIONS", "peer1", "alive", "leader"}},
		{"origin list", "/api/v1/origins", []string{"ID", "DEVICE_ID", "STATE", "WEIGHT", "o1", "dev-o1", "o2", "up"}},
		{"origin inspect o1", "/api/v1/origins/o1", []string{`"id": "o1"`, `"endpoints"`, `"rtmp"`}},
		{"placement list", placements + "?", []string{"STREAM", "ORIGIN", "__defaultVhost__/live/one", "__defaultVhost__/deep%2Fer/two"}},
		{"placement list -prefix live/", placements + "?prefix=live%2F", []string{"live/one", "!deep"}},
		{"placement list -prefix __defaultVhost__/deep", placements + "?prefix=__defaultVhost__%2Fdeep", []string{"deep%2Fer/two", "!live/one"}},
		{"placement list -origin nobody", placements + "?origin=nobody", []string{"STREAM", "!live/one"}},
		{"placement list -origin " + home, placements + "?origin=" + home, []string{"live/one"}},
		{"placement get live/one", one, []string{`"origin": "` + home + `"`, `"publishing": true`, `"sessions": 1`}},
		{"placement get __defaultVhost__/live/one", one, []string{`"name": "one"`}},
		{"placement get deep%2Fer/two", deep, []string{`"app": "deep/er"`}},
		{"placement explain live/one", one + "/explain?protocol=rtmp", []string{"placed on " + home, "ORIGIN", "o1", "o2", "true"}},
		{"placement explain live/new -protocol http", placements + "/__defaultVhost__/live/new/explain?protocol=http", []string{"not placed", "o1", "o2"}},
		{"placement explain live/new -protocol srt", placements + "/__defaultVhost__/live/new/explain?protocol=srt", []string{"not placed"}},
		{"placement history live/one", one + "/history", []string{"AT", "KIND", "placed", "published"}},
		{"session list", "/api/v1/sessions", []string{"ID", "CLIENT", "rtmp", "127.0.0.1:", "live/one", "true"}},
	} {
		_, body := p.here().call(t, "GET", test.path, "")
		if got := p.must(t, strings.Fields(test.command+" -format json")...); got != body && !strings.HasPrefix(test.command, "session") {
			t.Errorf("%s -format json prints %s; want the API's own body %s", test.command, got, body)
		}
		table := p.must(t, strings.Fields(test.command)...)
		for _, want := range test.shows {
			if strings.HasPrefix(want, "!") {
				if strings.Contains(table, want[1:]) {
					t.Errorf("%s shows %s in\n%s", test.command, want[1:], table)
				}
			} else if !strings.Contains(table, want) {
				t.Errorf("%s lacks %q:\n%s", test.command, want, table)
			}
		}
		if strings.Contains(table, "\x1b") {
			t.Errorf("%s prints escape codes into a pipe", test.command)
		}
	}
}

func TestWritingCommandsDoWhatTheySay(t *testing.T) {
	p := twoOrigins(t)
	encoder := p.publish(t, "one")
	home := p.homeOf(t, "live/one")
	quiet := func(args ...string) {
		t.Helper()
		if out := p.must(t, args...); out != "" {
			t.Errorf("srsx %v prints %q; want silence when it is done", args, out)
		}
	}
	quiet("placement", "move", "live/one", "-to", other(home)) // flags after arguments
	if got := p.homeOf(t, "live/one"); got != other(home) {
		t.Errorf("after move the stream is on %s; want %s", got, other(home))
	}
	<-encoder.ended // its session ends, so that it comes back
	p.publish(t, "one")
	quiet("placement", "forget", "live/one")
	if got := p.homeOf(t, "live/one"); got != "" {
		t.Errorf("after forget the stream is on %s", got)
	}
	quiet("origin", "weight", "o1", "7")
	if got := p.origins(t)["o1"].Weight; got != 7 {
		t.Errorf("weight = %d; want 7", got)
	}
	quiet("origin", "drain", "o1")
	if got := p.state(t, "o1"); got != "draining" {
		t.Errorf("after drain o1 is %s", got)
	}
	quiet("origin", "ready", "o1")
	if got := p.state(t, "o1"); got != "up" {
		t.Errorf("after ready o1 is %s", got)
	}
	quiet("origin", "remove", "o1")
	if got := p.state(t, "o1"); got != "" {
		t.Errorf("after remove o1 is %s", got)
	}
	if out := p.must(t, "origin", "drain", "-format", "json", "-deadline=1h", "o2"); out != `{"code":0}`+"\n" {
		t.Errorf("drain -format json prints %q; want the API's body", out)
	}
	if out := p.must(t, "origin", "inspect", "o2"); !strings.Contains(out, "drain_until") {
		t.Errorf("a drain with a deadline shows none: %s", out)
	}
}

func TestKickEndsOneSession(t *testing.T) {
	p := twoOrigins(t)
	encoder := p.publish(t, "one")
	var data struct{ Sessions []struct{ ID string } }
	p.get(t, "/api/v1/sessions", &data)
	if len(data.Sessions) != 1 {
		t.Fatalf("%d sessions; want 1", len(data.Sessions))
	}
	p.must(t, "session", "kick", data.Sessions[0].ID)
	<-encoder.ended
	eventually(t, "the line of its end", func() bool {
		lines := p.logged("session ended")
		return len(lines) == 1 && lines[0]["reason"] == "session ended by operator"
	})
	code, _, errs := p.cli("session", "kick", data.Sessions[0].ID)
	requireOneLine(t, "kick again", code, exitRefused, errs, "not found")
}

// The deadline of a drain ends what is left.
func TestDrainEndsSessionsAtItsDeadline(t *testing.T) {
	p := twoOrigins(t)
	encoder := p.publish(t, "one")
	home := p.homeOf(t, "live/one")
	p.must(t, "origin", "drain", home)
	p.publish(t, "two")
	if got := p.homeOf(t, "live/two"); got != other(home) {
		t.Errorf("a new stream is on %s; want %s, as %s drains", got, other(home), home)
	}
	select {
	case <-encoder.ended:
		t.Fatal("a drain without a deadline ended a session")
	default:
	}
	p.must(t, "origin", "drain", home, "-deadline", "10ms")
	<-encoder.ended
	p.publish(t, "one")
	if got := p.homeOf(t, "live/one"); got != other(home) {
		t.Errorf("the encoder came back on %s; want %s", got, other(home))
	}
}

func TestRefusalsAndMistakesAtTheCommandLine(t *testing.T) {
	p := twoOrigins(t)
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"placement get live/none":                  {exitRefused, "placement of __defaultVhost__/live/none: not found"},
		"placement history":                        {exitUsage, "placement history needs STREAM"},
		"placement get":                            {exitUsage, "placement get needs STREAM"},
		"placement get live":                       {exitUsage, "not a stream name"},
		"placement get live/%zz":                   {exitUsage, "not a stream name"},
		"placement get a/b/c/d":                    {exitUsage, "not a stream name"},
		"placement get live/a live/b":              {exitUsage, `stray argument "live/b"`},
		"placement get -- -x/y":                    {exitRefused, "-x/y: not found"},
		"placement forget live/none":               {exitRefused, "stream not placed"},
		"placement move live/none -to o1":          {exitRefused, "stream not placed"},
		"placement move live/none":                 {exitUsage, "move needs -to ID"},
		"placement explain live/x -protocol nntp":  {exitRefused, "none of rtmp, http, api, srt, rtc"},
		"placement list stray":                     {exitUsage, `stray argument "stray"`},
		"placement list -prefix":                   {exitUsage, "-prefix needs a value"},
		"placement list -format xml":               {exitUsage, "neither table nor json"},
		"placement list -no-such":                  {exitUsage, "unknown flag -no-such; allowed: -addr"},
		"placement nonsense":                       {exitUsage, `no command "nonsense"`},
		"origin inspect nobody":                    {exitRefused, `origin "nobody": not found`},
		"origin drain nobody":                      {exitRefused, "not"},
		"origin drain o1 -deadline soon":           {exitUsage, "-deadline"},
		"origin drain o1 -deadline -5m":            {exitRefused, "not a duration such as 10m"},
		"origin ready nobody":                      {exitRefused, "not"},
		"origin remove nobody":                     {exitRefused, "not"},
		"origin weight o1":                         {exitUsage, "origin weight needs ID N"},
		"origin weight o1 heavy":                   {exitUsage, `"heavy" is not a number`},
		"origin weight o1 20000":                   {exitRefused, "from 0 to 10000"},
		"origin weight o1 1 2":                     {exitUsage, `stray argument "2"`},
		"session kick 99":                          {exitRefused, "not found"},
		"session kick x":                           {exitRefused, "not found"},
		"members -token wrong":                     {exitRefused, "wrong token"},
		"members -token @/no/such/file":            {exitRefused, "/no/such/file"},
		"monitor -interval 0s":                     {exitUsage, "-interval"},
		"monitor -count x":                         {exitUsage, "-count"},
		"members -addr http://127.0.0.1:1":         {exitRefused, "no peer at http://127.0.0.1:1: dial tcp 127.0.0.1:1"},
		"placement watch -addr 127.0.0.1:1":        {exitRefused, "no peer at http://127.0.0.1:1"},
		"members -addr http://127.0.0.1:1:1":       {exitRefused, "address of the peer"},
		"members -addr http://" + p.rtmp:           {exitRefused, "http://" + p.rtmp},
		"members -addr http://" + p.http:           {exitRefused, "no such"},
		"version stray":                            {exitUsage, "stray"},
		"completion":                               {exitUsage, "bash, zsh or fish"},
		"completion tcsh":                          {exitUsage, `no completion for "tcsh"`},
		"help nonsense":                            {exitUsage, "nonsense"},
		"nonsense":                                 {exitUsage, "nonsense"},
		"-nonsense":                                {exitUsage, "unknown flag -nonsense"},
		"origin list -addr http://127.0.0.1:1 -h=": {exitUsage, "-h"},
	} {
		code, out, errs := p.cli(strings.Fields(line)...)
		requireOneLine(t, line, code, want.code, errs, want.text)
		if out != "" || !strings.HasPrefix(errs, "srsx: ") {
			t.Errorf("%s: stdout %q, stderr %q; want only an error", line, out, errs)
		}
	}
}

func TestAddressAndTokenComeFromFlagOrEnvironment(t *testing.T) {
	p := startPeer(t, options{flags: []string{"-token", "right"}})
	away := map[string]string{"SRSX_ADDR": "http://127.0.0.1:1", "SRSX_TOKEN": "right"}
	if code, _, errs := commandIn(away, "members", "-addr", p.system); code != exitDone {
		t.Errorf("-addr beside SRSX_ADDR = %d %s; want the flag to win", code, errs)
	}
	near := map[string]string{"SRSX_ADDR": p.system, "SRSX_TOKEN": "wrong"}
	if code, _, errs := commandIn(near, "members"); code != exitRefused || !strings.Contains(errs, "wrong token") {
		t.Errorf("SRSX_TOKEN=wrong = %d %s; want it used", code, errs)
	}
	if code, _, errs := commandIn(near, "members", "-token", "right"); code != exitDone {
		t.Errorf("-token beside SRSX_TOKEN = %d %s; want the flag to win", code, errs)
	}
}

func TestVersionIsTheSameEverywhere(t *testing.T) {
	p := startPeer(t, options{})
	_, out, _ := command("version")
	name, version, _ := strings.Cut(strings.TrimSpace(out), " ")
	if name != "srsx" || version == "" {
		t.Fatalf("version prints %q", out)
	}
	for _, addr := range []string{p.system, p.api, p.http} {
		client := p.here().client
		response, err := client.Get("http://" + addr + "/api/v1/versions")
		if err != nil {
			t.Fatal(err)
		}
		body := make([]byte, 1000)
		n, _ := response.Body.Read(body)
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK || !strings.Contains(string(body[:n]), strconv.Quote(version)) || !strings.Contains(string(body[:n]), `"code":0`) {
			t.Errorf("versions at %s = %d %s; want %s", addr, response.StatusCode, body[:n], version)
		}
	}
}
