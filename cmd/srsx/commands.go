package main

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/urfave/cli/v2"

	"srsx/lb"
	"srsx/proxy/admin"
)

func operatorCommands(p process) []*cli.Command {
	o := operator{p}
	return append([]*cli.Command{
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
	}, o.clusterCommands()...)
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
			[]cli.Flag{&cli.DurationFlag{Name: "deadline", Usage: "time until sessions are ended, such as 10m", DefaultText: "never"}},
			put("drain", func(c *cli.Context) (any, error) {
				if !c.IsSet("deadline") {
					return struct{}{}, nil
				}
				return map[string]string{"deadline": c.Duration("deadline").String()}, nil
			})),
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
	consistent := &cli.BoolFlag{Name: "consistent", Usage: "answer with all that any peer was told before; needs a majority"}
	return []*cli.Command{
		o.call("list", "list where streams are", "", []cli.Flag{
			consistent,
			&cli.StringFlag{Name: "origin", Usage: "only those on this origin"},
			&cli.StringFlag{Name: "prefix", Usage: "only those that start so, with or without their vhost"},
		}, func(c *cli.Context, api *admin.Client) error {
			query := url.Values{}
			for _, name := range []string{"origin", "prefix"} {
				if v := c.String(name); v != "" {
					query.Set(name, v)
				}
			}
			if c.Bool(consistent.Name) {
				query.Set(consistent.Name, "")
			}
			return o.rows(c, api, "/api/v1/placements?"+query.Encode(), "placements",
				columns{"stream", "origin", "epoch", "publishing", "sessions", "placed_at"})
		}),
		o.call("get", "show where a stream is", "STREAM", []cli.Flag{consistent},
			on("", func(c *cli.Context, api *admin.Client, path string) error {
				if c.Bool(consistent.Name) {
					path += "?" + consistent.Name
				}
				return o.show(c, api, path)
			})),
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
