package httpstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

// rewrite puts hints into an HLS playlist. It works on lines and quoted
// attributes, so that every tag passes, also those that do not exist yet (RFC
// 8216 section 4.1; draft-pantos-hls-rfc8216bis).
type rewrite struct {
	base *url.URL // path of the playlist, as the client asked for it
	own  []string // hosts whose absolute URIs mean this origin
	hint func(dir string) string

	beside string            // parameter and hint for what lies beside the playlist, once made
	hinted map[string]string // the same for the last other directories
	target time.Duration     // EXT-X-TARGETDURATION, once it has been read
}

// copy writes the playlist with a hint in each URI that leads to the origin.
// Every other byte stays as it is. A line that does not fit the reader's buffer
// is errPlaylist; other errors are those of reading and writing.
func (r *rewrite) copy(to *bufio.Writer, from *bufio.Reader) error {
	for {
		line, err := from.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("%w: line of more than %d bytes", errPlaylist, from.Size())
		}
		if failed := r.line(to, line); failed != nil {
			return failed
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// line writes one line, with its end if it has one.
func (r *rewrite) line(to *bufio.Writer, line []byte) error {
	text := bytes.TrimRight(line, "\r\n")
	switch {
	case bytes.HasPrefix(text, []byte("#EXT-X-")):
		r.tag(to, text)
	case len(bytes.TrimSpace(text)) == 0 || text[0] == '#':
		_, _ = to.Write(text)
	default:
		r.uri(to, text)
	}
	_, err := to.Write(line[len(text):]) // a bufio.Writer keeps its first error
	return err
}

// tag writes a tag with hints in its attribute list (RFC 8216 section 4.2). A
// list that breaks off inside a quoted string ends there.
func (r *rewrite) tag(to *bufio.Writer, tag []byte) {
	colon := bytes.IndexByte(tag, ':') + 1
	if string(tag[:colon]) == "#EXT-X-TARGETDURATION:" {
		r.target = seconds(tag[colon:])
	}
	_, _ = to.Write(tag[:colon])
	for tag = tag[colon:]; colon > 0 && len(tag) > 0; {
		value := bytes.IndexAny(tag, "=,") + 1
		if value == 0 {
			break
		}
		name := bytes.TrimSpace(tag[:value-1])
		quoted := tag[value-1] == '=' && value < len(tag) && tag[value] == '"'
		_, _ = to.Write(tag[:value])
		tag = tag[value:]
		if !quoted {
			continue // an unquoted value ends at the comma, as an empty name
		}
		length := bytes.IndexByte(tag[1:], '"')
		if length < 0 {
			break
		}
		_ = to.WriteByte('"')
		if text := tag[1 : 1+length]; isURI(string(name)) {
			r.uri(to, text)
		} else {
			_, _ = to.Write(text)
		}
		_ = to.WriteByte('"')
		tag = tag[length+2:]
	}
	_, _ = to.Write(tag)
}

// isURI reports whether an attribute holds a URI: URI itself, and those of
// EXT-X-DATERANGE and EXT-X-CONTENT-STEERING.
func isURI(name string) bool {
	return name == "URI" || strings.HasSuffix(name, "-URI") || name == "X-ASSET-LIST"
}

func seconds(text []byte) time.Duration {
	n, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second //nolint:gosec // 16 bits
}

// uri writes a URI, with the hint if it leads to the origin.
func (r *rewrite) uri(to *bufio.Writer, text []byte) {
	if !isPlain(text) {
		_, _ = to.WriteString(r.resolve(string(text)))
		return
	}
	if r.beside == "" {
		r.beside = hintParameter + "=" + r.hint(path.Dir(r.base.Path))
	}
	_, _ = to.Write(text)
	_ = to.WriteByte(joint(text))
	_, _ = to.WriteString(r.beside)
}

// isPlain reports whether a URI is a mere file name, as those of nearly all
// segments are, with or without a query: then there is nothing to resolve.
func isPlain(text []byte) bool {
	name, query, _ := bytes.Cut(text, []byte("?"))
	if bytes.ContainsFunc(name, func(c rune) bool { return !isNameByte(c) }) || len(bytes.Trim(name, ".")) == 0 {
		return false
	}
	odd := func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '#' }
	return !bytes.ContainsFunc(query, odd) && !bytes.Contains(query, []byte(hintParameter+"="))
}

func isNameByte(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.'
}

// joint is what comes before one more parameter of a URI.
func joint[T ~string | ~[]byte](uri T) byte {
	if strings.Contains(string(uri), "?") {
		return '&'
	}
	return '?'
}

// resolve returns a URI with the hint, if it leads to the origin.
func (r *rewrite) resolve(text string) string {
	if strings.HasPrefix(text, "{$") {
		return text // a variable: its value may be another host's
	}
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || withoutHint(u.RawQuery) != u.RawQuery {
		return text
	}
	if u.Host != "" {
		if !r.means(u) {
			return text
		}
		// The origin's own address is no use to the player: its path is.
		_, behind, _ := strings.Cut(text, "//")
		at := strings.IndexAny(behind, "/?#")
		if at < 0 || behind[at] != '/' {
			return text
		}
		text = behind[at:]
	} else if u.Scheme != "" || u.Path == "" {
		return text
	}
	text, fragment, hasFragment := strings.Cut(text, "#")
	text += string(joint(text)) + hintParameter + "=" + r.hintOf(path.Dir(r.base.ResolveReference(&url.URL{Path: u.Path}).Path))
	if hasFragment {
		text += "#" + fragment
	}
	return text
}

// hintOf returns the hint for a directory, made now if it is not known.
func (r *rewrite) hintOf(dir string) string {
	const most = 64 // a playlist names a few; a hostile one as many as it has lines
	hint, ok := r.hinted[dir]
	if ok {
		return hint
	}
	if r.hinted == nil || len(r.hinted) >= most {
		r.hinted = make(map[string]string)
	}
	hint = r.hint(dir)
	r.hinted[dir] = hint
	return hint
}

// means reports whether an absolute URI leads to the origin.
func (r *rewrite) means(u *url.URL) bool {
	for _, host := range r.own {
		if sameHost(u, host) {
			return true
		}
	}
	return false
}
