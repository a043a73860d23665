package proxy

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"srsx/lb"
)

// Fingerprint names an incarnation of an origin in a routing hint: short, and
// nothing to a stranger. See [Prints].
type Fingerprint [8]byte

// ShortPrint is the start of a [Fingerprint], for hints that have little room.
type ShortPrint [5]byte

// FingerprintOf returns the fingerprint of an origin's incarnation.
func FingerprintOf(id lb.OriginID, inc lb.Incarnation) Fingerprint {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q", id, inc.Server, inc.Service, inc.PID))
	return Fingerprint(sum[:8])
}

// Short returns the start of f.
func (f Fingerprint) Short() ShortPrint { return ShortPrint(f[:]) }

// Origins is what [Prints] looks for origins in.
type Origins interface {
	Origin(id lb.OriginID) (lb.OriginStatus, bool)
	Origins() []lb.OriginStatus
}

// Prints finds the registered origins by their fingerprints. It forgets those
// that are gone each time it lists them anew. The zero value is ready, and safe
// for concurrent use.
type Prints struct {
	mu     sync.Mutex
	ids    map[ShortPrint]lb.OriginID // guarded by mu
	listed time.Time                  // guarded by mu
}

// Find returns the origin of a fingerprint.
func (p *Prints) Find(f Fingerprint, from Origins, now time.Time) (lb.Origin, bool) {
	o, found := p.FindShort(f.Short(), from, now)
	return o, found && FingerprintOf(o.ID, o.Incarnation) == f
}

// FindShort returns the origin whose fingerprint starts so. When it does not
// know one it lists the origins, but not again within a pace: hints of origins
// that are gone stay in use for hours.
func (p *Prints) FindShort(f ShortPrint, from Origins, now time.Time) (lb.Origin, bool) {
	const pace = 200 * time.Millisecond
	p.mu.Lock()
	id, known := p.ids[f]
	if !known && now.Sub(p.listed) >= pace {
		p.listed = now
		p.ids = make(map[ShortPrint]lb.OriginID)
		for _, o := range from.Origins() {
			p.ids[FingerprintOf(o.ID, o.Incarnation).Short()] = o.ID
		}
		id, known = p.ids[f]
	}
	p.mu.Unlock()
	if !known {
		return lb.Origin{}, false
	}
	o, known := from.Origin(id)
	return o.Origin, known && FingerprintOf(o.ID, o.Incarnation).Short() == f
}
