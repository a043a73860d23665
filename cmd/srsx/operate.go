package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/urfave/cli/v2"

	"srsx/lb"
	"srsx/proxy/admin"
)

// operator builds the commands that talk to a running peer.
type operator struct{ p process }

// columns are the fields of a table, by their name in the API.
type columns []string

const defaultAddr = "http://127.0.0.1:12025"

func clientFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "addr", Usage: "system API of the peer [$SRSX_ADDR]", DefaultText: defaultAddr},
		&cli.StringFlag{Name: "token", Usage: "bearer token (@FILE: its content) [$SRSX_TOKEN]"},
		&cli.StringFlag{Name: "format", Value: "table", Usage: "table or json"},
	}, more...)
}

// call is one command: how many arguments it takes and what it does.
func (o operator) call(name, usage, args string, flags []cli.Flag, do func(c *cli.Context, api *admin.Client) error) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: args, Flags: clientFlags(flags...),
		Action: func(c *cli.Context) error {
			if want := len(strings.Fields(args)); c.NArg() > want {
				return usageError{fmt.Sprintf("stray argument %q", c.Args().Get(want))}
			} else if c.NArg() < want {
				return usageError{fmt.Sprintf("%s needs %s", name, args)}
			}
			if f := c.String("format"); f != "table" && f != "json" {
				return usageError{fmt.Sprintf("-format %q is neither table nor json", f)}
			}
			token, err := readSecret(o.given(c, "token", "SRSX_TOKEN", ""))
			if err != nil {
				return fmt.Errorf("-token: %w", err)
			}
			ctx, stop := o.interruptible(c.Context)
			defer stop()
			c.Context = ctx
			return do(c, admin.NewClient(o.given(c, "addr", "SRSX_ADDR", defaultAddr), token))
		},
	}
}

// given is a flag, or else the environment, or else the standard.
func (o operator) given(c *cli.Context, flag, env, standard string) string {
	if c.IsSet(flag) {
		return c.String(flag)
	}
	if value, ok := o.p.env(env); ok && value != "" {
		return value
	}
	return standard
}

// interruptible ends with the first signal: main catches them all.
func (o operator) interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(ctx)
	go func() {
		select {
		case <-o.p.signals:
			stop()
		case <-ctx.Done():
		}
	}()
	return ctx, stop
}

// list shows rows: list is the key below data that holds them.
func (o operator) list(name, usage, key, path string, cols columns) *cli.Command {
	return o.call(name, usage, "", nil, func(c *cli.Context, api *admin.Client) error {
		return o.rows(c, api, path, key, cols)
	})
}

func (o operator) rows(c *cli.Context, api *admin.Client, path, key string, cols columns) error {
	answer, err := api.Call(c.Context, "GET", path, nil)
	if err != nil {
		return err
	}
	if c.String("format") == "json" {
		_, err = o.p.stdout.Write(answer)
		return err
	}
	var body struct {
		Data map[string]json.RawMessage `json:"data"`
	}
	if err = json.Unmarshal(answer, &body); err != nil {
		return fmt.Errorf("answer of the peer: %w", err)
	}
	var rows []map[string]any
	if err = decodeNumbers(body.Data[key], &rows); err != nil {
		return fmt.Errorf("answer of the peer: %w", err)
	}
	printTable(o.p.stdout, cols, rows)
	return nil
}

func decodeNumbers(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode(into)
}

func printTable(w io.Writer, cols columns, rows []map[string]any) {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	t.SetStyle(style)
	header := make(table.Row, len(cols))
	for i, col := range cols {
		header[i] = strings.ToUpper(col)
	}
	t.AppendHeader(header)
	for _, row := range rows {
		cells := make(table.Row, len(cols))
		for i, col := range cols {
			if cells[i] = row[col]; cells[i] == nil {
				cells[i] = "-"
			}
		}
		t.AppendRow(cells)
	}
	t.Render()
}

// show prints one object, a field a line.
func (o operator) show(c *cli.Context, api *admin.Client, path string) error {
	answer, err := api.Call(c.Context, "GET", path, nil)
	if err != nil {
		return err
	}
	if c.String("format") == "json" {
		_, err = o.p.stdout.Write(answer)
		return err
	}
	var body struct {
		Data json.RawMessage `json:"data"`
	}
	if err = json.Unmarshal(answer, &body); err != nil {
		return fmt.Errorf("answer of the peer: %w", err)
	}
	var out bytes.Buffer
	if err = json.Indent(&out, body.Data, "", "  "); err != nil {
		return fmt.Errorf("answer of the peer: %w", err)
	}
	_, err = fmt.Fprintln(o.p.stdout, out.String())
	return err
}

