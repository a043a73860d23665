package fsm

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// update writes the golden files anew. Only for a version that no release has
// written yet.
var update = flag.Bool("update", false, "write the golden files")

var epoch = time.UnixMilli(1_700_000_000_000).UTC()

func run(pid string) Incarnation { return Incarnation{Server: "vid-1", Service: "svc-1", PID: pid} }

func named(name string) Stream { return Stream{VHost: DefaultVHost, App: "live", Name: name} }

func origin(id string) Origin {
	return Origin{
		ID: OriginID(id), Incarnation: run("1"), IP: "10.0.0.1", Weight: DefaultWeight,
		Endpoints: Endpoints{RTMP: []string{"10.0.0.1:1935"}},
	}
}

// full is an origin with something in every field that a registration has.
func full(id string) Origin {
	return Origin{
		ID: OriginID(id), Incarnation: run("2"), DeviceID: "rack-3", IP: "2001:db8::1",
		Endpoints: Endpoints{
			RTMP: []string{"[2001:db8::1]:1935", "10.0.0.2:1935"},
			HTTP: []string{"10.0.0.2:8080"},
			API:  []string{"10.0.0.2:1985"},
			SRT:  []string{"udp://10.0.0.2:10080"},
			RTC:  []string{"udp://10.0.0.2:8000", "tcp://10.0.0.2:8000"},
		},
		Labels: []string{"big", "eu"}, Weight: 300, MaxStreams: 5000, Static: true,
	}
}

var (
	peerA = Holder{Peer: "6fa3c9a2-5a1c-4a4e-9d0a-0b1f9f6f8a01", Epoch: 7}
	peerB = Holder{Peer: "b", Epoch: 1 << 60}
)

// everyLog is a log that has every command, refused ones too, as batches.
func everyLog() [][]Command {
	return [][]Command{
		{Found{ID: "0b9b3a0e-0000-4000-8000-000000000001", Secret: Secret{1, 2, 3, 31: 0xff}}},
		{PutOrigin{Origin: origin("o1")}, PutOrigin{Origin: full("o2")}, PutOrigin{Origin: origin("o3")}},
		{
			Place{Stream: named("cam"), Origin: "o1", Incarnation: run("1"), Holder: peerA, Publish: true},
			Place{Stream: named("cam"), Origin: "o2", Incarnation: run("2"), Holder: peerB},
			Place{Stream: Stream{VHost: "tv.example.com", App: "live/hd", Name: "ü"}, Origin: "o2", Incarnation: run("2"), Holder: peerB},
			Place{Stream: named("undone"), Origin: "o1", Incarnation: run("1"), Holder: peerA},
			Place{Stream: named("moved"), Origin: "o1", Incarnation: run("1"), Holder: peerA},
			Place{Stream: named("lost"), Origin: "o1", Incarnation: run("1"), Holder: peerB},
			Place{Stream: named("nowhere"), Origin: "unknown", Incarnation: run("1"), Holder: peerB},
			Place{Stream: named("drained"), Origin: "o3", Incarnation: run("1"), Holder: peerA},
		},
		{
			Unpublish{Stream: named("cam"), Generation: 5},
			Release{Stream: named("cam"), Generation: 5, Holder: peerA},
			Undo{Stream: named("undone"), Generation: 8, Holder: peerA},
			Move{Stream: named("moved"), To: "o2", Incarnation: run("2")},
			PeerGone{Holder: peerB},
			Expire{Stream: named("moved"), Generation: 16},
			Drain{ID: "o3", Until: epoch.Add(time.Second)},
			Drain{ID: "o2"},
			Ready{ID: "o2"},
			Weigh{ID: "o1", Weight: 50},
			SetUp{ID: "o1", Incarnation: run("1"), Up: false, Reason: "silent for 30s"},
		},
		{
			DrainOver{ID: "o3"},
			RemoveOrigin{ID: "o3"},
			Forget{Stream: named("lost")},
			SetUp{ID: "o1", Incarnation: run("1"), Up: true, Reason: "probe answered"},
			Place{Stream: named("late"), Origin: "o1", Incarnation: run("1"), Holder: Holder{Peer: "a", Epoch: 8}, Publish: true},
		},
	}
}

// stamp is the time at which a log's batch i is applied.
func stamp(i int) time.Time { return epoch.Add(time.Duration(i) * time.Second) }

func TestEveryCommandRoundTrips(t *testing.T) {
	seen := make(map[kind]bool)
	for i, batch := range everyLog() {
		at, commands, err := DecodeBatch(AppendBatch(nil, stamp(i), batch))
		if err != nil {
			t.Fatal(err)
		}
		if !at.Equal(stamp(i)) || !reflect.DeepEqual(commands, batch) {
			t.Errorf("DecodeBatch = %s, %+v; want %s, %+v", at, commands, stamp(i), batch)
		}
		size := len(AppendBatchHead(nil, stamp(i), len(batch)))
		for _, c := range batch {
			seen[c.kind()] = true
			size += EncodedSize(c)
		}
		if whole := len(AppendBatch(nil, stamp(i), batch)); whole != size {
			t.Errorf("batch of %d bytes; want %d, the sum of head and commands", whole, size)
		}
	}
	for k := kindPlace; k <= kindFound; k++ {
		if !seen[k] {
			t.Errorf("no command of type %d was tried", k)
		}
	}
}

