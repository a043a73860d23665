package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// made runs a command that makes something and returns the one line it prints.
func made(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errs := command(args...)
	if code != exitDone || errs != "" || strings.Count(out, "\n") != 1 {
		t.Fatalf("srsx %s = %d %q %q; want one line", strings.Join(args, " "), code, out, errs)
	}
	return strings.TrimSpace(out)
}

func until(days int) string { return time.Now().UTC().AddDate(0, 0, days).Format(time.DateOnly) }

func TestTLSMakesWhatAPeerTakes(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if got, want := made(t, "tls", "ca", "create"), "wrote srsx-ca.pem and srsx-ca-key.pem: CA srsx CA until "+until(5*365); got != want {
		t.Errorf("tls ca create prints %q; want %q", got, want)
	}
	for line, want := range map[string]string{
		"-node peer1":                              "wrote peer1.pem and peer1-key.pem: peer1.srsx.srsx until " + until(365),
		"-node peer2 -cluster media -days 9":       "wrote peer2.pem and peer2-key.pem: peer2.media.srsx until " + until(9),
		"-node * -san a.b.srsx.srsx -san old.srsx": "wrote any.pem and any-key.pem: *.srsx.srsx a.b.srsx.srsx old.srsx until " + until(365),
	} {
		if got := made(t, append([]string{"tls", "cert", "create"}, strings.Fields(line)...)...); got != want {
			t.Errorf("tls cert create %s prints %q; want %q", line, got, want)
		}
	}
	if out := made(t, "tls", "cert", "create", "-node", "peer3", "-ca", filepath.Join(dir, "srsx-ca.pem"), "-key", "srsx-ca-key.pem", "-out", "."); !strings.HasPrefix(out, "wrote peer3.pem ") {
		t.Errorf("tls cert create -out . prints %q", out)
	}
	for _, node := range []string{"peer1", "any"} {
		code, _, errs := command("agent", "-check", "-lb", "raft", "-node", "peer1", "-tls-ca", "srsx-ca.pem", "-tls-cert", node+".pem", "-tls-key", node+"-key.pem")
		if code != exitDone {
			t.Errorf("agent -check with the certificate of %s = %d %s", node, code, errs)
		}
	}
	_, table, _ := command("tls", "inspect", "any.pem")
	_, ca, _ := command("tls", "inspect", "srsx-ca.pem")
	for _, want := range []string{"peer", "*.srsx.srsx a.b.srsx.srsx old.srsx", "srsx CA", until(365)} {
		if !strings.Contains(table, want) {
			t.Errorf("tls inspect lacks %q:\n%s", want, table)
		}
	}
	if !strings.Contains(ca, "CA") || !strings.Contains(ca, until(5*365)) {
		t.Errorf("tls inspect of the CA:\n%s", ca)
	}
}

