package clustertest

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"srsx/cluster/store"
)

// Disk is what a peer keeps over restarts. Its writes can be made to hang, or to
// fail.
type Disk struct {
	*store.Store
	stalls chan bool

	mu   sync.Mutex
	hung chan struct{} // closed when writes go on; nil: they do
	fail error
}

// stallLimit is how long a write may take in tests before a peer is fenced off.
const stallLimit = 200 * time.Millisecond

func openDisk(dir string) (*Disk, error) {
	d := &Disk{stalls: make(chan bool, 1)}
	s, err := store.Open(dir, store.Options{MaxAppendEntries: 1024})
	d.Store = s
	return d, err
}

// Hang makes the log's writes hang until the function that it returns is called.
func (d *Disk) Hang() (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	hung := make(chan struct{})
	d.hung = hung
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.hung = nil
		close(hung)
	})
}

// Fail makes the log's writes fail, until it is called with nil.
func (d *Disk) Fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = err
}

// StoreLogs implements raft.LogStore.
func (d *Disk) StoreLogs(entries []*raft.Log) error {
	d.mu.Lock()
	hung, fail := d.hung, d.fail
	d.mu.Unlock()
	if hung != nil {
		d.hang(hung)
	}
	if fail != nil {
		return fail
	}
	return d.Store.StoreLogs(entries)
}

// hang stands in for a write that does not return, and for the watchdog that
// notices.
func (d *Disk) hang(until <-chan struct{}) {
	limit := time.NewTimer(stallLimit)
	defer limit.Stop()
	select {
	case <-limit.C:
		d.stalls <- true
		<-until
		d.stalls <- false
	case <-until:
	}
}