// change sends a write. It says nothing when it is done, as Unix commands do;
// with -format json it prints the answer.
func (o operator) change(c *cli.Context, api *admin.Client, method, path string, body any) error {
	answer, err := api.Call(c.Context, method, path, body)
	if err != nil {
		return err
	}
	if c.String("format") == "json" {
		_, err = o.p.stdout.Write(answer)
	}
	return err
}

func operatorCommands(p process) []*cli.Command {
	o := operator{p}
	return []*cli.Command{
		o.list("members", "list the peers", "members", "/api/v1/members",
			columns{"name", "addr", "state", "role", "version", "streams", "sessions", "insecure"}),
		{Name: "origin", Usage: "see and steer origins", Subcommands: o.originCommands()},
		{Name: "placement", Usage: "see and steer where streams are", Subcommands: o.placementCommands()},
		{Name: "session", Usage: "see and end sessions", Subcommands: []*cli.Command{
			o.list("list", "list the sessions of this peer", "sessions", "/api/v1/sessions",
				columns{"id", "stream", "origin", "kind", "publish", "client", "bytes_in", "bytes_out", "started"}),
			o.call("kick", "end a session", "ID", nil, func(c *cli.Context, api *admin.Client) error {
				return o.change(c, api, "DELETE", "/api/v1/sessions/"+url.PathEscape(c.Args().First()), nil)
			}),
		}},
		o.monitorCommand(),
	}
}

func (o operator) originCommands() []*cli.Command {
	put := func(verb string, body func(c *cli.Context) (any, error)) func(*cli.Context, *admin.Client) error {
		return func(c *cli.Context, api *admin.Client) error {
			b, err := body(c)
			if err != nil {
				return err
			}
			return o.change(c, api, "PUT", admin.OriginPath(c.Args().First())+"/"+verb, b)
		}
	}
	return []*cli.Command{
		o.list("list", "list the origins", "origins", "/api/v1/origins", columns{"id", "device_id", "ip", "state", "weight", "streams", "last_seen"}),
		o.call("inspect", "show one origin", "ID", nil, func(c *cli.Context, api *admin.Client) error {
			return o.show(c, api, admin.OriginPath(c.Args().First()))
		}),
		o.call("drain", "take no new streams; end the others at the deadline", "ID",
			[]cli.Flag{&cli.StringFlag{Name: "deadline", Usage: "time until sessions are ended, such as 10m (default: never)"}},
			put("drain", func(c *cli.Context) (any, error) { return map[string]string{"deadline": c.String("deadline")}, nil })),
		o.call("ready", "take new streams again", "ID", nil, put("ready", func(*cli.Context) (any, error) { return struct{}{}, nil })),
		o.call("remove", "forget an origin and end its sessions", "ID", nil, func(c *cli.Context, api *admin.Client) error {
			return o.change(c, api, "DELETE", admin.OriginPath(c.Args().First()), nil)
		}),
		o.call("weight", "set the share of new streams", "ID N", nil, put("weight", func(c *cli.Context) (any, error) {
			n, err := strconv.ParseUint(c.Args().Get(1), 10, 32)
			if err != nil {
				return nil, usageError{fmt.Sprintf("weight %q is not a number", c.Args().Get(1))}
			}
			return map[string]uint64{"weight": n}, nil
		})),
	}
}

