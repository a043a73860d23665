package main

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"

	"srsx/cluster/gossip"
	"srsx/cluster/keyring"
	clusterport "srsx/cluster/port"
)

// clusterSettings are those by which peers find each other and agree.
func clusterSettings() []setting {
	return []setting{
		seeds("join", "PROXY_JOIN", "gossip addresses of peers, one of which has to answer", func(c *config) *[]string { return &c.join }),
		seeds("retry-join", "PROXY_RETRY_JOIN", "gossip addresses of peers, tried for ever", func(c *config) *[]string { return &c.retryJoin }),
		count("bootstrap-expect", "PROXY_BOOTSTRAP_EXPECT", "0", "found the cluster when so many peers have met; 1: alone", 0, maxExpect,
			func(c *config) *int { return &c.bootstrapExpect }),
		{
			name: "non-voter", env: "PROXY_NON_VOTER", standard: "false", usage: "this peer is a replica and never votes", isBool: true,
			set: boolean(func(c *config) *bool { return &c.nonVoter }),
		},
		text("cluster-name", "PROXY_CLUSTER_NAME", "srsx", "peers of another name are ignored", func(c *config) *string { return &c.clusterName }),
		{
			name: "encrypt", env: "PROXY_ENCRYPT", usage: "cluster key in base64, see srsx keygen (@FILE: its content)", emptyCounts: true,
			set: func(c *config, value string) (err error) {
				if c.encrypt, err = readSecret(value); err == nil && c.encrypt != "" {
					_, err = keyring.Parse(c.encrypt)
				}
				return err
			},
		},
		count("raft-multiplier", "PROXY_RAFT_MULTIPLIER", "1", "stretches the timeouts of elections, for slow or distant hosts", 1, maxMultiplier,
			func(c *config) *int { return &c.raftMultiplier }),
		text("tls-ca", "PROXY_TLS_CA", "", "CA of the cluster port's mutual TLS (PEM), instead of -encrypt", func(c *config) *string { return &c.tlsCA }),
		text("tls-cert", "PROXY_TLS_CERT", "", "certificate of this peer for NODE.CLUSTER.srsx (PEM)", func(c *config) *string { return &c.tlsCert }),
		text("tls-key", "PROXY_TLS_KEY", "", "its key (PEM)", func(c *config) *string { return &c.tlsKey }),
	}
}

const (
	maxExpect     = 7 // more voters make decisions slower and nothing safer
	maxMultiplier = 10
)

// seeds are addresses, separated by commas.
func seeds(name, env, usage string, field func(*config) *[]string) setting {
	return setting{name: name, env: env, usage: usage, emptyCounts: true, set: func(c *config, value string) error {
		*field(c) = nil
		for _, seed := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' }) {
			if err := gossip.CheckSeed(seed); err != nil {
				return err
			}
			*field(c) = append(*field(c), seed)
		}
		return nil
	}}
}

func count(name, env, standard, usage string, least, most int, field func(*config) *int) setting {
	return setting{name: name, env: env, standard: standard, usage: usage, set: func(c *config, value string) error {
		n, err := strconv.Atoi(value)
		if err != nil || n < least || n > most {
			return fmt.Errorf("%q is not a number from %d to %d", value, least, most)
		}
		*field(c) = n
		return nil
	}}
}

// clustered reports whether this peer is one of a cluster.
func (c *config) clustered() bool {
	return c.lb == "raft" || len(c.join)+len(c.retryJoin) > 0 || c.bootstrapExpect > 0
}

// validateCluster checks what one setting of a cluster alone cannot know.
func (c *config) validateCluster() error {
	if given := len(strings.Fields(c.tlsCA + " " + c.tlsCert + " " + c.tlsKey)); given != 0 && given != 3 {
		return errors.New("tls-ca, tls-cert and tls-key go together")
	}
	if c.clustered() && (c.cluster == "" || c.gossip == "") {
		return errors.New("a peer of a cluster needs the listeners -cluster and -gossip")
	}
	if c.clusterName == "" {
		return errors.New("cluster-name is empty")
	}
	return nil
}

// checkCertificates reads the files of mutual TLS and judges this peer's own
// certificate as others would.
func (c *config) checkCertificates() error {
	if !c.clustered() || c.tlsCert == "" {
		return nil
	}
	certificates, err := clusterport.LoadCertificates(c.clusterCertificates(), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	name, _, err := nodeName(filepath.Join(c.dataDir, nodeNameFile), c.node)
	if err != nil {
		return err
	}
	return certificates.Check(name, c.clusterName)
}
