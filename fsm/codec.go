package fsm

import (
	"encoding/binary"
	"fmt"
	"time"
)

// BatchVersion is the version of the batches that are written. Every version up
// to it is read. What a version can say is never changed: a new command or a new
// field of one is a new version, written only once every peer can read it.
const BatchVersion = 1

// AppendBatch appends the commands of one log entry to b:
//
//	version          1 byte
//	at               uvarint, milliseconds since 1970
//	count            uvarint
//	count commands   see AppendCommand
//
// The bytes are the same for the same commands, and no others are decoded.
func AppendBatch(b []byte, at time.Time, commands []Command) []byte {
	b = AppendBatchHead(b, at, len(commands))
	for _, c := range commands {
		b = AppendCommand(b, c)
	}
	return b
}

// AppendBatchHead appends the head of a batch, which as many commands follow.
func AppendBatchHead(b []byte, at time.Time, count int) []byte {
	b = append(b, BatchVersion)
	b = binary.AppendUvarint(b, uint64(min(max(at.UnixMilli(), 0), latest)))
	return binary.AppendUvarint(b, uint64(count))
}

// AppendCommand appends one command: the byte of its type, then its fields.
// What it appends does not depend on what is in the batch before it.
func AppendCommand(b []byte, c Command) []byte { return c.appendTo(append(b, byte(c.kind()))) }

// EncodedSize returns how many bytes AppendCommand appends.
func EncodedSize(c Command) int { return len(AppendCommand(nil, c)) }

// DecodeBatch reads what AppendBatch wrote. ErrVersion: a newer version wrote
// it. ErrCorrupt: no version did. The commands share one copy of b's text.
func DecodeBatch(b []byte) (at time.Time, commands []Command, err error) {
	r := reader{text: string(b)}
	switch version := r.octet(); {
	case r.err != nil:
		return time.Time{}, nil, fmt.Errorf("batch: %w", r.err)
	case version > BatchVersion:
		return time.Time{}, nil, fmt.Errorf("batch of version %d: %w", version, ErrVersion)
	case version == 0:
		return time.Time{}, nil, fmt.Errorf("batch: %w: version 0", ErrCorrupt)
	}
	at = time.UnixMilli(int64(r.below(latest+1, "time"))).UTC()
	count := r.count("count of commands")
	commands = make([]Command, 0, count)
	for range count {
		kind := kind(r.octet())
		c := readCommand(kind, &r)
		if r.err != nil {
			return time.Time{}, nil, fmt.Errorf("batch, command %d of type %d: %w", len(commands), kind, r.err)
		}
		commands = append(commands, c)
	}
	if err := r.end(); err != nil {
		return time.Time{}, nil, fmt.Errorf("batch: %w", err)
	}
	return at, commands, nil
}

// kind is the byte that names a command in a batch, for ever.
type kind byte

const (
	kindPlace        kind = 1
	kindUnpublish    kind = 2
	kindRelease      kind = 3
	kindUndo         kind = 4
	kindExpire       kind = 5
	kindPeerGone     kind = 6
	kindMove         kind = 7
	kindForget       kind = 8
	kindPutOrigin    kind = 9
	kindSetUp        kind = 10
	kindDrain        kind = 11
	kindDrainOver    kind = 12
	kindReady        kind = 13
	kindWeigh        kind = 14
	kindRemoveOrigin kind = 15
	kindFound        kind = 16
)

// readCommand reads the fields of a command.
func readCommand(k kind, r *reader) Command {
	switch k {
	case kindPlace:
		return readPlace(r)
	case kindUnpublish:
		return Unpublish{Stream: r.stream(), Generation: r.uvarint()}
	case kindRelease:
		return Release{Stream: r.stream(), Generation: r.uvarint(), Holder: r.holder()}
	case kindUndo:
		return Undo{Stream: r.stream(), Generation: r.uvarint(), Holder: r.holder()}
	case kindExpire:
		return Expire{Stream: r.stream(), Generation: r.uvarint()}
	case kindPeerGone:
		return PeerGone{Holder: r.holder()}
	case kindMove:
		return Move{Stream: r.stream(), To: OriginID(r.string()), Incarnation: r.incarnation()}
	case kindForget:
		return Forget{Stream: r.stream()}
	case kindPutOrigin:
		return readPutOrigin(r)
	case kindSetUp:
		return SetUp{ID: OriginID(r.string()), Incarnation: r.incarnation(), Up: r.flags(1) != 0, Reason: r.string()}
	case kindDrain:
		return Drain{ID: OriginID(r.string()), Until: r.time()}
	case kindDrainOver:
		return DrainOver{ID: OriginID(r.string())}
	case kindReady:
		return Ready{ID: OriginID(r.string())}
	case kindWeigh:
		return Weigh{ID: OriginID(r.string()), Weight: r.uint32()}
	case kindRemoveOrigin:
		return RemoveOrigin{ID: OriginID(r.string())}
	case kindFound:
		return readFound(r)
	default:
		r.fail("unknown type")
		return nil
	}
}

