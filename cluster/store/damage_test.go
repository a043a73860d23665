package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// past is a log with some history, and what is durable in it.
type past struct {
	path   string
	tries  string // where damaged files are tried
	file   []byte
	logs   []*raft.Log          // from entry 1 on
	before []*raft.Log          // those before their tail was replaced
	commit map[*raft.Log]uint64 // stored with it
	pages  []uint64             // in use, besides the two meta pages
	high   uint64               // pages in use or free
	size   uint64               // of a page
}

const (
	pastTerm = 41
	pastVote = "peer-c"
)

func newPast(t *testing.T) *past {
	t.Helper()
	dir := t.TempDir()
	s := open(t, dir)
	p := &past{path: s.path, tries: memoryDir(t), commit: make(map[*raft.Log]uint64)}
	store := func(logs []*raft.Log) {
		commit := logs[0].Index - 1
		if err := s.StageCommitIndex(commit); err != nil {
			t.Fatal(err)
		}
		mustStore(t, s, logs)
		for _, l := range logs {
			p.commit[l] = commit
		}
		p.logs = append(p.logs[:logs[0].Index-1], logs...)
	}
	store(entries(1, 40, 100))
	if err := s.SetUint64([]byte("CurrentTerm"), pastTerm-1); err != nil {
		t.Fatal(err)
	}
	store(entries(41, 44, 16<<10))
	store(entries(45, 100, 120))
	// A new leader has overwritten the tail of the old one: what it replaced is
	// still in the file, seals and all.
	p.before = slices.Clone(p.logs)
	if err := s.DeleteRange(81, 100); err != nil {
		t.Fatal(err)
	}
	for index := uint64(81); index < 110; index += 3 {
		logs := entries(index, index+2, 80)
		for _, l := range logs {
			l.Term = pastTerm
		}
		store(logs)
	}
	if err := errors.Join(s.SetUint64([]byte("CurrentTerm"), pastTerm), s.Set([]byte("LastVoteCand"), []byte(pastVote)), s.Close()); err != nil {
		t.Fatal(err)
	}
	p.read(t)
	return p
}

func (p *past) read(t *testing.T) {
	t.Helper()
	var err error
	if p.file, err = os.ReadFile(p.path); err != nil {
		t.Fatal(err)
	}
	f := newInspection(bytes.NewReader(p.file), int64(len(p.file)))
	if err := f.run(); err != nil {
		t.Fatalf("inspect: %v", err)
	}
	for page := range f.seen {
		p.pages = append(p.pages, page)
	}
	slices.Sort(p.pages)
	p.size, p.high = f.pageSize, f.pages
}

// outcome is what came of a damaged file.
type outcome int

const (
	refused outcome = iota
	prefix          // fewer entries than were durable
	whole
)

// try opens the store with content as its log. Whatever comes of it, it must
// be what some of lives hold, whole or in part.
func (p *past) try(t *testing.T, content []byte, what string, lives ...[]*raft.Log) outcome {
	t.Helper()
	dir := filepath.Join(p.tries, "raft")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, logFile), content, 0o600)); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // there are hundreds
	s, err := Open(dir, Options{})
	if err != nil {
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), filepath.Join(dir, logFile)) || !strings.Contains(err.Error(), wayOut) {
			t.Errorf("%s: Open = %v; want %v, the file and the way out", what, err, ErrDamaged)
		}
		return refused
	}
	defer func() { _ = s.Close() }()
	var unlike []error
	for _, logs := range lives {
		unlike = append(unlike, p.compare(s, logs))
	}
	if !slices.Contains(unlike, nil) {
		t.Errorf("%s: %v", what, errors.Join(unlike...))
	}
	if _, last, _ := s.bounds(); last < uint64(len(p.logs)) {
		return prefix
	}
	return whole
}

func (p *past) compare(s *Store, logs []*raft.Log) error {
	first, last, err := s.bounds()
	if err != nil || first != 1 || last > uint64(len(logs)) {
		return fmt.Errorf("log from %d to %d, %w; want a prefix of 1 to %d", first, last, err, len(logs))
	}
	for _, want := range logs[:last] {
		var got raft.Log
		if err := s.GetLog(want.Index, &got); err != nil || !sameLog(got, *want) {
			return fmt.Errorf("entry %d = %+v, %w; want %+v", want.Index, got, err, want)
		}
	}
	if commit, err := s.GetCommitIndex(); err != nil || last > 0 && commit != p.commit[logs[last-1]] {
		return fmt.Errorf("commit index %d, %w; want that of entry %d", commit, err, last)
	}
	if term, err := s.GetUint64([]byte("CurrentTerm")); err != nil || term != pastTerm {
		return fmt.Errorf("term %d, %w; want %d", term, err, pastTerm)
	}
	if vote, err := s.Get([]byte("LastVoteCand")); err != nil || string(vote) != pastVote {
		return fmt.Errorf("vote %q, %w; want %q", vote, err, pastVote)
	}
	return nil
}

// A file that was cut anywhere is refused, except behind the last page that was
// ever used.
func TestTruncatedLogIsRefused(t *testing.T) {
	p := newPast(t)
	random := rand.New(rand.NewPCG(1, 2))
	lengths := []int{0, 1, 16, 80, 4095, len(p.file) - 1}
	for page := 1; page < len(p.file)/int(p.size); page++ {
		lengths = append(lengths, page*int(p.size), page*int(p.size)+random.IntN(int(p.size)))
	}
	for _, length := range lengths {
		got := p.try(t, p.file[:length], fmt.Sprintf("cut to %d of %d bytes", length, len(p.file)), p.logs)
		if used := p.high * p.size; (uint64(length) < used) != (got == refused) {
			t.Errorf("cut to %d bytes of %d ever used: outcome %d", length, used, got)
		}
	}
}

