package main

import (
	"bufio"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"srsx/cluster/keyring"
	"srsx/fsm"
	"srsx/proxy/admin"
)

// clusterCommands see and steer a cluster by any of its peers.
func (o operator) clusterCommands() []*cli.Command {
	post := func(path, field string) func(*cli.Context, *admin.Client) error {
		return func(c *cli.Context, api *admin.Client) error {
			body := map[string]any{}
			switch field {
			case "":
			case "addrs":
				body[field] = []string{c.Args().First()}
			default:
				body[field] = c.Args().First()
			}
			return o.change(c, api, "POST", path, body)
		}
	}
	return []*cli.Command{
		o.call("join", "have the peer meet another one, by its gossip address", "ADDR", nil, post("/api/v1/cluster/join", "addrs")),
		o.call("leave", "take the peer out of the cluster for good, and end it", "", nil, post("/api/v1/cluster/leave", "")),
		o.call("force-leave", "declare another peer gone for good", "NODE", nil, post("/api/v1/cluster/force-leave", "node")),
		{Name: "raft", Usage: "see and steer who votes and who leads", Subcommands: []*cli.Command{
			o.list("list-peers", "list the members of Raft", "peers", "/api/v1/raft/peers", columns{"name", "id", "addr", "voter", "leader"}),
			o.call("remove-peer", "take a peer out, by name or id", "NODE", nil, func(c *cli.Context, api *admin.Client) error {
				return o.change(c, api, "DELETE", "/api/v1/raft/peers/"+url.PathEscape(c.Args().First()), nil)
			}),
			o.call("transfer-leader", "have another peer lead", "", []cli.Flag{
				&cli.StringFlag{Name: "to", Usage: "name of the peer", DefaultText: "the one that is furthest"},
			}, func(c *cli.Context, api *admin.Client) error {
				return o.change(c, api, "POST", "/api/v1/raft/transfer-leader", map[string]string{"node": c.String("to")})
			}),
		}},
		{Name: "snapshot", Usage: "back up and restore what the cluster has agreed", Subcommands: []*cli.Command{
			o.call("save", "write a snapshot to a file", "FILE", nil, saveSnapshot),
			o.call("restore", "replace the state of all peers by a snapshot", "FILE", nil, o.restoreSnapshot),
			o.inspectCommand(),
		}},
		o.keygenCommand(),
		{Name: "keyring", Usage: "rotate the key of the cluster", Subcommands: []*cli.Command{
			o.list("list", "list the keys by fingerprint", "keys", "/api/v1/keyring", columns{"fingerprint", "primary", "peers", "total"}),
			o.call("install", "accept a key at every peer", "KEY", nil, func(c *cli.Context, api *admin.Client) error {
				key, err := readSecret(c.Args().First())
				if err != nil {
					return err
				}
				return o.change(c, api, "POST", "/api/v1/keyring", map[string]string{"key": key})
			}),
			o.call("use", "use an installed key at every peer", "FINGERPRINT", nil, func(c *cli.Context, api *admin.Client) error {
				return o.change(c, api, "PUT", "/api/v1/keyring/"+url.PathEscape(c.Args().First()), struct{}{})
			}),
			o.call("remove", "forget a key at every peer", "FINGERPRINT", nil, func(c *cli.Context, api *admin.Client) error {
				return o.change(c, api, "DELETE", "/api/v1/keyring/"+url.PathEscape(c.Args().First()), nil)
			}),
		}},
	}
}

// saveSnapshot writes the file whole or not at all.
func saveSnapshot(c *cli.Context, api *admin.Client) error {
	path := c.Args().First()
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) //nolint:errcheck // gone already after the rename
	defer file.Close()           //nolint:errcheck // what matters was read, or synced
	if err := api.Save(c.Context, "/api/v1/snapshot", file); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

func (o operator) restoreSnapshot(c *cli.Context, api *admin.Client) error {
	if _, err := readSnapshot(c.Args().First()); err != nil {
		return err // before a cluster is asked to take it
	}
	file, err := os.Open(c.Args().First())
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // what matters was read, or synced
	return o.change(c, api, "PUT", "/api/v1/snapshot", bufio.NewReader(file))
}

func readSnapshot(path string) (*fsm.State, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // what matters was read, or synced
	state, err := fsm.Restore(bufio.NewReaderSize(file, 1<<20), fsm.Limits{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return state, nil
}

// inspectCommand reads a snapshot without any peer.
func (o operator) inspectCommand() *cli.Command {
	return &cli.Command{
		Name: "inspect", Usage: "check a snapshot file and say what it holds", ArgsUsage: "FILE",
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usageError{"inspect needs FILE"}
			}
			state, err := readSnapshot(c.Args().First())
			if err != nil {
				return err
			}
			id := "-"
			if cluster, founded := state.Cluster(); founded {
				id = cluster.ID
			}
			_, err = fmt.Fprintf(o.p.stdout, "cluster     %s\nindex       %d\nwritten     %s\norigins     %d\nplacements  %d\nhash        %016x\n",
				id, state.Index(), state.Now().Format("2006-01-02T15:04:05Z07:00"), len(state.Origins()), state.Len(), state.Hash())
			return err
		},
	}
}

func (o operator) keygenCommand() *cli.Command {
	return &cli.Command{
		Name: "keygen", Usage: "make a key for -encrypt",
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			_, err := fmt.Fprintln(o.p.stdout, keyring.Generate().Encode())
			return err
		},
	}
}
