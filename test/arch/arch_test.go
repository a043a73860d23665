// Package arch holds the import arrows of the house as a test:
//
//	cmd -> proxy -> lb -> fsm,  lb/raftlb -> cluster -> fsm
//
// It parses the sources itself: a test that asks the go tool is cached and
// would miss a new violation.
package arch

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "srsx"

// file is one source file and what it imports.
type file struct {
	name    string // slash separated, from the root of the module
	dir     string
	imports []string
}

func (f file) test() bool { return strings.HasSuffix(f.name, "_test.go") || helper(f.dir) }

// helper reports whether a package exists for tests only.
func helper(dir string) bool { return within(dir, "test") || strings.HasSuffix(dir, "test") }

func within(dir, root string) bool { return dir == root || strings.HasPrefix(dir, root+"/") }

// rule says what files below from, tests aside, must not import.
type rule struct {
	from   string
	except []string // folders below from that the rule leaves out
	deny   func(f file, imported string) bool
	why    string
}

func denies(targets ...string) func(file, string) bool {
	return func(_ file, imported string) bool {
		for _, target := range targets {
			if within(imported, target) {
				return true
			}
		}
		return false
	}
}

func rules() []rule {
	return []rule{
		{from: "fsm", deny: denies(module), why: "fsm is pure and imports nothing of ours"},
		{from: "cluster", deny: denies("srsx/lb", "srsx/proxy", "srsx/cmd"), why: "cluster lies below lb and proxy"},
		{from: "lb", deny: denies("srsx/proxy", "srsx/cmd"), why: "lb lies below proxy"},
		{from: "lb", except: []string{"lb/raftlb"}, deny: denies("srsx/cluster"), why: "only raftlb knows the cluster"},
		{from: "lb", deny: otherBackend, why: "backends do not import each other, nor the root a backend"},
		{from: "proxy", deny: denies("srsx/cluster", "srsx/fsm", "srsx/cmd"), why: "the proxy knows only lb"},
		{from: "proxy", deny: isBackend, why: "the proxy knows the Balancer, not a backend"},
		{from: "proxy", deny: otherProtocol, why: "no protocol imports another"},
		{from: "proxy/edge", deny: isProtocol, why: "the hub carries every protocol and knows none"},
		{from: ".", except: []string{"cluster"}, deny: denies("github.com/hashicorp/raft", "github.com/hashicorp/memberlist"), why: "consensus belongs to cluster"},
		{from: ".", deny: denies("srsx/cmd"), why: "nothing imports cmd"},
		{from: ".", deny: denies("srsx/test"), why: "the product does not import its tests"},
	}
}

func backend(dir string) string {
	for _, b := range []string{"lb/memlb", "lb/redislb", "lb/raftlb"} {
		if within(dir, b) {
			return b
		}
	}
	return ""
}

func isBackend(_ file, imported string) bool {
	return backend(strings.TrimPrefix(imported, module+"/")) != ""
}

func otherBackend(f file, imported string) bool {
	b := backend(strings.TrimPrefix(imported, module+"/"))
	return b != "" && b != backend(f.dir)
}

func protocol(dir string) string {
	for _, p := range []string{"proxy/rtmp", "proxy/httpstream", "proxy/webrtc", "proxy/srt"} {
		if within(dir, p) {
			return p
		}
	}
	return ""
}

func isProtocol(_ file, imported string) bool {
	return protocol(strings.TrimPrefix(imported, module+"/")) != ""
}

func otherProtocol(f file, imported string) bool {
	p := protocol(strings.TrimPrefix(imported, module+"/"))
	return p != "" && protocol(f.dir) != "" && p != protocol(f.dir)
}

func (r rule) covers(f file) bool {
	if f.test() || r.from != "." && !within(f.dir, r.from) {
		return false
	}
	for _, e := range r.except {
		if within(f.dir, e) {
			return false
		}
	}
	return true
}

func violations(files []file) []string {
	var found []string
	for _, r := range rules() {
		for _, f := range files {
			if !r.covers(f) {
				continue
			}
			for _, imported := range f.imports {
				if r.deny(f, imported) && imported != module+"/"+f.dir {
					found = append(found, f.name+" imports "+imported+": "+r.why)
				}
			}
		}
	}
	return found
}

func sources(t *testing.T) []file {
	t.Helper()
	root := filepath.Join("..", "..")
	var files []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, p)
		name = filepath.ToSlash(name)
		if d.IsDir() {
			if name != "." && strings.HasPrefix(path.Base(name), ".") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		f := file{name: name, dir: path.Dir(name)}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, imported)
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		t.Fatalf("read sources: %v", err)
	}
	return files
}

func TestImportsRunOneWay(t *testing.T) {
	files := sources(t)
	if len(files) < 10 {
		t.Fatalf("found %d sources; want the whole module", len(files))
	}
	for _, v := range violations(files) {
		t.Error(v)
	}
}

// The rules themselves: each of these arrows has to be refused.
func TestWrongArrowsAreFound(t *testing.T) {
	for _, f := range []file{
		{name: "fsm/x.go", dir: "fsm", imports: []string{"srsx/lb"}},
		{name: "cluster/x.go", dir: "cluster", imports: []string{"srsx/lb"}},
		{name: "lb/memlb/x.go", dir: "lb/memlb", imports: []string{"srsx/cluster"}},
		{name: "lb/redislb/x.go", dir: "lb/redislb", imports: []string{"srsx/lb/memlb"}},
		{name: "lb/x.go", dir: "lb", imports: []string{"srsx/lb/memlb"}},
		{name: "proxy/x.go", dir: "proxy", imports: []string{"srsx/fsm"}},
		{name: "proxy/rtmp/x.go", dir: "proxy/rtmp", imports: []string{"srsx/proxy/srt"}},
		{name: "proxy/edge/x.go", dir: "proxy/edge", imports: []string{"srsx/proxy/rtmp/wire"}},
		{name: "proxy/admin/x.go", dir: "proxy/admin", imports: []string{"srsx/lb/memlb"}},
		{name: "lb/x.go", dir: "lb", imports: []string{"github.com/hashicorp/raft"}},
		{name: "proxy/x.go", dir: "proxy", imports: []string{"srsx/test/origintest"}},
	} {
		if len(violations([]file{f})) == 0 {
			t.Errorf("%s may import %v; want it refused", f.name, f.imports)
		}
	}
	allowed := file{name: "cmd/srsx/x.go", dir: "cmd/srsx", imports: []string{"srsx/lb/memlb", "srsx/proxy/rtmp", "srsx/cluster"}}
	if v := violations([]file{allowed}); len(v) != 0 {
		t.Errorf("violations = %v; want none: cmd wires everything", v)
	}
}

// The top level is fixed, so that a newcomer finds each room where it was.
func TestTopLevelIsFixed(t *testing.T) {
	known := map[string]bool{
		"go.mod": true, "go.sum": true, "Makefile": true, "README.md": true, "LICENSE": true,
		"cmd": true, "cluster": true, "fsm": true, "proxy": true, "lb": true, "docs": true, "test": true,
		"bin": true, "srsx-data": true, // built or left by `make run`, never committed
	}
	entries, err := os.ReadDir(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); !known[name] && !strings.HasPrefix(name, ".") {
			t.Errorf("%s stands at the top level; it belongs in one of the rooms", name)
		}
	}
}
