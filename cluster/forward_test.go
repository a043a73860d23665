package cluster

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"srsx/fsm"
)

func FuzzProposalsOfAPeer(f *testing.F) {
	f.Add([]byte{})
	f.Add(encodeProposals(encode([]fsm.Command{fsm.Forget{}, fsm.Ready{ID: "a"}, fsm.PeerGone{}}, 1)))
	f.Add(encodeProposals(encode([]fsm.Command{fsm.Forget{}, fsm.Ready{ID: "a"}}, 1<<10)))
	f.Fuzz(func(t *testing.T, request []byte) {
		proposals, err := decodeProposals(request)
		if err != nil {
			return
		}
		again, err := decodeProposals(encodeProposals(proposals))
		if err != nil || len(again) != len(proposals) {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		commands := 0
		for i, p := range proposals {
			if commands += p.count; !bytes.Equal(p.encoded, again[i].encoded) || p.count != again[i].count || !p.relayed {
				t.Fatalf("proposal %d is %+v, then %+v", i, p, again[i])
			}
		}
		// It may enter the log: all peers can read it.
		if _, read, err := fsm.DecodeBatch(encodeEntry(time.UnixMilli(1), proposals)); err != nil || len(read) != commands {
			t.Fatalf("DecodeBatch = %d commands, %v; want %d", len(read), err, commands)
		}
	})
}

func TestErrorsKeepTheirMeaningOnTheWire(t *testing.T) {
	for _, known := range append(codes(), errors.New("something else")) {
		err := (&message{rest: appendError(nil, known)}).problem()
		if err == nil || err.Error() != known.Error() {
			t.Errorf("%v arrives as %v", known, err)
		}
		if is := errors.Is(err, known); is == (known.Error() == "something else") {
			t.Errorf("%v arrives as %v, which matches: %t", known, err, is)
		}
	}
	if err := (&message{rest: appendError(nil, nil)}).problem(); err != nil {
		t.Errorf("no error arrives as %v", err)
	}
	for _, cut := range [][]byte{nil, {1}, {1, 200, 'x'}, {250}} {
		if err := (&message{rest: cut}).problem(); err == nil {
			t.Errorf("%v is read as no error", cut)
		}
	}
}
