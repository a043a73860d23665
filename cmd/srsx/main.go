// Command srsx is a media proxy in front of SRS and other origins, and the
// client of its API.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker (-X main.version=v1.2.3).
var version string

func main() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	os.Exit(run(context.Background(), process{
		args: os.Args, env: os.LookupEnv, stdout: os.Stdout, stderr: os.Stderr, signals: signals,
	}))
}
