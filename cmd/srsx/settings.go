package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"srsx/proxy"
	"srsx/proxy/webrtc"
)

// config is what the agent runs with, after flags, environment, file and
// defaults have been put together.
type config struct {
	rtmp, http, api, rtc, srt  string // listeners as host:port; empty: off
	rtcCandidates              []string
	systemAPI, cluster, gossip string
	node, advertise, dataDir   string
	originAllow, trusted       proxy.Networks
	token, registerToken       string
	readyGrace, originTTL      time.Duration
	placeTimeout, relayTick    time.Duration
	graceQuit, forceQuit       time.Duration
	slowStart                  time.Duration
	static, pprof              string
	logLevel                   slog.Level

	lb                     string // memory or raft
	clusterName, encrypt   string
	join, retryJoin        []string
	bootstrapExpect        int
	nonVoter               bool
	raftMultiplier         int
	tlsCA, tlsCert, tlsKey string // of the cluster port
	dev, check             bool

	backend        map[string]string // PROXY_DEFAULT_BACKEND_*, by last word
	backendEnabled bool
	sections       sections // what only the file can say

	// values are the settings in force as text, by flag or environment name, to
	// see what a reload changes. Secrets are among them.
	values map[string]string
}

// backendPrefix starts the names of the settings of the one origin that the
// environment can describe.
const backendPrefix = "PROXY_DEFAULT_BACKEND_"

// setting is one thing to configure: a flag, an environment variable and a key
// of the file, which all have the same form.
type setting struct {
	name     string // flag and key; empty: environment only
	env      string
	standard string
	usage    string
	isBool   bool
	// emptyCounts tells that an empty value of the file or the environment is
	// one, such as a listener that is off. Else it is as if it were not there.
	emptyCounts bool
	set         func(c *config, value string) error
}

