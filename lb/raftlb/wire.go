package raftlb

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"srsx/fsm"
	"srsx/lb"
)

// The questions to a leader: the first byte is the kind. Placing is frequent and
// has a form of its own, the others are JSON.
const (
	questionPlace    = 1
	questionExplain  = 2
	questionRegister = 3
	questionNews     = 4
)

// errQuestion means that a question or an answer cannot be read.
var errQuestion = errors.New("question between peers is malformed")

// ask asks the leader a question in JSON.
func ask(ctx context.Context, node Node, kind byte, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return fmt.Errorf("ask leader: %w", err)
	}
	reply, err := node.Ask(ctx, append([]byte{kind}, body...))
	if err != nil {
		return undecided(err)
	}
	if err := json.Unmarshal(reply, answer); err != nil {
		return fmt.Errorf("%w: %w", errQuestion, err)
	}
	return nil
}

// appendWants appends the wants of one peer: for each the protocol and the
// origins to avoid, then all as a batch of Place commands without an origin.
func appendWants(b []byte, holder fsm.Holder, wants []lb.Want) []byte {
	places := make([]fsm.Command, len(wants))
	b = binary.AppendUvarint(b, uint64(len(wants)))
	for i, w := range wants {
		b = append(b, byte(w.Protocol))
		b = binary.AppendUvarint(b, uint64(len(w.Avoid)))
		for _, id := range w.Avoid {
			b = appendText(b, string(id))
		}
		places[i] = fsm.Place{Stream: w.Stream, Holder: holder, Publish: w.Publish}
	}
	return fsm.AppendBatch(b, time.Time{}, places)
}

func readWants(b []byte) (holder fsm.Holder, wants []lb.Want, err error) {
	r := reader{b: b}
	count := r.count(maxBatch)
	wants = make([]lb.Want, count)
	for i := range wants {
		wants[i].Protocol = lb.Protocol(r.byte())
		for range r.count(len(r.b)) {
			wants[i].Avoid = append(wants[i].Avoid, lb.OriginID(r.text()))
		}
	}
	if r.bad {
		return holder, nil, errQuestion
	}
	_, places, err := fsm.DecodeBatch(r.b)
	if err != nil || len(places) != count {
		return holder, nil, errors.Join(errQuestion, err)
	}
	for i, c := range places {
		place, ok := c.(fsm.Place)
		if !ok {
			return holder, nil, errQuestion
		}
		holder = place.Holder
		wants[i].Stream, wants[i].Publish = place.Stream, place.Publish
	}
	return holder, wants, nil
}

// appendPlacements appends the answers to wants, in their order: the index at
// which all of them are applied; for each a code, 0 with generation and whether
// it was created, else with the text of the refusal.
func appendPlacements(b []byte, index uint64, placements []placement) []byte {
	b = binary.AppendUvarint(b, index)
	for _, p := range placements {
		if p.err != nil {
			b = appendText(append(b, codeOf(p.err)), p.err.Error())
			continue
		}
		created := byte(0)
		if p.created {
			created = 1
		}
		b = binary.AppendUvarint(append(b, 0, created), p.generation)
	}
	return b
}

func readPlacements(b []byte, count int) ([]placement, error) {
	r := reader{b: b}
	index := r.uint()
	placements := make([]placement, count)
	for i := range placements {
		p := &placements[i]
		p.index = index
		if code := r.byte(); code != 0 {
			p.err = refusal{Code: code, Text: r.text()}.error()
			continue
		}
		p.created = r.byte() == 1
		p.generation = r.uint()
	}
	if r.bad || len(r.b) > 0 {
		return nil, errQuestion
	}
	return placements, nil
}

// refusal is an error of lb.Balancer on its way between peers. Code 0 is none.
type refusal struct {
	Code byte
	Text string
}

// codes are the errors that keep their meaning between peers, by code.
func codes() []error {
	return []error{
		1: lb.ErrNoOrigin, 2: lb.ErrLimit, 3: lb.ErrConflict, 4: lb.ErrNotFound, 5: lb.ErrDuplicateOrigin, 6: lb.ErrUndecided,
	}
}

const codeOther = 255

func codeOf(err error) byte {
	for code, known := range codes() {
		if known != nil && errors.Is(err, known) {
			return byte(code) //nolint:gosec // a handful
		}
	}
	return codeOther
}

func refusalOf(err error) refusal {
	if err == nil {
		return refusal{}
	}
	return refusal{Code: codeOf(err), Text: err.Error()}
}

// error is the refusal as an error that matches the same sentinel as it did at
// the leader.
func (r refusal) error() error {
	if r.Code == 0 {
		return nil
	}
	said := &saidError{text: r.Text}
	if known := codes(); int(r.Code) < len(known) {
		said.kind = known[r.Code]
	}
	return said
}

// saidError is an error in the words of another peer.
type saidError struct {
	kind error
	text string
}

func (e *saidError) Error() string { return e.text }
func (e *saidError) Unwrap() error { return e.kind }

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader reads what append wrote. Once something was missing it reads zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	x := r.b[0]
	r.b = r.b[1:]
	return x
}

func (r *reader) uint() uint64 {
	x, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return x
}

// count reads a number of items, which is bad above most.
func (r *reader) count(most int) int {
	n := r.uint()
	if n > uint64(most) { //nolint:gosec // not negative
		r.b, r.bad = nil, true
		return 0
	}
	return int(n) //nolint:gosec // at most most
}

func (r *reader) text() string {
	n := r.count(len(r.b))
	if n > len(r.b) {
		r.bad = true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}
