package rpc

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"testing"
	"time"
)

// Peers of different versions talk in these bytes: they never change.
func TestWireIsFixed(t *testing.T) {
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"request": {appendFrame(nil, 7, typeRequest, request{kind: 3, timeout: 1500 * time.Millisecond}.head(), []byte("hi")), "0000000c" + "00000007" + "01" + "03" + "000005dc" + "6869"},
		"reply":   {appendFrame(nil, 7, typeReply, nil, []byte("hi")), "00000007" + "00000007" + "02" + "6869"},
		"failure": {appendFrame(nil, 7, typeFailure, nil, (&CallError{Code: 16, Text: "no"}).body()), "00000009" + "00000007" + "03" + "0010" + "6e6f"},
		"cancel":  {appendFrame(nil, 7, typeCancel, nil, nil), "00000005" + "00000007" + "04"},
		"beat":    {appendFrame(nil, 0, typeBeat, nil, nil), "00000005" + "00000000" + "05"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s = %s; want %s", name, got, c.want)
		}
	}
}

func TestTimeoutsAreRoundedUpAndBounded(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		0: 0, 1: time.Millisecond, time.Millisecond: time.Millisecond,
		1500 * time.Microsecond: 2 * time.Millisecond, 1 << 62: maxTimeout,
	} {
		got, err := parseRequest(request{timeout: timeout}.head())
		if err != nil || got.timeout != want {
			t.Errorf("timeout %v arrives as %v, %v; want %v", timeout, got.timeout, err, want)
		}
	}
}

// endless claims a large frame and sends what it is asked for, up to a limit.
type endless struct{ left, largest int }

func (e *endless) Read(b []byte) (int, error) {
	e.largest = max(e.largest, len(b))
	if e.left == 0 {
		return 0, io.EOF
	}
	n := min(len(b), e.left)
	e.left -= n
	return n, nil
}

func TestMemoryFollowsWhatHasArrived(t *testing.T) {
	head := appendFrame(nil, 1, typeReply, nil, make([]byte, MaxPayload))[:9]
	short := &endless{left: 1000}
	_, err := readFrame(io.MultiReader(bytes.NewReader(head), short))
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut frame = %v; want ErrUnexpectedEOF", err)
	}
	if short.largest > readStep {
		t.Errorf("asked for %d bytes at once after 1000 of 16 MB; want at most %d", short.largest, readStep)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(appendFrame(nil, 1, typeRequest, request{kind: 1, timeout: time.Second}.head(), []byte("payload")))
	f.Add(appendFrame(appendFrame(nil, 1, typeReply, nil, []byte("x")), 2, typeFailure, nil, (&CallError{Code: 2, Text: "y"}).body()))
	f.Add(appendFrame(nil, 0, typeBeat, nil, nil))
	f.Add([]byte("\xff\xff\xff\xff\x00\x00\x00\x00\x01"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for r := bytes.NewReader(data); ; {
			before := len(data) - r.Len()
			got, err := readFrame(r)
			if err != nil {
				return
			}
			after := len(data) - r.Len()
			if again := appendFrame(nil, got.id, got.typ, nil, got.body); !bytes.Equal(again, data[before:after]) {
				t.Fatalf("frame %x reads as %+v", data[before:after], got)
			}
			if q, err := parseRequest(got.body); err == nil && !bytes.Equal(append(q.head(), q.payload...), got.body) {
				t.Errorf("request %x reads as %+v", got.body, q)
			}
			if e, err := parseFailure(got.body); err == nil && !bytes.Equal(e.body(), got.body) {
				t.Errorf("failure %x reads as %+v", got.body, e)
			}
		}
	})
}
