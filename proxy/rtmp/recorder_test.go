package rtmp_test

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gortmplib/pkg/amf0"
	"github.com/bluenviron/gortmplib/pkg/handshake"

	"srsx/lb"
	"srsx/test/mediatest"
	"srsx/test/proxytest"
)

// recorder is an origin that keeps what its clients say. Nothing of it is the
// product's own: what both get wrong alike would not be seen.
type recorder struct{ *mediatest.Recorder }

func record(t *testing.T, onStart func(net.Conn, string)) recorder {
	t.Helper()
	return recorder{mediatest.Record(t, onStart)}
}

func (r recorder) origin() lb.Origin { return proxytest.StaticOrigin("o", r.Addr, "") }

// replay does the client's side of a handshake, sends a script and takes
// whatever comes until the other side ends.
func replay(t *testing.T, addr string, script []byte) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if err := shake(conn); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(io.Discard, conn) })
	if _, err := conn.Write(script); err != nil {
		t.Errorf("send the script: %v", err)
	}
	_ = conn.(*net.TCPConn).CloseWrite() //nolint:errcheck // it is what was dialed
	reading.Wait()
}

// shake does the client's side of a handshake by another implementation.
func shake(conn net.Conn) error {
	_, _, err := handshake.DoClient(conn, false, false)
	return err
}

// amf encodes values by another implementation.
func amf(values ...any) []byte {
	b, err := amf0.Data(values).Marshal()
	if err != nil {
		panic(err)
	}
	return b
}

func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
