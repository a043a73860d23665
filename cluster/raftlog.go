package cluster

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/hashicorp/go-hclog"
)

// raftSink passes what raft logs on to slog. Raft reports each retry as an error
// and warns of its ordinary steps; what an operator has to know, the node itself
// says.
type raftSink struct{ handler slog.Handler }

// NewRaftLogger returns a logger for raft and its parts that writes to log.
func NewRaftLogger(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Output: io.Discard, Level: hclog.Off})
	l.RegisterSink(raftSink{log.Handler()})
	return l
}

// Accept implements hclog.SinkAdapter.
func (s raftSink) Accept(name string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	if level >= hclog.Error {
		to = slog.LevelInfo
	}
	ctx := context.Background()
	if !s.handler.Enabled(ctx, to) {
		return
	}
	r := slog.NewRecord(time.Now(), to, name+": "+msg, 0)
	for i, arg := range args {
		if f, ok := arg.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	r.Add(args...)
	_ = s.handler.Handle(ctx, r) // a log that cannot be written has nowhere to say so
}
