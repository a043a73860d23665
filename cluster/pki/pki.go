// Package pki makes the certificates of mutual TLS on the cluster port: a CA of
// the cluster's own, and the certificates of peers that it signs. Keys are ECDSA
// on P-256.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"time"
)

const (
	// domain is what a CA made here may sign names of. Whoever steals its key
	// has nothing against anybody else who trusts it by mistake.
	domain = "srsx"
	// backdated is by how much the clock of a peer may be behind.
	backdated = time.Hour
	// maxCommonName is the longest that X.520 allows; the name that counts is
	// the DNS name.
	maxCommonName = 64
)

// Issued is a certificate that has just been made, and its private key.
type Issued struct {
	Cert *x509.Certificate
	Key  *ecdsa.PrivateKey
}

// NewCA makes a certificate that signs itself and those of peers. It ends after
// so many days.
func NewCA(name string, now time.Time, days int) (Issued, error) {
	everyIPv4, everyIPv6 := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	return issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-backdated), NotAfter: now.AddDate(0, 0, days),
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true, // it signs no other CA
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{domain},
		ExcludedIPRanges: []*net.IPNet{everyIPv4, everyIPv6},
	}, nil)
}

// CA signs the certificates of peers.
type CA struct {
	cert *x509.Certificate
	key  any // crypto.Signer of cert
}

// ReadCA reads the certificate and the key of a CA from PEM files. Of a bundle,
// as there is one while the CA is changed, it takes the certificate that the key
// belongs to.
func ReadCA(certFile, keyFile string) (*CA, error) {
	certs, err := ReadCertificates(certFile)
	if err != nil {
		return nil, err
	}
	secret, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	for _, cert := range certs {
		pair, pairErr := tls.X509KeyPair(certificatePEM(cert), secret)
		if pairErr != nil {
			err = pairErr
			continue
		}
		if !cert.BasicConstraintsValid || !cert.IsCA {
			return nil, fmt.Errorf("%s is the certificate of no CA: it cannot sign others", certFile)
		}
		return &CA{cert: cert, key: pair.PrivateKey}, nil
	}
	return nil, fmt.Errorf("CA %s with key %s: %w", certFile, keyFile, err)
}

// ReadCertificates reads all certificates of a PEM file, at least one.
func ReadCertificates(file string) ([]*x509.Certificate, error) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s: no certificate (PEM) in it", file)
	}
	return certs, nil
}

// Issue makes a certificate by which a peer of these DNS names is known to
// others, as server and as client. It ends after so many days, which is never
// after the CA: nobody would notice until the day on which that ends.
func (ca *CA) Issue(names []string, now time.Time, days int) (Issued, error) {
	ends := now.AddDate(0, 0, days)
	switch {
	case now.After(ca.cert.NotAfter):
		return Issued{}, fmt.Errorf("the CA ended on %s: make a new one", day(ca.cert.NotAfter))
	case now.Before(ca.cert.NotBefore):
		return Issued{}, fmt.Errorf("the CA begins on %s: is the clock right?", day(ca.cert.NotBefore))
	case ends.Sub(ca.cert.NotAfter) >= 24*time.Hour:
		return Issued{}, fmt.Errorf("the CA ends on %s, before the certificate would on %s: take fewer days, or make a new CA",
			day(ca.cert.NotAfter), day(ends))
	}
	if ends.After(ca.cert.NotAfter) {
		ends = ca.cert.NotAfter // both were made today, for as many days
	}
	template := &x509.Certificate{
		DNSNames: names, NotBefore: now.Add(-backdated), NotAfter: ends,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if len(names[0]) <= maxCommonName {
		template.Subject.CommonName = names[0]
	}
	issued, err := issue(template, ca)
	if err != nil {
		return Issued{}, err
	}
	return issued, ca.check(issued.Cert, now)
}

// check finds out now, and not at the first connection, what the CA must not
// sign.
func (ca *CA) check(cert *x509.Certificate, now time.Time) error {
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	for _, usage := range cert.ExtKeyUsage {
		_, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
		if err != nil {
			return fmt.Errorf("the CA must not sign it: %w", err)
		}
	}
	return nil
}

// issue signs a certificate for a new key; without a CA it signs itself.
func issue(template *x509.Certificate, ca *CA) (Issued, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Issued{}, err
	}
	if ca == nil {
		ca = &CA{cert: template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return Issued{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return Issued{Cert: cert, Key: key}, err
}

func certificatePEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