// settings is every setting there is, in the order in which help shows them.
func settings() []setting {
	list := []setting{
		{name: "lb", env: "PROXY_LOAD_BALANCER_TYPE", standard: "memory", usage: "where placements live: memory, or raft for a cluster; raft if any flag that forms one is given", set: func(c *config, value string) error {
			c.lb = value
			return oneOf("memory", "raft")(c, value)
		}},
		listener("rtmp", "PROXY_RTMP_SERVER", "11935", "RTMP", func(c *config) *string { return &c.rtmp }),
		listener("http", "PROXY_HTTP_SERVER", "18080", "HTTP-FLV, HTTP-TS, HLS and static files", func(c *config) *string { return &c.http }),
		listener("api", "PROXY_HTTP_API", "11985", "WHIP, WHEP and SRS's HTTP API", func(c *config) *string { return &c.api }),
		listener("rtc", "PROXY_WEBRTC_SERVER", "18000", "WebRTC media, UDP and TCP", func(c *config) *string { return &c.rtc }),
		listener("srt", "PROXY_SRT_SERVER", "20080", "SRT, over UDP", func(c *config) *string { return &c.srt }),
		listener("system-api", "PROXY_SYSTEM_API", "12025", "registration, system API and metrics", func(c *config) *string { return &c.systemAPI }),
		listener("cluster", "PROXY_CLUSTER", "12026", "cluster port, TCP; only in a cluster", func(c *config) *string { return &c.cluster }),
		listener("gossip", "PROXY_GOSSIP", "12027", "gossip port, TCP and UDP; only in a cluster", func(c *config) *string { return &c.gossip }),
		{name: "node", env: "PROXY_NODE", usage: "unique name of this peer, kept in -data-dir (default: host name)", set: func(c *config, value string) error {
			c.node = value
			return checkNode(value)
		}},
		text("advertise", "PROXY_ADVERTISE", "", "how others reach this peer (default: first private address)", func(c *config) *string { return &c.advertise }),
		{
			name: "rtc-candidate", env: "PROXY_RTC_CANDIDATE", emptyCounts: true,
			usage: "where WebRTC clients reach -rtc: addresses or names, separated by commas, each with :port if that differs (default: as -advertise)",
			set: func(c *config, value string) error {
				c.rtcCandidates = nil
				for _, one := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' }) {
					if _, _, err := webrtc.ParseCandidate(one); err != nil {
						return err
					}
					c.rtcCandidates = append(c.rtcCandidates, one)
				}
				return nil
			},
		},
		text("data-dir", "PROXY_DATA_DIR", "./srsx-data", "where identity and keys are kept", func(c *config) *string { return &c.dataDir }),
		networks("origin-allow", "PROXY_ORIGIN_ALLOW", "127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7",
			"networks in which a registered origin may live", func(c *config) *proxy.Networks { return &c.originAllow }),
		networks("trusted", "PROXY_TRUSTED", "127.0.0.0/8,::1",
			"networks whose PROXY protocol, X-Forwarded-For and F3 header are believed", func(c *config) *proxy.Networks { return &c.trusted }),
		secret("token", "PROXY_TOKEN", "bearer token of the system API", func(c *config) *string { return &c.token }),
		secret("register-token", "PROXY_REGISTER_TOKEN", "token that origins have in their registration path", func(c *config) *string { return &c.registerToken }),
		duration("ready-grace", "PROXY_READY_GRACE", "15s", "how long a backend may be undecided before /readyz says so; 0: it never does", func(c *config) *time.Duration { return &c.readyGrace }),
		positive("origin-ttl", "PROXY_ORIGIN_SERVER_TTL", "30s", "silence after which an origin is probed, and down if that fails", func(c *config) *time.Duration { return &c.originTTL }),
		text("static", "PROXY_STATIC_FILES", "", "folder served by -http (default: built-in player page)", func(c *config) *string { return &c.static }),
		positive("place-timeout", "PROXY_PLACE_TIMEOUT", "5s", "how long a new stream waits for an origin", func(c *config) *time.Duration { return &c.placeTimeout }),
		duration("relay-tick", "PROXY_RELAY_TICK", "5ms", "batching of wake-ups; this version relays at once", func(c *config) *time.Duration { return &c.relayTick }),
		duration("slow-start", "PROXY_SLOW_START", "30s", "time in which an origin that came up reaches its share", func(c *config) *time.Duration { return &c.slowStart }),
		{name: "role", env: "PROXY_ROLE", standard: "proxy", usage: "what this peer does: proxy", set: oneOf("proxy")},
		{name: "log-level", env: "PROXY_LOG_LEVEL", standard: "info", usage: "debug, info, warn or error", set: func(c *config, value string) error {
			if !slices.Contains([]string{"debug", "info", "warn", "error"}, value) {
				return fmt.Errorf("%q is none of debug, info, warn, error", value)
			}
			return c.logLevel.UnmarshalText([]byte(value))
		}},
		{name: "dev", usage: "run a small origin in this process, with a test clip at live/demo", isBool: true, set: boolean(func(c *config) *bool { return &c.dev })},
		{name: "check", usage: "read and check the configuration, then end", isBool: true, set: boolean(func(c *config) *bool { return &c.check })},
		duration("", "PROXY_GRACE_QUIT_TIMEOUT", "20s", "time that open sessions get after SIGTERM", func(c *config) *time.Duration { return &c.graceQuit }),
		duration("", "PROXY_FORCE_QUIT_TIMEOUT", "30s", "time after SIGTERM at which the process ends, whatever is open", func(c *config) *time.Duration { return &c.forceQuit }),
		listener("", "GO_PPROF", "", "Go's profiler", func(c *config) *string { return &c.pprof }),
	}
	list = append(list, setting{env: backendPrefix + "ENABLED", usage: "on: the one static origin that these variables describe is served", set: backendEnabled})
	for _, word := range []string{"IP", "RTMP", "HTTP", "API", "RTC", "SRT"} {
		list = append(list, setting{env: backendPrefix + word, usage: "its " + word + ", as in an origin's heartbeat", set: func(c *config, value string) error {
			c.backend[word] = value
			return nil
		}})
	}
	for _, s := range []struct{ name, env, standard, usage string }{
		{"redis-host", "PROXY_REDIS_HOST", "127.0.0.1", "only for -lb redis"},
		{"redis-port", "PROXY_REDIS_PORT", "6379", "only for -lb redis"},
		{"redis-password", "PROXY_REDIS_PASSWORD", "", "only for -lb redis"},
		{"redis-db", "PROXY_REDIS_DB", "0", "only for -lb redis"},
	} {
		// Accepted, so that an environment made for several peers starts one.
		list = append(list, setting{name: s.name, env: s.env, standard: s.standard, usage: s.usage, set: func(*config, string) error { return nil }})
	}
	return append(list, clusterSettings()...)
}

