package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"srsx/test/origintest"
	"srsx/test/proxytest"
)

var update = flag.Bool("update", false, "write the generated parts of the documentation")

const docs = "../../docs"

func readDoc(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(docs, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// settingsTable is every setting as the documentation shows it.
func settingsTable() string {
	var b strings.Builder
	b.WriteString("| flag | environment | default | meaning |\n|---|---|---|---|\n")
	code := func(text string) string {
		if text == "" {
			return ""
		}
		return "`" + text + "`"
	}
	for _, s := range settings() {
		name := s.name
		if name != "" {
			name = "-" + name
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", code(name), code(s.env), code(s.standard), s.usage)
	}
	return b.String()
}

func TestDocsListEverySetting(t *testing.T) {
	const begin, end = "-update` -->\n", "<!-- /settings -->"
	text := readDoc(t, "operations.md")
	from, to := strings.Index(text, begin)+len(begin), strings.Index(text, end)
	if want := settingsTable(); text[from:to] != want {
		if *update {
			if err := os.WriteFile(filepath.Join(docs, "operations.md"), []byte(text[:from]+want+text[to:]), 0o600); err != nil {
				t.Fatal(err)
			}
			return
		}
		t.Error("the table of settings is not that of the code: go test ./cmd/srsx -run TestDocs -update")
	}
	for _, key := range append(keysOf(reflect.TypeFor[limitEntry]()), keysOf(reflect.TypeFor[originEntry]())...) {
		if !strings.Contains(text, key) {
			t.Errorf("operations.md does not tell of %s", key)
		}
	}
}

// fenced returns the blocks of a language.
func fenced(text, language string) []string {
	var blocks []string
	within, wanted, block := false, false, ""
	for line := range strings.Lines(text) {
		mark, is := strings.CutPrefix(line, "```")
		switch {
		case is && within && wanted:
			blocks, within = append(blocks, block), false
		case is && within:
			within = false
		case is:
			within, wanted, block = true, strings.TrimSpace(mark) == language, ""
		default:
			block += line
		}
	}
	return blocks
}

func TestDocsShowAConfigurationThatIsValid(t *testing.T) {
	blocks := fenced(readDoc(t, "operations.md"), "yaml")
	if len(blocks) == 0 {
		t.Fatal("there is none")
	}
	for _, block := range blocks {
		if code, _, errs := command("agent", "-check", "-config", writeFile(t, block)); code != exitDone {
			t.Errorf("%s\n%s", errs, block)
		}
	}
}

// Every command line of the documentation is one: it fails for want of a peer,
// or of the file that it names, and not for how it is written. Those about
// certificates fail for nothing.
func TestDocsShowCommandsThatThereAre(t *testing.T) {
	seen := 0
	blocks := append(fenced(readDoc(t, "operations.md"), ""), fenced(readDoc(t, "security.md"), "")...)
	t.Chdir(t.TempDir())
	for _, folder := range []string{"renewed", "next"} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, block := range blocks {
		for line := range strings.Lines(block) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
			line, _, _ = strings.Cut(line, " > ")
			args := strings.Fields(strings.TrimPrefix(line, "$ "))
			if len(args) == 0 || args[0] != "srsx" {
				continue
			}
			seen++
			code, _, errs := commandIn(map[string]string{"SRSX_ADDR": "http://127.0.0.1:1"}, args[1:]...)
			if args[1] == "tls" || args[1] == "keygen" {
				if code != exitDone {
					t.Errorf("%s = %d %s", line, code, errs)
				}
			} else if code != exitRefused || !strings.Contains(errs, "no peer") && !strings.Contains(errs, "no such file") {
				t.Errorf("%s = %d %s", line, code, errs)
			}
		}
	}
	if seen < 15 {
		t.Errorf("found %d commands; want those of operations.md", seen)
	}
}

func TestDocsListEveryMetric(t *testing.T) {
	names := func(text string) []string {
		found := regexp.MustCompile(`(?m)^(?:\| `+"`"+`|# TYPE )(srsx_\w+)`).FindAllStringSubmatch(text, -1)
		var list []string
		for _, m := range found {
			list = append(list, m[1])
		}
		slices.Sort(list)
		return list
	}
	p := startPeer(t, options{flags: []string{"-place-timeout", "2s"}})
	if _, err := p.tryPublish(t, "refused"); err == nil {
		t.Fatal("published without an origin")
	}
	p.originAt(t, origintest.Config{})
	p.publish(t, "one")
	p.httpStatus(t, "/live/none.flv")
	eventually(t, "a session ended", func() bool { return p.metric(t, "srsx_sessions_ended_total") == 1 })
	_, text := p.here().call(t, "GET", "/metrics", "")
	known := names(text)
	// These count what does not happen here.
	known = append(known, "srsx_accept_errors_total", "srsx_connections_rejected_total", "srsx_srt_rejections_total")
	slices.Sort(known)
	if documented := names(readDoc(t, "operations.md")); !slices.Equal(documented, known) {
		t.Errorf("documented: %v\nknown: %v", documented, known)
	}
}

// The script registers what cannot register itself: here a sleep.
func TestTheScriptOfTheDocsRegistersAnyProcess(t *testing.T) {
	p := startPeer(t, options{flags: []string{"-register-token", "t0"}})
	o := origintest.Start(t, origintest.Config{})
	_, rtmp, _ := strings.Cut(o.RTMP(), ":")
	_, web, _ := strings.Cut(o.HTTP(), ":")
	// A process with a name that nobody else's has.
	name := fmt.Sprintf("srsx%d", os.Getpid())
	dir := t.TempDir()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(sleep, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	origin := func() *exec.Cmd {
		t.Helper()
		c := exec.CommandContext(ctx, filepath.Join(dir, name), "600")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := origin()
	var said proxytest.Log
	script := exec.CommandContext(ctx, "sh", filepath.Join(docs, "register-origin.sh"))
	script.Env = append(os.Environ(), "PEER=http://"+p.system, "TOKEN=t0", "ID=any", "PROCESS="+name, "IP=127.0.0.1",
		"RTMP="+rtmp, "HTTP="+web, "INTERVAL=0.1")
	script.Stdout, script.Stderr = &said, &said
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = script.Wait()
	}()
	eventually(t, "the origin is up", func() bool { return p.state(t, "any") == "up" })
	before := p.origins(t)["any"]
	if before.Endpoints["rtmp"][0] != o.RTMP() || before.Endpoints["http"][0] != o.HTTP() {
		t.Errorf("origin = %+v; want it at %s and %s", before, o.RTMP(), o.HTTP())
	}
	p.publish(t, "one")
	_ = first.Process.Kill()
	_ = first.Wait()
	second := origin()
	eventually(t, "another run", func() bool { return p.origins(t)["any"].Service != before.Service })
	_ = second.Process.Kill()
	_ = second.Wait()
	if said.String() != "" {
		t.Errorf("the script says %s", &said)
	}
}
