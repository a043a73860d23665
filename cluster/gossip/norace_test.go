//go:build !race

package gossip_test

const many = 30
