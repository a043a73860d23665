package founding

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// maxPeers bounds the sets that are taken in from others.
const maxPeers = 64

// Proposal is one attempt to found a cluster by exactly these peers. Founder and
// Seq identify it: a founder never uses a number twice.
type Proposal struct {
	Founder string   `json:"founder"`
	Seq     uint64   `json:"seq"`
	Peers   []string `json:"peers"` // ascending; the founder is the first
}

// Cluster returns the UUID of the cluster that this proposal founds, the same
// wherever it is computed.
func (p Proposal) Cluster() string {
	name := p.Founder + "/" + strconv.FormatUint(p.Seq, 10) + "/" + strings.Join(p.Peers, ",")
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte("srsx:cluster:"+name)).String()
}

func (p Proposal) is(q *Proposal) bool {
	return q != nil && p.Founder == q.Founder && p.Seq == q.Seq
}

func (p Proposal) names(id string) bool { return slices.Contains(p.Peers, id) }

func (p Proposal) check() error {
	switch {
	case p.Seq == 0:
		return errors.New("proposal has no number")
	case len(p.Peers) == 0 || len(p.Peers) > maxPeers:
		return fmt.Errorf("proposal names %d peers; 1 to %d may found a cluster", len(p.Peers), maxPeers)
	case p.Founder != p.Peers[0] || p.Founder == "":
		return errors.New("founder of a proposal is not the first of its peers")
	}
	for i := 1; i < len(p.Peers); i++ {
		if p.Peers[i-1] >= p.Peers[i] {
			return errors.New("peers of a proposal are not in ascending order")
		}
	}
	return nil
}

// Kind says what a message says.
type Kind string

// Kinds of a [Message].
const (
	Ask   Kind = "ask"   // by the founder: hold this proposal, and no other
	Check Kind = "check" // by who holds it: do you hold it? if not, you never will
	Held  Kind = "held"  // I hold it
	Never Kind = "never" // I do not hold it and never will
)

// Message is one word between two peers about one proposal.
type Message struct {
	Kind     Kind     `json:"kind"`
	Proposal Proposal `json:"proposal"`
	Reason   string   `json:"reason,omitempty"` // of a Never, for people
}

func (m Message) encode() []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and numbers
	}
	return b
}

// maxReason bounds what of another peer's words is shown here, in bytes.
const maxReason = 200

func decodeMessage(b []byte) (Message, error) {
	var m Message
	if err := json.Unmarshal(b, &m); err != nil {
		return Message{}, fmt.Errorf("message about founding: %w", err)
	}
	if !slices.Contains([]Kind{Ask, Check, Held, Never}, m.Kind) {
		return Message{}, fmt.Errorf("message about founding of kind %q", m.Kind)
	}
	if len(m.Reason) > maxReason {
		m.Reason = m.Reason[:maxReason]
	}
	m.Reason = strings.ToValidUTF8(m.Reason, "")
	return m, m.Proposal.check()
}
