package gossip

import (
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Strangers can make memberlist log at their pace. So many lines a window, of
// all kinds together, tell as much as all of them.
const (
	logWindow = 10 * time.Second
	logLines  = 20
)

// libraryLog returns a logger for memberlist. Its lines say their level in
// brackets; what it calls an error is the fault of another host, or of the
// network, and is a warning here.
func libraryLog(to *slog.Logger) *log.Logger {
	return slog.NewLogLogger(&libraryHandler{to: to.Handler(), window: new(window)}, slog.LevelDebug)
}

// libraryHandler turns the lines of the library into records with a level, and
// drops what is too much.
type libraryHandler struct {
	to     slog.Handler
	window *window
}

// Enabled lets everything pass to Handle, which knows the level.
func (h *libraryHandler) Enabled(context.Context, slog.Level) bool { return true }

// Handle reads the level from the line and passes it on.
func (h *libraryHandler) Handle(ctx context.Context, r slog.Record) error {
	level, text := splitLevel(r.Message)
	if !h.to.Enabled(ctx, level) {
		return nil
	}
	dropped, ok := h.window.admit(r.Time)
	if !ok {
		return nil
	}
	out := slog.NewRecord(r.Time, level, "memberlist", r.PC)
	out.AddAttrs(slog.String("text", text))
	if dropped > 0 {
		out.AddAttrs(slog.Int("lines_dropped", dropped))
	}
	return h.to.Handle(ctx, out)
}

// WithAttrs is never called by a [log.Logger].
func (h *libraryHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &libraryHandler{to: h.to.WithAttrs(attrs), window: h.window}
}

// WithGroup is never called by a [log.Logger].
func (h *libraryHandler) WithGroup(name string) slog.Handler {
	return &libraryHandler{to: h.to.WithGroup(name), window: h.window}
}

func splitLevel(line string) (slog.Level, string) {
	tag, text, tagged := strings.Cut(line, "] ")
	if !tagged {
		return slog.LevelWarn, line
	}
	text = strings.TrimPrefix(text, "memberlist: ")
	switch tag {
	case "[DEBUG", "[INFO": // what an operator should know of these is logged as an event
		return slog.LevelDebug, text
	case "[WARN", "[ERR", "[ERROR":
		return slog.LevelWarn, text
	default:
		return slog.LevelWarn, line
	}
}

// window lets so many lines through in each span of time.
type window struct {
	mu      sync.Mutex
	start   time.Time // guarded by mu, as all below
	lines   int
	dropped int
}

// admit reports whether a line may pass, and with the first of a span how many
// did not in the last.
func (w *window) admit(now time.Time) (dropped int, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.start) >= logWindow {
		dropped, w.dropped = w.dropped, 0
		w.start, w.lines = now, 0
	}
	if w.lines == logLines {
		w.dropped++
		return 0, false
	}
	w.lines++
	return dropped, true
}
