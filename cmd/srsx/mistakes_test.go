package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// requireOneLine checks the exit code and that there is one line on stderr with
// all the texts.
func requireOneLine(t *testing.T, what string, code, wantCode int, errs string, texts ...string) {
	t.Helper()
	if code != wantCode || strings.Count(errs, "\n") != 1 {
		t.Errorf("%s: exit %d, %q; want %d and one line", what, code, errs, wantCode)
	}
	for _, text := range texts {
		if !strings.Contains(errs, text) {
			t.Errorf("%s: %q; want %q in it", what, errs, text)
		}
	}
}

func TestAMistakenCommandLineSaysWhichAndWhatIsAllowed(t *testing.T) {
	for line, want := range map[string]struct {
		code  int
		texts []string
	}{
		"agent -no-such-flag":                 {exitUsage, []string{"-no-such-flag", "-rtmp", "-system-api"}},
		"agent --no-such-flag=1":              {exitUsage, []string{"-no-such-flag"}},
		"agent stray":                         {exitUsage, []string{`stray argument "stray"`}},
		"agent -rtmp":                         {exitUsage, []string{"-rtmp needs a value"}},
		"agent -dev=maybe -check":             {exitUsage, []string{"-dev", "maybe"}},
		"agent -check -rtmp x":                {exitRefused, []string{"-rtmp", `"x"`, "ip:port"}},
		"agent -check -rtmp 70000":            {exitRefused, []string{"-rtmp", `"70000"`}},
		"agent -check -http host.example:80":  {exitRefused, []string{"-http", "host.example"}},
		"agent -check -lb redis":              {exitRefused, []string{"-lb", `"redis" is not part of this version`, "memory"}},
		"agent -check -lb nothing":            {exitRefused, []string{"-lb", "memory"}},
		"agent -check -role edge":             {exitRefused, []string{"-role", "not part of this version", "proxy"}},
		"agent -check -join a,:":              {exitRefused, []string{"-join"}},
		"agent -check -retry-join a:x":        {exitRefused, []string{"-retry-join", "a:x"}},
		"agent -check -bootstrap-expect 30":   {exitRefused, []string{"-bootstrap-expect", `"30"`, "0 to 7"}},
		"agent -check -encrypt c2VjcmV0":      {exitRefused, []string{"-encrypt", "16, 24 or 32"}},
		"agent -check -raft-multiplier 0":     {exitRefused, []string{"-raft-multiplier", "1 to 10"}},
		"agent -check -tls-ca x":              {exitRefused, []string{"tls-ca", "together"}},
		"agent -check -lb raft -gossip off":   {exitRefused, []string{"-gossip"}},
		"agent -check -origin-ttl soon":       {exitRefused, []string{"-origin-ttl", `"soon"`, "30s"}},
		"agent -check -origin-ttl 0":          {exitRefused, []string{"-origin-ttl", "above zero"}},
		"agent -check -place-timeout -1s":     {exitRefused, []string{"-place-timeout", `"-1s"`}},
		"agent -check -origin-allow 10/8":     {exitRefused, []string{"-origin-allow", `"10/8"`, "address/bits"}},
		"agent -check -trusted nowhere":       {exitRefused, []string{"-trusted", `"nowhere"`}},
		"agent -check -node a/b":              {exitRefused, []string{"-node", `"a/b"`}},
		"agent -check -log-level loud":        {exitRefused, []string{"-log-level", "debug, info, warn, error"}},
		"agent -check -static /no/such/dir":   {exitRefused, []string{"static", "/no/such/dir"}},
		"agent -check -config /no/such/file":  {exitRefused, []string{"/no/such/file"}},
		"agent -check -token @/no/such/file":  {exitRefused, []string{"-token", "/no/such/file"}},
		"agent -check -register-token a/b":    {exitRefused, []string{"-register-token", "slash"}},
		"agent -rtmp off -data-dir /dev/null": {exitRefused, []string{"-data-dir"}},
	} {
		code, out, errs := command(strings.Fields(line)...)
		requireOneLine(t, line, code, want.code, errs, want.texts...)
		if out != "" {
			t.Errorf("%s prints %q on stdout", line, out)
		}
	}
	code, out, errs := command("agent", "-check")
	if code != exitDone || out != "configuration is valid\n" || errs != "" {
		t.Errorf("agent -check = %d, %q, %q", code, out, errs)
	}
}

