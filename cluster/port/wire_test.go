package port

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/uuid"
)

func someHello() hello {
	h := hello{
		node:        uuid.MustParse("6ba7b810-9dad-41d1-80b4-00c04fd430c8"),
		cluster:     uuid.MustParse("6ba7b811-9dad-41d1-80b4-00c04fd430c8"),
		clusterName: "srsx", nodeName: "köln-1",
	}
	for i := range h.nonce {
		h.nonce[i] = byte(i)
	}
	return h
}

// Peers of different versions meet by these bytes: they never change.
func TestWireIsFixed(t *testing.T) {
	if got, want := hex.EncodeToString(prelude{kind: KindRPC, version: 1, guard: guardKey}.encode()), "0273727378010100"; got != want {
		t.Errorf("prelude = %s; want %s", got, want)
	}
	const want = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f" +
		"6ba7b8109dad41d180b400c04fd430c8" + "6ba7b8119dad41d180b400c04fd430c8" +
		"0473727378" + "076bc3b66c6e2d31"
	if got := hex.EncodeToString(someHello().encode()); got != want {
		t.Errorf("hello = %s; want %s", got, want)
	}
	var b bytes.Buffer
	if err := writeMessage(&b, 2, []byte("no")); err != nil || hex.EncodeToString(b.Bytes()) != "0003026e6f" {
		t.Errorf("message = %x, %v; want 0003026e6f", b.Bytes(), err)
	}
}

func TestLongestHelloFitsAMessage(t *testing.T) {
	h := someHello()
	h.clusterName, h.nodeName = strings.Repeat("c", maxName), strings.Repeat("n", maxName)
	var b bytes.Buffer
	if err := writeMessage(&b, goOn, h.encode()); err != nil {
		t.Fatal(err)
	}
	body, err := readMessage(&b)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseHello(body); err != nil || got != h {
		t.Errorf("parseHello = %+v, %v; want it back", got, err)
	}
}

func TestBadHellosAreRefused(t *testing.T) {
	good := someHello().encode()
	noNode, evil := someHello(), someHello()
	noNode.node = uuid.Nil
	evil.nodeName = "a\x1b[31m"
	for name, b := range map[string][]byte{
		"empty":          nil,
		"no names":       good[:64],
		"one name":       good[:69],
		"cut name":       good[:len(good)-1],
		"too long":       append(bytes.Clone(good), 0),
		"no node":        noNode.encode(),
		"control":        evil.encode(),
		"empty name":     append(bytes.Clone(good[:64]), 0, 1, 'n'),
		"not UTF-8":      append(bytes.Clone(good[:64]), 1, 0xff, 1, 'n'),
		"name too long":  append(append(bytes.Clone(good[:64]), 129), []byte(strings.Repeat("c", 129)+"\x01n")...),
		"length at most": append(bytes.Clone(good[:64]), 255),
	} {
		if h, err := parseHello(b); err == nil {
			t.Errorf("parseHello of %s = %+v; want an error", name, h)
		}
	}
}

func TestRefusalsKeepTheirReasonAcrossTheWire(t *testing.T) {
	for _, reason := range reasons() {
		code, text := refuse(reason, "node %q", "a").message()
		var b bytes.Buffer
		if err := writeMessage(&b, code, text); err != nil {
			t.Fatal(err)
		}
		_, err := readMessage(&b)
		if !errors.Is(err, reason) || !strings.Contains(err.Error(), `node "a"`) {
			t.Errorf("refusal %v arrives as %v", reason, err)
		}
	}
}

func TestTextOfARefusalCannotForgeLogLines(t *testing.T) {
	text := refusalOf(200, []byte("a\nlevel=ERROR\x1b[2J\xff"+strings.Repeat("x", 500))).Error()
	if strings.ContainsAny(text, "\n\x1b") || !utf8.ValidString(text) || len(text) > 400 {
		t.Errorf("refusal reads %q", text)
	}
}

func FuzzHandshake(f *testing.F) {
	var refused bytes.Buffer
	code, text := refuse(ErrOtherCluster, "node %q", "a").message()
	_ = writeMessage(&refused, code, text)
	var heard bytes.Buffer
	_ = writeMessage(&heard, goOn, someHello().encode())
	f.Add(prelude{kind: KindRaft, version: 1, guard: guardKey | guardCert}.encode())
	f.Add(heard.Bytes())
	f.Add(refused.Bytes())
	f.Add([]byte{0, 0})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := parsePrelude(data); err == nil && !bytes.Equal(p.encode(), data) {
			t.Errorf("prelude %x reads as %+v", data, p)
		}
		body, err := readMessage(bytes.NewReader(data))
		if err != nil {
			return
		}
		if len(body) >= maxMessage {
			t.Errorf("message has %d bytes", len(body))
		}
		// What was read is what the proofs are made over: it has one form only.
		if h, err := parseHello(body); err == nil && !bytes.Equal(h.encode(), body) {
			t.Errorf("hello %x reads as %+v", body, h)
		}
	})
}
