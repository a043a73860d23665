// Package keyring keeps the cluster keys of a peer: which it accepts, and which
// one of them it uses itself. A key is rotated without an outage in three steps,
// each at every peer before the next: install the new one, use it, remove the
// old one.
package keyring

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"

	"srsx/cluster/durable"
)

// maxKeys bounds what a handshake may have to try.
const maxKeys = 8

// Errors of changes to a ring.
var (
	// ErrNoKeys means that this cluster was formed without a key.
	ErrNoKeys = errors.New("this peer has no cluster key; start every peer with -encrypt")
	// ErrUnknownKey means that no key of the ring has this fingerprint.
	ErrUnknownKey = errors.New("no such key in the ring")
	// ErrPrimaryKey means that the key to be removed is the one in use.
	ErrPrimaryKey = errors.New("key is in use; use another one first")
	// ErrRingFull means that a key has to be removed before another is installed.
	ErrRingFull = fmt.Errorf("ring holds %d keys already; remove one that is out of use", maxKeys)
)

// Ring is the set of cluster keys of a peer, kept in a file. It is safe for
// concurrent use.
type Ring struct {
	path   string
	gossip *memberlist.Keyring

	mu      sync.Mutex
	keys    []Key // guarded by mu, as all below; the primary first, empty without encryption
	removed []func(Fingerprint)
}

// Open reads the ring kept at path. Where none is kept it starts one with key,
// and keeps it; with no key either, the ring is empty and stays so. A kept ring
// wins over key, which is then ignored: after a rotation the setting of the
// first start is an old key.
func Open(path string, key Key) (*Ring, error) {
	keys, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		if key.IsZero() {
			return &Ring{path: path}, nil
		}
		keys = []Key{key}
		err = write(path, keys)
	}
	if err != nil {
		return nil, err
	}
	raw := make([][]byte, len(keys))
	for i, k := range keys {
		raw[i] = []byte(k.secret)
	}
	gossip, err := memberlist.NewKeyring(raw, raw[0])
	if err != nil {
		return nil, fmt.Errorf("keyring for gossip: %w", err)
	}
	return &Ring{path: path, keys: keys, gossip: gossip}, nil
}

// read returns the keys in a file: a JSON array of base64 texts, as Serf and
// Consul keep theirs, the primary first.
func read(path string) ([]Key, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read keyring: %w", err)
	}
	damaged := func(why string) error {
		return fmt.Errorf("keyring %s %s; restore the file, or remove it to start again from -encrypt", path, why)
	}
	// The decoder's own error quotes the text around the fault: a key.
	var texts []string
	if json.Unmarshal(data, &texts) != nil {
		return nil, damaged("is not a JSON array of keys")
	}
	if len(texts) == 0 || len(texts) > maxKeys {
		return nil, damaged(fmt.Sprintf("holds %d keys; want 1 to %d", len(texts), maxKeys))
	}
	keys := make([]Key, len(texts))
	for i, text := range texts {
		if keys[i], err = Parse(text); err != nil {
			return nil, damaged(fmt.Sprintf("holds at place %d %v", i+1, err))
		}
		if slices.Contains(keys[:i], keys[i]) {
			return nil, damaged(fmt.Sprintf("holds %s twice", keys[i]))
		}
	}
	return keys, nil
}

func write(path string, keys []Key) error {
	texts := make([]string, len(keys))
	for i, k := range keys {
		texts[i] = k.Encode()
	}
	data, err := json.Marshal(texts)
	if err == nil {
		err = durable.WriteFile(path, append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keep keyring: %w", err)
	}
	return nil
}

// Empty reports whether the ring has no key, so that nothing is encrypted.
func (r *Ring) Empty() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.keys) == 0
}

// Gossip returns the ring that memberlist uses; it follows every change. Nil
// for an empty ring. Gossip uses the keys themselves.
func (r *Ring) Gossip() *memberlist.Keyring { return r.gossip }

// List returns the fingerprints of the keys, the primary first.
func (r *Ring) List() []Fingerprint {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Fingerprint, len(r.keys))
	for i, k := range r.keys {
		list[i] = k.Fingerprint()
	}
	return list
}

// Has reports whether a key is in the ring.
func (r *Ring) Has(name Fingerprint) bool { return slices.Contains(r.List(), name) }

// Derived is a secret made of a key for one purpose.
type Derived struct {
	From   Fingerprint
	Secret []byte // 32 bytes
}

// Derive returns for each key, the primary first, the secret that label makes
// of it. One label serves one purpose only.
func (r *Ring) Derive(label string) []Derived {
	r.mu.Lock()
	defer r.mu.Unlock()
	derived := make([]Derived, len(r.keys))
	for i, k := range r.keys {
		derived[i] = Derived{From: k.Fingerprint(), Secret: k.derive(label)}
	}
	return derived
}

// OnRemove has f called after each removal of a key, so that what was
// authenticated by it can be ended.
func (r *Ring) OnRemove(f func(Fingerprint)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removed = append(r.removed, f)
}

// Install adds a key that is accepted from now on but not used. Installing one
// that is there changes nothing. It returns [ErrNoKeys], [ErrRingFull], or [ErrBadKey]
// for the zero Key.
func (r *Ring) Install(key Key) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case key.IsZero():
		return ErrBadKey
	case len(r.keys) == 0:
		return ErrNoKeys
	case slices.Contains(r.keys, key):
		return nil
	case len(r.keys) >= maxKeys:
		return ErrRingFull
	}
	// The file first, here and below: a ring that forgets at the next start a
	// key that others use already would lock its peer out.
	changed := append(slices.Clone(r.keys), key)
	if err := write(r.path, changed); err != nil {
		return err
	}
	r.keys = changed
	return r.gossip.AddKey([]byte(key.secret))
}

// Use makes an installed key the primary one. It returns an error matching
// [ErrUnknownKey] when the ring does not have it.
func (r *Ring) Use(name Fingerprint) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, err := r.find(name)
	if err != nil || i == 0 {
		return err
	}
	key := r.keys[i]
	changed := slices.Insert(slices.Delete(slices.Clone(r.keys), i, i+1), 0, key)
	if err := write(r.path, changed); err != nil {
		return err
	}
	r.keys = changed
	return r.gossip.UseKey([]byte(key.secret))
}

// Remove forgets a key. It returns an error matching [ErrUnknownKey], or
// [ErrPrimaryKey] when the key is in use.
func (r *Ring) Remove(name Fingerprint) error {
	removed, err := r.remove(name)
	if err != nil {
		return err
	}
	for _, f := range removed { // unlocked: they may ask the ring
		f(name)
	}
	return nil
}

func (r *Ring) remove(name Fingerprint) (told []func(Fingerprint), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, err := r.find(name)
	if err != nil {
		return nil, err
	}
	if i == 0 {
		return nil, ErrPrimaryKey
	}
	key := r.keys[i]
	changed := slices.Delete(slices.Clone(r.keys), i, i+1)
	if err := write(r.path, changed); err != nil {
		return nil, err
	}
	r.keys = changed
	return slices.Clone(r.removed), r.gossip.RemoveKey([]byte(key.secret))
}

// find returns the place of a key. The caller holds r.mu.
func (r *Ring) find(name Fingerprint) (int, error) {
	for i, k := range r.keys {
		if k.Fingerprint() == name {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%w: %q", ErrUnknownKey, name)
}