func TestOnlyWhatAnOriginSaysIsEncoded(t *testing.T) {
	o := full("o")
	o.State, o.WeightPinned, o.UpSince, o.DrainUntil = Draining, true, epoch, epoch
	_, commands, err := DecodeBatch(AppendBatch(nil, epoch, []Command{PutOrigin{Origin: o}}))
	if err != nil {
		t.Fatal(err)
	}
	if want := []Command{PutOrigin{Origin: full("o")}}; !reflect.DeepEqual(commands, want) {
		t.Errorf("decoded %+v; want %+v", commands, want)
	}
}

func TestDecodeBatchRefuses(t *testing.T) {
	good := AppendBatch(nil, epoch, []Command{Place{Stream: named("s"), Origin: "o", Holder: peerA, Publish: true}})
	for name, c := range map[string]struct {
		bytes []byte
		want  error
		says  string
	}{
		"nothing":             {nil, ErrCorrupt, "cut off"},
		"version 0":           {append([]byte{0}, good[1:]...), ErrCorrupt, "version 0"},
		"newer version":       {append([]byte{BatchVersion + 1}, good[1:]...), ErrVersion, "version 2"},
		"no time":             {[]byte{1}, ErrCorrupt, "not a number"},
		"time beyond bounds":  {[]byte{1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 0}, ErrCorrupt, "time is"},
		"count without items": {[]byte{1, 0, 3}, ErrCorrupt, "count of commands is 3"},
		"huge count":          {[]byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0x7f}, ErrCorrupt, "count of commands"},
		"unknown type":        {[]byte{1, 0, 1, 99}, ErrCorrupt, "type 99"},
		"number too long":     {[]byte{1, 0, 1, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, ErrCorrupt, "not a number"},
		"number padded":       {[]byte{1, 0x80, 0, 0}, ErrCorrupt, "not a number"},
		"text of 2^63 bytes":  {[]byte{1, 0, 1, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, ErrCorrupt, "cut off"},
		"list of 2^32 texts":  {append([]byte{1, 0, 1, 9, 0, 0, 0, 0, 0, 0}, 0xff, 0xff, 0xff, 0xff, 0x0f), ErrCorrupt, "list is"},
		"flag unknown":        {append(good[:len(good)-1:len(good)-1], 2), ErrCorrupt, "unknown flag"},
		"one byte more":       {append(slices.Clip(good), 0), ErrCorrupt, "more than was announced"},
	} {
		_, commands, err := DecodeBatch(c.bytes)
		if !errors.Is(err, c.want) || commands != nil {
			t.Errorf("%s: DecodeBatch = %v, %v; want %v", name, commands, err, c.want)
		} else if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error = %q; want it to say %q", name, err, c.says)
		}
	}
	for n := range good {
		if _, _, err := DecodeBatch(good[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("DecodeBatch of the first %d of %d bytes = %v; want ErrCorrupt", n, len(good), err)
		}
	}
}

// TestGoldenLog reads the log that version 1 wrote, for ever, and writes it the
// same as long as version 1 is what is written.
func TestGoldenLog(t *testing.T) {
	const file = "testdata/log-v1.hex"
	var lines []string
	for i, batch := range everyLog() {
		lines = append(lines, hex.EncodeToString(AppendBatch(nil, stamp(i), batch)))
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Fields(string(golden)) {
		b, err := hex.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		at, commands, err := DecodeBatch(b)
		if err != nil || !at.Equal(stamp(i)) || !reflect.DeepEqual(commands, everyLog()[i]) {
			t.Errorf("batch %d of version 1 = %s, %+v, %v; want %s, %+v", i, at, commands, err, stamp(i), everyLog()[i])
		}
		if line != lines[i] {
			t.Errorf("batch %d is written\n%s; want\n%s", i, lines[i], line)
		}
	}
	if n := len(strings.Fields(string(golden))); n != len(lines) {
		t.Errorf("golden log has %d batches; want %d", n, len(lines))
	}
}

func FuzzDecodeBatch(f *testing.F) {
	for i, batch := range everyLog() {
		f.Add(AppendBatch(nil, stamp(i), batch))
	}
	f.Add([]byte{BatchVersion + 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		at, commands, err := DecodeBatch(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Errorf("error %q is neither ErrCorrupt nor ErrVersion", err)
			}
			return
		}
		if again := AppendBatch(nil, at, commands); string(again) != string(b) {
			t.Errorf("decoded %x\nencoded %x", b, again)
		}
		NewState(Limits{}).Apply(1, at, commands...)
	})
}

func TestSecretsDoNotPrint(t *testing.T) {
	s := Secret{0xaa, 0xbb}
	c := Found{ID: "id", Secret: s}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, text := range []string{fmt.Sprintf(verb, s), fmt.Sprintf(verb, c), fmt.Sprintf(verb, Cluster(c))} {
			if strings.Contains(text, "170") || strings.Contains(text, "aa") {
				t.Errorf("%s prints the secret: %s", verb, text)
			}
		}
	}
}
