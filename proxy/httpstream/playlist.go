package httpstream

import (
	"bytes"
	"io"
	"net/url"
	"path"
	"strings"
)

// rewrite puts hints into an HLS playlist. It works on lines and quoted
// attributes, so that every tag passes, also those that do not exist yet (RFC
// 8216 section 4.1; draft-pantos-hls-rfc8216bis).
type rewrite struct {
	base   *url.URL // path of the playlist, as the client asked for it
	own    []string // hosts whose absolute URIs mean this origin
	hint   func(dir string) string
	hinted map[string]string // by directory
}

// write writes the playlist with a hint in each URI that leads to the origin.
// Every other byte stays as it is.
func (r *rewrite) write(w io.Writer, b []byte) error {
	r.hinted = make(map[string]string)
	var out []byte
	for len(b) > 0 {
		line := b
		if end := bytes.IndexByte(b, '\n'); end >= 0 {
			line = b[:end+1]
		}
		b = b[len(line):]
		out = r.line(out[:0], line)
		if _, err := w.Write(out); err != nil {
			return err //nolint:wrapcheck // the caller's own writer
		}
	}
	return nil
}

func (r *rewrite) line(out, line []byte) []byte {
	text := bytes.TrimRight(line, "\r\n")
	end := line[len(text):]
	switch {
	case bytes.HasPrefix(text, []byte("#EXT-X-")):
		out = r.attributes(out, text)
	case len(bytes.TrimSpace(text)) == 0 || text[0] == '#':
		out = append(out, text...)
	default:
		out = append(out, r.uri(string(text))...)
	}
	return append(out, end...)
}

// attributes rewrites the URI attribute of a tag's attribute list (RFC 8216
// section 4.2). A list that breaks off inside a quoted string ends there.
func (r *rewrite) attributes(out, tag []byte) []byte {
	colon := bytes.IndexByte(tag, ':') + 1
	if colon == 0 {
		return append(out, tag...)
	}
	out, tag = append(out, tag[:colon]...), tag[colon:]
	for len(tag) > 0 {
		value := bytes.IndexAny(tag, "=,") + 1
		if value == 0 {
			break
		}
		name := bytes.TrimSpace(tag[:value-1])
		quoted := tag[value-1] == '=' && value < len(tag) && tag[value] == '"'
		out, tag = append(out, tag[:value]...), tag[value:]
		if !quoted {
			continue // an unquoted value ends at the comma, as an empty name
		}
		length := bytes.IndexByte(tag[1:], '"')
		if length < 0 {
			break
		}
		text := string(tag[1 : 1+length])
		if string(name) == "URI" {
			text = r.uri(text)
		}
		out = append(append(append(out, '"'), text...), '"')
		tag = tag[length+2:]
	}
	return append(out, tag...)
}

// uri adds the hint to a URI of the origin and leaves any other.
func (r *rewrite) uri(text string) string {
	if strings.HasPrefix(text, "{$") {
		return text // a variable: its value may be another host's
	}
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || strings.Contains(text, hintParameter+"=") {
		return text
	}
	if u.Host != "" {
		if !r.means(u) {
			return text
		}
		// The origin's own address is no use to the player: its path is.
		_, text, _ = strings.Cut(text, u.Host)
		if u.Path == "" {
			return text
		}
	} else if u.Scheme != "" || u.Path == "" {
		return text
	}
	dir := path.Dir(r.base.ResolveReference(&url.URL{Path: u.Path}).Path)
	hint, ok := r.hinted[dir]
	if !ok {
		hint = r.hint(dir)
		r.hinted[dir] = hint
	}
	text, fragment, hasFragment := strings.Cut(text, "#")
	join := "?"
	if strings.Contains(text, "?") {
		join = "&"
	}
	text += join + hintParameter + "=" + hint
	if hasFragment {
		text += "#" + fragment
	}
	return text
}

// means reports whether an absolute URI leads to the origin.
func (r *rewrite) means(u *url.URL) bool {
	if u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https" {
		return false
	}
	for _, host := range r.own {
		if strings.EqualFold(u.Host, host) {
			return true
		}
	}
	return false
}
