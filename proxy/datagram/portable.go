//go:build !linux

package datagram

import "net/netip"

// system is what is known of a socket beside its connection: nothing.
type system struct{}

func (*Socket) prepare() {}

// source does nothing: which of its addresses a host answers from is the system's
// choice.
func (*Socket) source(netip.Addr) []byte { return nil }

// Sender sends datagrams. What cannot be sent is lost, as on any network.
type Sender struct{}

// Queue sends a datagram.
func (*Sender) Queue(s *Socket, b []byte, to Way) { _ = s.Send(b, to) }

// Flush has nothing left to send.
func (*Sender) Flush() {}

func (s *Socket) receive(take Take) error {
	b := make([]byte, maxLength)
	for !s.over() {
		n, from, err := s.conn.ReadFromUDPAddrPort(b)
		if err == nil {
			way := Way{}
			if !s.connected() {
				way.Remote = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			}
			take(b[:n], way, &Sender{})
		} else if err = s.learn(err); err != nil {
			return err
		}
	}
	return nil
}
