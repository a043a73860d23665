package httpstream

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"srsx/lb"
	"srsx/proxy"
)

func TestHintsAreBoundToKeyAndPath(t *testing.T) {
	key, foreign := HintKey{1}, HintKey{2}
	print := proxy.FingerprintOf("o", lb.Incarnation{Server: "o", Service: "s", PID: "1"})
	stream := lb.Stream{VHost: lb.DefaultVHost, App: "a/b", Name: "s"}
	now := time.Now()
	hint := key.sign(print, stream, "/live", now)
	if got, ok := key.verify(hint, "/live", now); !ok || got != (route{print, stream, true}) {
		t.Errorf("verify = %+v, %v; want %x, %v, fresh", got, ok, print, stream)
	}
	changed := []byte(hint)
	changed[15] ^= 1
	for name, c := range map[string]struct {
		key       HintKey
		hint, dir string
	}{
		"another path": {key, hint, "/other"},
		"another key":  {foreign, hint, "/live"},
		"a change":     {key, string(changed), "/live"},
		"no end":       {key, hint[:len(hint)-2], "/live"},
		"nothing":      {key, "", "/live"},
	} {
		if _, ok := c.key.verify(c.hint, c.dir, now); ok {
			t.Errorf("a hint with %s is believed", name)
		}
	}
	if proxy.FingerprintOf("o", lb.Incarnation{Server: "o", Service: "s", PID: "2"}) == print {
		t.Error("two incarnations have one fingerprint")
	}
}

// A segment keeps its URI from one refresh to the next, also across peers whose
// clocks differ a little.
func TestHintsAreStable(t *testing.T) {
	key, stream := HintKey{1}, lb.Stream{VHost: "v", App: "a", Name: "n"}
	start := time.Unix(0, 0).Add(1000 * hintLife)
	first := key.sign(proxy.Fingerprint{}, stream, "/a", start)
	for _, later := range []time.Duration{time.Second, time.Hour, hintLife - time.Second} {
		if key.sign(proxy.Fingerprint{}, stream, "/a", start.Add(later)) != first {
			t.Errorf("the hint differs %s later", later)
		}
	}
	end := start.Add(hintLife - time.Second)
	if r, ok := key.verify(key.sign(proxy.Fingerprint{}, stream, "/a", end), "/a", end.Add(hintLife)); !ok || !r.fresh {
		t.Error("a hint made at the end of a step lives shorter than hintLife")
	}
}

// A player that stays for days asks for one variant all the time: its hint says
// no more where the stream is, but still which one it is.
func TestExpiredHintStillNamesItsStream(t *testing.T) {
	key, stream := HintKey{1}, lb.Stream{VHost: "v", App: "a", Name: "n"}
	now := time.Now()
	r, ok := key.verify(key.sign(proxy.Fingerprint{1}, stream, "/a", now), "/a", now.Add(100*hintLife))
	if !ok || r.fresh || r.stream != stream {
		t.Errorf("verify = %+v, %v; want the stream, not fresh", r, ok)
	}
}

func TestHintKeyIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	made, err := LoadHintKey(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadHintKey(path)
	if err != nil || again != made || made == (HintKey{}) {
		t.Errorf("LoadHintKey = %x, %v; want the same key as before", again, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the key's file = %v, %v; want 0600", info, err)
	}
	if err = os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = LoadHintKey(path); err == nil {
		t.Error("a key of 5 bytes is taken")
	}
}

func FuzzHint(f *testing.F) {
	key := HintKey{1}
	f.Add(key.sign(proxy.Fingerprint{}, lb.Stream{VHost: "v", App: "a", Name: "n"}, "/", time.Unix(1, 0)), "/")
	f.Fuzz(func(t *testing.T, hint, dir string) {
		r, ok := key.verify(hint, dir, time.Unix(1, 0))
		if !ok {
			return
		}
		// Only what this key signed is believed, so it can be signed again.
		if again := key.sign(r.origin, r.stream, dir, time.Unix(1, 0)); again != hint {
			t.Fatalf("%q is believed to be %+v; signed again it is %q", hint, r, again)
		}
	})
}
