package gossip

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	"srsx/cluster/durable"
)

// rememberPause gathers changes, so that a start of thirty peers is one write.
const rememberPause = time.Second

// remembered reads whom an earlier run knew. The file is a help and no more: one
// that cannot be read is as good as none.
func (g *Gossip) remembered() []Member {
	if g.peersFile == "" {
		return nil
	}
	data, err := os.ReadFile(g.peersFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var members []Member
	if err == nil {
		err = json.Unmarshal(data, &members)
	}
	if err != nil {
		g.log.Warn("known peers are forgotten", "file", g.peersFile, "err", err)
		return nil
	}
	return members
}

// rememberMembers keeps the file of known peers, and the list itself from growing,
// until ctx ends.
func (g *Gossip) rememberMembers(ctx context.Context) {
	save := time.NewTicker(rememberPause)
	defer save.Stop()
	prune := time.NewTicker(pruneEvery)
	defer prune.Stop()
	for {
		select {
		case <-save.C:
			g.remember()
		case <-prune.C:
			g.roster.prune(time.Now())
		case <-ctx.Done():
			g.remember()
			return
		}
	}
}

func (g *Gossip) remember() {
	if g.peersFile == "" {
		return
	}
	members, changed := g.roster.takeChanged()
	if !changed {
		return
	}
	data, err := json.MarshalIndent(members, "", "  ")
	if err == nil {
		err = durable.WriteFile(g.peersFile, append(data, '\n'))
	}
	if err != nil {
		g.log.Warn("known peers are not kept", "file", g.peersFile, "err", err)
	}
}
