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
	"srsx/cluster/gossip"
	"srsx/fsm"
)

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

// Belongs reports whether the data directory is that of a peer of a cluster.
func Belongs(dir *cluster.DataDir) bool {
	id, err := readClusterID(dir)
	return id != "" || err != nil
}

// observer passes on what is applied, and notices when the cluster has a name.
type observer struct {
	peer *Peer
	next cluster.Observer
}

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
			kept, err := readClusterID(p.config.Dir)
			if err == nil && kept != c.ID {
				err = keepClusterID(p.config.Dir, c.ID)
			}
			if err == nil {
				err = p.port.SetClusterID(c.ID)
			}
			if err == nil {
				err = p.gossip.UpdateMeta(func(m *gossip.Meta) { m.Cluster = c.ID })
			}
			if err != nil {
				return fmt.Errorf("belong to cluster %s: %w", c.ID, err)
			}
			known = c.ID
			p.log.InfoContext(ctx, "belongs to cluster", "cluster", c.ID)
		}
	}
}

// name gives a cluster that this peer founded its name and secret, as soon as it
// leads it.
func (p *Peer) name(ctx context.Context) error {
	named := false
	p.View(func(s *fsm.State) { _, named = s.Cluster() })
	if named {
		return nil
	}
	found := fsm.Found{ID: uuid.NewString()}
	if id := p.proposed.Load(); id != nil {
		found.ID = *id
	}
	_, _ = rand.Read(found.Secret[:]) // never fails
	_, err := p.Propose(ctx, found)
	return err
}