// turn is a bit to turn, and where in the file.
type turn struct {
	at  int
	bit byte
}

// region is a part of the file.
type region struct {
	name  string
	turns []turn
	// refused: every turned bit has to be. Elsewhere it may make no difference:
	// the last value of a page may grow into the unused rest of the page, and a
	// field whose name is no longer known may have been zero.
	refused bool
}

func (r *region) everyBit(from, to int) {
	for at := from; at < to; at++ {
		for bit := range 8 {
			r.turns = append(r.turns, turn{at, 1 << bit})
		}
	}
}

// someBits turns one bit in about every 400 bytes.
func (r *region) someBits(from, to int, random *rand.Rand) {
	for at := from + random.IntN(800); at < to; at += 1 + random.IntN(800) {
		r.turns = append(r.turns, turn{at, 1 << random.IntN(8)})
	}
}

func (p *past) regions(random *rand.Rand) []region {
	meta := region{name: "meta pages", refused: true}
	heads := region{name: "page headers and elements"}
	content := region{name: "keys and values"}
	unused := region{name: "free pages"}
	size := int(p.size)
	for _, at := range []int{0, size} {
		meta.everyBit(at, at+10) // the count and overflow behind it mean nothing here
		meta.everyBit(at+pageHeader, at+pageHeader+metaSize+8)
	}
	for at := 2 * size; at < len(p.file); at += size {
		h := headerOf(p.file[at:])
		switch {
		case !slices.Contains(p.pages, uint64(at/size)):
			unused.someBits(at, at+size, random)
		case h.id != uint64(at/size): // the middle of an entry that flows over several pages
			content.someBits(at, at+size, random)
		default:
			elements := at + pageHeader + int(h.count)*elementSize
			heads.everyBit(at, elements)
			content.someBits(elements, at+size, random)
		}
	}
	return []region{meta, heads, content, unused}
}

// pointers returns the offsets of page numbers. One that is turned may be that of
// an older version of the same page, as good as new but for what was stored since.
func (p *past) pointers() map[int]bool {
	found := make(map[int]bool)
	note := func(from int) {
		for i := range 8 {
			found[from+i] = true
		}
	}
	for _, page := range p.pages {
		at := int(page * p.size)
		h := headerOf(p.file[at:])
		for i := range int(h.count) {
			element := at + pageHeader + i*elementSize
			switch {
			case h.id != page:
			case h.flags == branchPage:
				note(element + 8)
			case binary.NativeEndian.Uint32(p.file[element:]) == leafOfBucket:
				note(element + int(binary.NativeEndian.Uint32(p.file[element+4:])) + len("logs"))
			}
		}
	}
	return found
}

// Every bit of what describes the data, and a sample of the data, is turned.
func TestTurnedBitsAreNoticed(t *testing.T) {
	p := newPast(t)
	pointers := p.pointers()
	for _, r := range p.regions(rand.New(rand.NewPCG(3, 4))) {
		t.Run(r.name, func(t *testing.T) {
			var came [whole + 1]int
			content := slices.Clone(p.file)
			for _, turn := range r.turns {
				content[turn.at] ^= turn.bit
				if newInspection(bytes.NewReader(content), int64(len(content))).run() != nil {
					came[refused]++ // as Open does; but there are thousands
				} else {
					what := fmt.Sprintf("bit %#x of byte %d in page %d", turn.bit, turn.at%int(p.size), turn.at/int(p.size))
					lives := [][]*raft.Log{p.logs}
					if pointers[turn.at] {
						lives = append(lives, p.before)
					}
					got := p.try(t, content, what, lives...)
					came[got]++
					if got == whole && r.refused || got == prefix && !pointers[turn.at] {
						t.Errorf("%s: outcome %d", what, got)
					}
				}
				content[turn.at] ^= turn.bit
			}
			t.Logf("%d refused, %d gave a prefix, %d made no difference", came[refused], came[prefix], came[whole])
		})
	}
}

// Term and vote, each bit of their record.
func TestTurnedBitsOfSettingsAreNoticed(t *testing.T) {
	stored := settings{"CurrentTerm": {0, 0, 0, 0, 0, 0, 0, 41}, "LastVoteCand": []byte("peer-c"), "empty": {}}
	record := stored.encode()
	got, err := decodeSettings(record)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(stored) {
		t.Fatalf("decoded %v, %v; want %v", got, err, stored)
	}
	for i := range len(record) * 8 {
		turned := slices.Clone(record)
		turned[i/8] ^= 1 << (i % 8)
		if got, err := decodeSettings(turned); err == nil {
			t.Errorf("bit %d turned: %v; want an error", i, got)
		}
	}
	for length := range record {
		if got, err := decodeSettings(record[:length]); err == nil {
			t.Errorf("cut to %d bytes: %v; want an error", length, got)
		}
	}
}

// A whole entry in the place of another.
func TestEntryUnderAnotherIndexIsRefused(t *testing.T) {
	s := open(t, t.TempDir())
	mustStore(t, s, entries(1, 5, 10))
	takeSnapshot(t, s, 10, "")
	if err := errors.Join(s.DeleteRange(1, 4), s.Close()); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(s.path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		logs := tx.Bucket([]byte("logs"))
		fifth := []byte{7: 5}
		return errors.Join(logs.Put([]byte{7: 7}, slices.Clone(logs.Get(fifth))), logs.Delete(fifth))
	})
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	requireDamage(t, filepath.Dir(s.path), "entry 7: it says that it is entry 5")
}
