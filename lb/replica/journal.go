package replica

import "srsx/lb"

const (
	journalLength = 8192 // events kept for History
	eventBuffer   = 1024 // events that a subscriber may lag behind
)

// journal keeps the last events and hands new ones to subscribers. Guarded by
// Replica.mu.
type journal struct {
	ring        []lb.Event
	next        int // where the next event goes once the ring is full
	subscribers map[<-chan lb.Event]chan lb.Event
	closed      bool
}

func newJournal() journal {
	return journal{subscribers: make(map[<-chan lb.Event]chan lb.Event)}
}

func (j *journal) add(e lb.Event) {
	if len(j.ring) < journalLength {
		j.ring = append(j.ring, e)
	} else {
		j.ring[j.next] = e
		j.next = (j.next + 1) % journalLength
	}
	for _, events := range j.subscribers {
		select {
		case events <- e:
		default:
			j.unsubscribe(events) // it lost events: it has to read the state anew
		}
	}
}

func (j *journal) of(s lb.Stream) []lb.Event {
	var found []lb.Event
	for i := range j.ring {
		if e := j.ring[(j.next+i)%len(j.ring)]; e.Stream == s {
			found = append(found, e)
		}
	}
	return found
}

func (j *journal) subscribe() <-chan lb.Event {
	events := make(chan lb.Event, eventBuffer)
	if j.closed {
		close(events)
		return events
	}
	j.subscribers[events] = events
	return events
}

func (j *journal) unsubscribe(events <-chan lb.Event) {
	if own, ok := j.subscribers[events]; ok {
		delete(j.subscribers, events)
		close(own)
	}
}

// disconnect ends all subscriptions.
func (j *journal) disconnect() {
	for events := range j.subscribers {
		j.unsubscribe(events)
	}
}

func (j *journal) close() {
	j.closed = true
	j.disconnect()
}
