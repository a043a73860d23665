// Command srsx is a media proxy in front of SRS and other origins, and the
// client of its API.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

var version = "dev" //nolint:gochecknoglobals // set by the linker

func main() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	os.Exit(run(context.Background(), process{
		args: os.Args, env: os.LookupEnv, stdout: os.Stdout, stderr: os.Stderr, signals: signals,
	}))
}