func (Place) kind() kind        { return kindPlace }
func (Unpublish) kind() kind    { return kindUnpublish }
func (Release) kind() kind      { return kindRelease }
func (Undo) kind() kind         { return kindUndo }
func (Expire) kind() kind       { return kindExpire }
func (PeerGone) kind() kind     { return kindPeerGone }
func (Move) kind() kind         { return kindMove }
func (Forget) kind() kind       { return kindForget }
func (PutOrigin) kind() kind    { return kindPutOrigin }
func (SetUp) kind() kind        { return kindSetUp }
func (Drain) kind() kind        { return kindDrain }
func (DrainOver) kind() kind    { return kindDrainOver }
func (Ready) kind() kind        { return kindReady }
func (Weigh) kind() kind        { return kindWeigh }
func (RemoveOrigin) kind() kind { return kindRemoveOrigin }
func (Found) kind() kind        { return kindFound }

func (c Place) appendTo(b []byte) []byte {
	b = appendText(appendStream(b, c.Stream), string(c.Origin))
	b = appendHolder(appendIncarnation(b, c.Incarnation), c.Holder)
	return append(b, flags(c.Publish))
}

func readPlace(r *reader) Command {
	return Place{
		Stream: r.stream(), Origin: OriginID(r.string()), Incarnation: r.incarnation(),
		Holder: r.holder(), Publish: r.flags(1) != 0,
	}
}

func appendFenced(b []byte, s Stream, generation uint64) []byte {
	return binary.AppendUvarint(appendStream(b, s), generation)
}

func (c Unpublish) appendTo(b []byte) []byte { return appendFenced(b, c.Stream, c.Generation) }

func (c Release) appendTo(b []byte) []byte {
	return appendHolder(appendFenced(b, c.Stream, c.Generation), c.Holder)
}

func (c Undo) appendTo(b []byte) []byte {
	return appendHolder(appendFenced(b, c.Stream, c.Generation), c.Holder)
}

func (c Expire) appendTo(b []byte) []byte   { return appendFenced(b, c.Stream, c.Generation) }
func (c PeerGone) appendTo(b []byte) []byte { return appendHolder(b, c.Holder) }

func (c Move) appendTo(b []byte) []byte {
	return appendIncarnation(appendText(appendStream(b, c.Stream), string(c.To)), c.Incarnation)
}

func (c Forget) appendTo(b []byte) []byte { return appendStream(b, c.Stream) }

// appendTo leaves out what the machine itself keeps: state, drain, up since,
// and whether an operator set the weight.
func (c PutOrigin) appendTo(b []byte) []byte { return appendRegistration(b, c.Origin) }

func readPutOrigin(r *reader) Command { return PutOrigin{Origin: readRegistration(r)} }

// appendRegistration appends what an origin says of itself.
func appendRegistration(b []byte, o Origin) []byte {
	b = appendIncarnation(appendText(b, string(o.ID)), o.Incarnation)
	b = appendText(appendText(b, o.DeviceID), o.IP)
	for _, list := range o.Endpoints.Lists() {
		b = appendTexts(b, list)
	}
	b = appendTexts(b, o.Labels)
	b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(o.Weight)), uint64(o.MaxStreams))
	return append(b, flags(o.Static))
}

func readRegistration(r *reader) Origin {
	return Origin{
		ID:          OriginID(r.own()),
		Incarnation: Incarnation{Server: r.own(), Service: r.own(), PID: r.own()},
		DeviceID:    r.own(),
		IP:          r.own(),
		Endpoints:   Endpoints{RTMP: r.owns(), HTTP: r.owns(), API: r.owns(), SRT: r.owns(), RTC: r.owns()},
		Labels:      r.owns(),
		Weight:      r.uint32(),
		MaxStreams:  r.uint32(),
		Static:      r.flags(1) != 0,
	}
}

func (c SetUp) appendTo(b []byte) []byte {
	b = appendIncarnation(appendText(b, string(c.ID)), c.Incarnation)
	return appendText(append(b, flags(c.Up)), c.Reason)
}

func (c Drain) appendTo(b []byte) []byte     { return appendTime(appendText(b, string(c.ID)), c.Until) }
func (c DrainOver) appendTo(b []byte) []byte { return appendText(b, string(c.ID)) }
func (c Ready) appendTo(b []byte) []byte     { return appendText(b, string(c.ID)) }

func (c Weigh) appendTo(b []byte) []byte {
	return binary.AppendUvarint(appendText(b, string(c.ID)), uint64(c.Weight))
}

func (c RemoveOrigin) appendTo(b []byte) []byte { return appendText(b, string(c.ID)) }

func (c Found) appendTo(b []byte) []byte { return append(appendText(b, c.ID), c.Secret[:]...) }

func readFound(r *reader) Found {
	c := Found{ID: r.own()}
	copy(c.Secret[:], r.take(uint64(len(c.Secret))))
	return c
}
