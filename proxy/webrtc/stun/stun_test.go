package stun_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	pion "github.com/pion/stun/v4"

	"srsx/proxy/webrtc/stun"
)

const password = "a-password-of-the-session-0123456"

// build makes a message with pion, which is what many clients are made of.
func build(tb testing.TB, setters ...pion.Setter) []byte {
	tb.Helper()
	m, err := pion.Build(setters...)
	if err != nil {
		tb.Fatal(err)
	}
	return m.Raw
}

type useCandidate struct{}

func (useCandidate) AddTo(m *pion.Message) error {
	m.Add(pion.AttrUseCandidate, nil)
	return nil
}

type extra struct {
	kind  pion.AttrType
	value []byte
}

func (e extra) AddTo(m *pion.Message) error {
	m.Add(e.kind, e.value)
	return nil
}

func check(tb testing.TB, more ...pion.Setter) []byte {
	tb.Helper()
	setters := append([]pion.Setter{
		pion.TransactionID, pion.BindingRequest, pion.NewUsername("server:client"),
	}, more...)
	return build(tb, append(setters, pion.NewShortTermIntegrity(password), pion.Fingerprint)...)
}

func TestCheckIsRead(t *testing.T) {
	b := check(t, extra{pion.AttrPriority, []byte{1, 2, 3, 4}}, useCandidate{}, extra{0xc057, []byte{0, 0, 0, 1}})
	m, err := stun.Parse(b)
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	server, client, ok := m.Halves()
	if !ok || string(server) != "server" || string(client) != "client" {
		t.Errorf("Halves = %q, %q, %v; want server, client", server, client, ok)
	}
	if m.Class != stun.Request || !m.Binding || !m.UseCandidate || !m.HasIntegrity() {
		t.Errorf("Parse = %+v; want a binding request that nominates", m)
	}
	if !bytes.Equal(m.Transaction[:], b[8:20]) {
		t.Errorf("Transaction = %x; want %x", m.Transaction, b[8:20])
	}
	if !stun.NewVerifier(password).Verify(&m) {
		t.Error("Verify = false; want true")
	}
	if stun.NewVerifier(password + "x").Verify(&m) {
		t.Error("Verify with another password = true; want false")
	}
}

func TestClassesAreTold(t *testing.T) {
	for kind, want := range map[pion.MessageType]stun.Class{
		pion.BindingRequest: stun.Request, pion.BindingSuccess: stun.Success, pion.BindingError: stun.Failure,
		pion.NewType(pion.MethodBinding, pion.ClassIndication):    stun.Indication,
		pion.NewType(pion.MethodAllocate, pion.ClassRequest):      stun.Request,
		pion.NewType(pion.Method(0x0ff), pion.ClassIndication):    stun.Indication,
		pion.NewType(pion.MethodRefresh, pion.ClassErrorResponse): stun.Failure,
	} {
		m, err := stun.Parse(build(t, pion.TransactionID, kind, pion.Fingerprint))
		if err != nil || m.Class != want || m.Binding != (kind.Method == pion.MethodBinding) {
			t.Errorf("Parse of %v = class %v, binding %v, %v; want class %v", kind, m.Class, m.Binding, err, want)
		}
	}
}

// Every prefix of a valid message is refused and harms nothing.
func TestTruncatedIsRefused(t *testing.T) {
	b := check(t, useCandidate{})
	for n := range b {
		if _, err := stun.Parse(b[:n:n]); err == nil {
			t.Errorf("Parse of the first %d of %d bytes: no error", n, len(b))
		}
	}
}

// One bit flipped anywhere is noticed: by the form, the CRC or the MAC.
func TestChangedIsRefused(t *testing.T) {
	b := check(t, useCandidate{})
	verifier := stun.NewVerifier(password)
	for i := range b {
		for bit := range 8 {
			changed := bytes.Clone(b)
			changed[i] ^= 1 << bit
			if m, err := stun.Parse(changed); err == nil && verifier.Verify(&m) {
				t.Errorf("byte %d bit %d changed: accepted", i, bit)
			}
		}
	}
}

