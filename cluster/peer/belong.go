package peer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"srsx/cluster"
	"srsx/cluster/durable"
	"srsx/cluster/gossip"
	"srsx/fsm"
)

const clusterIDFile = "cluster-id"

// readClusterID returns to which cluster this peer belongs; empty: to none.
func readClusterID(dir *cluster.DataDir) (string, error) {
	text, err := os.ReadFile(dir.Path(clusterIDFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read cluster id: %w", err)
	}
	id, err := uuid.Parse(strings.TrimSpace(string(text)))
	if err != nil {
		return "", fmt.Errorf("cluster id in %s: %w", dir.Path(clusterIDFile), err)
	}
	return id.String(), nil
}

// keepClusterID remembers to which cluster this peer belongs, so that it cannot
// be let into another one before its state is read.
func keepClusterID(dir *cluster.DataDir, id string) error {
	kept, err := readClusterID(dir)
	if err != nil || kept == id {
		return err
	}
	return durable.WriteFile(dir.Path(clusterIDFile), []byte(id+"\n"))
}

// Belongs reports whether the data directory is that of a peer of a cluster.
func Belongs(dir *cluster.DataDir) bool {
	id, err := readClusterID(dir)
	return id != "" || err != nil
}

// observer passes on what is applied, and notices when the cluster has a name.
type observer struct {
	peer *Peer
	next cluster.Observer // may be nil
}

var _ cluster.Observer = observer{}

// Applied implements cluster.Observer.
func (o observer) Applied(s *fsm.State, at time.Time, results []fsm.Result) {
	for _, r := range results {
		for _, c := range r.Changes {
			if c.Kind == fsm.Founded {
				o.notice(s)
			}
		}
	}
	if o.next != nil {
		o.next.Applied(s, at, results)
	}
}

// Restored implements cluster.Observer.
func (o observer) Restored(s *fsm.State) {
	o.notice(s)
	if o.next != nil {
		o.next.Restored(s)
	}
}

// notice must not wait: it runs under the lock of the state.
func (o observer) notice(s *fsm.State) {
	if c, ok := s.Cluster(); ok {
		select {
		case o.peer.founded <- c:
		default: // it is being dealt with; it never changes
		}
	}
}

// belong tells port and gossip to which cluster this peer belongs, once the
// state says so.
func (p *Peer) belong(ctx context.Context) error {
	known := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-p.founded:
			if c.ID == known {
				continue
			}
			if err := p.belongTo(c.ID); err != nil {
				return fmt.Errorf("belong to cluster %s: %w", c.ID, err)
			}
			known = c.ID
			p.log.InfoContext(ctx, "belongs to cluster", "cluster", c.ID)
		}
	}
}

func (p *Peer) belongTo(clusterID string) error {
	if err := keepClusterID(p.config.Dir, clusterID); err != nil {
		return err
	}
	if err := p.port.SetClusterID(clusterID); err != nil {
		return err
	}
	return p.gossip.UpdateMeta(func(m *gossip.Meta) { m.Cluster = clusterID })
}

// clusterID returns the UUID of the cluster as the state has it; empty: it was
// founded a moment ago and has no name yet.
func (p *Peer) clusterID() (id string) {
	p.View(func(s *fsm.State) {
		if c, named := s.Cluster(); named {
			id = c.ID
		}
	})
	return id
}

// name gives a cluster that was just founded its name and secret. Any peer may
// lead it first.
func (p *Peer) name(ctx context.Context) error {
	if p.clusterID() != "" {
		return nil
	}
	found := fsm.Found{ID: p.founding.Proposed()}
	if found.ID == "" {
		found.ID = uuid.NewString()
	}
	_, _ = rand.Read(found.Secret[:]) // never fails
	_, err := p.Propose(ctx, found)
	return err
}
