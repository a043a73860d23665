package wire

import "strconv"

// Reason says why a handshake was rejected: below 1000 libsrt's own
// (SRT_REJ_*), from 1000 those of the application, which follow HTTP's status
// codes (SRT_REJX_*, libsrt's access control guidelines).
type Reason uint32

// The reasons that a relay gives.
const (
	Rogue         Reason = 4    // incorrect data in the handshake
	Backlog       Reason = 5    // too many connections wait for an answer
	OldVersion    Reason = 8    // of the handshake
	Timeout       Reason = 16   // no answer from the one behind
	BadRequest    Reason = 1400 // syntax of the stream id
	Overload      Reason = 1402
	NotFound      Reason = 1404
	BadMode       Reason = 1405 // the stream id asks for what there is not
	Unimplemented Reason = 1501
	BadGateway    Reason = 1502
	Down          Reason = 1503
)

// String returns the number and the word.
func (r Reason) String() string { return strconv.FormatUint(uint64(r), 10) + " " + r.Name() }

// Name is libsrt's word for a reason, in lower case; "other" for one that it
// does not know.
func (r Reason) Name() string {
	names := map[Reason]string{
		1: "system", 2: "peer", 3: "resource", 4: "rogue", 5: "backlog", 6: "ipe", 7: "close", 8: "version",
		9: "rdvcookie", 10: "badsecret", 11: "unsecure", 12: "messageapi", 13: "congestion", 14: "filter", 15: "group",
		16: "timeout", 17: "crypto",
		1400: "bad_request", 1401: "unauthorized", 1402: "overload", 1403: "forbidden", 1404: "not_found",
		1405: "bad_mode", 1406: "unacceptable", 1409: "conflict", 1415: "notsup_media", 1423: "locked",
		1424: "failed_depend", 1500: "ise", 1501: "unimplemented", 1502: "gw", 1503: "down", 1505: "version",
		1507: "noroom",
	}
	if name, ok := names[r]; ok {
		return name
	}
	return "other"
}
