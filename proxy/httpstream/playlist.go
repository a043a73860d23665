package httpstream

import (
	"bytes"
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

// apply returns the playlist with a hint in each URI that leads to the origin.
func (r *rewrite) apply(b []byte) []byte {
	r.hinted = make(map[string]string)
	out := make([]byte, 0, len(b)+len(b)/2)
	for len(b) > 0 {
		line := b
		if end := bytes.IndexByte(b, '\n'); end >= 0 {
			line = b[:end+1]
		}
		b = b[len(line):]
		out = r.line(out, line)
	}
	return out
}

func (r *rewrite) line(out, line []byte) []byte {
	text := bytes.TrimRight(line, "\r\n")
	end := line[len(text):]
	switch {
	case bytes.HasPrefix(text, []byte("#EXT")):
		out = r.attributes(out, text)
	case len(bytes.TrimSpace(text)) == 0 || text[0] == '#':
		out = append(out, text...)
	default:
		out = append(out, r.uri(string(text))...)
	}
	return append(out, end...)
}

// attributes rewrites each URI="..." of a tag. Other attributes may end in URI
// too, and their values be URIs as well, but none that a player fetches.
func (r *rewrite) attributes(out, tag []byte) []byte {
	mark := []byte(`URI="`)
	for {
		at := bytes.Index(tag, mark)
		if at < 0 {
			return append(out, tag...)
		}
		start := at + len(mark)
		length := bytes.IndexByte(tag[start:], '"')
		if length < 0 {
			return append(out, tag...)
		}
		out = append(out, tag[:start]...)
		value := string(tag[start : start+length])
		if own := at == 0 || tag[at-1] == ',' || tag[at-1] == ':' || tag[at-1] == ' '; own {
			value = r.uri(value)
		}
		out = append(append(out, value...), '"')
		tag = tag[start+length+1:]
	}
}

// uri adds the hint to a URI of the origin and leaves any other.
func (r *rewrite) uri(text string) string {
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
