package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"srsx/fsm"
	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/admin"
	"srsx/proxy/webrtc"
)

// Defaults of the limits that have one here: a scanner must not fill memory.
const (
	maxOrigins    = 1000
	maxPlacements = 2_000_000
)

// source is where settings come from: the flags that were given, the
// environment and the file.
type source struct {
	flags map[string]string
	env   func(string) (string, bool)
	path  string // of the file; empty: none
}

// load puts a configuration together: flag, environment, .env, file, default,
// in this order.
func (from source) load() (config, error) {
	c := config{backend: make(map[string]string), values: make(map[string]string)}
	var file map[string]string
	if from.path != "" {
		var err error
		if file, err = readFile(from.path, &c.sections); err != nil {
			return c, err
		}
	}
	dotenv, err := readDotEnv(".env")
	if err != nil {
		return c, err
	}
	for _, s := range settings() {
		value, name := from.find(s, dotenv, file)
		if err := s.set(&c, value); err != nil {
			return c, fmt.Errorf("%s: %w", name, err)
		}
		c.values[cmp.Or(s.name, s.env)] = value
	}
	return c, c.validate()
}

// find returns the value of a setting, and the name under which it was given.
func (from source) find(s setting, dotenv, file map[string]string) (value, name string) {
	if v, ok := from.flags[s.name]; ok && s.name != "" {
		return v, "-" + s.name
	}
	for _, place := range []struct {
		key, prefix string
		look        func(string) (string, bool)
	}{
		{s.env, "", from.env},
		{s.env, ".env: ", func(key string) (string, bool) { v, ok := dotenv[key]; return v, ok }},
		{s.name, from.path + ": ", func(key string) (string, bool) { v, ok := file[key]; return v, ok }},
	} {
		if place.key == "" {
			continue
		}
		if v, ok := place.look(place.key); ok && (v != "" || s.emptyCounts) {
			return v, place.prefix + place.key
		}
	}
	return s.standard, "default of " + cmp.Or(s.name, s.env)
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
	if c.static != "" {
		if info, err := os.Stat(c.static); err != nil || !info.IsDir() {
			return fmt.Errorf("static: %q is not a folder", c.static)
		}
	}
	if c.graceQuit > c.forceQuit {
		return errors.New("PROXY_GRACE_QUIT_TIMEOUT is longer than PROXY_FORCE_QUIT_TIMEOUT")
	}
	if err := c.checkOrigins(); err != nil {
		return err
	}
	if err := c.validateCluster(); err != nil {
		return err
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

// tellsClient reports whether an origin wants the client's address before RTMP:
// its entry is found by its id, or by the device id that it registers.
func (c *config) tellsClient(origin lb.Origin) bool {
	return slices.ContainsFunc(c.sections.Origins, func(o originEntry) bool {
		return o.ClientHeader && (o.ID == string(origin.ID) || o.ID == origin.DeviceID)
	})
}

// whipPaths returns where an origin takes WHIP and WHEP; see tellsClient.
func (c *config) whipPaths(origin lb.Origin) webrtc.Paths {
	for _, o := range c.sections.Origins {
		if o.ID == string(origin.ID) || o.ID == origin.DeviceID {
			return webrtc.Paths{WHIP: o.WHIP, WHEP: o.WHEP}
		}
	}
	return webrtc.Paths{}
}

// staticOrigins returns the origins that the configuration gives endpoints.
func (c *config) staticOrigins() ([]lb.Registration, error) {
	var list []lb.Registration
	rules := admin.OriginRules{Overrides: c.overrides()}
	for _, o := range c.sections.Origins {
		if !o.isStatic() {
			continue
		}
		r, err := rules.Static(admin.Heartbeat{
			IP: o.Address, Server: o.ID, Service: "static", PID: "0", DeviceID: o.ID,
			RTMP: o.RTMP, HTTP: o.HTTP, API: o.API, SRT: o.SRT, RTC: o.RTC,
		})
		if err != nil {
			return nil, fmt.Errorf("origin %q: %w", o.ID, err)
		}
		list = append(list, r)
	}
	if c.backendEnabled {
		r, err := rules.Static(c.defaultBackend())
		if err != nil {
			return nil, fmt.Errorf("%s*: %w", backendPrefix, err)
		}
		list = append(list, r)
	}
	return list, nil
}

// checkOrigins checks what the entries say beside their endpoints.
func (c *config) checkOrigins() error {
	seen := make(map[string]bool)
	if c.backendEnabled {
		seen[backendID] = true
	}
	for i, o := range c.sections.Origins {
		switch {
		case o.ID == "":
			return fmt.Errorf("origins[%d]: id is missing", i)
		case seen[o.ID]:
			return fmt.Errorf("origins[%d]: id %q is there twice", i, o.ID)
		case o.Weight != nil && *o.Weight > admin.MaxWeight:
			return fmt.Errorf("origin %q: weight is not a number from 0 to %d", o.ID, admin.MaxWeight)
		}
		for _, template := range []string{o.WHIP, o.WHEP} {
			if template != "" && (template[0] != '/' || !strings.Contains(template, "{stream}") || strings.ContainsAny(template, "?# ")) {
				return fmt.Errorf("origin %q: %q is not a path with {stream} in it", o.ID, template)
			}
		}
		seen[o.ID] = true
		if _, err := netip.ParseAddr(o.Address); err != nil && strings.ContainsAny(o.Address, ":/ ") {
			return fmt.Errorf("origin %q: address %q is neither an IP address nor a host name", o.ID, o.Address)
		}
	}
	return nil
}

// backendID is the id of the one origin that the environment describes.
const backendID = "default-backend"

// defaultBackend is the one origin that the environment describes.
func (c *config) defaultBackend() admin.Heartbeat {
	one := func(name string) []string {
		if c.backend[name] == "" {
			return nil
		}
		return []string{c.backend[name]}
	}
	return admin.Heartbeat{
		IP: c.backend["IP"], Server: backendID, Service: "static", PID: "0",
		RTMP: one("RTMP"), HTTP: one("HTTP"), API: one("API"), SRT: one("SRT"), RTC: one("RTC"),
	}
}
