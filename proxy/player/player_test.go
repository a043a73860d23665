package player_test

import (
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"srsx/proxy/player"
)

// The page needs no network: all that it names lies beside it.
func TestPageIsComplete(t *testing.T) {
	files := player.FS()
	page, err := fs.ReadFile(files, "index.html")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(string(page), -1)
	if len(named) == 0 {
		t.Fatal("the page names no script")
	}
	for _, match := range named {
		if info, err := fs.Stat(files, strings.TrimPrefix(match[1], "/")); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v; want a file of the page's own", match[1], err)
		}
	}
	for _, library := range []string{"hls", "mpegts"} {
		if _, err := fs.Stat(files, library+".LICENSE"); err != nil {
			t.Errorf("licence of %s: %v", library, err)
		}
	}
}
