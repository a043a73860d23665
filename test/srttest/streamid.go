package srttest

import "strings"

// Publish returns the stream id that publishes a path.
func Publish(path string) string { return "#!::r=" + path + ",m=publish" }

// Request returns the stream id that plays a path.
func Request(path string) string { return "#!::r=" + path + ",m=request" }

// pathOf reads what Publish and Request write, with more keys or without any.
func pathOf(id string) (path string, publish bool) {
	keys, ok := strings.CutPrefix(id, "#!::")
	if !ok {
		return id, false
	}
	for key := range strings.SplitSeq(keys, ",") {
		switch name, value, _ := strings.Cut(key, "="); name {
		case "r":
			path = value
		case "m":
			publish = value == "publish"
		default:
		}
	}
	return path, publish
}
