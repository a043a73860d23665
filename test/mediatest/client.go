package mediatest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/bluenviron/gortmplib/pkg/amf0"
	"github.com/bluenviron/gortmplib/pkg/handshake"
)

// answerTimeout bounds every wait for an answer of the other side.
const answerTimeout = 15 * time.Second

// Target is where a client goes and what it says of itself.
type Target struct {
	Addr    string // to dial
	From    Dialer // nil: this machine
	TCURL   string // rtmp://host/app; empty: made from Addr and App
	App     string // as in connect; empty: the path of TCURL
	Connect amf0.Object
	Prefix  []byte // sent before C0: an F3 or PROXY protocol header
}

// Dialer is where connections come from.
type Dialer interface {
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client is an encoder or a player after connect.
type Client struct {
	*Conn

	// ConnectInfo is the information object of the connect result.
	ConnectInfo amf0.Object
	stop        func() bool
}

// StatusError is a refusal in the peer's own words.
type StatusError struct {
	Code        string
	Description string
	Info        amf0.Object
}

// Error returns the code and the description.
func (e *StatusError) Error() string { return e.Code + ": " + e.Description }

// statusError reads an information object, nil when it reports success.
func statusError(info amf0.Object) error {
	level, _ := info.GetString("level")
	if level != "error" {
		return nil
	}
	code, _ := info.GetString("code")
	description, _ := info.GetString("description")
	return &StatusError{Code: code, Description: description, Info: info}
}

// Dial connects, shakes hands and waits for the answer to connect. The end of
// ctx closes the connection.
func Dial(ctx context.Context, t Target) (*Client, error) {
	if t.From == nil {
		t.From = &net.Dialer{}
	}
	conn, err := t.From.DialContext(ctx, "tcp", t.Addr)
	if err != nil {
		return nil, err
	}
	c := &Client{stop: context.AfterFunc(ctx, func() { _ = conn.Close() })}
	if err := c.connect(conn, t); err != nil {
		_ = conn.Close()
		c.stop()
		return nil, err
	}
	return c, nil
}

// Close ends the connection.
func (c *Client) Close() {
	c.stop()
	_ = c.Conn.Close()
}

func (t Target) names() (tcURL, app string) {
	tcURL, app = t.TCURL, t.App
	if tcURL == "" {
		tcURL = "rtmp://" + t.Addr + "/" + app
	}
	if app == "" {
		if u, err := url.Parse(tcURL); err == nil {
			app = strings.TrimPrefix(u.RequestURI(), "/")
		}
	}
	return tcURL, app
}

func (c *Client) connect(conn net.Conn, t Target) error {
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	if _, err := conn.Write(t.Prefix); err != nil {
		return fmt.Errorf("send prefix: %w", err)
	}
	if _, _, err := handshake.DoClient(conn, false, false); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	c.Conn = NewConn(conn)
	if err := c.AnnounceChunkSize(); err != nil {
		return err
	}
	tcURL, app := t.names()
	properties := append(amf0.Object{
		{Key: "app", Value: app},
		{Key: "type", Value: "nonprivate"},
		{Key: "flashVer", Value: "FMLE/3.0 (compatible; srsx-test)"},
		{Key: "tcUrl", Value: tcURL},
	}, t.Connect...)
	if err := c.WriteCommand(false, "connect", 1.0, properties); err != nil {
		return err
	}
	answer, err := c.awaitAnswer(1)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	c.ConnectInfo = answer.Object(1)
	if answer.Name == "_error" {
		if err := statusError(c.ConnectInfo); err != nil {
			return err
		}
		return &StatusError{Code: "_error"}
	}
	return conn.SetDeadline(time.Time{})
}

// awaitAnswer reads until the result of a transaction.
func (c *Client) awaitAnswer(transaction float64) (Command, error) {
	return c.await(func(cmd Command) bool {
		return (cmd.Name == "_result" || cmd.Name == "_error") && cmd.Transaction == transaction
	})
}

func (c *Client) await(match func(Command) bool) (Command, error) {
	for {
		m, err := c.ReadMessage()
		if err != nil {
			return Command{}, err
		}
		cmd, err := ParseCommand(m)
		if errors.Is(err, errNotACommand) {
			continue
		}
		if err != nil {
			return Command{}, err
		}
		if match(cmd) {
			return cmd, nil
		}
	}
}

// Publish starts publishing name, with its query if any, and returns the
// other side's status as a [StatusError] if it refuses.
func (c *Client) Publish(name string) error {
	if err := c.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	for i, before := range []string{"releaseStream", "FCPublish"} {
		if err := c.WriteCommand(false, before, float64(2+i), nil, name); err != nil {
			return err
		}
	}
	return c.start("publish", name, "live")
}

// Play starts playing name.
func (c *Client) Play(name string) error {
	if err := c.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	return c.start("play", name)
}

func (c *Client) start(verb, name string, more ...any) error {
	if err := c.WriteCommand(false, "createStream", 4.0, nil); err != nil {
		return err
	}
	answer, err := c.awaitAnswer(4)
	if err != nil {
		return fmt.Errorf("createStream: %w", err)
	}
	if id := answer.Number(1); id > 0 {
		c.Stream = uint32(id)
	}
	if err = c.WriteCommand(true, append([]any{verb, 5.0, nil, name}, more...)...); err != nil {
		return err
	}
	for {
		cmd, err := c.await(func(cmd Command) bool {
			return cmd.Name == "onStatus" || cmd.Name == "_error" && cmd.Transaction == 5
		})
		if err != nil {
			return fmt.Errorf("%s: %w", verb, err)
		}
		info := cmd.Object(1)
		if err := statusError(info); err != nil {
			return err
		}
		if code, _ := info.GetString("code"); strings.HasSuffix(code, ".Start") {
			return c.SetDeadline(time.Time{})
		}
	}
}

// NextTag returns the next media or data message as a tag. A status that ends
// the stream comes back as an error.
func (c *Client) NextTag() (Tag, error) {
	for {
		m, err := c.ReadMessage()
		if err != nil {
			return Tag{}, err
		}
		if t, ok := TagOf(m); ok {
			return t, nil
		}
		cmd, err := ParseCommand(m)
		if err != nil {
			continue
		}
		info := cmd.Object(1)
		if err := statusError(info); err != nil {
			return Tag{}, err
		}
		switch code, _ := info.GetString("code"); code {
		case "NetStream.Play.UnpublishNotify", "NetStream.Play.Stop":
			return Tag{}, io.EOF
		}
	}
}

// NextFrame returns the next frame of a [Pattern].
func (c *Client) NextFrame() (name string, number uint32, err error) {
	for {
		t, err := c.NextTag()
		if err != nil {
			return "", 0, err
		}
		if name, number, ok := PatternFrame(t); ok {
			return name, number, nil
		}
	}
}

// Send publishes the frames of a pattern at their pace until ctx or the
// connection ends, and returns why it ended.
func (c *Client) Send(ctx context.Context, p *Pattern) error {
	ended := make(chan error, 1)
	go func() { // refusals and resets arrive while we write
		for {
			if _, err := c.NextTag(); err != nil {
				ended <- err
				return
			}
		}
	}()
	for _, t := range p.Head() {
		if err := c.WriteTag(t); err != nil {
			c.Close()
			return errors.Join(err, <-ended)
		}
	}
	tick := time.NewTicker(frameGap * time.Millisecond)
	defer tick.Stop()
	for {
		if err := c.WriteTag(p.Next()); err != nil {
			c.Close()
			return errors.Join(err, <-ended)
		}
		select {
		case <-tick.C:
		case err := <-ended:
			return err
		case <-ctx.Done():
			c.Close()
			<-ended //nolint:errcheck // the end that we made
			return context.Cause(ctx)
		}
	}
}
