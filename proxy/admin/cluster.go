package admin

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"
)

// Cluster is what this package needs of a peer of a cluster.
type Cluster interface {
	// Join meets the peers at addresses of gossip.
	Join(ctx context.Context, addrs ...string) error
	// Leave takes this peer out of the cluster for good, and ends its process
	// when that is agreed.
	Leave(ctx context.Context) error
	// ForceLeave declares another peer gone for good.
	ForceLeave(ctx context.Context, name string) error

	// Servers are the members of Raft. RemoveServer takes one out, by name or
	// id; TransferLeadership has it lead, or the best one if name is empty.
	Servers() []RaftServer
	RemoveServer(ctx context.Context, name string) error
	TransferLeadership(ctx context.Context, name string) error

	// SaveSnapshot writes the state, RestoreSnapshot replaces that of all peers.
	SaveSnapshot(ctx context.Context, w io.Writer) error
	RestoreSnapshot(ctx context.Context, r io.Reader) error

	// Keys are the cluster keys by fingerprint, at every peer in reach. The
	// others change the ring of all of them.
	Keys(ctx context.Context) ([]KeyStatus, error)
	InstallKey(ctx context.Context, key string) error
	UseKey(ctx context.Context, fingerprint string) error
	RemoveKey(ctx context.Context, fingerprint string) error

	// Freshness says how new the state is that this peer answers from. Barrier
	// waits, for a limited time, until it has all that anybody was told before.
	Freshness() Freshness
	Barrier(ctx context.Context) error
}

// RaftServer is one member of Raft.
type RaftServer struct {
	Name   string `json:"name"` // empty: not known to gossip
	ID     string `json:"id"`
	Addr   string `json:"addr"`
	Voter  bool   `json:"voter"`
	Leader bool   `json:"leader"`
}

// KeyStatus is one cluster key and who has it.
type KeyStatus struct {
	Fingerprint string `json:"fingerprint"`
	Primary     int    `json:"primary"` // peers that use it
	Peers       int    `json:"peers"`   // peers that accept it
	Total       int    `json:"total"`   // peers asked
}

// Freshness is how new the state is that a peer answers from.
type Freshness struct {
	Applied     uint64        `json:"applied"`         // index of the log
	LastContact time.Duration `json:"last_contact_ms"` // since the leader was heard, in ms as JSON; 0: it is us
	Stale       bool          `json:"stale"`           // no leader is in reach: newer decisions may not be known
}

// MarshalJSON writes LastContact in milliseconds.
func (f Freshness) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{"applied": f.Applied, "last_contact_ms": f.LastContact.Milliseconds(), "stale": f.Stale})
}

func (s *Server) clusterRoutes() {
	guarded := s.guardedCluster
	s.mux.Handle("POST /api/v1/cluster/join", guarded(s.join))
	s.mux.Handle("POST /api/v1/cluster/leave", guarded(s.leave))
	s.mux.Handle("POST /api/v1/cluster/force-leave", guarded(s.forceLeave))
	s.mux.Handle("GET /api/v1/raft/peers", guarded(s.raftPeers))
	s.mux.Handle("DELETE /api/v1/raft/peers/{name}", guarded(s.removePeer))
	s.mux.Handle("POST /api/v1/raft/transfer-leader", guarded(s.transferLeader))
	s.mux.Handle("GET /api/v1/snapshot", s.guard(s.saveSnapshot))
	s.mux.Handle("PUT /api/v1/snapshot", s.guard(s.restoreSnapshot))
	s.mux.Handle("GET /api/v1/keyring", guarded(s.keys))
	s.mux.Handle("POST /api/v1/keyring", guarded(s.installKey))
	s.mux.Handle("PUT /api/v1/keyring/{fingerprint}", guarded(s.useKey))
	s.mux.Handle("DELETE /api/v1/keyring/{fingerprint}", guarded(s.removeKey))
}

var errAlone = &apiError{http.StatusConflict, "this peer is alone: it was started without a cluster"}

func (s *Server) guardedCluster(do action) http.Handler {
	return s.guarded(func(r *http.Request) (map[string]any, error) {
		if s.config.Cluster == nil {
			return nil, errAlone
		}
		return do(r)
	})
}

