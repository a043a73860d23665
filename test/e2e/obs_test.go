package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"srsx/test/peertest"
)

// obsGlobal keeps OBS from asking a newcomer's questions, obsProfile makes it
// send small pictures with a keyframe each second.
const (
	obsGlobal = `[General]
FirstRun=true
EnableAutoUpdates=false
InfoIncrement=99
[Basic]
Profile=srsx
ProfileDir=srsx
SceneCollection=srsx
SceneCollectionFile=srsx
`
	obsProfile = `[General]
Name=srsx
[Video]
BaseCX=320
BaseCY=240
OutputCX=320
OutputCY=240
FPSType=1
FPSInt=25
[Output]
Mode=Simple
[SimpleOutput]
VBitrate=500
ABitrate=96
StreamEncoder=x264
Preset=ultrafast
UseAdvanced=true
x264Settings=keyint=25
[Audio]
SampleRate=44100
`
)

// display starts an X server without a screen and returns its name.
func display(t *testing.T) string {
	t.Helper()
	x := peertest.Run(t, peertest.Command{Path: part(t, "Xvfb"), Args: []string{
		"-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp",
	}})
	number := regexp.MustCompile(`(?m)^\d+$`)
	var name string
	peertest.Eventually(t, 20*time.Second, "X server", func() bool {
		name = number.FindString(x.Output())
		return name != ""
	})
	return ":" + name
}

// obs publishes an empty scene and silence by OBS Studio until the test ends.
func obs(t *testing.T, server, key string) *peertest.Process {
	t.Helper()
	service, err := json.Marshal(map[string]any{
		"type": "rtmp_custom", "settings": map[string]any{"server": server, "key": key, "use_auth": false},
	})
	if err != nil {
		t.Fatal(err)
	}
	scenes := `{"name":"srsx","current_scene":"Scene","current_program_scene":"Scene","scene_order":[{"name":"Scene"}],` +
		`"sources":[{"id":"scene","name":"Scene","settings":{"items":[]}}]}`
	home := t.TempDir()
	for name, content := range map[string]string{
		"global.ini":                       obsGlobal,
		"basic/profiles/srsx/basic.ini":    obsProfile,
		"basic/profiles/srsx/service.json": string(service),
		"basic/scenes/srsx.json":           scenes,
	} {
		file := filepath.Join(home, "obs-studio", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return peertest.Run(t, peertest.Command{
		Path: part(t, "obs"), Dir: home,
		Args: []string{
			"--startstreaming", "--minimize-to-tray", "--multi", "--disable-updater", "--disable-shutdown-check",
			"--profile", "srsx", "--collection", "srsx",
		},
		Env: []string{
			"HOME=" + home, "XDG_CONFIG_HOME=" + home, "XDG_RUNTIME_DIR=" + home, "DISPLAY=" + display(t),
			"QT_QPA_PLATFORM=xcb", "LIBGL_ALWAYS_SOFTWARE=1",
			// Its plugins ask the web for news; nobody answers on this port.
			"https_proxy=http://127.0.0.1:9", "http_proxy=http://127.0.0.1:9",
		},
	})
}

func TestOBSPublishes(t *testing.T) {
	peer := startPeer(t, startLAL(t, "lal1"), startNginx(t, "nginx1"))
	obs(t, "rtmp://"+peer.RTMP+"/lal", "obs?token=t0psecret")
	peertest.Eventually(t, 60*time.Second, "publisher", publishing(t, peer, "lal/obs"))
	frames, _ := decode(t, "rtmp://"+peer.RTMP+"/lal/obs", 3)
	requireContinuous(t, frames, 3)
}
