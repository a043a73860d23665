package port

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"srsx/cluster/pki"
)

// certificateDomain ends the DNS name in every peer's certificate.
const certificateDomain = "srsx"

// CertificateName returns the DNS name that the certificate of a peer has to
// carry: NODE.CLUSTER.srsx. A certificate for *.CLUSTER.srsx serves every peer
// whose name has no dot.
func CertificateName(node, cluster string) string {
	return node + "." + cluster + "." + certificateDomain
}

// CertificateFiles are the PEM files of mutual TLS. All three or none.
type CertificateFiles struct {
	CA   string // certificates that sign those of the peers
	Cert string // this peer's, with the chain up to the CA; for server and client
	Key  string // its private key
}

// Certificates is this peer's certificate and the CA by which it judges those
// of others. The files are read again when they change, at the next connection or
// within [certificatePace]. It is safe for concurrent use.
type Certificates struct {
	files CertificateFiles
	log   *slog.Logger

	mu        sync.Mutex
	stamps    [3]stamp // guarded by mu, as all below
	loaded    loaded
	complaint string // the last one logged: each handshake tries again
}

type loaded struct {
	own   tls.Certificate
	ca    []*x509.Certificate
	roots *x509.CertPool // of ca
}

// stamp tells one state of a file from the next.
type stamp struct {
	modified time.Time
	size     int64
}

// LoadCertificates reads the files, and fails when they do not fit together.
func LoadCertificates(files CertificateFiles, log *slog.Logger) (*Certificates, error) {
	c := &Certificates{files: files, log: log}
	var err error
	if c.stamps, err = files.stamps(); err != nil {
		return nil, err
	}
	if c.loaded, err = files.load(); err != nil {
		return nil, err
	}
	return c, nil
}

func (f CertificateFiles) stamps() (stamps [3]stamp, err error) {
	for i, name := range []string{f.CA, f.Cert, f.Key} {
		info, err := os.Stat(name)
		if err != nil {
			return stamps, fmt.Errorf("certificates: %w", err)
		}
		stamps[i] = stamp{info.ModTime(), info.Size()}
	}
	return stamps, nil
}

func (f CertificateFiles) load() (loaded, error) {
	own, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return loaded{}, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	ca, err := pki.ReadCertificates(f.CA)
	if err != nil {
		return loaded{}, fmt.Errorf("CA %w", err)
	}
	roots := x509.NewCertPool()
	for _, cert := range ca {
		roots.AddCert(cert)
	}
	return loaded{own: own, ca: ca, roots: roots}, nil
}

// current returns what the files hold now. While they are damaged, or half
// replaced, what was read before goes on.
func (c *Certificates) current() loaded {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamps, err := c.files.stamps()
	if err == nil && stamps == c.stamps {
		return c.loaded
	}
	var fresh loaded
	if err == nil {
		fresh, err = c.files.load()
	}
	if err != nil {
		if c.complaint != err.Error() {
			c.complaint = err.Error()
			c.log.Warn("changed certificates do not load; the old ones stay in use", "err", err)
		}
		return c.loaded
	}
	c.stamps, c.loaded, c.complaint = stamps, fresh, ""
	return fresh
}

// verify checks a chain, the peer's own certificate first, and its name.
func (c *Certificates) verify(chain []*x509.Certificate, usage x509.ExtKeyUsage, node, cluster string) error {
	if len(chain) == 0 {
		return errors.New("none was shown")
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName:       CertificateName(node, cluster),
		Roots:         c.current().roots,
		Intermediates: between,
		KeyUsages:     []x509.ExtKeyUsage{usage},
	})
	return err
}

// Check judges this peer's own certificate as others would that have the same CA.
func (c *Certificates) Check(node, cluster string) error {
	own := c.current().own
	chain := make([]*x509.Certificate, len(own.Certificate))
	for i, der := range own.Certificate {
		var err error
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return fmt.Errorf("certificate %s: %w", c.files.Cert, err)
		}
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := c.verify(chain, usage, node, cluster); err != nil {
			return fmt.Errorf("certificate %s: %w", c.files.Cert, err)
		}
	}
	return nil
}
