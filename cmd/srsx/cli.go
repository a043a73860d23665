package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// process is what a command knows of the process it runs in.
type process struct {
	args           []string
	env            func(string) (string, bool)
	stdout, stderr io.Writer
	signals        <-chan os.Signal
}

// Exit codes, as the contract has them.
const (
	exitDone    = 0
	exitRefused = 1
	exitUsage   = 2
)

// usageError is a mistake in how a command was called.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

// run runs one command line and returns the exit code.
func run(ctx context.Context, p process) int {
	app := newApp(p)
	args, err := flagsFirst(app, p.args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	if err == nil {
		return exitDone
	}
	_, _ = fmt.Fprintf(p.stderr, "srsx: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	if isUsage(err) {
		return exitUsage
	}
	return exitRefused
}

// isUsage reports whether an error is one of usage, ours or the library's, such
// as help for a command that there is not.
func isUsage(err error) bool {
	if _, ok := errors.AsType[usageError](err); ok {
		return true
	}
	_, ok := errors.AsType[cli.ExitCoder](err)
	return ok
}

// unknownFlag says which flags there are, as the library does not.
func unknownFlag(c *cli.Context, err error, _ bool) error {
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: "); ok {
		text = "unknown flag " + name
		if c.Command != nil && len(c.Command.Flags) > 0 {
			text += "; allowed: " + strings.Join(flagNames(c.Command.Flags), ", ")
		}
	}
	return usageError{text}
}

func flagNames(flags []cli.Flag) []string {
	var names []string
	for _, f := range flags {
		names = append(names, "-"+f.Names()[0])
	}
	slices.Sort(names)
	return names
}

func newApp(p process) *cli.App {
	app := &cli.App{
		Name: "srsx", Usage: "a media proxy in front of SRS and other origins", Version: buildVersion(version), HideVersion: true,
		Writer: p.stdout, ErrWriter: p.stderr, EnableBashCompletion: true,
		ExitErrHandler: func(*cli.Context, error) {}, // run prints and decides
		OnUsageError:   unknownFlag,
		Action:         needsCommand,
		Commands: append(operatorCommands(p), agentCommand(p), &cli.Command{
			Name: "version", Usage: "show the version",
			Action: func(c *cli.Context) error {
				if err := noArguments(c); err != nil {
					return err
				}
				_, err := fmt.Fprintf(p.stdout, "srsx %s\n", c.App.Version)
				return err
			},
		}, tlsCommand(p), completionCommand(p)),
	}
	each(app.Commands, func(c *cli.Command) {
		c.OnUsageError = app.OnUsageError
		if c.Action == nil {
			c.Action = needsCommand
		}
	})
	return app
}

func each(commands []*cli.Command, do func(*cli.Command)) {
	for _, c := range commands {
		do(c)
		each(c.Subcommands, do)
	}
}

// needsCommand is the action of a command that only has others below it.
func needsCommand(c *cli.Context) error {
	if c.Args().Present() {
		return usageError{fmt.Sprintf("no command %q; see %s help", c.Args().First(), c.Command.HelpName)}
	}
	if len(c.Lineage()) <= 2 { // the app itself
		return cli.ShowAppHelp(c)
	}
	return cli.ShowSubcommandHelp(c)
}

func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return usageError{fmt.Sprintf("stray argument %q", c.Args().First())}
	}
	return nil
}

// flagsFirst moves flags before the arguments, where the library reads them.
func flagsFirst(app *cli.App, args []string) ([]string, error) {
	if len(args) == 0 || args[len(args)-1] == "--generate-bash-completion" {
		return args, nil
	}
	done, rest := args[:1:1], args[1:]
	commands, flags := app.Commands, app.Flags
	for len(rest) > 0 {
		i := indexOf(commands, rest[0])
		if i < 0 {
			break
		}
		done = append(done, rest[0])
		flags, commands, rest = commands[i].Flags, commands[i].Subcommands, rest[1:]
	}
	var options, arguments []string
	for i := 0; i < len(rest); i++ {
		arg := rest[i]
		switch {
		case arg == "--":
			arguments = append(arguments, rest[i+1:]...)
			i = len(rest)
		case !strings.HasPrefix(arg, "-") || arg == "-":
			arguments = append(arguments, arg)
		default:
			options = append(options, arg)
			if takesValue(flags, arg) {
				if i++; i == len(rest) {
					return nil, usageError{arg + " needs a value"}
				}
				options = append(options, rest[i])
			}
		}
	}
	done = append(done, options...)
	if slices.ContainsFunc(arguments, func(a string) bool { return strings.HasPrefix(a, "-") }) {
		done = append(done, "--") // they stood behind one
	}
	return append(done, arguments...), nil
}

func indexOf(commands []*cli.Command, name string) int {
	for i, c := range commands {
		if c.HasName(name) {
			return i
		}
	}
	return -1
}

func takesValue(flags []cli.Flag, arg string) bool {
	name := strings.TrimLeft(arg, "-")
	if strings.Contains(name, "=") {
		return false
	}
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			_, isBool := f.(*cli.BoolFlag)
			return !isBool
		}
	}
	return false
}

func agentCommand(p process) *cli.Command {
	command := &cli.Command{Name: "agent", Usage: "run a peer", Description: environmentOnly()}
	command.Flags = append(command.Flags, &cli.StringFlag{Name: "config", Usage: "configuration file (YAML)"})
	for _, s := range settings() {
		usage := s.usage
		if s.env != "" {
			usage += " [$" + s.env + "]"
		}
		switch {
		case s.name == "":
		case s.isBool:
			command.Flags = append(command.Flags, &cli.BoolFlag{Name: s.name, Usage: usage})
		case s.name == "join" || s.name == "retry-join":
			command.Flags = append(command.Flags, &cli.StringSliceFlag{Name: s.name, Usage: usage})
		default:
			command.Flags = append(command.Flags, &cli.StringFlag{Name: s.name, Usage: usage, DefaultText: s.standard})
		}
	}
	command.Action = func(c *cli.Context) error {
		if err := noArguments(c); err != nil {
			return err
		}
		from := source{flags: givenFlags(c), env: p.env, path: c.String("config")}
		loaded, err := from.load()
		if err != nil {
			return err
		}
		if loaded.check {
			if err = loaded.checkCertificates(); err != nil {
				return err
			}
			_, err := fmt.Fprintln(p.stdout, "configuration is valid")
			return err
		}
		return runAgent(c.Context, from, loaded, p)
	}
	return command
}

// environmentOnly tells of the settings that have no flag.
func environmentOnly() string {
	lines := []string{"By the environment alone:", ""}
	for _, s := range settings() {
		if s.name != "" {
			continue
		}
		line := "  " + s.env + "  " + s.usage
		if s.standard != "" {
			line += " (default: " + s.standard + ")"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// givenFlags returns the flags that stand on the command line.
func givenFlags(c *cli.Context) map[string]string {
	given := make(map[string]string)
	for _, name := range c.LocalFlagNames() {
		switch value := c.Value(name).(type) {
		case cli.StringSlice:
			given[name] = strings.Join(value.Value(), ",")
		default:
			given[name] = fmt.Sprint(value)
		}
	}
	return given
}
