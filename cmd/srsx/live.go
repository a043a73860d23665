package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"srsx/proxy/admin"
)

func (o operator) watch(c *cli.Context, api *admin.Client) error {
	return api.Events(c.Context, func(event []byte) error {
		if c.String("format") == "json" {
			_, err := fmt.Fprintf(o.p.stdout, "%s\n", event)
			return err
		}
		var e struct{ At, Kind, Stream, Origin, From, Reason string }
		if err := json.Unmarshal(event, &e); err != nil {
			return fmt.Errorf("event: %w", err)
		}
		line := fmt.Sprintf("%s  %-14s %s", e.At, e.Kind, strings.TrimSpace(e.Stream+" "+e.Origin))
		if e.From != "" {
			line += " from " + e.From
		}
		if e.Reason != "" {
			line += "  (" + e.Reason + ")"
		}
		_, err := fmt.Fprintln(o.p.stdout, line)
		return err
	})
}

// monitorCommand shows members and origins again and again.
func (o operator) monitorCommand() *cli.Command {
	return o.call("monitor", "show members and origins live", "", []cli.Flag{
		&cli.DurationFlag{Name: "interval", Value: 2 * time.Second, Usage: "between two looks"},
		&cli.IntFlag{Name: "count", Usage: "looks until it ends (default: no end)"},
	}, o.monitor)
}

func (o operator) monitor(c *cli.Context, api *admin.Client) error {
	interval := c.Duration("interval")
	if interval <= 0 {
		return usageError{fmt.Sprintf("-interval %s is not above zero", interval)}
	}
	pace := time.NewTicker(interval)
	defer pace.Stop()
	for n := 1; ; n++ {
		// One write a look, so that a terminal does not flicker.
		var look bytes.Buffer
		if isTerminal(o.p.stdout) {
			look.WriteString("\x1b[H\x1b[2J") // home, clear
		}
		page := operator{process{stdout: &look}}
		err := page.rows(c, api, "/api/v1/members", "members", columns{"name", "state", "role", "streams", "sessions"})
		if err == nil {
			look.WriteByte('\n')
			err = page.rows(c, api, "/api/v1/origins", "origins", columns{"id", "state", "weight", "streams", "last_seen"})
		}
		if err == nil {
			_, err = o.p.stdout.Write(append(look.Bytes(), '\n'))
		}
		if c.Err() != nil {
			return nil // interrupted: that is how it ends
		}
		if err != nil || n == c.Int("count") {
			return err
		}
		select {
		case <-c.Done():
			return nil
		case <-pace.C:
		}
	}
}
