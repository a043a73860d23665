package wire

import (
	"errors"
	"fmt"
	"strings"
)

// The errors of [ParseStreamID].
var (
	ErrStreamID = errors.New("malformed stream id")
	ErrMode     = errors.New("stream id asks for a mode other than publish and request")
)

// StreamID is what a stream id says, in terms of SRS.
type StreamID struct {
	Path    string // app/name, or a name alone
	Host    string // of the vhost; empty: none was named
	Query   string // parameters as in a URL, without a question mark
	Publish bool   // else request
}

// ParseStreamID reads a stream id in the forms that SRS accepts:
//
//	app/name?key=value                      request; the app may be missing
//	#!::r=app/name,m=publish,key=value      libsrt's access control guidelines
//	#!::h=host,r=app/name,m=request
//	#!::h=app/name,m=publish                of older SRS
//	#!::h=host/app/name,m=publish
//
// As SRS does it takes a question mark, an ampersand or a semicolon for a
// comma, and the last of equal keys. Which stream it is, is for others to say.
func ParseStreamID(text string) (StreamID, error) {
	keys, ok := strings.CutPrefix(text, "#!::")
	if !ok {
		if strings.HasPrefix(text, "#!:") {
			return StreamID{}, fmt.Errorf("%w: want #!:: before its keys", ErrStreamID)
		}
		path, query, _ := strings.Cut(text, "?")
		return StreamID{Path: path, Query: query}, nil
	}
	var id StreamID
	var host, resource string
	var parameters []string
	for key := range strings.FieldsFuncSeq(keys, func(r rune) bool { return strings.ContainsRune(",?&;", r) }) {
		name, value, _ := strings.Cut(key, "=")
		switch name {
		case "h":
			host = value
		case "r":
			resource = value
		case "m":
			if !strings.EqualFold(value, "publish") && !strings.EqualFold(value, "request") {
				return StreamID{}, ErrMode
			}
			id.Publish = strings.EqualFold(value, "publish")
		default:
			parameters = append(parameters, key)
		}
	}
	id.Host, id.Path = splitHost(host)
	if resource != "" {
		id.Path = resource
	}
	id.Query = strings.Join(parameters, "&")
	return id, nil
}

// splitHost takes h= apart: a host, app/name, or host/app/name.
func splitHost(h string) (host, path string) {
	first, rest, ok := strings.Cut(h, "/")
	switch {
	case !ok:
		return h, ""
	case strings.Contains(rest, "/"):
		return first, rest
	default:
		return "", h
	}
}
