package port

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"srsx/cluster/keyring"
)

// What changes while a handshake is under way counts at its end.

// meet goes through a handshake as dialer, with change made once it has begun,
// and returns what admits the connection.
func meet(t *testing.T, dialer, acceptor *Port, change func()) error {
	t.Helper()
	h := dialer.newHandshake(nil, roleDialer, KindRPC)
	tcp := connect(t, acceptor.Addr())
	h.conn = tcp
	change()
	if err := h.dial(t.Context()); err != nil {
		t.Fatalf("handshake = %v; want it to pass", err)
	}
	c := dialer.newConn(h, tcpOf(t, tcp), nil)
	defer func() { _ = c.Close() }()
	return dialer.admit(c, h.self)
}

func TestClusterJoinedMeanwhile(t *testing.T) {
	key := keyring.Generate()
	dialer, acceptor := victim(t, "dialer", key), victim(t, "acceptor", key)
	join := func(p *Port, id string) func() {
		return func() {
			if err := p.SetClusterID(id); err != nil {
				t.Error(err)
			}
		}
	}
	id := uuid.NewString()
	if err := meet(t, dialer, acceptor, join(dialer, id)); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("two who were newcomers = %v; want ErrOtherCluster", err)
	}
	other := victim(t, "other", key)
	join(acceptor, id)()
	if err := meet(t, other, acceptor, join(other, id)); err != nil {
		t.Errorf("a newcomer let into the acceptor's cluster = %v; want nil", err)
	}
}

func TestKeyRemovedMeanwhile(t *testing.T) {
	old, fresh := keyring.Generate(), keyring.Generate()
	dialer, acceptor := victim(t, "dialer", old), victim(t, "acceptor", old)
	keys := dialer.guards.keys
	err := meet(t, dialer, acceptor, func() {
		for _, err := range []error{keys.Install(fresh), keys.Use(fresh.Fingerprint()), keys.Remove(old.Fingerprint())} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	if !errors.Is(err, ErrUntrusted) {
		t.Errorf("admission by a removed key = %v; want ErrUntrusted", err)
	}
}

// endsWith is a connection whose Read fails.
type endsWith struct {
	net.Conn
	err error
}

func (c endsWith) Read([]byte) (int, error) { return 0, &net.OpError{Op: "read", Err: c.err} }

func TestHowALinkEndedCountsAsMuchAsTheRefusalAfterIt(t *testing.T) {
	p := victim(t, "a", keyring.Generate())
	gone := victim(t, "gone", keyring.Generate())
	open := connect(t, gone.Addr())
	_ = gone.Close() // its address refuses from now on
	for cause, death := range map[error]bool{
		io.EOF: true, syscall.ECONNRESET: true,
		syscall.ETIMEDOUT: false, syscall.EHOSTUNREACH: false, net.ErrClosed: false,
	} {
		link := &Conn{Conn: endsWith{open, cause}, port: p, tcp: tcpOf(t, open), peer: Peer{Addr: gone.Addr().String()}}
		if _, err := p.outlive(t.Context(), link); errors.Is(err, ErrProcessDied) != death {
			t.Errorf("link that ended by %v, then a refusal = %v; want death: %v", cause, err, death)
		}
	}
}
