package main

import (
	"embed"
	"fmt"

	"github.com/urfave/cli/v2"
)

//go:embed completion
var completions embed.FS

func completionCommand(p process) *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print a completion script for bash, zsh or fish", ArgsUsage: "SHELL",
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usageError{"completion takes one shell: bash, zsh or fish"}
			}
			script, err := completions.ReadFile("completion/srsx." + c.Args().First())
			if err != nil {
				return usageError{fmt.Sprintf("no completion for %q; bash, zsh and fish have one", c.Args().First())}
			}
			_, err = p.stdout.Write(script)
			return err
		},
	}
}
