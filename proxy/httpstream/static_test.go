package httpstream_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"srsx/proxy/httpstream"
	"srsx/test/origintest"
)

// startStatic serves a folder beside which lies a file that is nobody's
// business.
func startStatic(t *testing.T) *peer {
	t.Helper()
	dir := t.TempDir()
	folder := filepath.Join(dir, "www")
	for name, content := range map[string]string{
		"secret.txt": "secret", "outside/index.html": "secret", "www/index.html": "home", "www/page.html": "page",
		"www/live/clip.mp4": "0123456789", "www/list/a.txt": "a", "www/sub/index.html": "sub", "www/a b.txt": "space",
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"up.txt": "../secret.txt", "absolute.txt": filepath.Join(dir, "secret.txt"), "out": "../outside", "etc": "/etc",
		"sub/deep.txt": "../../secret.txt", "within.html": "page.html", "round.html": "round.html", "live/up.flv": "../../secret.txt",
	} {
		if err := os.Symlink(target, filepath.Join(folder, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(folder, "pipe.txt"), 0o600); err != nil {
		t.Fatal(err)
	}
	static, err := httpstream.StaticFiles(folder)
	if err != nil {
		t.Fatal(err)
	}
	return startWith(t, setup{
		origins: []*origintest.Origin{origintest.Start(t, origintest.Config{})},
		change:  func(c *httpstream.Config) { c.Static = static },
	})
}

func TestFilesOfTheFolderAreServed(t *testing.T) {
	p := startStatic(t)
	for path, want := range map[string]string{
		"/": "home", "/page.html": "page", "/page.html?a=b": "page", "/sub/": "sub", "/a%20b.txt": "space", "/%70age.html": "page",
		"/within.html":    "page", // a link that stays inside
		"/live/clip.mp4":  "0123456789",
		"/index.html":     "home",
		"/sub":            "sub",
		"/sub/index.html": "sub",
	} {
		if response, body := p.do(t, http.MethodGet, path); response.StatusCode != http.StatusOK || body != want {
			t.Errorf("%s: status %d, %q; want %q", path, response.StatusCode, body, want)
		}
	}
	if response, body := p.do(t, http.MethodGet, "/live/clip.mp4", "Range", "bytes=2-4"); response.StatusCode != http.StatusPartialContent || body != "234" {
		t.Errorf("range: status %d, %q", response.StatusCode, body)
	}
	if seen := p.origin.Seen("http"); len(seen) != 0 {
		t.Errorf("the origin was asked for %s", seen[0].Request.URL)
	}
}

func TestNothingOutsideOfTheFolderIsServed(t *testing.T) {
	p := startStatic(t)
	for _, path := range []string{
		"/up.txt", "/absolute.txt", "/out/index.html", "/out/", "/out", "/etc/passwd", "/etc/", "/sub/deep.txt", "/round.html", "/live/up.flv",
		"/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/sub/../../secret.txt", "/sub/%2e%2e/%2e%2e/secret.txt", `/..\secret.txt`,
		"/%5c..%5csecret.txt", "/....//secret.txt", "//secret.txt", "/page.html%00.txt", "/page.html%00", "/page.html/..", "/./page.html",
		"/list", "/list/", "/nothing", "/pipe.txt", "/%ff.html",
	} {
		_, reader := p.raw(t, "GET "+path+" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		response, err := http.ReadResponse(reader, nil) //nolint:bodyclose // ends with the connection
		if err != nil || response.StatusCode != http.StatusNotFound || strings.Contains(response.Header.Get("Location"), "secret") {
			t.Errorf("%s: %+v, %v; want 404", path, response, err)
		}
	}
}

func TestMissingStaticFolderIsNamed(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "missing")
	if _, err := httpstream.StaticFiles(folder); err == nil || !strings.Contains(err.Error(), folder) {
		t.Errorf("StaticFiles = %v; want an error that names the folder", err)
	}
}
