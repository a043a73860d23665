package rpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// MaxPayload bounds a request and a reply, in bytes.
const MaxPayload = 16 << 20

// A frame is length 4, id 4, type 1 and a body; the length counts all that
// follows it. Integers are big endian. Either side asks by ids of its own; an
// answer carries the id of its question.
//
//	request  kind 1, timeout 4 (ms, 0 for none), payload
//	reply    payload
//	failure  code 2, text
//	cancel   nothing: the asker no longer waits
//	beat     nothing, id 0: the sender is alive and has nothing to say
const (
	typeRequest = 1 + iota
	typeReply
	typeFailure
	typeCancel
	typeBeat
)

const (
	frameHead   = 5                                         // bytes that the length counts before the body
	requestHead = 5                                         // bytes of a request before its payload
	maxFrame    = frameHead + requestHead + MaxPayload      // bytes that the length may count
	readStep    = 64 << 10                                  // bytes believed of a length before they have come
	maxTimeout  = time.Duration(1<<32-1) * time.Millisecond // fits the field
)

// errProtocol means that the peer sent what no peer sends.
var errProtocol = errors.New("not a frame of ours")

type frame struct {
	id   uint32
	typ  byte
	body []byte
}

// readFrame reads one frame. Memory grows with what has arrived, not with what
// a length claims.
func readFrame(r io.Reader) (frame, error) {
	var head [4 + frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	length := binary.BigEndian.Uint32(head[:])
	if length < frameHead || length > maxFrame {
		return frame{}, fmt.Errorf("%w: it claims %d bytes", errProtocol, length)
	}
	f := frame{id: binary.BigEndian.Uint32(head[4:]), typ: head[8]}
	if f.typ < typeRequest || f.typ > typeBeat {
		return frame{}, fmt.Errorf("%w: it is of type %d", errProtocol, f.typ)
	}
	size := int(length) - frameHead
	for have := 0; have < size; have = len(f.body) {
		step := min(size-have, max(readStep, have))
		f.body = slices.Grow(f.body, step)[:have+step]
		if _, err := io.ReadFull(r, f.body[have:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return frame{}, err
		}
	}
	return f, nil
}

// appendFrame appends a frame whose body comes in two parts.
func appendFrame(b []byte, id uint32, typ byte, head, payload []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(frameHead+len(head)+len(payload)))
	b = binary.BigEndian.AppendUint32(b, id)
	b = append(b, typ)
	b = append(b, head...)
	return append(b, payload...)
}

// request is the body of a request.
type request struct {
	kind    byte
	timeout time.Duration // 0 for none
	payload []byte
}

// head returns what stands before the payload. A timeout is rounded up, so that
// the asker is always the first to give up.
func (r request) head() []byte {
	ms := uint32((min(r.timeout, maxTimeout) + time.Millisecond - 1) / time.Millisecond)
	return binary.BigEndian.AppendUint32([]byte{r.kind}, ms)
}

func parseRequest(body []byte) (request, error) {
	if len(body) < requestHead {
		return request{}, fmt.Errorf("%w: request of %d bytes", errProtocol, len(body))
	}
	return request{
		kind:    body[0],
		timeout: time.Duration(binary.BigEndian.Uint32(body[1:])) * time.Millisecond,
		payload: body[requestHead:],
	}, nil
}

// maxFailureText bounds what an error may say across the wire, in bytes.
const maxFailureText = 4 << 10

func (e *CallError) body() []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(e.Code))
	return append(b, e.Text[:min(len(e.Text), maxFailureText)]...)
}

func parseFailure(body []byte) (*CallError, error) {
	if len(body) < 2 || len(body) > 2+maxFailureText {
		return nil, fmt.Errorf("%w: failure of %d bytes", errProtocol, len(body))
	}
	return &CallError{Code: Code(binary.BigEndian.Uint16(body)), Text: string(body[2:])}, nil
}
