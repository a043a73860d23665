package keyring_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"srsx/cluster/keyring"
)

func ringFile(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "keyring")
}

func open(t *testing.T, path string, key keyring.Key) *keyring.Ring {
	t.Helper()
	r, err := keyring.Open(path, key)
	if err != nil {
		t.Fatalf("Open(%s): %v", path, err)
	}
	return r
}

func prints(keys ...keyring.Key) []keyring.Fingerprint {
	list := make([]keyring.Fingerprint, len(keys))
	for i, k := range keys {
		list[i] = k.Fingerprint()
	}
	return list
}

func requireList(t *testing.T, r *keyring.Ring, want ...keyring.Key) {
	t.Helper()
	if got := r.List(); !slices.Equal(got, prints(want...)) {
		t.Fatalf("List = %v; want %v", got, prints(want...))
	}
	gossip := r.Gossip().GetKeys()
	if len(gossip) != len(want) {
		t.Fatalf("gossip has %d keys; want %d", len(gossip), len(want))
	}
	for _, k := range want {
		if !slices.ContainsFunc(gossip, func(raw []byte) bool { return bytes.Equal(raw, secret(t, k)) }) {
			t.Fatalf("gossip lacks %v", k)
		}
	}
	if !bytes.Equal(r.Gossip().GetPrimaryKey(), secret(t, want[0])) {
		t.Fatalf("gossip uses another key than %v", want[0])
	}
}

// secret returns what memberlist sees of a key.
func secret(t *testing.T, k keyring.Key) []byte {
	t.Helper()
	return open(t, ringFile(t), k).Gossip().GetPrimaryKey()
}

func TestKeysOfEverySizeAreRead(t *testing.T) {
	for size, text := range map[int]string{
		16: "MDEyMzQ1Njc4OWFiY2RlZg==",
		24: "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3",
		32: "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n",
	} {
		k, err := keyring.Parse(text)
		if err != nil || k.Encode() != strings.TrimSpace(text) {
			t.Errorf("Parse of %d bytes = %q, %v; want it back", size, k.Encode(), err)
		}
	}
}

func TestBadKeysAreRefusedWithoutShowingThem(t *testing.T) {
	for _, text := range []string{"", "c2hvcnQ=", "secretsecret!!", "MDEyMzQ1Njc4OWFiY2RlZjA="} {
		_, err := keyring.Parse(text)
		if !errors.Is(err, keyring.ErrBadKey) {
			t.Errorf("Parse(%q) = %v; want ErrBadKey", text, err)
		} else if text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("error shows the key: %v", err)
		}
	}
}

func TestGeneratedKeysAre32BytesAndDiffer(t *testing.T) {
	a, b := keyring.Generate(), keyring.Generate()
	if a == b || a.Fingerprint() == b.Fingerprint() {
		t.Errorf("two generated keys are the same: %v", a)
	}
	if got := len(secret(t, a)); got != 32 {
		t.Errorf("key has %d bytes; want 32", got)
	}
}

func TestKeyNeverPrints(t *testing.T) {
	k, err := keyring.Parse("MDEyMzQ1Njc4OWFiY2RlZg==")
	if err != nil {
		t.Fatal(err)
	}
	holder := struct{ Key keyring.Key }{k}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, value := range []any{k, &k, holder, []keyring.Key{k}} {
			got := fmt.Sprintf(verb, value)
			for _, shown := range []string{"0123456789abcdef", k.Encode(), fmt.Sprintf("%x", "0123456789abcdef")} {
				if strings.Contains(got, shown) {
					t.Errorf("%s of %T shows the key: %s", verb, value, got)
				}
			}
		}
	}
}

