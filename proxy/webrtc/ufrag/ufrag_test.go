package ufrag_test

import (
	"strings"
	"testing"
	"time"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/webrtc/ufrag"
)

var (
	key    = ufrag.Key{1, 2, 3}
	now    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	stream = lb.Stream{VHost: lb.DefaultVHost, App: "live", Name: "cam"}
	route  = ufrag.Route{Origin: proxy.ShortPrint{1, 2, 3, 4, 5}, Stream: ufrag.HashStream(stream), Publish: true}
)

func TestRouteIsReadBackUntilItExpires(t *testing.T) {
	for _, publish := range []bool{false, true} {
		want := route
		want.Publish = publish
		name, password := key.Make(want, now.Add(7*24*time.Hour))
		for _, later := range []time.Duration{0, time.Hour, 7 * 24 * time.Hour} {
			got, again, ok := key.Read([]byte(name), now.Add(later))
			if !ok || got != want || again != password {
				t.Errorf("Read after %v = %+v, %q, %v; want %+v, %q", later, got, again, ok, want, password)
			}
		}
		if _, _, ok := key.Read([]byte(name), now.Add(7*24*time.Hour+11*time.Minute)); ok {
			t.Error("an expired ufrag is believed")
		}
	}
}

// SRS takes up to 32 letters and digits.
func TestUfragPassesThroughAQuery(t *testing.T) {
	for range 100 {
		name, password := key.Make(route, now)
		for _, text := range []string{name, password} {
			if len(text) != ufrag.Size || strings.Trim(text, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
				t.Fatalf("%q is not %d letters and digits", text, ufrag.Size)
			}
		}
	}
}

func TestUfragsOfOneRouteDiffer(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		name, password := key.Make(route, now)
		if seen[name] || seen[password] {
			t.Fatalf("%s, %s is there twice", name, password)
		}
		seen[name], seen[password] = true, true
	}
}

func TestChangedUfragIsNotBelieved(t *testing.T) {
	name, _ := key.Make(route, now.Add(time.Hour))
	for i := range name {
		for _, c := range []byte("ab7A1+:\x00") {
			changed := []byte(name)
			if changed[i] == c {
				continue
			}
			changed[i] = c
			if r, _, ok := key.Read(changed, now); ok {
				t.Errorf("%q, made of %q, is believed to be %+v", changed, name, r)
			}
		}
	}
	for _, text := range []string{"", "abcd", name[:31], name + "a", strings.ToUpper(name)} {
		if _, _, ok := key.Read([]byte(text), now); ok {
			t.Errorf("%q is believed", text)
		}
	}
	for i := range 200 { // some of these keys have the same id
		other := ufrag.Key{9, byte(i)}
		if _, _, ok := other.Read([]byte(name), now); ok {
			t.Errorf("another key believes %q", name)
		}
	}
}

func FuzzRead(f *testing.F) {
	name, _ := key.Make(route, now.Add(time.Hour))
	f.Add([]byte(name))
	f.Add([]byte(strings.Repeat("a", ufrag.Size)))
	f.Add([]byte("n1origin2abcd"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, _, ok := key.Read(b, now); ok && r != route {
			t.Fatalf("%q, which nobody made, is believed to be %+v", b, r)
		}
	})
}

func BenchmarkReadForged(b *testing.B) {
	name, _ := key.Make(route, now.Add(time.Hour))
	forged := []byte(name)
	forged[len(forged)-1] ^= 'a' ^ 'b' // another letter, or a digit's neighbour
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := key.Read(forged, now); ok {
			b.Fatal("a forged ufrag is believed")
		}
	}
}
