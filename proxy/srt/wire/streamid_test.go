package wire_test

import (
	"errors"
	"strings"
	"testing"

	"srsx/proxy/srt/wire"
)

func TestStreamIDsAsSRSReadsThem(t *testing.T) {
	for text, want := range map[string]wire.StreamID{
		"live/cam":                 {Path: "live/cam"},
		"cam":                      {Path: "cam"},
		"":                         {},
		"live/cam?token=a&k=v":     {Path: "live/cam", Query: "token=a&k=v"},
		"live/cam,m=publish":       {Path: "live/cam,m=publish"}, // not a key outside of #!::
		"#!::r=live/cam":           {Path: "live/cam"},
		"#!::r=live/cam,m=request": {Path: "live/cam"},
		"#!::r=live/cam,m=publish": {Path: "live/cam", Publish: true},
		"#!::m=PUBLISH,r=live/cam": {Path: "live/cam", Publish: true},
		"#!::r=cam,m=publish":      {Path: "cam", Publish: true},
		"#!::h=live/cam,m=publish": {Path: "live/cam", Publish: true},
		"#!::h=cdn.example.com/live/cam,m=publish": {Host: "cdn.example.com", Path: "live/cam", Publish: true},
		"#!::h=cdn.example.com,r=live/cam":         {Host: "cdn.example.com", Path: "live/cam"},
		"#!::h=10.0.0.1,r=a/b/c":                   {Host: "10.0.0.1", Path: "a/b/c"},
		"#!::r=live/cam,h=old/name":                {Path: "live/cam"},
		"#!::r=live/cam,token=t0,m=publish,x=y":    {Path: "live/cam", Query: "token=t0&x=y", Publish: true},
		"#!::r=live/cam?token=t0,m=publish":        {Path: "live/cam", Query: "token=t0", Publish: true},
		"#!::h=live/cam?secret=s,m=publish":        {Path: "live/cam", Query: "secret=s", Publish: true},
		"#!::r=live/cam,vhost=v.example.com":       {Path: "live/cam", Query: "vhost=v.example.com"},
		"#!::r=a/b,r=live/cam":                     {Path: "live/cam"},
		"#!::r=live/cam,u=user,s=1,t=stream":       {Path: "live/cam", Query: "u=user&s=1&t=stream"},
		"#!::r=live/cam,,novalue,":                 {Path: "live/cam", Query: "novalue"},
		"#!::m=publish":                            {Publish: true},
		"#!::":                                     {},
	} {
		if got, err := wire.ParseStreamID(text); err != nil || got != want {
			t.Errorf("ParseStreamID(%q) = %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestStreamIDsOfOtherModesAndFormsAreRefused(t *testing.T) {
	for text, want := range map[string]error{
		"#!::r=live/cam,m=bidirectional": wire.ErrMode,
		"#!::r=live/cam,m=":              wire.ErrMode,
		"#!:{r=live/cam}":                wire.ErrStreamID,
		"#!:live/cam":                    wire.ErrStreamID,
	} {
		if got, err := wire.ParseStreamID(text); !errors.Is(err, want) {
			t.Errorf("ParseStreamID(%q) = %+v, %v; want %v", text, got, err, want)
		}
	}
}

func FuzzStreamID(f *testing.F) {
	for _, text := range []string{
		"live/cam?a=b", "#!::h=host/live/cam,m=publish,k=v", "#!::r=live/cam?token=x,m=request", "#!:{", "#!::m=PuBlIsH;r=x&h=//",
		"#!::h=/,r==,=r,m", "??", "\x00\xff", strings.Repeat("#!::", 100),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := wire.ParseStreamID(text)
		if err != nil {
			if id != (wire.StreamID{}) {
				t.Errorf("%+v with %v", id, err)
			}
			return
		}
		if len(id.Path)+len(id.Host)+len(id.Query) > len(text) {
			t.Errorf("%+v is longer than %q", id, text)
		}
		if strings.Contains(id.Path, "?") {
			t.Errorf("%+v: parameters in the path", id)
		}
	})
}
