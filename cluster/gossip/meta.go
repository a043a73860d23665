package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/hashicorp/memberlist"
)

// Meta is what a peer says of itself. It travels with every state exchange, so
// it holds what others need to reach and to judge the peer, and nothing more.
type Meta struct {
	ID          string `json:"id"`                // UUID of the peer, the same for all its life
	Name        string `json:"name"`              // unique in the cluster; shown to people
	Cluster     string `json:"cluster,omitempty"` // UUID of its cluster; empty for a newcomer
	ClusterAddr string `json:"cluster_addr"`      // host:port of Raft and RPC; a host name stays a name
	SystemAddr  string `json:"system_addr"`       // host:port of the system API
	Version     string `json:"version"`           // of the build
	Epoch       uint64 `json:"epoch"`             // of this run; grows with every start of the peer
	Commands    uint16 `json:"commands"`          // newest version of commands that it understands
	Expect      uint16 `json:"expect,omitempty"`  // -bootstrap-expect; 0 never founds
	NonVoter    bool   `json:"non_voter,omitempty"`
	Leaving     bool   `json:"leaving,omitempty"` // leaves for good: set by Leave
}

// Limits of the texts in a Meta, in bytes. A host name has at most 253
// (RFC 1035 section 2.3.4), which leaves room for two ports.
const (
	maxName    = 128
	maxAddr    = 253 + len(":65535")
	maxVersion = 40
)

// metaLayout is the first byte. A later release may append fields, which this
// one skips; a layout that this one must not read gets another number.
const metaLayout = 1

const (
	flagNonVoter = 1 << iota
	flagLeaving
	flagCluster  // a cluster id follows the peer's id
	flagSameHost // the system API is on the host of the cluster port: its port alone follows
)

var errMetaShort = errors.New("description of a peer is cut short")

// encode returns m in at most [memberlist.MetaMaxSize] bytes:
//
//	layout, flags          1 byte each
//	id, cluster            16 bytes each, cluster only where flagged
//	epoch, commands, expect  uvarint
//	name, cluster address, version, system address or port
//	                       length in one byte or two, then the bytes
func (m Meta) encode() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	id := uuid.MustParse(m.ID) // check has parsed it
	var flags byte
	if m.NonVoter {
		flags |= flagNonVoter
	}
	if m.Leaving {
		flags |= flagLeaving
	}
	if m.Cluster != "" {
		flags |= flagCluster
	}
	system := m.SystemAddr
	clusterHost, _, _ := net.SplitHostPort(m.ClusterAddr) // check has split both
	if host, port, _ := net.SplitHostPort(m.SystemAddr); host == clusterHost {
		flags |= flagSameHost
		system = port
	}
	b := append([]byte{metaLayout, flags}, id[:]...)
	if m.Cluster != "" {
		cluster := uuid.MustParse(m.Cluster)
		b = append(b, cluster[:]...)
	}
	b = binary.AppendUvarint(b, m.Epoch)
	b = binary.AppendUvarint(b, uint64(m.Commands))
	b = binary.AppendUvarint(b, uint64(m.Expect))
	for _, text := range []string{m.Name, m.ClusterAddr, m.Version, system} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	if len(b) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("name and addresses of this peer take %d bytes; gossip carries %d", len(b), memberlist.MetaMaxSize)
	}
	return b, nil
}

// decodeMeta reads what encode wrote. It accepts nothing that encode would
// refuse, so whatever it returns may be shown and dialled.
func decodeMeta(b []byte) (Meta, error) {
	if len(b) < 2 {
		return Meta{}, errMetaShort
	}
	if b[0] != metaLayout {
		return Meta{}, fmt.Errorf("description of a peer has layout %d; this release reads %d", b[0], metaLayout)
	}
	flags := b[1]
	r := reader{left: b[2:]}
	m := Meta{
		NonVoter: flags&flagNonVoter != 0,
		Leaving:  flags&flagLeaving != 0,
	}
	m.ID = r.uuid()
	if flags&flagCluster != 0 {
		m.Cluster = r.uuid()
	}
	m.Epoch = r.uvarint()
	m.Commands = r.uint16()
	m.Expect = r.uint16()
	m.Name = r.text()
	m.ClusterAddr = r.text()
	m.Version = r.text()
	m.SystemAddr = r.text()
	if r.failed {
		return Meta{}, errMetaShort
	}
	if flags&flagSameHost != 0 {
		host, _, err := net.SplitHostPort(m.ClusterAddr)
		if err != nil {
			return Meta{}, fmt.Errorf("cluster address %q: %w", m.ClusterAddr, err)
		}
		m.SystemAddr = net.JoinHostPort(host, m.SystemAddr)
	}
	if err := m.check(); err != nil {
		return Meta{}, err
	}
	return m, nil
}

// check refuses what must not reach a log, a terminal or a dialler.
func (m Meta) check() error {
	if err := checkUUID("id", m.ID); err != nil {
		return err
	}
	if m.Cluster != "" {
		if err := checkUUID("cluster", m.Cluster); err != nil {
			return err
		}
	}
	if m.Name == "" {
		return errors.New("a peer needs a name")
	}
	for _, t := range []struct {
		what, text string
		limit      int
	}{{"name", m.Name, maxName}, {"version", m.Version, maxVersion}} {
		if err := checkText(t.what, t.text, t.limit); err != nil {
			return err
		}
	}
	if err := checkAddr("cluster address", m.ClusterAddr); err != nil {
		return err
	}
	return checkAddr("system address", m.SystemAddr)
}

func checkUUID(what, text string) error {
	id, err := uuid.Parse(text)
	if err != nil {
		return fmt.Errorf("%s of a peer: %w", what, err)
	}
	if id == uuid.Nil || id.String() != text {
		return fmt.Errorf("%s of a peer: %q is not in the usual form of a UUID", what, text)
	}
	return nil
}

func checkText(what, text string, limit int) error {
	if len(text) > limit {
		return fmt.Errorf("%s of a peer has %d bytes; at most %d", what, len(text), limit)
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, notShown) {
		return fmt.Errorf("%s of a peer %q holds a character that cannot be shown", what, text)
	}
	return nil
}

// notShown is true for what breaks a line or moves a cursor. Spaces are out too:
// they would split a name in a table.
func notShown(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }

func checkAddr(what, addr string) error {
	if err := checkText(what, addr, maxAddr); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%s of a peer: %w", what, err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if host == "" || err != nil || number == 0 || strconv.FormatUint(number, 10) != port || net.JoinHostPort(host, port) != addr {
		return fmt.Errorf("%s of a peer: %q is not host:port", what, addr)
	}
	return nil
}

// reader takes apart what others sent. After the first field that is not there
// it returns zero values and failed is set.
type reader struct {
	left   []byte
	failed bool
}

func (r *reader) take(n uint64) []byte {
	if r.failed || n > uint64(len(r.left)) {
		r.failed = true
		return nil
	}
	taken := r.left[:n]
	r.left = r.left[n:]
	return taken
}

func (r *reader) uuid() string {
	id, err := uuid.FromBytes(r.take(16))
	if err != nil {
		return ""
	}
	return id.String()
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.left)
	if r.failed || n <= 0 {
		r.failed = true
		return 0
	}
	r.left = r.left[n:]
	return v
}

func (r *reader) uint16() uint16 {
	v := r.uvarint()
	if v > 1<<16-1 {
		r.failed = true
	}
	return uint16(v)
}

func (r *reader) text() string { return string(r.take(r.uvarint())) }
