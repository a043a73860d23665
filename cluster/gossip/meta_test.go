package gossip

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/hashicorp/memberlist"
)

func sampleMeta() Meta {
	return Meta{
		ID:          "6f1b7b0e-8f0a-4c52-9d0c-0f5a5d9c4a01",
		Name:        "media-1",
		Cluster:     "0d8cbb4a-6f46-4ed6-8f0b-1f7d8ad3b502",
		ClusterAddr: "media-1.example.net:12026",
		SystemAddr:  "media-1.example.net:12025",
		Version:     "1.4.2",
		Epoch:       1764030000,
		Commands:    3,
		Expect:      3,
		NonVoter:    true,
		Leaving:     true,
	}
}

func TestMetaIsReadAsWritten(t *testing.T) {
	newcomer := sampleMeta()
	newcomer.Cluster = ""
	elsewhere := sampleMeta()
	elsewhere.SystemAddr = "[fd00::1]:12025"
	for _, want := range []Meta{sampleMeta(), newcomer, elsewhere} {
		b, err := want.encode()
		if err != nil {
			t.Fatalf("encode %+v: %v", want, err)
		}
		got, err := decodeMeta(b)
		if err != nil || got != want {
			t.Errorf("decode = %+v, %v; want %+v", got, err, want)
		}
	}
}

func TestLongestNamesFit(t *testing.T) {
	m := sampleMeta()
	m.Name = strings.Repeat("n", maxName)
	m.Version = strings.Repeat("9", maxVersion)
	host := strings.Repeat("h", 253)
	m.ClusterAddr, m.SystemAddr = host+":65535", host+":65534"
	m.Epoch, m.Commands, m.Expect = 1<<64-1, 1<<16-1, 1<<16-1
	b, err := m.encode()
	if err != nil {
		t.Fatalf("encode = %v; want it to fit", err)
	}
	if len(b) > memberlist.MetaMaxSize {
		t.Errorf("encoded in %d bytes; want at most %d", len(b), memberlist.MetaMaxSize)
	}
	m.SystemAddr = strings.Repeat("g", 253) + ":1"
	if _, err := m.encode(); err == nil {
		t.Error("encode of two longest hosts = nil; want an error, not a panic of memberlist")
	}
}

func TestLaterReleaseMayAppend(t *testing.T) {
	b, err := sampleMeta().encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeMeta(append(b, "a field of tomorrow"...)); err != nil || got != sampleMeta() {
		t.Errorf("decode = %+v, %v; want what this release knows", got, err)
	}
	b[0]++
	if _, err := decodeMeta(b); err == nil {
		t.Error("decode of another layout = nil; want an error")
	}
}

func TestUnfitMetaIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Meta){
		"no id":            func(m *Meta) { m.ID = "" },
		"zero id":          func(m *Meta) { m.ID = uuid.Nil.String() },
		"id in capitals":   func(m *Meta) { m.ID = strings.ToUpper(m.ID) },
		"cluster no UUID":  func(m *Meta) { m.Cluster = "mine" },
		"no name":          func(m *Meta) { m.Name = "" },
		"name too long":    func(m *Meta) { m.Name = strings.Repeat("n", maxName+1) },
		"name with escape": func(m *Meta) { m.Name = "a\x1b[2Jb" },
		"name with space":  func(m *Meta) { m.Name = "a b" },
		"name not UTF-8":   func(m *Meta) { m.Name = "a\xff" },
		"address no port":  func(m *Meta) { m.ClusterAddr = "host" },
		"address port 0":   func(m *Meta) { m.ClusterAddr = "host:0" },
		"address no host":  func(m *Meta) { m.SystemAddr = ":12025" },
		"port with zeros":  func(m *Meta) { m.SystemAddr = "host:012025" },
		"version newline":  func(m *Meta) { m.Version = "1\n2" },
	} {
		m := sampleMeta()
		spoil(&m)
		if _, err := m.encode(); err == nil {
			t.Errorf("%s: encode = nil; want an error", name)
		}
	}
}

func FuzzMeta(f *testing.F) {
	for _, m := range []Meta{sampleMeta(), {}} {
		b, _ := m.encode()
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			return
		}
		again, err := m.encode()
		if err != nil {
			if len(b) <= memberlist.MetaMaxSize {
				t.Fatalf("decoded %+v does not encode: %v", m, err)
			}
			return
		}
		if back, err := decodeMeta(again); err != nil || back != m {
			t.Fatalf("decode = %+v, %v; want %+v", back, err, m)
		}
	})
}

func FuzzDepartures(f *testing.F) {
	f.Add(encodeDepartures(map[string]departure{sampleMeta().ID: {epoch: 7}}))
	f.Add([]byte{departuresLayout})
	f.Fuzz(func(t *testing.T, b []byte) {
		epochs, err := decodeDepartures(b)
		if err != nil {
			return
		}
		if len(epochs) > maxDepartures {
			t.Fatalf("decoded %d departures; want at most %d", len(epochs), maxDepartures)
		}
		departed := make(map[string]departure)
		for id, epoch := range epochs {
			departed[id] = departure{epoch: epoch}
		}
		back, err := decodeDepartures(encodeDepartures(departed))
		if err != nil || len(back) != len(epochs) {
			t.Fatalf("decoded again = %v, %v; want %v", back, err, epochs)
		}
	})
}