func TestMistakesAboutCertificates(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, dir := range []string{"other", "old"} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		made(t, "tls", "ca", "create", "-name", dir, "-out", dir)
	}
	made(t, "tls", "ca", "create", "-name", "mine", "-days", "30")
	made(t, "tls", "cert", "create", "-node", "peer1", "-days", "30")
	made(t, "tls", "cert", "create", "-node", "peer2", "-days", "30")
	for line, want := range map[string]struct {
		code  int
		texts []string
	}{
		"tls ca create":                                            {exitRefused, []string{"srsx-ca-key.pem", "is not replaced"}},
		"tls ca create stray":                                      {exitUsage, []string{`stray argument "stray"`}},
		"tls ca create -days 0":                                    {exitUsage, []string{"-days 0", "from 1 to"}},
		"tls ca create -days x":                                    {exitUsage, []string{"-days"}},
		"tls ca create -name=":                                     {exitUsage, []string{"-name is empty"}},
		"tls ca create -out nowhere":                               {exitRefused, []string{"-out", `"nowhere" is not a folder`}},
		"tls ca create -out peer1.pem":                             {exitRefused, []string{"-out", `"peer1.pem" is not a folder`}},
		"tls ca create -no-such":                                   {exitUsage, []string{"unknown flag -no-such", "-days"}},
		"tls ca make":                                              {exitUsage, []string{`no command "make"`}},
		"tls make":                                                 {exitUsage, []string{`no command "make"`}},
		"tls cert create":                                          {exitUsage, []string{"tls cert create needs -node NODE"}},
		"tls cert create peer3":                                    {exitUsage, []string{`stray argument "peer3"`}},
		"tls cert create -node a/b":                                {exitUsage, []string{"-node", `"a/b"`}},
		"tls cert create -node peer3 -cluster a/b":                 {exitUsage, []string{"-cluster", `"a/b"`}},
		"tls cert create -node peer3 -cluster=":                    {exitUsage, []string{"-cluster"}},
		"tls cert create -node peer1 -days 9":                      {exitRefused, []string{"peer1-key.pem", "is not replaced"}},
		"tls cert create -node peer3 -days 31":                     {exitRefused, []string{"the CA ends on " + until(30), until(31)}},
		"tls cert create -node peer3 -key nothing":                 {exitRefused, []string{"nothing", "no such file"}},
		"tls cert create -node peer3 -ca nothing":                  {exitRefused, []string{"nothing", "no such file"}},
		"tls cert create -node peer3 -ca old":                      {exitRefused, []string{"old", "is a directory"}},
		"tls cert create -node peer3 -out nowhere":                 {exitRefused, []string{"the CA ends"}},
		"tls cert create -node p -days 1 -out x":                   {exitRefused, []string{"-out", `"x" is not a folder`}},
		"tls cert create -node p -days 1 -san a.com":               {exitRefused, []string{"a.com", "not permitted"}},
		"tls cert create -node p -ca peer1.pem -key peer1-key.pem": {exitRefused, []string{"peer1.pem", "no CA"}},
		"tls cert create -node p -ca other/srsx-ca.pem":            {exitRefused, []string{"other/srsx-ca.pem", "srsx-ca-key.pem", "does not match"}},
		"tls inspect":                                              {exitUsage, []string{"tls inspect needs FILE"}},
		"tls inspect a b":                                          {exitUsage, []string{"tls inspect needs FILE"}},
		"tls inspect nothing":                                      {exitRefused, []string{"nothing", "no such file"}},
		"tls inspect peer1-key.pem":                                {exitRefused, []string{"peer1-key.pem", "no certificate"}},
		"agent -check -lb raft -tls-ca srsx-ca.pem -tls-cert peer1.pem -tls-key peer1-key.pem -node peer2":       {exitRefused, []string{"valid for peer1.srsx.srsx, not peer2"}},
		"agent -check -lb raft -tls-ca other/srsx-ca.pem -tls-cert peer1.pem -tls-key peer1-key.pem -node peer1": {exitRefused, []string{"peer1.pem", "unknown authority"}},
		"agent -check -lb raft -tls-ca srsx-ca.pem -tls-cert peer1.pem -tls-key nothing":                         {exitRefused, []string{"nothing", "no such file"}},
		"agent -check -lb raft -tls-ca srsx-ca.pem -tls-cert peer1.pem -tls-key peer2-key.pem":                   {exitRefused, []string{"peer1.pem", "peer2-key.pem", "does not match"}},
		"agent -check -lb raft -tls-ca peer1-key.pem -tls-cert peer1.pem -tls-key peer1-key.pem":                 {exitRefused, []string{"CA peer1-key.pem", "no certificate"}},
	} {
		code, out, errs := command(strings.Fields(line)...)
		requireOneLine(t, line, code, want.code, errs, want.texts...)
		if out != "" {
			t.Errorf("%s prints %q on stdout", line, out)
		}
	}
	entries, err := os.ReadDir(".")
	if err != nil || len(entries) != 8 {
		t.Errorf("%d files after the mistakes; want 3 pairs and 2 folders: %v", len(entries), entries)
	}
}
