package e2e

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"srsx/test/peertest"
)

// browser starts Chromium without a window and without a sandbox, which
// containers do not allow.
func browser(t *testing.T, more ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(part(t, "chromium")), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("autoplay-policy", "no-user-gesture-required"),
		chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(960, 720),
	)
	ctx, stop := chromedp.NewExecAllocator(t.Context(), append(options, more...)...)
	t.Cleanup(stop)
	ctx, stop = context.WithTimeout(ctx, 90*time.Second)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	return ctx
}

// playerState is what the player page tells its tests.
type playerState struct {
	Frames float64 `json:"frames"`
	Time   float64 `json:"time"`
	Error  string  `json:"error"`
}

func TestDemoClipPlaysInTheBrowser(t *testing.T) {
	peer := peertest.Start(t, peertest.Options{Flags: []string{"-dev"}})
	for _, via := range []string{"flv", "hls"} {
		t.Run(via, func(t *testing.T) {
			ctx := browser(t)
			if err := chromedp.Do(ctx, chromedp.Navigate("http://"+peer.HTTP+"/?stream=live/demo&via="+via)); err != nil {
				t.Fatalf("open the page: %v", err)
			}
			var state playerState
			peertest.Eventually(t, 45*time.Second, "three seconds of pictures", func() bool {
				var err error
				state, err = chromedp.Run(ctx, chromedp.Evaluate[playerState](
					`({frames: window.srsx.decodedFrames, time: window.srsx.currentTime, error: window.srsx.error})`))
				if err != nil {
					t.Fatalf("ask the page: %v", err)
				}
				if state.Error != "" {
					t.Fatalf("the player says %q", state.Error)
				}
				return state.Frames >= 50 && state.Time >= 3
			})
			screenshot(t, ctx, "demo-"+via+".png")
		})
	}
}

// screenshot keeps what the page looks like.
func screenshot(t *testing.T, ctx context.Context, name string) { //nolint:revive // a test comes first
	t.Helper()
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatalf("screenshot: %v", err)
	}
	if err := os.WriteFile(artifact(t, name), picture, 0o600); err != nil {
		t.Fatal(err)
	}
}
