package bench

import (
	"context"
	"fmt"
	"log/slog"
	"net/rpc"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"srsx/lb"
)

// Options of a peer in a process.
type Options struct {
	Name, Dir       string
	Cluster, Gossip string // host:port
	Seeds           string // gossip addresses of all
	Alone           bool   // it is one of three that went, and expects nobody
}

// Server is a peer as the others have to know it.
type Server struct{ ID, Addr string }

// Status is how a peer stands in its cluster.
type Status struct {
	Leads, Settled bool
	Applied        uint64
}

// None is nothing to say.
type None struct{ Nothing bool } // gob wants a field

// design is a way to agree where streams are.
type design interface {
	open(ctx context.Context, o Options) (Server, error)
	found(ctx context.Context, servers []Server) error
	status() Status
	register(ctx context.Context, o lb.Registration) error
	place(ctx context.Context, w lb.Want) (lb.Lease, error)
	lookup(s lb.Stream) bool
	events() (<-chan lb.Event, func())
}

// serveDrive runs a design until standard input ends.
func serveDrive(role string) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	d := &Drive{}
	switch role {
	case roleBatched:
		b := &batched{log: log}
		d.design, d.batched = b, b
	case rolePlain:
		d.design = &plain{log: log}
	default:
		panic("role " + role)
	}
	server := rpc.NewServer()
	if err := server.Register(d); err != nil {
		panic(err)
	}
	server.ServeConn(pipes{os.Stdin, os.Stdout})
}

// Drive is what a process does when it is told to.
type Drive struct {
	design  design
	batched *batched // nil: another design
	seen    atomic.Pointer[sightings]
	profile *os.File
}

// Open opens the peer and returns how others reach it.
func (d *Drive) Open(o Options, s *Server) (err error) {
	*s, err = d.design.open(context.Background(), o)
	return err
}

// Found makes a cluster of the peers that are open.
func (d *Drive) Found(servers []Server, _ *None) error {
	return d.design.found(context.Background(), servers)
}

// Status tells how the peer stands.
func (d *Drive) Status(_ None, s *Status) error {
	*s = d.design.status()
	return nil
}

// Register registers so many origins.
func (d *Drive) Register(n int, _ *None) error {
	for i := range n {
		if err := d.design.register(context.Background(), registration(i)); err != nil {
			return err
		}
	}
	return nil
}

func registration(i int) lb.Registration {
	return lb.Registration{Origin: lb.Origin{
		ID: lb.OriginID("origin-" + strconv.Itoa(i)), IP: "127.0.0.1", Weight: lb.DefaultWeight,
		Static:      true,
		Incarnation: lb.Incarnation{Server: "origin-" + strconv.Itoa(i), Service: "s", PID: "1"},
		Endpoints:   lb.Endpoints{RTMP: []string{"127.0.0.1:" + strconv.Itoa(1935+i)}},
	}}
}

func stream(prefix string, i int) lb.Stream {
	return lb.Stream{VHost: lb.DefaultVHost, App: "live", Name: fmt.Sprintf("%s-%08x", prefix, i)}
}

func publish(s lb.Stream) lb.Want { return lb.Want{Stream: s, Protocol: lb.RTMP, Publish: true} }

// One is one session to place.
type One struct {
	Prefix  string
	Number  int
	Publish bool
}

// Placed is what became of it.
type Placed struct {
	Took    time.Duration
	At      int64 // Unix time in nanoseconds, when it was known here
	Origin  string
	Created bool
	Known   bool // before it was asked for
}

// Place places one stream, or finds where it is.
func (d *Drive) Place(o One, p *Placed) error {
	s := stream(o.Prefix, o.Number)
	p.Known = d.design.lookup(s)
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	lease, err := d.design.place(ctx, lb.Want{Stream: s, Protocol: lb.RTMP, Publish: o.Publish})
	p.Took, p.At = time.Since(began), time.Now().UnixNano()
	p.Origin, p.Created = string(lease.Origin.ID), lease.Created
	return err
}

// patience is how long a placement may take.
const patience = 10 * time.Second

// Range is streams by their numbers.
type Range struct {
	Prefix string
	Count  int
}

// Count returns how many of the streams are known here.
func (d *Drive) Count(r Range, known *int) error {
	for i := range r.Count {
		if d.design.lookup(stream(r.Prefix, i)) {
			*known++
		}
	}
	return nil
}

// Hot measures the local answer to where a stream is.
func (d *Drive) Hot(o One, h *Hotness) error {
	s := stream(o.Prefix, o.Number)
	missed := false
	h.Allocations = testing.AllocsPerRun(1000, func() { missed = missed || !d.design.lookup(s) })
	const turns = 2_000_000
	began := time.Now()
	for range turns {
		missed = missed || !d.design.lookup(s)
	}
	h.Took = time.Since(began) / turns
	if missed {
		return fmt.Errorf("%v is not placed", s)
	}
	return nil
}

// Hotness is what one local answer takes.
type Hotness struct {
	Took        time.Duration
	Allocations float64
}

// Memory returns what the process holds.
func (d *Drive) Memory(_ None, m *Memory) error {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	m.Heap = stats.HeapAlloc
	resident, err := residentSize()
	m.Resident = resident
	return err
}

// Memory is in bytes.
type Memory struct {
	Heap     uint64 // of live objects
	Resident uint64 // of the process, the pages of the log's file that are mapped left out
}

func residentSize() (uint64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no RssAnon in %q", text)
}
