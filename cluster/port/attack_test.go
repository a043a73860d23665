package port

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"srsx/cluster/keyring"
)

// The attackers here have everything but the key: they sit on the wire, speak
// the protocol, and know what was said in an earlier handshake, inside TLS too.

// victim is a port with the given key. Its RPC service must not be reached.
func victim(t *testing.T, name string, key keyring.Key) *Port {
	t.Helper()
	ring, err := keyring.Open(filepath.Join(t.TempDir(), "keyring"), key)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Listen(t.Context(), "127.0.0.1:0", Config{
		NodeID: uuid.NewString(), NodeName: name, ClusterName: "test", Keys: ring, HandshakeTimeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = p.Serve(context.Background())
	}()
	t.Cleanup(func() {
		_ = p.Close()
		<-served
	})
	p.Handle(KindRPC, func(_ context.Context, c *Conn) { _ = c.Close() })
	return p
}

func connect(t *testing.T, addr net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

func tcpOf(t *testing.T, c net.Conn) *net.TCPConn {
	t.Helper()
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		t.Fatalf("connection is a %T; want TCP", c)
	}
	return tcp
}

// trap accepts one connection and runs attack on it.
func trap(t *testing.T, attack func(net.Conn)) Target {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		attack(c)
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return Target{Addr: ln.Addr().String()}
}

func attackerTLS(t *testing.T) *tls.Config {
	t.Helper()
	cert, err := throwawayCertificate()
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
}

// copyMessage passes one message on and returns its body.
func copyMessage(to io.Writer, from io.Reader) ([]byte, error) {
	var seen bytes.Buffer
	body, err := readMessage(io.TeeReader(from, &seen))
	if _, werr := to.Write(seen.Bytes()); err == nil {
		err = werr
	}
	return body, err
}

func TestManInTheMiddleIsFound(t *testing.T) {
	key := keyring.Generate()
	dialer, acceptor := victim(t, "dialer", key), victim(t, "acceptor", key)
	config := attackerTLS(t)
	relayed := make(chan error, 1)
	between := trap(t, func(fromDialer net.Conn) {
		relayed <- func() error {
			toAcceptor, err := net.Dial("tcp", acceptor.Addr().String())
			if err != nil {
				return err
			}
			defer func() { _ = toAcceptor.Close() }()
			if _, err = io.CopyN(toAcceptor, fromDialer, preludeSize); err != nil {
				return err
			}
			if _, err = copyMessage(fromDialer, toAcceptor); err != nil {
				return err
			}
			d, a := tls.Server(fromDialer, config), tls.Client(toAcceptor, config)
			for _, step := range []struct{ to, from net.Conn }{{a, d}, {d, a}, {a, d}, {d, a}} { // hellos, proofs
				if _, err = copyMessage(step.to, step.from); err != nil {
					return err
				}
			}
			return nil
		}()
	})
	c, err := dialer.Dial(t.Context(), KindRPC, between)
	if err == nil {
		_ = c.Close()
		t.Fatal("Dial through a man in the middle = nil; want it refused")
	}
	if !errors.Is(err, ErrUntrusted) {
		t.Errorf("Dial = %v; want ErrUntrusted", err)
	}
	// He was found by the acceptor at the dialer's proof, having relayed all before.
	if err := <-relayed; !errors.Is(err, ErrUntrusted) {
		t.Errorf("man in the middle relayed until %v; want until ErrUntrusted", err)
	}
}

func TestRecordedHandshakeIsWorthless(t *testing.T) {
	key := keyring.Generate()
	dialer, acceptor := victim(t, "dialer", key), victim(t, "acceptor", key)
	genuine := dialer.newHandshake(nil, roleDialer, KindRPC)
	genuine.conn = connect(t, acceptor.Addr())
	if err := genuine.dial(t.Context()); err != nil {
		t.Fatalf("genuine handshake = %v; want it to pass", err)
	}
	recorded, err := genuine.proof(roleDialer, genuine.keys[0])
	if err != nil {
		t.Fatal(err)
	}

	replay := connect(t, acceptor.Addr())
	if _, err = replay.Write(genuine.prelude.encode()); err != nil {
		t.Fatal(err)
	}
	if _, err = readMessage(replay); err != nil {
		t.Fatal(err)
	}
	channel := tls.Client(replay, attackerTLS(t))
	if err = writeMessage(channel, goOn, genuine.self.encode()); err != nil {
		t.Fatal(err)
	}
	if _, err = readMessage(channel); err != nil {
		t.Fatalf("hello was refused: %v; want it heard, it is genuine", err)
	}
	if err = writeMessage(channel, goOn, recorded); err != nil {
		t.Fatal(err)
	}
	if _, err = readMessage(channel); !errors.Is(err, ErrUntrusted) {
		t.Errorf("replayed proof = %v; want ErrUntrusted", err)
	}
}

func TestReflectedProofIsRefused(t *testing.T) {
	dialer := victim(t, "dialer", keyring.Generate())
	config := attackerTLS(t)
	mirror := trap(t, func(c net.Conn) {
		if _, err := io.CopyN(io.Discard, c, preludeSize); err != nil {
			return
		}
		_ = writeMessage(c, goOn, nil)
		channel := tls.Server(c, config)
		if _, err := readMessage(channel); err != nil {
			return
		}
		_ = writeMessage(channel, goOn, hello{node: uuid.New(), clusterName: "test", nodeName: "mirror"}.encode())
		proof, err := readMessage(channel)
		if err != nil {
			return
		}
		_ = writeMessage(channel, goOn, proof)
	})
	c, err := dialer.Dial(t.Context(), KindRPC, mirror)
	if err == nil {
		_ = c.Close()
		t.Fatal("Dial of a mirror = nil; want it refused")
	}
	if !errors.Is(err, ErrUntrusted) {
		t.Errorf("Dial = %v; want ErrUntrusted", err)
	}
}

func TestChangedPreludeIsFound(t *testing.T) {
	key := keyring.Generate()
	dialer, acceptor := victim(t, "dialer", key), victim(t, "acceptor", key)
	between := trap(t, func(fromDialer net.Conn) {
		toAcceptor, err := net.Dial("tcp", acceptor.Addr().String())
		if err != nil {
			return
		}
		defer func() { _ = toAcceptor.Close() }()
		first := make([]byte, preludeSize)
		if _, err = io.ReadFull(fromDialer, first); err != nil {
			return
		}
		first[0] = byte(KindLiveness) // TLS itself is left alone
		_, _ = toAcceptor.Write(first)
		back := make(chan struct{})
		go func() {
			defer close(back)
			_, _ = io.Copy(fromDialer, toAcceptor)
		}()
		_, _ = io.Copy(toAcceptor, fromDialer)
		_ = toAcceptor.Close()
		<-back
	})
	c, err := dialer.Dial(t.Context(), KindRPC, between)
	if err == nil {
		_ = c.Close()
	}
	if !errors.Is(err, ErrUntrusted) {
		t.Errorf("Dial with a changed kind = %v; want ErrUntrusted", err)
	}
}

func TestVersionOfTheFutureIsToldWhichOneWeSpeak(t *testing.T) {
	p := victim(t, "a", keyring.Generate())
	c := connect(t, p.Addr())
	_, _ = c.Write(prelude{kind: KindRPC, version: 9, guard: guardKey}.encode())
	if _, err := readMessage(c); !errors.Is(err, ErrIncompatible) {
		t.Errorf("answer to version 9 = %v; want ErrIncompatible", err)
	}
}