func text(name, env, standard, usage string, field func(*config) *string) setting {
	return setting{name: name, env: env, standard: standard, usage: usage, emptyCounts: true, set: func(c *config, value string) error {
		*field(c) = value
		return nil
	}}
}

func secret(name, env, usage string, field func(*config) *string) setting {
	return setting{name: name, env: env, usage: usage + " (@FILE: its content)", emptyCounts: true, set: func(c *config, value string) (err error) {
		*field(c), err = readSecret(value)
		if err == nil && name == "register-token" && strings.Contains(*field(c), "/") {
			err = errors.New("holds a slash, which a part of a path cannot")
		}
		return err
	}}
}

// readSecret returns value itself, or the content of the file that it names
// after an @. Errors hold no secret.
func readSecret(value string) (string, error) {
	path, ok := strings.CutPrefix(value, "@")
	if ok {
		content, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("read secret: %w", err)
		}
		if value = strings.TrimSpace(string(content)); value == "" {
			return "", fmt.Errorf("%s holds no secret", path)
		}
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", errors.New("holds a space or what is not ASCII, which no request can carry")
	}
	return value, nil
}

// checkNode takes what is a name in every place where one is shown or typed.
func checkNode(name string) error {
	if len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_", r)
	}) {
		return fmt.Errorf("%q is not a name of letters, digits, dot, dash and underscore", name)
	}
	return nil
}

func backendEnabled(c *config, value string) error {
	switch value {
	case "on", "true", "1":
		c.backendEnabled = true
	case "", "off", "false", "0":
	default:
		return fmt.Errorf("%q is neither on nor off", value)
	}
	return nil
}

func boolean(field func(*config) *bool) func(*config, string) error {
	return func(c *config, value string) error {
		b, err := strconv.ParseBool(value)
		if err != nil && value != "" { // a flag that was not given
			return fmt.Errorf("%q is neither true nor false", value)
		}
		*field(c) = b
		return nil
	}
}

func duration(name, env, standard, usage string, field func(*config) *time.Duration) setting {
	return setting{name: name, env: env, standard: standard, usage: usage, set: func(c *config, value string) error {
		d, err := time.ParseDuration(value)
		if value == "0" {
			d, err = 0, nil
		}
		if err != nil || d < 0 {
			return fmt.Errorf("%q is not a duration such as 30s", value)
		}
		*field(c) = d
		return nil
	}}
}

// positive is a duration that cannot be zero.
func positive(name, env, standard, usage string, field func(*config) *time.Duration) setting {
	s := duration(name, env, standard, usage, field)
	set := s.set
	s.set = func(c *config, value string) error {
		if err := set(c, value); err != nil || *field(c) > 0 {
			return err
		}
		return fmt.Errorf("%q is not above zero", value)
	}
	return s
}

func networks(name, env, standard, usage string, field func(*config) *proxy.Networks) setting {
	return setting{name: name, env: env, standard: standard, usage: usage, set: func(c *config, value string) error {
		parsed, err := proxy.ParseNetworks(strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })...)
		if err != nil {
			return err
		}
		*field(c) = parsed
		return nil
	}}
}

func listener(name, env, standard, usage string, field func(*config) *string) setting {
	return setting{name: name, env: env, standard: standard, usage: usage + " (port or ip:port, off disables)", emptyCounts: true, set: func(c *config, value string) error {
		addr, err := parseListener(value)
		*field(c) = addr
		return err
	}}
}

// parseListener completes a port to host:port; empty for off.
func parseListener(value string) (string, error) {
	if value == "" || value == "off" {
		return "", nil
	}
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		host, port = "", value
	}
	_, hostErr := netip.ParseAddr(host)
	known := host == "" || host == "localhost" || hostErr == nil
	if _, err := strconv.ParseUint(port, 10, 16); err != nil || !known {
		return "", fmt.Errorf("%q is not a port, ip:port or off", value)
	}
	return net.JoinHostPort(host, port), nil
}

func oneOf(allowed ...string) func(*config, string) error {
	return func(_ *config, value string) error {
		if !slices.Contains(allowed, value) {
			return fmt.Errorf("%q is not part of this version; allowed: %s", value, strings.Join(allowed, ", "))
		}
		return nil
	}
}
