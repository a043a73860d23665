// Package player is the page that the -http port serves when no folder is
// configured: it plays a stream through this peer. It needs no build and no
// network: mpegts.js 1.8.2 (Apache 2.0) and hls.js 1.7.4 (Apache 2.0) lie
// beside it with their licences.
package player

import (
	"embed"
	"io/fs"
)

//go:embed files
var files embed.FS

// FS returns the page's files.
func FS() fs.FS {
	sub, err := fs.Sub(files, "files")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}
