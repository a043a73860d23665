package rtmp

import (
	"errors"

	"srsx/proxy"
	"srsx/proxy/rtmp/wire"
)

// refusalStatus is the status of a refusal by this peer.
func refusalStatus(s start, reason string) wire.Object {
	code := "NetStream.Play.Failed"
	if s.publish {
		code = "NetStream.Publish.Rejected"
	}
	return wire.Object{Props: []wire.Property{
		{Name: "level", Value: "error"}, {Name: "code", Value: code}, {Name: "description", Value: reason},
	}}
}

// statusOf puts the end of a session, or the failure to start one, into a
// status for the client. It names no address of an origin.
func statusOf(s start, err error) wire.Object {
	var refused refusedError
	switch {
	case errors.As(err, &refused):
		info := refusalStatus(s, refused.info.Text("description"))
		if code := refused.info.Text("code"); code != "" {
			info.Set("code", code)
		}
		return info
	case errors.Is(err, errOriginEnded) && !s.publish:
		return wire.Object{Props: []wire.Property{
			{Name: "level", Value: "status"},
			{Name: "code", Value: "NetStream.Play.UnpublishNotify"},
			{Name: "description", Value: "the stream has ended at its origin"},
		}}
	}
	for _, known := range []error{errRedirect, errRedirects, errSilent, errUnanswered, errNoStream, errIdle, errStreams} {
		if errors.Is(err, known) {
			return refusalStatus(s, known.Error())
		}
	}
	return refusalStatus(s, proxy.RefusalOf(err).Reason)
}
