package proxy

import (
	"strconv"
	"testing"
	"time"

	"srsx/lb"
)

// origins are some that count how often they are listed.
type origins struct {
	list   []lb.OriginStatus
	listed int
}

func (o *origins) Origin(id lb.OriginID) (lb.OriginStatus, bool) {
	for _, one := range o.list {
		if one.ID == id {
			return one, true
		}
	}
	return lb.OriginStatus{}, false
}

func (o *origins) Origins() []lb.OriginStatus {
	o.listed++
	return o.list
}

func TestOriginsAreFoundByFingerprintAndForgottenWhenGone(t *testing.T) {
	var p Prints
	finder := &origins{list: make([]lb.OriginStatus, 1)}
	now := time.Now()
	incarnation := func(n int) lb.Incarnation { return lb.Incarnation{Server: "o", PID: strconv.Itoa(n)} }
	for n := range 1000 { // as many restarts of the one origin
		finder.list[0].Origin = lb.Origin{ID: "o", Incarnation: incarnation(n)}
		now = now.Add(time.Minute)
		if o, ok := p.Find(FingerprintOf("o", incarnation(n)), finder, now); !ok || o.Incarnation != incarnation(n) {
			t.Fatalf("find = %+v, %v; want incarnation %d", o, ok, n)
		}
		if o, ok := p.Find(FingerprintOf("o", incarnation(n-1)), finder, now.Add(time.Second)); ok {
			t.Fatalf("find of the former incarnation = %+v; want none", o)
		}
	}
	if len(p.ids) != 1 {
		t.Errorf("%d fingerprints are kept; want the one of the present incarnation", len(p.ids))
	}
	finder.listed = 0
	for range 1000 {
		_, _ = p.Find(Fingerprint{1}, finder, now.Add(time.Minute))
	}
	if finder.listed != 1 {
		t.Errorf("1000 unknown fingerprints list the origins %d times; want 1", finder.listed)
	}
}