// withFreshness adds how new an answer is, where that can be other than now.
func (s *Server) withFreshness(body map[string]any) map[string]any {
	if s.config.Cluster != nil {
		body["freshness"] = s.config.Cluster.Freshness()
	}
	return body
}

// orConsistent has do answer from what this peer knows or, where the request
// says ?consistent, only once it knows all that anybody was told before.
func (s *Server) orConsistent(do action) action {
	return func(r *http.Request) (map[string]any, error) {
		if s.config.Cluster != nil && r.URL.Query().Has("consistent") {
			if err := s.config.Cluster.Barrier(r.Context()); err != nil {
				return nil, err
			}
		}
		return do(r)
	}
}

func (s *Server) join(r *http.Request) (map[string]any, error) {
	var body struct {
		Addrs []string `json:"addrs"`
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if len(body.Addrs) == 0 {
		return nil, badField("addrs", "is missing")
	}
	return nil, s.config.Cluster.Join(r.Context(), body.Addrs...)
}

func (s *Server) leave(r *http.Request) (map[string]any, error) {
	return nil, s.config.Cluster.Leave(r.Context())
}

func (s *Server) forceLeave(r *http.Request) (map[string]any, error) {
	name, err := nodeField(r)
	if err == nil && name == "" {
		err = badField("node", "is missing")
	}
	if err != nil {
		return nil, err
	}
	return nil, s.config.Cluster.ForceLeave(r.Context(), name)
}

func nodeField(r *http.Request) (string, error) {
	var body struct {
		Node string `json:"node"`
	}
	err := decode(r, &body)
	return body.Node, err
}

func (s *Server) raftPeers(*http.Request) (map[string]any, error) {
	return data(s.withFreshness(map[string]any{"peers": s.config.Cluster.Servers()})), nil
}

func (s *Server) removePeer(r *http.Request) (map[string]any, error) {
	return nil, s.config.Cluster.RemoveServer(r.Context(), r.PathValue("name"))
}

func (s *Server) transferLeader(r *http.Request) (map[string]any, error) {
	name, err := nodeField(r)
	if err != nil {
		return nil, err
	}
	return nil, s.config.Cluster.TransferLeadership(r.Context(), name)
}

// snapshotTime bounds how long a snapshot may take over a slow line.
const snapshotTime = 10 * time.Minute

func (s *Server) saveSnapshot(w http.ResponseWriter, r *http.Request) {
	if s.config.Cluster == nil {
		reply(w, nil, errAlone)
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(snapshotTime))
	w.Header().Set("Content-Type", snapshotType)
	if err := s.config.Cluster.SaveSnapshot(r.Context(), w); err != nil {
		s.config.Log.WarnContext(r.Context(), "snapshot not sent whole", "client", r.RemoteAddr, "err", err)
		panic(http.ErrAbortHandler) // the file has to be seen to be cut short
	}
}

const snapshotType = "application/octet-stream"

func (s *Server) restoreSnapshot(w http.ResponseWriter, r *http.Request) {
	if s.config.Cluster == nil {
		reply(w, nil, errAlone)
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(snapshotTime))
	err := s.config.Cluster.RestoreSnapshot(r.Context(), r.Body)
	s.config.Log.WarnContext(r.Context(), "state restored by API", "client", r.RemoteAddr, "err", err)
	reply(w, nil, err)
}

func (s *Server) keys(r *http.Request) (map[string]any, error) {
	keys, err := s.config.Cluster.Keys(r.Context())
	if err != nil {
		return nil, err
	}
	return data(map[string]any{"keys": keys}), nil
}

func (s *Server) installKey(r *http.Request) (map[string]any, error) {
	var body struct {
		Key string `json:"key"`
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	return nil, s.config.Cluster.InstallKey(r.Context(), body.Key)
}

func (s *Server) useKey(r *http.Request) (map[string]any, error) {
	return nil, s.config.Cluster.UseKey(r.Context(), r.PathValue("fingerprint"))
}

func (s *Server) removeKey(r *http.Request) (map[string]any, error) {
	return nil, s.config.Cluster.RemoveKey(r.Context(), r.PathValue("fingerprint"))
}
