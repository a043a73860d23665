package rtmp

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"srsx/proxy/rtmp/wire"
)

var errRestless = errors.New("too many starts of other streams")

// maxOthers bounds the starts of other streams that one session refuses.
const maxOthers = 16

// fromClient looks at a message on its way to the origin.
func (r *relay) fromClient(m *wire.Message) (pass bool, err error) {
	pass = true
	switch m.Type {
	case wire.TypeAudio, wire.TypeVideo, wire.TypeAggregate, wire.TypeData, wire.TypeDataAMF3:
		r.session.Count(int64(len(m.Body)), 0)
	case wire.TypeUserControl:
		translateEvent(m, r.streams.atOrigin)
	case wire.TypeCommand, wire.TypeCommandAMF3:
		pass, err = r.commandOfClient(m)
	}
	m.StreamID = r.streams.atOrigin(m.StreamID)
	return pass, err
}

func (r *relay) commandOfClient(m *wire.Message) (pass bool, err error) {
	name := wire.CommandName(m)
	if !isStart(name) && name != "createStream" && name != "deleteStream" {
		return true, nil
	}
	command, err := wire.ParseCommand(m)
	if err != nil {
		return false, err
	}
	switch name {
	case "createStream":
		return true, r.streams.create(command.Transaction)
	case "deleteStream":
		r.deleteStream(m, command)
		return true, nil
	default:
		if r.continues(command) {
			return true, nil
		}
		return false, r.refuseOther(command)
	}
}

// deleteStream puts the origin's id of the stream into the command.
func (r *relay) deleteStream(m *wire.Message, command wire.Command) {
	id := uint32(command.Number(0))
	if origin := r.streams.atOrigin(id); origin != id {
		command.Args[0] = float64(origin)
		m.Body = command.Message(m.CSID).Body
	}
	r.streams.remove(id)
}

// continues reports whether a command starts the session's stream again.
func (r *relay) continues(command wire.Command) bool {
	if (command.Name == "publish") != r.start.publish {
		return false
	}
	target, err := r.client.identify(command)
	return err == nil && target.Stream == r.start.target.Stream
}

// refuseOther refuses the start of anything but the session's stream: nobody
// has placed it or admitted the client to it.
func (r *relay) refuseOther(command wire.Command) error {
	if r.others++; r.others > maxOthers {
		return errRestless
	}
	other := start{said: said{command: command}, publish: command.Name == "publish"}
	const reason = "a connection publishes or plays one stream: use another for this one"
	status := wire.Command{
		Name: "onStatus", StreamID: command.StreamID, AMF3: command.AMF3, Args: []any{refusalStatus(other, reason)},
	}
	return r.client.conn.Reply(status.Message(wire.CSIDStatus))
}

// fromOrigin looks at a message on its way to the client.
func (r *relay) fromOrigin(m *wire.Message) (pass bool, err error) {
	pass = true
	switch m.Type {
	case wire.TypeAudio, wire.TypeVideo, wire.TypeAggregate, wire.TypeData, wire.TypeDataAMF3:
		r.session.Count(0, int64(len(m.Body)))
		err = r.hear()
	case wire.TypeUserControl:
		translateEvent(m, r.streams.atClient)
	case wire.TypeCommand, wire.TypeCommandAMF3:
		pass, err = r.commandOfOrigin(m)
	}
	m.StreamID = r.streams.atClient(m.StreamID)
	return pass, err
}

// hear notes that the origin has answered: from now on it may be silent.
func (r *relay) hear() error {
	if r.heard {
		return nil
	}
	r.heard = true
	return r.up.conn.SetReadDeadline(time.Time{})
}

// commandOfOrigin looks at answers and statuses. One that cannot be read passes
// too: the client may understand more.
func (r *relay) commandOfOrigin(m *wire.Message) (pass bool, err error) {
	name := wire.CommandName(m)
	if !isAnswer(name) && name != "onStatus" {
		return true, nil
	}
	command, err := wire.ParseCommand(m)
	if err != nil {
		return true, nil //nolint:nilerr // see above
	}
	if name == "onStatus" {
		r.status(command.Info(0))
		return true, r.hear()
	}
	if r.up.forget(command.Transaction) {
		return false, nil // the client has its answer from this peer
	}
	if id, ok := streamOf(command); !ok {
		r.streams.failed(command.Transaction)
	} else if client, ok := r.streams.created(command.Transaction, id); ok && client != id {
		command.Args[0] = float64(client)
		m.Body = command.Message(m.CSID).Body
	}
	return true, r.hear()
}

// status notes what the origin says of the stream.
func (r *relay) status(info wire.Object) {
	code := info.Text("code")
	switch {
	case info.Text("level") == "error" && !r.heard:
		r.refusal = strings.TrimSpace(fmt.Sprintf("%s %s", code, info.Text("description")))
	case code == "NetStream.Play.UnpublishNotify" || code == "NetStream.Play.Stop" || code == "NetStream.Unpublish.Success":
		r.over = true
	case strings.HasSuffix(code, ".Start"):
		r.over = false
	}
}
