package raftlb_test

import (
	"testing"
	"time"
)

func TestStreamWaitsLittleLongerThanTheElection(t *testing.T) {
	for outage, most := range map[time.Duration]time.Duration{
		time.Millisecond:      5 * time.Millisecond,
		20 * time.Millisecond: 40 * time.Millisecond,
		time.Second:           1070 * time.Millisecond,
	} {
		watched(t, 3, func(w *watch) {
			asking := w.peers[1]
			asking.leave()
			time.AfterFunc(outage, asking.comeBack)
			began := time.Now()
			acquire(w.T, asking, want("new"))
			if took := time.Since(began); took > most {
				w.Errorf("placed after %v, without a leader for %v; want %v at most", took, outage, most)
			}
		})
	}
}
