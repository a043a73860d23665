package store

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestSealCoversTheWholeEntry(t *testing.T) {
	entry := func() *raft.Log {
		return &raft.Log{
			Index: 7, Term: 3, Type: raft.LogCommand, Data: []byte("data"), Extensions: []byte("ext"),
			AppendedAt: time.Unix(1e9, 5),
		}
	}
	const commit = 5
	whole := seal(entry(), commit)
	if got, err := unseal(whole); err != nil || got != commit || !sameLog(*whole, *entry()) {
		t.Fatalf("unseal = %+v, commit index %d, %v; want what was sealed", whole, got, err)
	}
	for name, change := range map[string]func(*raft.Log){
		"index":       func(l *raft.Log) { l.Index++ },
		"term":        func(l *raft.Log) { l.Term++ },
		"type":        func(l *raft.Log) { l.Type++ },
		"data":        func(l *raft.Log) { l.Data = []byte("dat") },
		"seconds":     func(l *raft.Log) { l.AppendedAt = l.AppendedAt.Add(time.Second) },
		"nanoseconds": func(l *raft.Log) { l.AppendedAt = l.AppendedAt.Add(1) },
		"no seal":     func(l *raft.Log) { l.Extensions = nil },
		"extensions end in data": func(l *raft.Log) {
			l.Data = append([]byte("t"), l.Data...)
			l.Extensions = append([]byte("ex"), l.Extensions[len("ext"):]...)
		},
	} {
		sealed := seal(entry(), commit)
		change(sealed)
		if _, err := unseal(sealed); err == nil {
			t.Errorf("%s changed: unseal succeeds", name)
		}
	}
	for bit := range (len("ext") + sealSize) * 8 {
		sealed := seal(entry(), commit)
		sealed.Extensions[bit/8] ^= 1 << (bit % 8)
		if _, err := unseal(sealed); err == nil {
			t.Errorf("bit %d of the extensions turned: unseal succeeds", bit)
		}
	}
}
