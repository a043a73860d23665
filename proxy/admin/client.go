package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"srsx/lb"
)

// Client calls the system API of a running peer.
type Client struct {
	base  string
	token string
	http  http.Client
}

// NewClient returns a client for the API at base, such as
// http://127.0.0.1:12025. The token may be empty.
func NewClient(base, token string) *Client {
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	// A command makes one call or few: it keeps no connection to the peer, and
	// no proxy stands between the two.
	return &Client{base: strings.TrimRight(base, "/"), token: token, http: http.Client{
		Transport: &http.Transport{DisableKeepAlives: true},
	}}
}

// CallError is a refusal of the API in its own words.
type CallError struct {
	Status int
	Text   string
}

// Error returns the API's text.
func (e *CallError) Error() string { return e.Text }

const (
	callTimeout = 30 * time.Second
	maxAnswer   = 1 << 30 // bytes: a million placements have some 200 MB
)

// Call sends one request, with body as JSON unless it is nil or an io.Reader,
// which is sent as it is, and returns the answer's own bytes. A refusal is a [CallError].
func (c *Client) Call(ctx context.Context, method, path string, body any) ([]byte, error) {
	timeout := callTimeout
	if _, file := body.(io.Reader); file {
		timeout = snapshotTime
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	response, err := c.send(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read answer of %s: %w", c.base, err)
	}
	if response.StatusCode >= http.StatusBadRequest {
		return nil, callError(response.StatusCode, answer)
	}
	return answer, nil
}

func callError(status int, answer []byte) error {
	var said struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(answer, &said) != nil || said.Error == "" {
		said.Error = fmt.Sprintf("peer answered %d %s", status, http.StatusText(status))
	}
	return &CallError{Status: status, Text: said.Error}
}

func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	reader, kind := io.Reader(http.NoBody), ""
	if content, ok := body.(io.Reader); ok {
		reader, kind = content, snapshotType
	} else if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		reader, kind = bytes.NewReader(text), "application/json"
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, reader)
	if err != nil {
		return nil, fmt.Errorf("address of the peer: %w", err)
	}
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		if urlErr, ok := errors.AsType[*url.Error](err); ok {
			err = urlErr.Err // without the path: the base says enough
		}
		return nil, fmt.Errorf("no peer at %s: %w", c.base, err)
	}
	return response, nil
}

// Save copies what a GET of path answers, of any length, to w.
func (c *Client) Save(ctx context.Context, path string, w io.Writer) error {
	response, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= http.StatusBadRequest {
		answer, _ := io.ReadAll(io.LimitReader(response.Body, maxBody))
		return callError(response.StatusCode, answer)
	}
	if _, err := io.Copy(w, response.Body); err != nil {
		return fmt.Errorf("read answer of %s: %w", c.base, err)
	}
	return nil
}

// Events calls each for every event, as the JSON object it came as, until ctx
// ends or the peer closes the stream.
func (c *Client) Events(ctx context.Context, each func(event []byte) error) error {
	response, err := c.send(ctx, http.MethodGet, "/api/v1/events", nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		answer, _ := io.ReadAll(io.LimitReader(response.Body, maxBody))
		return callError(response.StatusCode, answer)
	}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if event, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: ")); ok {
			if err := each(event); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return nil // the caller ended it
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("events of %s: %w", c.base, err)
	}
	return io.ErrUnexpectedEOF
}

// PlacementPath returns the path of a stream's placement.
func PlacementPath(s lb.Stream) string {
	return "/api/v1/placements/" + url.PathEscape(s.VHost) + "/" + url.PathEscape(s.App) + "/" + url.PathEscape(s.Name)
}

// OriginPath returns the path of an origin.
func OriginPath(id string) string { return "/api/v1/origins/" + url.PathEscape(id) }
