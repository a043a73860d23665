package httpstream

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strings"

	"srsx/proxy"
)

// StaticFiles returns the files of a folder, for [Config]. A symbolic link may
// lead anywhere within the folder; one that leads out of it leads nowhere. The
// folder stays open for as long as the files are in use, so another one that
// takes its name later is not seen.
func StaticFiles(folder string) (fs.FS, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, fmt.Errorf("open static folder: %w", err)
	}
	return root.FS(), nil
}

// isStatic reports whether a path names a file of the static folder: it wins
// over a stream of that name.
func (s *Server) isStatic(name string) bool {
	if s.config.Static == nil {
		return false
	}
	name = strings.TrimPrefix(name, "/")
	return fs.ValidPath(name) && isFile(s.config.Static, name)
}

// serveStatic serves a file, or for a folder its index page and never a
// listing.
func (s *Server) serveStatic(w *reply, r *http.Request) {
	name := strings.Trim(r.URL.Path, "/")
	if name == "" {
		name = "."
	}
	// A path with dots or empty parts in it is no file's own.
	if s.config.Static == nil || !fs.ValidPath(name) ||
		!isFile(s.config.Static, name) && !isFile(s.config.Static, path.Join(name, "index.html")) {
		w.refuse(proxy.Refusal{Status: http.StatusNotFound, Reason: "no such stream or file"})
		return
	}
	http.FileServerFS(s.config.Static).ServeHTTP(w, r)
}

// isFile reports whether a name is that of a regular file: to open a device or
// a pipe might wait for ever.
func isFile(in fs.FS, name string) bool {
	info, err := fs.Stat(in, name)
	return err == nil && info.Mode().IsRegular()
}
