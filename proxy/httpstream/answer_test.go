package httpstream_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"srsx/test/origintest"
)

func TestOriginsAnswerPassesBack(t *testing.T) {
	p := start(t, origintest.Script{HTTP: func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/live/moved.flv":
			w.Header().Set("Location", "http://"+localAddr(r)+"/live/x.flv")
			w.WriteHeader(http.StatusFound)
		case "/live/denied.m3u8":
			w.WriteHeader(http.StatusForbidden)
		default:
			return false
		}
		return true
	}})
	p.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for path, want := range map[string]int{
		"/live/nothing.flv": 404, "/live/nothing.m3u8": 404, "/live/denied.m3u8": 403, "/live/moved.flv": 302,
	} {
		response, body := p.do(t, http.MethodGet, path)
		if response.StatusCode != want {
			t.Errorf("%s: status %d; want %d", path, response.StatusCode, want)
		}
		if all := body + fmt.Sprint(response.Header); strings.Contains(all, p.origin.HTTP()) {
			t.Errorf("%s tells the origin's address: %s", path, all)
		}
	}
	if total, _ := p.router.Counts(); total != 0 {
		t.Errorf("%d sessions held for what is not there", total)
	}
}

func TestBrowsersMayAskFromAnySite(t *testing.T) {
	p := start(t, origintest.Script{})
	response, _ := p.do(t, http.MethodOptions, "/live/s.m3u8", "Access-Control-Request-Headers", "range")
	if response.StatusCode != http.StatusNoContent || response.Header.Get("Access-Control-Allow-Headers") != "range" {
		t.Errorf("preflight: status %d, %v", response.StatusCode, response.Header)
	}
	response, _ = p.do(t, http.MethodGet, "/")
	if got := response.Header.Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != "*" {
		t.Errorf("Access-Control-Allow-Origin = %q; want one *", got)
	}
}

func TestAddressInAnErrorPageIsNotPassedOn(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Served-By", localAddr(r))
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "nothing at "+localAddr(r))
	}))
	response, body := p.do(t, http.MethodGet, "/live/s.flv")
	if strings.Contains(body+fmt.Sprint(response.Header), p.origin.HTTP()) {
		t.Errorf("the origin's address in %v %s", response.Header, body)
	}
}
