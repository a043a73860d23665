// Package sdp changes what a proxy has to change in session descriptions (RFC
// 8866) and in the fragments of trickle ICE (RFC 8840): lines that say where
// media is sent. Every other byte stays.
package sdp

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"strconv"
)

// ErrNotSDP refuses what is no session description.
var ErrNotSDP = errors.New("not a session description")

// Credentials are what an agent proves its identity with in ICE.
type Credentials struct {
	Ufrag    string
	Password string
}

const (
	minUfrag, minPassword = 4, 22 // RFC 8839 section 5.4
	maxCredential         = 256
)

// Candidate is one address at which a peer takes media. Its protocol is UDP, or
// TCP that waits for the client to connect (RFC 6544).
type Candidate struct {
	Addr netip.AddrPort
	TCP  bool
}

// Check tells a session description with media, and credentials for ICE, from
// anything else. It does not validate the rest: origins differ in what they take.
func Check(b []byte) error {
	if !bytes.HasPrefix(b, []byte("v=")) || bytes.IndexByte(b, 0) >= 0 {
		return ErrNotSDP
	}
	media := false
	for line := range lines(b) {
		text := trim(line)
		if len(text) > 0 && (len(text) < 2 || text[1] != '=') {
			return fmt.Errorf("%w: a line that is not x=", ErrNotSDP)
		}
		media = media || bytes.HasPrefix(text, []byte("m="))
	}
	if !media {
		return fmt.Errorf("%w: no media", ErrNotSDP)
	}
	if _, ok := CredentialsOf(b); !ok {
		return fmt.Errorf("%w: no ice-ufrag and ice-pwd", ErrNotSDP)
	}
	return nil
}

// CredentialsOf returns the first credentials of a description or fragment: all
// media of a session share one transport (BUNDLE), as WHIP demands.
func CredentialsOf(b []byte) (c Credentials, ok bool) {
	for line := range lines(b) {
		text := trim(line)
		if value, found := bytes.CutPrefix(text, []byte("a=ice-ufrag:")); found && c.Ufrag == "" {
			c.Ufrag = string(value)
		}
		if value, found := bytes.CutPrefix(text, []byte("a=ice-pwd:")); found && c.Password == "" {
			c.Password = string(value)
		}
	}
	return c, isCredential(c.Ufrag, minUfrag) && isCredential(c.Password, minPassword)
}

// isCredential tells ice-chars (RFC 8839 section 5.4) of a length that agents take.
func isCredential(text string, least int) bool {
	if len(text) < least || len(text) > maxCredential {
		return false
	}
	for _, c := range []byte(text) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '+' && c != '/' {
			return false
		}
	}
	return true
}

// WithCandidates returns a description or fragment in which each run of candidate
// lines has become ours. One that has none gets ours at the end of its first
// media that is not rejected.
func WithCandidates(b []byte, ours []Candidate) []byte {
	block := appendCandidates(nil, ours, ending(b))
	out := make([]byte, 0, len(b)+len(block))
	done := make(map[int]bool) // sections that have ours
	section, open, end := 0, false, -1
	for line := range lines(b) {
		if isMedia(line) {
			section++
			if end < 0 && open {
				end = len(out)
			}
			open = open || !isRejected(line)
		}
		if !isCandidate(line) {
			out = append(out, line...)
			continue
		}
		if !done[section] {
			done[section] = true
			out = append(out, block...)
		}
	}
	if len(done) > 0 {
		return out
	}
	if end < 0 {
		if len(out) > 0 && out[len(out)-1] != '\n' {
			out = append(out, ending(b)...)
		}
		end = len(out)
	}
	return append(out[:end:end], append(block, out[end:]...)...)
}

// appendCandidates writes the lines. Preference follows the order, and UDP goes
// before TCP (RFC 8445 section 5.1.2.1, RFC 6544 section 4.2).
func appendCandidates(b []byte, list []Candidate, end string) []byte {
	const (
		hostUDP, hostTCP = 126 << 24, 90 << 24 // type preference
		passive          = 4 << 13             // direction preference of RFC 6544
		component        = 256 - 1
	)
	for i, c := range list {
		other := max(0x1fff-i, 0)
		kind, priority, tail := "udp", hostUDP|(0xffff-i)<<8|component, ""
		if c.TCP {
			kind, priority, tail = "tcp", hostTCP|(passive|other)<<8|component, " tcptype passive"
		}
		b = fmt.Appendf(b, "a=candidate:%d 1 %s %d %s %d typ host%s generation 0%s",
			i+1, kind, priority, c.Addr.Addr().Unmap().WithZone(""), c.Addr.Port(), tail, end)
	}
	return b
}

// WithoutAddresses returns a client's offer or fragment without anything by which
// an origin could send media past us: candidates, and the default addresses that
// stand in for them in m=, c= and a=rtcp. Those then say, as in an offer that
// trickles, that no address is known yet (RFC 8840 section 4.1.1).
func WithoutAddresses(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for line := range lines(b) {
		text := trim(line)
		rest := line[len(text):]
		switch {
		case isCandidate(line),
			bytes.HasPrefix(text, []byte("a=remote-candidates:")),
			bytes.Equal(text, []byte("a=end-of-candidates")):
		case bytes.HasPrefix(text, []byte("c=IN IP6 ")):
			out = append(append(out, "c=IN IP6 ::"...), rest...)
		case bytes.HasPrefix(text, []byte("c=")):
			out = append(append(out, "c=IN IP4 0.0.0.0"...), rest...)
		case bytes.HasPrefix(text, []byte("a=rtcp:")):
			out = append(append(out, "a=rtcp:9 IN IP4 0.0.0.0"...), rest...)
		case isMedia(line) && !isRejected(line):
			out = append(discardPort(out, text), rest...)
		default:
			out = append(out, line...)
		}
	}
	return out
}

// discardPort appends an m= line with the discard port for its own.
func discardPort(out, text []byte) []byte {
	fields := bytes.SplitN(text, []byte(" "), 3)
	if len(fields) < 3 {
		return append(out, text...)
	}
	out = append(append(out, fields[0]...), " 9 "...)
	return append(out, fields[2]...)
}

func isCandidate(line []byte) bool { return bytes.HasPrefix(line, []byte("a=candidate:")) }

func isMedia(line []byte) bool { return bytes.HasPrefix(line, []byte("m=")) }

// isRejected reports whether a media has port zero, which says that it is not
// used, or not by itself.
func isRejected(line []byte) bool {
	fields := bytes.Fields(line)
	if len(fields) < 2 {
		return true
	}
	port, err := strconv.Atoi(string(fields[1]))
	return err == nil && port == 0
}

// lines yields the lines with their ends, which may be LF alone.
func lines(b []byte) iter.Seq[[]byte] { return bytes.Lines(b) }

func trim(line []byte) []byte { return bytes.TrimRight(line, "\r\n") }

// ending is how the lines of b end.
func ending(b []byte) string {
	if at := bytes.IndexByte(b, '\n'); at > 0 && b[at-1] != '\r' {
		return "\n"
	}
	return "\r\n"
}