func TestOddMessagesAreRefused(t *testing.T) {
	header := func(length byte, rest ...byte) []byte {
		return append([]byte{0, 1, 0, length, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, rest...)
	}
	integrity := append([]byte{0, 8, 0, 20}, make([]byte, 20)...)
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"empty":                      {nil, stun.ErrHeader},
		"other cookie":               {append([]byte{0, 1, 0, 0, 1, 1, 1, 1}, make([]byte, 12)...), stun.ErrHeader},
		"top bits set":               {append([]byte{0x40, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...), stun.ErrHeader},
		"length not of four":         {header(3, 0, 6, 0), stun.ErrShort},
		"length beyond the datagram": {header(8, 0, 6, 0, 0), stun.ErrShort},
		"bytes after the message":    {header(0, 1), stun.ErrShort},
		"attribute beyond the end":   {header(4, 0, 6, 0, 1), stun.ErrAttribute},
		"value without its padding":  {header(8, 0, 6, 0, 5, 'a', 'b', 'c', 'd'), stun.ErrAttribute},
		"greatest length":            {header(8, 0, 6, 0xff, 0xff, 1, 2, 3, 4), stun.ErrAttribute},
		"short integrity":            {header(8, 0, 8, 0, 4, 1, 2, 3, 4), stun.ErrAttribute},
		"no fingerprint":             {header(24, integrity...), stun.ErrFingerprint},
		"short fingerprint":          {header(4, 0x80, 0x28, 0, 0), stun.ErrFingerprint},
		"wrong fingerprint":          {header(8, 0x80, 0x28, 0, 4, 1, 2, 3, 4), stun.ErrFingerprint},
	} {
		if _, err := stun.Parse(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: Parse = %v; want %v", name, err, c.want)
		}
	}
	long := build(t, pion.TransactionID, pion.BindingRequest, extra{pion.AttrUsername, make([]byte, 514)}, pion.Fingerprint)
	if _, err := stun.Parse(long); !errors.Is(err, stun.ErrAttribute) {
		t.Errorf("user name of 514 bytes: Parse = %v; want %v", err, stun.ErrAttribute)
	}
	after := header(12)
	after = binary.BigEndian.AppendUint32(append(after, 0x80, 0x28, 0, 4), crc32.ChecksumIEEE(after)^0x5354554e)
	after = append(after, 0, 0x25, 0, 0)
	if _, err := stun.Parse(after); !errors.Is(err, stun.ErrAttribute) {
		t.Errorf("attribute after a right fingerprint: Parse = %v; want %v", err, stun.ErrAttribute)
	}
}

// What stands behind MESSAGE-INTEGRITY anybody can have put there.
func TestNothingIsBelievedBehindIntegrity(t *testing.T) {
	b := build(t, pion.TransactionID, pion.BindingRequest, pion.NewUsername("server:client"),
		pion.NewShortTermIntegrity(password), useCandidate{}, pion.NewUsername("other:client"), pion.Fingerprint)
	m, err := stun.Parse(b)
	if err != nil || !stun.NewVerifier(password).Verify(&m) {
		t.Fatalf("Parse = %v; want a message whose integrity holds", err)
	}
	if m.UseCandidate || string(m.Username) != "server:client" {
		t.Errorf("Parse = user %q, nominates %v; want what is covered by the MAC only", m.Username, m.UseCandidate)
	}
}

func TestParseAndVerifyAllocateNothing(t *testing.T) {
	b := check(t, useCandidate{})
	verifier := stun.NewVerifier(password)
	verify := func() {
		m, err := stun.Parse(b)
		if err != nil || !verifier.Verify(&m) {
			t.Fatal("refused")
		}
	}
	verify()
	if n := testing.AllocsPerRun(100, verify); n != 0 {
		t.Errorf("%v allocations a check; want none", n)
	}
}

func FuzzParse(f *testing.F) {
	valid := check(f, useCandidate{}, extra{pion.AttrPriority, []byte{1, 2, 3, 4}})
	f.Add(valid)
	f.Add(valid[:len(valid)-1])
	f.Add(valid[20 : len(valid)-8])
	f.Add(build(f, pion.TransactionID, pion.BindingSuccess, pion.NewShortTermIntegrity(password)))
	f.Add([]byte{0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 6, 0, 5, 'a', 'b', 'c', 'd'})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = stun.Parse(b)
		b = seal(b) // so that what is behind the CRC is reached
		m, err := stun.Parse(b)
		if err != nil {
			return
		}
		// Whatever we understand, so do others, and in the same way.
		other := &pion.Message{Raw: bytes.Clone(b)}
		if err := other.Decode(); err != nil {
			t.Fatalf("we read %x, pion does not: %v", b, err)
		}
		if m.Transaction != stun.TransactionID(other.TransactionID) || m.Binding != (other.Type.Method == pion.MethodBinding) {
			t.Fatalf("Parse = %+v; pion has %v", m, other)
		}
		ok := stun.NewVerifier(password).Verify(&m)
		if ok && pion.NewShortTermIntegrity(password).Check(other) != nil {
			t.Fatalf("we believe %x, pion does not", b)
		}
	})
}

// seal makes b the attributes of a request with a right header and fingerprint.
func seal(b []byte) []byte {
	b = b[:min(len(b), 2000)&^3]
	m := binary.BigEndian.AppendUint16([]byte{0, 1}, uint16(len(b)+8))
	m = append(m, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
	m = append(m, b...)
	return binary.BigEndian.AppendUint32(append(m, 0x80, 0x28, 0, 4), crc32.ChecksumIEEE(m)^0x5354554e)
}

func BenchmarkParse(b *testing.B) {
	datagram := check(b, useCandidate{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := stun.Parse(datagram); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseAndVerify(b *testing.B) {
	datagram, verifier := check(b, useCandidate{}), stun.NewVerifier(password)
	b.ReportAllocs()
	for b.Loop() {
		m, err := stun.Parse(datagram)
		if err != nil || !verifier.Verify(&m) {
			b.Fatal("refused")
		}
	}
}
