package srt

import (
	"context"
	"fmt"
	"time"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/datagram"
	"srsx/proxy/srt/wire"
)

// handshake deals with a packet for the listener, from an address that may be
// anybody's: no answer is longer than what is answered.
func (s *Server) handshake(ctx context.Context, p []byte, from datagram.Way) {
	h, err := wire.ParseHandshake(p)
	if err != nil || h.SocketID == 0 {
		s.metrics.drop(dropMalformed)
		return
	}
	switch h.Kind {
	case wire.Induction:
		who := caller{from.Remote, h.SocketID}
		answer := h.Induced(s.cookies.of(who, period(time.Now())))
		answer.Told = wire.Told(from.Remote.Addr())
		s.answer = answer.Append(s.answer[:0])
		s.send(s.answer, from)
	case wire.Conclusion:
		s.conclude(ctx, p, h, from)
	case wire.Wave, wire.Agreement, wire.Done:
		s.reject(h, from, wire.Unimplemented) // rendezvous: nobody listens in it
	default:
		s.metrics.drop(dropMalformed)
	}
}

// conclude deals with a conclusion, whose stream id tells what the caller
// wants. Whoever has a cookie receives what is sent to his address.
func (s *Server) conclude(ctx context.Context, p []byte, h wire.Handshake, from datagram.Way) {
	now, who := time.Now(), caller{from.Remote, h.SocketID}
	if !s.cookies.valid(h.Cookie, who, now) {
		s.metrics.drop(dropCookie)
		return
	}
	if f, how, known := s.table.of(who, now); known {
		switch {
		case f != nil:
			f.answerAgain(h, now)
		case how.rejected:
			s.reject(h, from, how.reason)
		}
		return
	}
	f, err := s.newFlow(p, h, from, now)
	if err != nil {
		s.refusals.Note(from.Remote, err)
		s.reject(h, from, reasonOf(err))
		return
	}
	if !s.table.begin(f) {
		s.reject(h, from, wire.Backlog)
		return
	}
	s.running.Go(func() { f.open(ctx) })
}

// newFlow returns the flow that a conclusion asks for.
func (s *Server) newFlow(p []byte, h wire.Handshake, from datagram.Way, at time.Time) (*flow, error) {
	if h.Old() {
		return nil, errOld
	}
	text, err := wire.StreamIDOf(p)
	if err != nil {
		return nil, err
	}
	id, err := wire.ParseStreamID(text)
	if err != nil {
		return nil, err
	}
	target, err := s.config.VHosts.IdentifyNames(id.Host, "", id.Path, id.Query)
	if err != nil {
		return nil, fmt.Errorf("stream id: %w", err)
	}
	return &flow{
		server: s, who: caller{from.Remote, h.SocketID}, client: from,
		hello: h, conclusion: append([]byte(nil), p...), arrived: at,
		request: proxy.Request{
			Stream: target.Stream, Protocol: lb.SRT, Kind: "srt", Publish: id.Publish, Client: from.Remote,
			MaxWait: s.config.Patience,
		},
	}, nil
}

// reject answers a handshake with a reason.
func (s *Server) reject(h wire.Handshake, to datagram.Way, reason wire.Reason) {
	s.metrics.rejected(reason)
	answer := h.Rejected(reason)
	answer.Told = wire.Told(to.Remote.Addr())
	s.send(answer.Append(nil), to)
}
