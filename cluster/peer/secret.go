package peer

import (
	"crypto/hkdf"
	"crypto/sha256"

	"srsx/fsm"
)

// Secret returns 32 bytes that all peers of the cluster make of its secret for
// one purpose, and nobody else knows; ok is false until this peer belongs to
// one.
func (p *Peer) Secret(purpose string) (secret [32]byte, ok bool) {
	var c fsm.Cluster
	p.View(func(s *fsm.State) { c, ok = s.Cluster() })
	if !ok {
		return secret, false
	}
	b, err := hkdf.Key(sha256.New, c.Secret[:], nil, "srsx "+purpose, len(secret))
	if err != nil {
		return secret, false // lengths are constants that fit
	}
	return [32]byte(b), true
}
