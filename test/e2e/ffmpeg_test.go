package e2e

import (
	"bytes"
	"context"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"srsx/test/peertest"
)

// videoRate is the frames a second that the encoders send.
const videoRate = 25

// encode publishes a test picture and a tone by ffmpeg until the test ends.
func encode(t *testing.T, url string) *peertest.Process {
	t.Helper()
	return peertest.Run(t, peertest.Command{Path: part(t, "ffmpeg"), Args: []string{
		"-hide_banner", "-loglevel", "warning", "-re",
		"-f", "lavfi", "-i", "testsrc2=s=320x240:r=" + strconv.Itoa(videoRate), "-f", "lavfi", "-i", "sine=440:r=44100",
		"-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p", "-g", "25", "-threads", "1",
		"-c:a", "aac", "-b:a", "64k", "-f", "flv", url,
	}})
}

// frame is one decoded picture or block of sound.
type frame struct {
	stream string
	pts    float64 // seconds
}

// decode plays a URL by ffmpeg for some seconds and returns what it decoded.
func decode(t *testing.T, url string, seconds int) (frames []frame, messages string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, part(t, "ffmpeg"),
		append([]string{"-hide_banner", "-loglevel", "error", "-i", url}, decoded(seconds)...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("ffmpeg -i %s: %v\n%s", url, err, errs.String())
	}
	return framesOf(t, out.String()), errs.String()
}

// decoded are the options by which ffmpeg tells of each frame of its input.
func decoded(seconds int) []string {
	return []string{
		"-t", strconv.Itoa(seconds), "-map", "0:v:0", "-map", "0:a:0", "-fps_mode", "passthrough", "-copyts", "-start_at_zero",
		"-enc_time_base:v", "1:1000", "-f", "framecrc", "-",
	}
}

// framesOf reads what ffmpeg tells.
func framesOf(t *testing.T, framecrc string) (frames []frame) {
	t.Helper()
	base := make(map[string]float64)
	for line := range strings.Lines(framecrc) {
		if tb, ok := strings.CutPrefix(line, "#tb "); ok {
			stream, fraction, _ := strings.Cut(strings.TrimSpace(tb), ": ")
			num, den, _ := strings.Cut(fraction, "/")
			base[stream] = number(t, num) / number(t, den)
		}
		fields := strings.Split(strings.TrimSpace(line), ",")
		if strings.HasPrefix(line, "#") || len(fields) < 6 {
			continue
		}
		stream := fields[0]
		frames = append(frames, frame{stream: stream, pts: number(t, fields[2]) * base[stream]})
	}
	return frames
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil {
		t.Fatalf("number in framecrc: %v", err)
	}
	return v
}

// requireContinuous checks that picture and sound were decoded without a gap,
// with timestamps that never go back, for all the time but the group of
// pictures in whose middle an origin without a cache starts.
func requireContinuous(t *testing.T, frames []frame, seconds int) {
	t.Helper()
	first, last, count := make(map[string]float64), make(map[string]float64), make(map[string]int)
	for _, f := range frames {
		if before, ok := last[f.stream]; !ok {
			first[f.stream] = f.pts
		} else if f.pts <= before || f.pts > before+0.1 {
			t.Errorf("stream %s: %.3f follows %.3f", f.stream, f.pts, before)
		}
		last[f.stream] = f.pts
		count[f.stream]++
	}
	const group = 1.2 // seconds, with a margin
	for stream, rate := range map[string]float64{"0": videoRate, "1": 44100.0 / 1024} {
		span := last[stream] - first[stream]
		if span < float64(seconds)-group {
			t.Errorf("stream %s: decoded %.2f s; want %d", stream, span, seconds)
		}
		if want := int(span*rate) - 2; count[stream] < want {
			t.Errorf("stream %s: decoded %d frames in %.2f s; want %d", stream, count[stream], span, want)
		}
	}
}
