//go:build race

package gossip_test

// many is fewer under the race detector: thirty peers in one process starve each
// other there, and a peer that is starved is rightly missed.
const many = 10
