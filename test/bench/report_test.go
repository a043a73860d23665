package bench

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
)

// figure is one line of the report.
type figure struct {
	what     string
	measured string
	wanted   string // empty: nothing was promised
	beside   string // what plain ways to do it reach in the same run; empty: not compared
	met      bool
}

// report is what was measured, in order.
type report struct{ figures []figure }

func (r *report) add(f figure) { r.figures = append(r.figures, f) }

// print writes the report as one table.
func (r *report) print() {
	if len(r.figures) == 0 {
		return
	}
	t := table.NewWriter()
	t.SetOutputMirror(os.Stdout)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"figure", "measured", "wanted", "", "beside"})
	for _, f := range r.figures {
		verdict := ""
		switch {
		case f.wanted == "":
		case f.met:
			verdict = "met"
		default:
			verdict = "MISSED"
		}
		t.AppendRow(table.Row{f.what, f.measured, f.wanted, verdict, f.beside})
	}
	fmt.Println()
	t.Render()
	fmt.Println(strings.TrimSpace(surroundings()))
}

// surroundings says what else the machine did.
func surroundings() string {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	return "load average at the end: " + string(load)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", d.Seconds()*1000) }

// within is a figure that is met by a time of at most so long.
func within(what string, measured, most time.Duration) figure {
	return figure{what: what, measured: ms(measured), wanted: "<= " + ms(most), met: measured <= most}
}

// BenchmarkFigures measures all figures, or those named by -bench
// 'Figures/NAME', once each, whatever -benchtime says.
func BenchmarkFigures(b *testing.B) {
	var r report
	for _, part := range []struct {
		name    string
		measure func(*testing.B, *report)
	}{
		{"placements", placements},
		{"routable", routable},
		{"million", millionStreams},
		{"alone", alone},
		{"failover", failover},
		{"idle", idle},
		{"converge", converge},
		{"udp", udpRelay},
		{"webrtc", webrtcTrip},
	} {
		b.Run(part.name, func(b *testing.B) {
			part.measure(b, &r)
			b.ReportMetric(0, "ns/op") // the table has it
		})
	}
	r.print()
}