func (o operator) placementCommands() []*cli.Command {
	on := func(suffix string, do func(c *cli.Context, api *admin.Client, path string) error) func(*cli.Context, *admin.Client) error {
		return func(c *cli.Context, api *admin.Client) error {
			stream, err := lb.ParseStream(c.Args().First())
			if err != nil {
				return usageError{err.Error()}
			}
			return do(c, api, admin.PlacementPath(stream)+suffix)
		}
	}
	return []*cli.Command{
		o.call("list", "list where streams are", "", []cli.Flag{
			&cli.StringFlag{Name: "origin", Usage: "only those on this origin"},
			&cli.StringFlag{Name: "prefix", Usage: "only those that start so, with or without their vhost"},
		}, func(c *cli.Context, api *admin.Client) error {
			query := url.Values{}
			for _, name := range []string{"origin", "prefix"} {
				if v := c.String(name); v != "" {
					query.Set(name, v)
				}
			}
			return o.rows(c, api, "/api/v1/placements?"+query.Encode(), "placements",
				columns{"stream", "origin", "epoch", "publishing", "sessions", "placed_at"})
		}),
		o.call("get", "show where a stream is", "STREAM", nil, on("", o.show)),
		o.call("explain", "show why a stream is, or would be, where", "STREAM",
			[]cli.Flag{&cli.StringFlag{Name: "protocol", Value: "rtmp", Usage: "rtmp, http, api, srt or rtc"}},
			on("/explain", o.explain)),
		o.call("move", "place a stream on another origin; its sessions end and come back there", "STREAM",
			[]cli.Flag{&cli.StringFlag{Name: "to", Usage: "id of the origin"}},
			on("", func(c *cli.Context, api *admin.Client, path string) error {
				if c.String("to") == "" {
					return usageError{"move needs -to ID"}
				}
				return o.change(c, api, "PUT", path, map[string]string{"origin": c.String("to")})
			})),
		o.call("forget", "remove a placement and end its sessions", "STREAM", nil, on("", func(c *cli.Context, api *admin.Client, path string) error {
			return o.change(c, api, "DELETE", path, nil)
		})),
		o.call("history", "show what happened to a stream", "STREAM", nil, on("/history", func(c *cli.Context, api *admin.Client, path string) error {
			return o.rows(c, api, path, "events", columns{"at", "kind", "origin", "from", "epoch", "reason"})
		})),
		o.call("watch", "follow what happens to streams and origins", "", nil, o.watch),
	}
}

func (o operator) explain(c *cli.Context, api *admin.Client, path string) error {
	path += "?protocol=" + url.QueryEscape(c.String("protocol"))
	if c.String("format") == "json" {
		return o.show(c, api, path)
	}
	answer, err := api.Call(c.Context, "GET", path, nil)
	if err != nil {
		return err
	}
	var body struct {
		Data struct {
			Rule, Pool string
			Placed     *struct{ Origin string }
			Candidates []map[string]any
		}
	}
	if err = decodeNumbers(answer, &body); err != nil {
		return fmt.Errorf("answer of the peer: %w", err)
	}
	if p := body.Data.Placed; p != nil {
		_, _ = fmt.Fprintf(o.p.stdout, "placed on %s; placed anew it would go where chosen is true\n", p.Origin)
	} else {
		_, _ = fmt.Fprintln(o.p.stdout, "not placed; it would go where chosen is true")
	}
	if body.Data.Rule != "" {
		_, _ = fmt.Fprintf(o.p.stdout, "rule %s wants pool %s\n", body.Data.Rule, body.Data.Pool)
	}
	printTable(o.p.stdout, columns{"origin", "score", "chosen", "reason"}, body.Data.Candidates)
	return nil
}

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

// monitorCommand shows origins and sessions again and again.
func (o operator) monitorCommand() *cli.Command {
	return o.call("monitor", "show origins and members live", "", []cli.Flag{
		&cli.DurationFlag{Name: "interval", Value: 2 * time.Second, Usage: "between two looks"},
		&cli.IntFlag{Name: "count", Usage: "looks until it ends (default: no end)"},
	}, func(c *cli.Context, api *admin.Client) error {
		for n := 1; ; n++ {
			if isTerminal(o.p.stdout) {
				_, _ = fmt.Fprint(o.p.stdout, "\x1b[H\x1b[2J") // home, clear
			}
			if err := o.rows(c, api, "/api/v1/members", "members", columns{"name", "state", "role", "streams", "sessions"}); err != nil {
				return err
			}
			if err := o.rows(c, api, "/api/v1/origins", "origins", columns{"id", "state", "weight", "streams", "last_seen"}); err != nil {
				return err
			}
			if n == c.Int("count") {
				return nil
			}
			select {
			case <-c.Done():
				return nil
			case <-time.After(c.Duration("interval")):
			}
			_, _ = fmt.Fprintln(o.p.stdout)
		}
	})
}
