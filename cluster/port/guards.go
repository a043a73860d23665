package port

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"time"

	"srsx/cluster/keyring"
)

// keyLabel derives from a cluster key the secret of the proofs.
const keyLabel = "srsx cluster port"

// guards is what protects the connections of a port: keys, certificates, both
// or neither.
type guards struct {
	keys  *keyring.Ring   // nil for none
	certs *Certificates   // nil for none
	plain tls.Certificate // for TLS when the key alone authenticates
}

func newGuards(keys *keyring.Ring, certs *Certificates) (guards, error) {
	if keys != nil && keys.Empty() {
		keys = nil
	}
	plain, err := throwawayCertificate()
	if err != nil {
		return guards{}, fmt.Errorf("certificate of the cluster port: %w", err)
	}
	return guards{keys: keys, certs: certs, plain: plain}, nil
}

// throwawayCertificate is what TLS needs to be spoken at all. Nobody looks at
// it: the proofs are bound to the channel instead.
func throwawayCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(100, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// now returns the guard of a new connection, and the keys for its proofs: at
// least one, which is empty if and only if the guard needs none.
func (g guards) now() (guard, []keyring.Derived) {
	var kind guard
	if g.certs != nil {
		kind |= guardCert
	}
	if g.keys == nil {
		return kind, []keyring.Derived{{}}
	}
	return kind | guardKey, g.keys.Derive(keyLabel)
}

// knows reports whether the key of a connection is still one of ours.
func (g guards) knows(key keyring.Fingerprint) bool { return g.keys == nil || g.keys.Has(key) }

func (g guards) certificate() tls.Certificate {
	if g.certs != nil {
		return g.certs.current().own
	}
	return g.plain
}

func (g guards) serverTLS() *tls.Config {
	config := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{g.certificate()},
		SessionTicketsDisabled: true, // connections live long, and resumption would be another way in
	}
	if g.certs != nil {
		config.ClientAuth = tls.RequireAnyClientCert
	}
	return config
}

// clientTLS, like serverTLS, leaves the judgement of certificates to
// checkCertificate: that comes once the peer has said its name, and can tell
// the peer in words why it is refused.
func (g guards) clientTLS() *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}
	if g.certs != nil {
		own := g.certificate()
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
	}
	return config
}

// checkCertificate verifies what the peer showed in TLS against our CA and the
// name it has given itself.
func (h *handshake) checkCertificate() error {
	if h.prelude.guard&guardCert == 0 {
		return nil
	}
	usage := x509.ExtKeyUsageServerAuth
	if h.role == roleAcceptor {
		usage = x509.ExtKeyUsageClientAuth
	}
	if err := h.guards.certs.verify(h.tls.PeerCertificates, usage, h.peer.nodeName, h.peer.clusterName); err != nil {
		return refuse(ErrUntrusted, "node %q does not accept the certificate of node %q: %v", h.self.nodeName, h.peer.nodeName, err)
	}
	return nil
}
