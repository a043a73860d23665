package webrtc

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"net/url"
	"time"

	"srsx/lb"
	"srsx/proxy"
)

// hintParameter is the query parameter that tells where the session of a
// resource is.
const hintParameter = "srsx"

const (
	sessionLife = 7 * 24 * time.Hour // that a route starts flows and a hint ends sessions
	macSize     = 16                 // bytes
	hintHead    = 1 + 8 + 4 + 1      // flags, incarnation, expiry, length of the id
	publishFlag = 1
	longestHint = 2048
)

// resource is the session behind a Location.
type resource struct {
	origin  proxy.Fingerprint
	id      string // see relay.Ticket
	stream  lb.Stream
	publish bool
}

// sign makes the hint of a resource: its flags, incarnation, expiry, id and
// stream, and a MAC over these and the path and query at the origin.
func (k Secret) sign(r resource, target string, now time.Time) string {
	b := []byte{0}
	if r.publish {
		b[0] = publishFlag
	}
	b = append(b, r.origin[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(now.Add(sessionLife).Unix())) //nolint:gosec // until 2106
	b = append(b, byte(len(r.id)))                                            //nolint:gosec // ufrags are that short
	b = append(b, r.id...)
	b = append(b, r.stream.String()...)
	return base64.RawURLEncoding.EncodeToString(append(b, k.mac(b, target)...))
}

func (k Secret) mac(b []byte, target string) []byte {
	mac := hmac.New(sha256.New, k[:])
	_, _ = mac.Write([]byte("srsx resource\x00"))
	_ = binary.Write(mac, binary.BigEndian, uint32(len(b))) //nolint:gosec // short
	_, _ = mac.Write(b)
	_, _ = mac.Write([]byte(target))
	return mac.Sum(nil)[:macSize]
}

// verify reads a hint for a path and query; ok is false for one that is forged,
// expired, for another target or of another key.
func (k Secret) verify(hint, target string, now time.Time) (r resource, ok bool) {
	if len(hint) > longestHint {
		return resource{}, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(hint)
	if err != nil || len(b) < hintHead+macSize {
		return resource{}, false
	}
	b, mac := b[:len(b)-macSize], b[len(b)-macSize:]
	if !hmac.Equal(mac, k.mac(b, target)) || now.Unix() > int64(binary.BigEndian.Uint32(b[9:])) {
		return resource{}, false
	}
	end := hintHead + int(b[13])
	if end > len(b) {
		return resource{}, false
	}
	stream, err := lb.ParseStream(string(b[end:]))
	return resource{
		origin: proxy.Fingerprint(b[1:9]), id: string(b[hintHead:end]), stream: stream, publish: b[0]&publishFlag != 0,
	}, err == nil
}

// hinted reports whether a request is for a resource.
func hinted(r *http.Request) bool { return r.URL.Query().Get(hintParameter) != "" }

// splitHint returns the path and query that a hint is for, and the hint.
func splitHint(u *url.URL) (target, hint string) {
	return targetText(u.EscapedPath(), without(u.RawQuery, hintParameter)), u.Query().Get(hintParameter)
}

func targetText(path, query string) string {
	if query == "" {
		return path
	}
	return path + "?" + query
}

// locate returns the Location at any peer of a session whose origin says
// location in answer to a request; empty for one that leads elsewhere.
func (s *Server) locate(location string, request *http.Request, res resource) (ours, target string) {
	u, err := request.URL.Parse(location)
	if err != nil || location == "" {
		return "", ""
	}
	if u.Host != request.URL.Host && u.Host != request.Host {
		return "", ""
	}
	target = targetText(u.EscapedPath(), u.RawQuery)
	hint := s.config.Secret().sign(res, target, time.Now())
	return targetText(u.EscapedPath(), join(u.RawQuery, hintParameter+"="+hint)), target
}
