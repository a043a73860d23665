package port

import (
	"fmt"
	"log/slog"
	"testing"
	"time"
)

func TestReportsComeOnceAMinuteAndAreBounded(t *testing.T) {
	r := newReports(slog.New(slog.DiscardHandler))
	now := time.Now()
	for name, test := range map[string]struct {
		after time.Duration
		want  bool
	}{"at once": {0, false}, "too soon": {59 * time.Second, false}} {
		r.due("a", now)
		if got := r.due("a", now.Add(test.after)); got != test.want {
			t.Errorf("due %s = %v; want %v", name, got, test.want)
		}
	}
	if !r.due("b", now) || !r.due("a", now.Add(time.Minute)) {
		t.Error("not due: want another reason at once, and the same after a minute")
	}
	logged := 0
	for i := range 1000 {
		if r.due(fmt.Sprint("stranger ", i), now.Add(time.Hour)) {
			logged++
		}
	}
	if logged != maxReports || len(r.said) != maxReports {
		t.Errorf("%d strangers logged, %d kept; want %d", logged, len(r.said), maxReports)
	}
}
