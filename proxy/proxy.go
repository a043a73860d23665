// Package proxy is what every protocol shares: it tells which stream a client
// means (identify), finds the origin that holds it and connects to it (route),
// and keeps the sessions that are open, so that each can be seen, counted and
// ended. It knows the balancer and nothing of consensus.
package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"srsx/lb"
)

// Reasons for which this peer ends a session by itself. They are the cause of
// the session's context and appear in the log line of its end.
var (
	ErrMoved     = errors.New("stream moved to another origin")
	ErrForgotten = errors.New("placement forgotten by operator")
	ErrDrained   = errors.New("origin drained")
	ErrRemoved   = errors.New("origin removed")
	ErrKicked    = errors.New("session ended by operator")
	ErrShutdown  = errors.New("peer is shutting down")
	ErrSlow      = errors.New("client reads too slowly")
)

// Request is one client's wish to publish or play a stream.
type Request struct {
	Stream   lb.Stream
	Protocol lb.Protocol // what the origin has to serve
	Kind     string      // for logs and metrics: rtmp, flv, ts, mp3, aac, hls, whip, whep, srt
	Publish  bool
	Client   netip.AddrPort // the real client, behind PROXY protocol or a trusted header
	// MaxWait is how long the client waits for an origin or a decision, where
	// that is less than the place timeout; 0: it is not.
	MaxWait time.Duration
}

// Opener is what a protocol needs to serve a client. [Router] is the one
// implementation; tests of a protocol may bring their own.
type Opener interface {
	// Open admits the client, picks the stream's origin and registers the
	// session. The caller must End the session. On refusal it returns an error
	// that [RefusalOf] turns into the protocol's own words.
	Open(ctx context.Context, r Request) (Session, error)
}

// Session is one client's use of one stream, from Open until End.
type Session interface {
	// Context ends when the session has to: its cause is one of the reasons
	// above. It is derived from the context given to Open.
	Context() context.Context

	// Origin is where the stream is. Dial and Unreachable may change it, as
	// long as no media has passed.
	Origin() lb.Origin

	// Dial connects to the origin's first endpoint for the protocol, with a
	// deadline. An origin that refuses or stays silent is ejected for this
	// peer's new streams and suspected to the backend; if the stream was placed
	// by this very session it goes elsewhere at once, else Dial waits for the
	// backend's verdict within the place timeout and follows it.
	Dial(ctx context.Context) (net.Conn, error)

	// Unreachable is the same for a protocol that keeps its own connections to
	// origins: it reports that one could not be had. It returns nil when the
	// session now has another origin to try, else the error to refuse with.
	Unreachable(ctx context.Context, cause error) error

	// Count adds media bytes: in from the publisher's side, out to players.
	// Cheap enough for every read and write.
	Count(in, out int64)

	// End releases the stream and writes the session's one log line. err is
	// why it ended; nil and io.EOF mean that the client was done.
	End(err error)
}

// Refusal is an error in terms that each protocol can translate.
type Refusal struct {
	Status    int    // HTTP status: 503, 429, 404, 502, 508
	Retryable bool   // the same request may succeed later
	Reason    string // for the client: names no address of an origin
}
