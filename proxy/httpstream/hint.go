package httpstream

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"srsx/lb"
	"srsx/proxy"
)

// hintParameter is the query parameter that tells which origin wrote what a
// playlist names.
const hintParameter = "srsx"

const (
	hintLife = 6 * time.Hour // at least: longer than a player stays with one playlist window
	macSize  = 16            // bytes
	hintHead = 1 + 8 + 4     // key id, incarnation, expiry
)

// HintKey signs routing hints. Every peer of a cluster has the same.
type HintKey [32]byte

func (k HintKey) id() byte { return sha256.Sum256(k[:])[0] }

// LoadHintKey reads the key from a file, made now if there is none: a restarted
// peer has to understand the hints of the playlists that are still played.
func LoadHintKey(path string) (HintKey, error) {
	var key HintKey
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return makeHintKey(path)
	case err != nil:
		return key, fmt.Errorf("read key of routing hints: %w", err)
	case len(b) != len(key):
		return key, fmt.Errorf("key of routing hints in %s is %d bytes long, want %d; remove it to have a new one made", path, len(b), len(key))
	}
	copy(key[:], b)
	return key, nil
}

func makeHintKey(path string) (HintKey, error) {
	var key HintKey
	_, _ = rand.Read(key[:]) // never fails
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp-*")
	if err != nil {
		return key, fmt.Errorf("keep key of routing hints: %w", err)
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone already after the rename
	_, err = tmp.Write(key[:])
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return key, fmt.Errorf("keep key of routing hints: %w", err)
	}
	return key, nil
}

// sign makes a hint: key id, incarnation, expiry, stream, and a MAC over these
// and the directory of the URI it is for. A hint moved to another path is void.
func (k HintKey) sign(origin proxy.Fingerprint, stream lb.Stream, dir string, now time.Time) string {
	b := append([]byte{k.id()}, origin[:]...)
	// The expiry moves in steps, so that a segment, map or key has the same URI
	// in each refresh of its playlist (RFC 8216 section 6.2.1): players fetch it
	// once, and caches can keep it.
	expiry := now.Truncate(hintLife).Add(2 * hintLife)
	b = binary.BigEndian.AppendUint32(b, uint32(expiry.Unix())) //nolint:gosec // until 2106
	b = append(b, stream.String()...)
	b = append(b, k.mac(b, dir)...)
	return base64.RawURLEncoding.EncodeToString(b)
}

func (k HintKey) mac(b []byte, dir string) []byte {
	mac := hmac.New(sha256.New, k[:])
	_ = binary.Write(mac, binary.BigEndian, uint32(len(b))) //nolint:gosec // short
	_, _ = mac.Write(b)
	_, _ = mac.Write([]byte(dir))
	return mac.Sum(nil)[:macSize]
}

// A route is what a hint says.
type route struct {
	origin proxy.Fingerprint
	stream lb.Stream
	fresh  bool // the hint has not expired
}

// verify reads a hint for a directory; ok is false for one that is forged, for
// another path or of another key: it is then as if there were none. An expired
// one still names its stream: a player that stays for days asks for the same
// variant all the time.
func (k HintKey) verify(hint, dir string, now time.Time) (r route, ok bool) {
	const longest = 2048
	if len(hint) > longest {
		return route{}, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(hint)
	if err != nil || len(b) < hintHead+macSize || b[0] != k.id() {
		return route{}, false
	}
	b, mac := b[:len(b)-macSize], b[len(b)-macSize:]
	if !hmac.Equal(mac, k.mac(b, dir)) {
		return route{}, false
	}
	stream, err := lb.ParseStream(string(b[hintHead:]))
	fresh := now.Unix() <= int64(binary.BigEndian.Uint32(b[9:]))
	return route{origin: proxy.Fingerprint(b[1:9]), stream: stream, fresh: fresh}, err == nil
}