func TestAMistakenVariableNamesItself(t *testing.T) {
	for name, value := range map[string]string{
		"PROXY_RTMP_SERVER": "x", "PROXY_GRACE_QUIT_TIMEOUT": "x", "PROXY_LOAD_BALANCER_TYPE": "x",
		"PROXY_DEFAULT_BACKEND_ENABLED": "x", "GO_PPROF": "x", "PROXY_NON_VOTER": "x",
	} {
		code, _, errs := commandIn(map[string]string{name: value}, "agent", "-check")
		requireOneLine(t, name, code, exitRefused, errs, name)
	}
	code, _, errs := commandIn(map[string]string{"PROXY_GRACE_QUIT_TIMEOUT": "40s"}, "agent", "-check")
	requireOneLine(t, "grace above force", code, exitRefused, errs, "PROXY_GRACE_QUIT_TIMEOUT", "PROXY_FORCE_QUIT_TIMEOUT")
	code, _, errs = commandIn(map[string]string{
		"PROXY_DEFAULT_BACKEND_ENABLED": "on", "PROXY_DEFAULT_BACKEND_RTMP": "1935",
	}, "agent", "-check")
	requireOneLine(t, "backend without an address", code, exitRefused, errs, "PROXY_DEFAULT_BACKEND_", "rtmp", "no host")
	t.Chdir(t.TempDir())
	for text, want := range map[string]string{"PROXY_RTMP_SERVER=x\n": ".env: PROXY_RTMP_SERVER", "nonsense\n": ".env:1"} {
		if err := os.WriteFile(".env", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		code, _, errs := command("agent", "-check")
		requireOneLine(t, text, code, exitRefused, errs, want)
	}
}

func TestAMistakenFileNamesLineAndKey(t *testing.T) {
	for text, want := range map[string][]string{
		"rtmp: 1\nnonsense: 1\n":                  {":2:", `unknown key "nonsense"`, "rtmp", "vhosts"},
		"check: true\n":                           {`unknown key "check"`},
		"rtmp: x\n":                               {"rtmp", `"x"`},
		"rtmp: {a: 1}\n":                          {":1:", "rtmp", "want a value"},
		"rtmp: 1\nrtmp: 2\n":                      {"rtmp"},
		"- a\n":                                   {"key: value"},
		"a: [\n":                                  {"line"},
		"vhosts: 5\n":                             {"vhosts"},
		"vhosts: [\"a/b\"]\n":                     {"vhosts", "a/b"},
		"origins:\n  - {id: a, port: 1}\n":        {"origins", "port", "allowed", "rtmp", "max_streams"},
		"origins:\n  - {rtmp: [\"h:1\"]}\n":       {"origins[0]", "id is missing"},
		"origins:\n  - {id: a}\n  - {id: a}\n":    {"origins[1]", `"a"`, "twice"},
		"origins:\n  - {id: a, rtmp: [1935]}\n":   {`origin "a"`, "rtmp", "no host"},
		"origins:\n  - {id: a, http: [\"h:1\"]}":  {`origin "a"`, "rtmp is missing"},
		"origins:\n  - {id: a, weight: 20000}\n":  {`origin "a"`, "weight"},
		"origins:\n  - {id: a, weight: -1}\n":     {"origins", "line 2"},
		"origins:\n  - {id: a, address: \"h:1\"}": {`origin "a"`, "address"},
		"rules:\n  - {match: live, pool: x}\n":    {"rules[0]", "vhost/app/name"},
		"rules:\n  - {match: \"*/*/*\"}\n":        {"rules[0]"},
		"limits: {session: 1}\n":                  {"limits", "session", "allowed", "sessions_per_client"},
		"limits: {sessions: many}\n":              {"limits"},
	} {
		code, _, errs := command("agent", "-check", "-config", writeFile(t, text))
		requireOneLine(t, text, code, exitRefused, errs, want...)
	}
}

// A secret is shown nowhere: not in the log, not by -check, not in an error.
func TestSecretsAreNeverPrinted(t *testing.T) {
	const secret = "s3cr3t"
	t.Chdir(t.TempDir())
	var printed strings.Builder
	keep := func(_ int, out, errs string) { printed.WriteString(out + errs) }
	for _, name := range []string{"token", "register-token", "redis-password", "encrypt"} {
		keep(command("agent", "-check", "-"+name, secret))
		keep(command("agent", "-check", "-"+name, secret+" with a space"))
		keep(command("agent", "-check", "-config", writeFile(t, name+": "+secret+"\nnonsense: 1\n")))
		keep(command("agent", "-check", "-config", writeFile(t, name+": ["+secret+"\n")))
		keep(command("agent", "-check", "-config", writeFile(t, name+": {a: "+secret+"}\n")))
		keep(command("agent", "-check", "-config", writeFile(t, "rtmp: x\n"+name+": "+secret+"\n")))
	}
	if err := os.WriteFile(".env", []byte("PROXY_TOKEN "+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	keep(command("agent", "-check"))
	if err := os.Remove(".env"); err != nil {
		t.Fatal(err)
	}
	file := writeFile(t, secret+"file")
	p := startPeer(t, options{
		flags:  []string{"-token", "@" + file, "-log-level", "debug"},
		env:    map[string]string{"PROXY_REGISTER_TOKEN": secret + "env", "PROXY_REDIS_PASSWORD": secret},
		config: "redis-password: " + secret + "\n",
	})
	p.here().call(t, "POST", "/api/v1/srs/register/"+secret, "{}")
	p.here().call(t, "POST", "/api/v1/srs/register/"+secret+"env", "{}")
	p.here().with("Authorization", "Bearer "+secret+"file").call(t, "DELETE", "/api/v1/origins/x", "")
	keep(p.cli("members", "-token", secret+"wrong"))
	p.writeConfig(t, "redis-password: "+secret+"2\nnonsense: "+secret+"\n")
	p.signals <- syscall.SIGHUP
	eventually(t, "the error of the reload", func() bool { return len(p.logged("configuration not reloaded")) == 1 })
	if err := os.WriteFile(file, []byte(secret+"new"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.writeConfig(t, "redis-password: "+secret+"2\n")
	p.signals <- syscall.SIGHUP
	eventually(t, "the reload", func() bool { return len(p.logged("changed settings wait for a restart")) == 1 })
	waiting, _ := p.logged("changed settings wait for a restart")[0]["settings"].([]any)
	if len(waiting) != 1 || waiting[0] != "token" {
		t.Errorf("waits for a restart: %v; want the token, whose file changed", waiting)
	}
	printed.WriteString(p.log.String() + p.stdout.String())
	if at := strings.Index(printed.String(), secret); at >= 0 {
		t.Errorf("a secret is printed: ...%s", printed.String()[max(0, at-200):min(at+50, printed.Len())])
	}
}
