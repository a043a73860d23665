package rtctest

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/pion/dtls/v3/pkg/crypto/selfsign"
	"github.com/pion/stun/v4"
)

// lite is an engine as SRS: ICE-lite on one port, that answers every check, looks
// at no integrity, and sends to the address of the last check.
type lite struct {
	origin      *Origin
	certificate tls.Certificate
	fingerprint string

	mu      sync.Mutex
	byUfrag map[string]*liteSession // guarded by mu
	byAddr  map[link]*liteSession   // guarded by mu
}

// link is a way to the other side: an address over UDP, or a connection.
type link struct {
	addr netip.AddrPort
	conn net.Conn // nil: UDP
}

func newLite(tb testing.TB, o *Origin) *lite {
	tb.Helper()
	certificate, err := selfsign.GenerateSelfSigned()
	if err != nil {
		tb.Fatal(err)
	}
	e := &lite{
		origin: o, certificate: certificate, fingerprint: fingerprintOf(certificate),
		byUfrag: make(map[string]*liteSession), byAddr: make(map[link]*liteSession),
	}
	o.done.Go(e.serveUDP)
	o.done.Go(e.serveTCP)
	return e
}

func fingerprintOf(c tls.Certificate) string {
	const digits = "0123456789ABCDEF"
	sum := sha256.Sum256(c.Certificate[0])
	text := make([]byte, 0, 3*len(sum))
	for _, b := range sum {
		text = append(text, digits[b>>4], digits[b&15], ':')
	}
	return string(text[:len(text)-1])
}

func addrPort(a net.Addr) netip.AddrPort {
	ap, _ := netip.ParseAddrPort(a.String())
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func (e *lite) serveUDP() {
	b := make([]byte, 65536)
	for {
		n, from, err := e.origin.udp.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && !e.origin.isSilent() {
			e.receive(link{addr: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}, append([]byte(nil), b[:n]...))
		}
	}
}

func (e *lite) serveTCP() {
	for {
		conn, err := e.origin.tcp.Accept()
		if err != nil {
			return
		}
		e.origin.done.Go(func() {
			defer conn.Close()
			r := bufio.NewReader(conn)
			for {
				var head [2]byte
				if _, err := io.ReadFull(r, head[:]); err != nil {
					return
				}
				b := make([]byte, binary.BigEndian.Uint16(head[:]))
				if _, err := io.ReadFull(r, b); err != nil {
					return
				}
				e.receive(link{addr: addrPort(conn.RemoteAddr()), conn: conn}, b)
			}
		})
	}
}

func (e *lite) send(to link, b []byte) {
	if to.conn != nil {
		_, _ = to.conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
		return
	}
	_, _ = e.origin.udp.WriteToUDPAddrPort(b, to.addr)
}

// receive handles one datagram, which it keeps.
func (e *lite) receive(from link, b []byte) {
	if stun.IsMessage(b) {
		e.check(from, b)
		return
	}
	e.mu.Lock()
	s := e.byAddr[from]
	e.mu.Unlock()
	if s != nil {
		s.receive(b)
	}
}

func (e *lite) check(from link, b []byte) {
	m := &stun.Message{Raw: b}
	var name stun.Username
	if m.Decode() != nil || m.Type != stun.BindingRequest || name.GetFrom(m) != nil {
		return
	}
	ufrag, _ := cut(name.String(), ":")
	e.mu.Lock()
	s := e.byUfrag[ufrag]
	if s != nil {
		e.byAddr[from] = s
		s.setLink(from)
	}
	e.mu.Unlock()
	if s == nil {
		return
	}
	answer, err := stun.Build(m, stun.BindingSuccess,
		&stun.XORMappedAddress{IP: from.addr.Addr().AsSlice(), Port: int(from.addr.Port())},
		stun.NewShortTermIntegrity(s.password), stun.Fingerprint)
	if err == nil {
		e.send(from, answer.Raw)
	}
}

func (e *lite) answer(s *session, offer, ufrag, password string) (string, error) {
	e.mu.Lock()
	if e.byUfrag[ufrag] != nil { // as SRS, without a word
		ufrag = secret(4)
	}
	state, answer, err := newLiteSession(e, s, offer, ufrag, password)
	if err == nil {
		s.state = state
		e.byUfrag[ufrag] = state
	}
	e.mu.Unlock()
	if err != nil {
		return "", err
	}
	e.origin.done.Go(state.run)
	return answer, nil
}

// restart: SRS has no PATCH.
func (*lite) restart(*session, string) (string, error) { return "", errors.New("no PATCH here") }

func (e *lite) close(s *session) {
	state, ok := s.state.(*liteSession)
	if !ok {
		return
	}
	e.mu.Lock()
	delete(e.byUfrag, state.ufrag)
	for from, other := range e.byAddr {
		if other == state {
			delete(e.byAddr, from)
		}
	}
	e.mu.Unlock()
	state.close()
}
