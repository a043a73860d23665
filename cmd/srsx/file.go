package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"srsx/fsm"
	"srsx/proxy"
)

// sections are the keys of the file that have no flag.
type sections struct {
	VHosts  []string
	Rules   []ruleEntry
	Origins []originEntry
	Limits  limitEntry
}

// places are the sections by their key.
func (s *sections) places() map[string]any {
	return map[string]any{"vhosts": &s.VHosts, "rules": &s.Rules, "origins": &s.Origins, "limits": &s.Limits}
}

type ruleEntry struct {
	Match  string `yaml:"match"`
	Pool   string `yaml:"pool"`
	Backup string `yaml:"backup"`
}

// originEntry is a static origin when it has endpoints, and else what is known
// better of an origin that registers under this id or device id.
type originEntry struct {
	ID         string   `yaml:"id"`
	Address    string   `yaml:"address"`
	RTMP       []string `yaml:"rtmp"`
	HTTP       []string `yaml:"http"`
	API        []string `yaml:"api"`
	SRT        []string `yaml:"srt"`
	RTC        []string `yaml:"rtc"`
	Weight     *uint32  `yaml:"weight"`
	MaxStreams uint32   `yaml:"max_streams"`
	Labels     []string `yaml:"labels"`
	// ClientHeader has the client's address sent to the origin before RTMP.
	ClientHeader bool `yaml:"client_header"`
	// WHIP and WHEP are path templates, for an origin that does not have SRS's.
	WHIP string `yaml:"whip"`
	WHEP string `yaml:"whep"`
}

// isStatic tells an origin that is served as configured from one that registers.
func (o originEntry) isStatic() bool {
	return len(o.RTMP)+len(o.HTTP)+len(o.API)+len(o.SRT)+len(o.RTC) > 0
}

type limitEntry struct {
	Origins                int     `yaml:"origins"`
	Placements             int     `yaml:"placements"`
	PlacementsPerVHost     int     `yaml:"placements_per_vhost"`
	Connections            int     `yaml:"connections"`
	ConnectionsPerAddress  int     `yaml:"connections_per_address"`
	Sessions               int     `yaml:"sessions"`
	SessionsPerClient      int     `yaml:"sessions_per_client"`
	SessionRate            float64 `yaml:"session_rate"`
	SessionRatePerClient   float64 `yaml:"session_rate_per_client"`
	PlacementRate          float64 `yaml:"placement_rate"`
	PlacementRatePerClient float64 `yaml:"placement_rate_per_client"`
}

// state is what of the limits the state machine keeps: there zero means none,
// in the file a negative number does.
func (l limitEntry) state() fsm.Limits {
	limit := func(n, standard int) int { return max(cmp.Or(n, standard), 0) }
	return fsm.Limits{
		Origins:            limit(l.Origins, maxOrigins),
		Placements:         limit(l.Placements, maxPlacements),
		PlacementsPerVHost: limit(l.PlacementsPerVHost, 0),
	}
}

// clients is what of the limits the router keeps.
func (l limitEntry) clients() proxy.Limits {
	return proxy.Limits{
		Sessions: l.Sessions, SessionsPerClient: l.SessionsPerClient,
		SessionRate: l.SessionRate, SessionRatePerClient: l.SessionRatePerClient,
		PlacementRate: l.PlacementRate, PlacementRatePerClient: l.PlacementRatePerClient,
	}
}

// readFile reads a YAML file: the keys that are settings come back as they are
// written, so that 007 stays 007, the sections go to into.
func readFile(path string, into *sections) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	document, err := parser.ParseBytes(b, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", path, briefly(err))
	}
	values := make(map[string]string)
	for _, doc := range document.Docs {
		if doc.Body == nil {
			continue
		}
		mapping, ok := doc.Body.(*ast.MappingNode)
		if !ok {
			return nil, fmt.Errorf("%s: want key: value", path)
		}
		for _, entry := range mapping.Values {
			if err := readEntry(entry, values, into); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", path, entry.Key.GetToken().Position.Line, err)
			}
		}
	}
	return values, nil
}

// readEntry reads one key of the file.
func readEntry(entry *ast.MappingValueNode, values map[string]string, into *sections) (err error) {
	key := entry.Key.GetToken().Value
	if place, ok := into.places()[key]; ok {
		return readSection(key, entry.Value, place)
	}
	if !slices.Contains(fileKeys(), key) {
		return fmt.Errorf("unknown key %q; allowed: %s", key, strings.Join(fileKeys(), ", "))
	}
	if values[key], err = scalar(entry.Value); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

func readSection(key string, node ast.Node, place any) error {
	err := yaml.NodeToValue(node, place, yaml.Strict())
	if err == nil {
		return nil
	}
	text := key + ": " + briefly(err)
	if _, ok := errors.AsType[*yaml.UnknownFieldError](err); ok {
		text += "; allowed: " + strings.Join(keysOf(reflect.TypeOf(place)), ", ")
	}
	return errors.New(text)
}

// keysOf lists the keys of a section or of the entries of one.
func keysOf(t reflect.Type) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	var keys []string
	for field := range t.Fields() {
		keys = append(keys, field.Tag.Get("yaml"))
	}
	return keys
}

// fileKeys are the keys that the file may have.
func fileKeys() []string {
	keys := []string{"vhosts", "rules", "origins", "limits"}
	for _, s := range settings() {
		if s.name != "" && s.name != "check" {
			keys = append(keys, s.name)
		}
	}
	return keys
}

// briefly is the library's message and its line alone: the excerpt of the file
// that it adds may hold a secret.
func briefly(err error) string {
	if at, ok := errors.AsType[yaml.Error](err); ok {
		if token := at.GetToken(); token != nil {
			return fmt.Sprintf("line %d: %s", token.Position.Line, at.GetMessage())
		}
		return at.GetMessage()
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// scalar returns one value as it is written, a list with commas between.
func scalar(node ast.Node) (string, error) {
	switch n := node.(type) {
	case *ast.NullNode:
		return "", nil
	case *ast.StringNode:
		return n.Value, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, nil
	case *ast.SequenceNode:
		parts := make([]string, len(n.Values))
		for i, value := range n.Values {
			if _, nested := value.(*ast.SequenceNode); nested {
				return "", errors.New("a list within a list")
			}
			var err error
			if parts[i], err = scalar(value); err != nil {
				return "", err
			}
		}
		return strings.Join(parts, ","), nil
	default:
		return "", errors.New("want a value or a list of values")
	}
}

// readDotEnv reads NAME=value lines, with # comments and optional quotes.
func readDotEnv(path string) (map[string]string, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // no file sets nothing
	}
	if err != nil {
		return nil, fmt.Errorf("read environment file: %w", err)
	}
	values := make(map[string]string)
	n := 0
	for line := range strings.Lines(string(content)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if !ok {
			return nil, fmt.Errorf("%s:%d: no NAME=value", path, n)
		}
		values[strings.TrimSpace(name)] = unquote(strings.TrimSpace(value))
	}
	return values, nil
}

func unquote(value string) string {
	if len(value) > 1 && (value[0] == '"' || value[0] == '\'') && value[len(value)-1] == value[0] {
		return value[1 : len(value)-1]
	}
	return value
}
