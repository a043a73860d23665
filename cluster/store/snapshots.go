package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const keptSnapshots = 2

// snapshots is raft's file snapshot store, with errors that name the file.
type snapshots struct {
	*raft.FileSnapshotStore
	dir string
}

// openSnapshots also removes what a crash has left of a snapshot half written:
// raft passes over it for ever.
func openSnapshots(dir string, logger hclog.Logger) (*snapshots, error) {
	files, err := raft.NewFileSnapshotStoreWithLogger(dir, keptSnapshots, logger)
	if err != nil {
		return nil, fmt.Errorf("open snapshots in %s: %w", dir, err)
	}
	s := &snapshots{FileSnapshotStore: files, dir: filepath.Join(dir, "snapshots")}
	halves, err := filepath.Glob(filepath.Join(s.dir, "*.tmp"))
	if err != nil {
		return nil, fmt.Errorf("look for unfinished snapshots: %w", err)
	}
	for _, half := range halves {
		if err := os.RemoveAll(half); err != nil {
			return nil, fmt.Errorf("remove unfinished snapshot: %w", err)
		}
	}
	return s, nil
}

// Open checks the whole snapshot against its checksum before it returns it.
// The error of one that is damaged matches [ErrDamaged].
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, content, err := s.FileSnapshotStore.Open(id)
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot %s is %w: %w", filepath.Join(s.dir, id), ErrDamaged, err)
	}
	return meta, content, nil
}

// survey is what the snapshots on disk amount to.
type survey struct {
	usable uint64  // index of the newest that is whole: raft starts from it. 0: none
	newest uint64  // index of the newest there is, damaged or not. 0: none
	faults []error // why those in between are no good
}

func (s survey) any() bool { return s.newest > 0 }

// survey goes the way that raft goes at its start: from the newest snapshot back
// to the first that is whole. It fails when none is.
func (s *snapshots) survey() (survey, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return survey{}, fmt.Errorf("list snapshots: %w", err)
	}
	var found survey
	var newest string
	for _, entry := range entries {
		if index, ok := snapshotIndex(entry.Name()); ok && entry.IsDir() && index >= found.newest {
			found.newest, newest = index, entry.Name()
		}
	}
	listed, err := s.List()
	if err != nil {
		return survey{}, fmt.Errorf("list snapshots in %s: %w", s.dir, err)
	}
	for _, meta := range listed {
		err := s.check(meta)
		if err == nil {
			found.usable = meta.Index
			break
		}
		found.faults = append(found.faults, err)
	}
	if found.usable < found.newest && len(found.faults) == 0 {
		// Raft passes over a snapshot whose description it cannot read.
		found.faults = append(found.faults, fmt.Errorf("snapshot %s is %w: meta.json cannot be read", filepath.Join(s.dir, newest), ErrDamaged))
	}
	if found.any() && found.usable == 0 {
		return survey{}, damaged(s.dir, errors.Join(found.faults...))
	}
	return found, nil
}

// check reads one snapshot through. Its description has no checksum of its own;
// what it shares with the name of its directory is compared.
func (s *snapshots) check(meta *raft.SnapshotMeta) error {
	if !strings.HasPrefix(meta.ID, fmt.Sprintf("%d-%d-", meta.Term, meta.Index)) {
		return fmt.Errorf("snapshot %s is %w: it says that it ends with entry %d of term %d",
			filepath.Join(s.dir, meta.ID), ErrDamaged, meta.Index, meta.Term)
	}
	_, content, err := s.Open(meta.ID)
	if err != nil {
		return err
	}
	return content.Close()
}

// snapshotIndex reads the index from a name that raft gave: term-index-milliseconds.
func snapshotIndex(name string) (uint64, bool) {
	var term, index, made uint64
	if n, err := fmt.Sscanf(name, "%d-%d-%d", &term, &index, &made); err != nil || n != 3 {
		return 0, false
	}
	return index, !strings.Contains(name, ".")
}

// meet tells whether the log, with the entries first to last, goes on where the
// usable snapshot ends, and still has what newer, damaged ones would have held.
// If not, raft would panic on the missing entries, or do without them silently.
func (s survey) meet(first, last uint64, path string) error {
	reachesBack := last > 0 && first <= s.usable+1
	switch {
	case last > 0 && !reachesBack:
		return damaged(path, errors.Join(append([]error{
			fmt.Errorf("it begins with entry %d, but the newest snapshot that can be used ends with %d", first, s.usable),
		}, s.faults...)...))
	case s.newest > s.usable && (!reachesBack || last < s.newest):
		return damaged(path, errors.Join(append([]error{
			fmt.Errorf("it ends with entry %d, but a damaged snapshot ended with %d", last, s.newest),
		}, s.faults...)...))
	}
	return nil
}
