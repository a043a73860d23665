package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/urfave/cli/v2"

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
				return usageError{fmt.Sprintf("%s needs %s", strings.TrimPrefix(c.Command.HelpName, "srsx "), args)}
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
			err = do(c, admin.NewClient(o.given(c, "addr", "SRSX_ADDR", defaultAddr), token))
			if err != nil && ctx.Err() != nil {
				return errInterrupted
			}
			return err
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

// errInterrupted is why a command ended that was not done yet.
var errInterrupted = errors.New("interrupted")

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