func TestNoKeyIsAnEmptyRing(t *testing.T) {
	path := ringFile(t)
	r := open(t, path, keyring.Key{})
	if !r.Empty() || r.Gossip() != nil || len(r.List()) != 0 {
		t.Errorf("ring without a key = %v; want it empty", r.List())
	}
	if err := r.Install(keyring.Generate()); !errors.Is(err, keyring.ErrNoKeys) {
		t.Errorf("Install into an empty ring = %v; want ErrNoKeys", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("file of an empty ring: %v; want none", err)
	}
}

func TestRotationOutlivesRestartsAndWinsOverTheFlag(t *testing.T) {
	path := ringFile(t)
	old, fresh := keyring.Generate(), keyring.Generate()
	r := open(t, path, old)
	requireList(t, r, old)

	if err := r.Install(fresh); err != nil {
		t.Fatalf("Install = %v", err)
	}
	requireList(t, r, old, fresh)
	requireList(t, open(t, path, old), old, fresh)

	if err := r.Use(fresh.Fingerprint()); err != nil {
		t.Fatalf("Use = %v", err)
	}
	requireList(t, r, fresh, old)
	requireList(t, open(t, path, old), fresh, old)

	if err := r.Remove(old.Fingerprint()); err != nil {
		t.Fatalf("Remove = %v", err)
	}
	requireList(t, r, fresh)
	requireList(t, open(t, path, old), fresh) // the flag of the first start
	requireList(t, open(t, path, keyring.Key{}), fresh)
}

func TestWrongChangesAreRefused(t *testing.T) {
	key, other := keyring.Generate(), keyring.Generate()
	r := open(t, ringFile(t), key)
	for name, c := range map[string]struct{ got, want error }{
		"install zero":   {r.Install(keyring.Key{}), keyring.ErrBadKey},
		"use unknown":    {r.Use(other.Fingerprint()), keyring.ErrUnknownKey},
		"remove unknown": {r.Remove(other.Fingerprint()), keyring.ErrUnknownKey},
		"remove primary": {r.Remove(key.Fingerprint()), keyring.ErrPrimaryKey},
		"install again":  {r.Install(key), nil},
		"use again":      {r.Use(key.Fingerprint()), nil},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s = %v; want %v", name, c.got, c.want)
		}
	}
	for range 7 {
		if err := r.Install(keyring.Generate()); err != nil {
			t.Fatalf("Install = %v", err)
		}
	}
	if err := r.Install(other); !errors.Is(err, keyring.ErrRingFull) {
		t.Errorf("ninth key = %v; want ErrRingFull", err)
	}
}

func TestChangeThatCannotBeKeptIsNotMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	first, second := keyring.Generate(), keyring.Generate()
	r := open(t, filepath.Join(dir, "keyring"), first)
	if err := r.Install(second); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"Install": r.Install(keyring.Generate()),
		"Use":     r.Use(second.Fingerprint()),
		"Remove":  r.Remove(second.Fingerprint()),
	} {
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s without a directory = %v; want its error", name, err)
		}
	}
	requireList(t, r, first, second)
}

func TestDamagedFileIsNeitherReadNorReplaced(t *testing.T) {
	key := keyring.Generate()
	for name, text := range map[string]string{
		"empty":     "",
		"no keys":   "[]",
		"not json":  key.Encode(),
		"no base64": `["` + key.Encode() + `","x"]`,
		"twice":     `["` + key.Encode() + `","` + key.Encode() + `"]`,
		"too many":  `["` + strings.Repeat(key.Encode()+`","`, 8) + key.Encode() + `"]`,
	} {
		t.Run(name, func(t *testing.T) {
			path := ringFile(t)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := keyring.Open(path, key)
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Fatalf("Open = %v; want an error naming the file", err)
			}
			if strings.Contains(err.Error(), key.Encode()) {
				t.Errorf("error shows a key: %v", err)
			}
			if kept, _ := os.ReadFile(path); string(kept) != text {
				t.Errorf("file became %q; want it untouched", kept)
			}
		})
	}
}

func TestFileIsPrivate(t *testing.T) {
	path := ringFile(t)
	open(t, path, keyring.Generate())
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("mode = %o; want 600", mode)
	}
}

func TestDerivedSecretsAreFixedByKeyAndLabel(t *testing.T) {
	key, err := keyring.Parse("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
	if err != nil {
		t.Fatal(err)
	}
	r := open(t, ringFile(t), key)
	a, b := r.Derive("a")[0], r.Derive("b")[0]
	if a.From != key.Fingerprint() || bytes.Equal(a.Secret, b.Secret) || bytes.Equal(a.Secret, secret(t, key)) {
		t.Errorf("Derive gives %v for both labels, or the key itself", a.From)
	}
	// Peers of different versions must derive the same: this never changes.
	if got, want := hex.EncodeToString(a.Secret), "52c3d6ba3509819058695a5aa07d69d0866cf1043b2500f835a885a92658378a"; got != want {
		t.Errorf("Derive = %s; want %s", got, want)
	}
}

func TestRemovalIsTold(t *testing.T) {
	first, second := keyring.Generate(), keyring.Generate()
	r := open(t, ringFile(t), first)
	var told []keyring.Fingerprint
	r.OnRemove(func(f keyring.Fingerprint) { told = append(told, f) })
	for _, err := range []error{r.Install(second), r.Remove(first.Fingerprint()), r.Remove(second.Fingerprint())} {
		if err != nil && !errors.Is(err, keyring.ErrPrimaryKey) {
			t.Fatal(err)
		}
	}
	if !slices.Equal(told, prints(second)) {
		t.Errorf("told of %v; want %v alone", told, prints(second))
	}
}
