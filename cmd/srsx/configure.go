package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"srsx/fsm"
	"srsx/proxy"
	"srsx/proxy/admin"
)

// sections are the keys of the file that have no flag.
type sections struct {
	VHosts  []string      `yaml:"vhosts"`
	Rules   []ruleEntry   `yaml:"rules"`
	Origins []originEntry `yaml:"origins"`
	Limits  limitEntry    `yaml:"limits"`
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

// Defaults of the limits that have one here: a scanner must not fill memory.
const (
	maxOrigins    = 1000
	maxPlacements = 2_000_000
)

// load puts a configuration together: flag, environment, file, default, in this
// order. Flags holds those that were given.
func load(flags map[string]string, env func(string) (string, bool), path string) (config, error) {
	c := config{backend: make(map[string]string)}
	var file map[string]string
	if path != "" {
		var err error
		if file, err = readFile(path, &c.sections); err != nil {
			return c, err
		}
	}
	dotenv, err := readDotEnv(".env")
	if err != nil {
		return c, err
	}
	for _, s := range settings() {
		value, source := s.standard, "default"
		if v, ok := file[s.name]; ok && s.name != "" {
			value, source = v, path+": "+s.name
		}
		if v, ok := dotenv[s.env]; ok && s.env != "" {
			value, source = v, ".env: "+s.env
		}
		if v, ok := env(s.env); ok && s.env != "" {
			value, source = v, s.env
		}
		if v, ok := flags[s.name]; ok && s.name != "" {
			value, source = v, "-"+s.name
		}
		if err := s.set(&c, value); err != nil {
			return c, fmt.Errorf("%s: %w", source, err)
		}
	}
	return c, c.validate()
}

// readFile reads the scalar keys of a YAML file, and its sections.
func readFile(path string, into *sections) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	all := make(map[string]any)
	if err := yaml.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("%s: %s", path, firstLine(err)) //nolint:err113 // for the operator
	}
	known := []string{"vhosts", "rules", "origins", "limits"}
	structured := make(map[string]any)
	values := make(map[string]string)
	for key, value := range all {
		switch {
		case slices.Contains(known[:4], key):
			structured[key] = value
		case slices.ContainsFunc(settings(), func(s setting) bool { return s.name == key && key != "check" }):
			values[key] = scalar(value)
		default:
			for _, s := range settings() {
				if s.name != "" && s.name != "check" {
					known = append(known, s.name)
				}
			}
			return nil, fmt.Errorf("%s: unknown key %q; allowed: %s", path, key, strings.Join(known, ", ")) //nolint:err113 // for the operator
		}
	}
	again, err := yaml.Marshal(structured)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := yaml.NewDecoder(bytes.NewReader(again), yaml.Strict()).Decode(into); err != nil && len(structured) > 0 {
		return nil, fmt.Errorf("%s: %s", path, firstLine(err)) //nolint:err113 // for the operator
	}
	return values, nil
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

func scalar(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = fmt.Sprint(v[i])
		}
		return strings.Join(parts, ",")
	case time.Duration:
		return v.String()
	default:
		return fmt.Sprint(v)
	}
}

// readDotEnv reads NAME=value lines, with # comments and optional quotes.
func readDotEnv(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no file sets nothing
	}
	if err != nil {
		return nil, fmt.Errorf("read environment file: %w", err)
	}
	defer f.Close()
	values := make(map[string]string)
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if !ok {
			return nil, fmt.Errorf("%s:%d: no NAME=value", path, n) //nolint:err113 // for the operator
		}
		value = strings.TrimSpace(value)
		if len(value) > 1 && (value[0] == '"' || value[0] == '\'') && value[len(value)-1] == value[0] {
			value = value[1 : len(value)-1]
		}
		values[strings.TrimSpace(name)] = value
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read environment file: %w", err)
	}
	return values, nil
}

// validate checks what one setting alone cannot know.
func (c *config) validate() error {
	for i, r := range c.sections.Rules {
		if err := (fsm.Rule{Match: r.Match, Pool: r.Pool, Backup: r.Backup}).Validate(); err != nil {
			return fmt.Errorf("rules[%d]: %w", i, err)
		}
	}
	if _, err := proxy.NewVHosts(c.sections.VHosts...); err != nil {
		return fmt.Errorf("vhosts: %w", err)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.logLevel) {
		return fmt.Errorf("log-level: %q is none of debug, info, warn, error", c.logLevel) //nolint:err113 // for the operator
	}
	if c.static != "" {
		if info, err := os.Stat(c.static); err != nil || !info.IsDir() {
			return fmt.Errorf("static: %q is not a folder", c.static) //nolint:err113 // for the operator
		}
	}
	if c.graceQuit > c.forceQuit {
		return errors.New("PROXY_GRACE_QUIT_TIMEOUT is longer than PROXY_FORCE_QUIT_TIMEOUT") //nolint:err113 // for the operator
	}
	_, err := c.staticOrigins()
	return err
}

func (c *config) policy() fsm.Policy {
	p := fsm.Policy{SlowStart: c.slowStart}
	for _, r := range c.sections.Rules {
		p.Rules = append(p.Rules, fsm.Rule{Match: r.Match, Pool: r.Pool, Backup: r.Backup})
	}
	return p
}

func (c *config) overrides() map[string]admin.Override {
	overrides := make(map[string]admin.Override)
	for _, o := range c.sections.Origins {
		overrides[o.ID] = admin.Override{Address: o.Address, Weight: o.Weight, MaxStreams: o.MaxStreams, Labels: o.Labels}
	}
	return overrides
}

// staticOrigins returns the origins that the configuration gives endpoints.
func (c *config) staticOrigins() ([]admin.Heartbeat, error) {
	var list []admin.Heartbeat
	for i, o := range c.sections.Origins {
		if o.ID == "" {
			return nil, fmt.Errorf("origins[%d]: id is missing", i) //nolint:err113 // for the operator
		}
		if len(o.RTMP) == 0 {
			continue
		}
		list = append(list, admin.Heartbeat{
			IP: o.Address, Server: o.ID, Service: "static", PID: "0", DeviceID: o.ID,
			RTMP: o.RTMP, HTTP: o.HTTP, API: o.API, SRT: o.SRT, RTC: o.RTC,
		})
	}
	if b := c.backend; b["ENABLED"] == "on" || b["ENABLED"] == "true" {
		one := func(name string) []string {
			if b[name] == "" {
				return nil
			}
			return []string{b[name]}
		}
		list = append(list, admin.Heartbeat{
			IP: b["IP"], Server: "default-backend", Service: "static", PID: "0",
			RTMP: one("RTMP"), HTTP: one("HTTP"), API: one("API"), SRT: one("SRT"), RTC: one("RTC"),
		})
	}
	rules := admin.OriginRules{Overrides: c.overrides()}
	for _, h := range list {
		if _, err := rules.Registration(h); err != nil {
			return nil, fmt.Errorf("origin %q: %w", h.Server, err)
		}
	}
	return list, nil
}
