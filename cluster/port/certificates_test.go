package port_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"srsx/cluster/port"
)

// authority is a CA that lives as long as a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: cert, key: key}
}

// issue writes the files of a peer's certificate into dir.
func (a *authority) issue(t *testing.T, dir string, template x509.Certificate) port.CertificateFiles {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(2)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	if template.ExtKeyUsage == nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := port.CertificateFiles{
		CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"),
	}
	for path, block := range map[string]*pem.Block{
		files.CA:   {Type: "CERTIFICATE", Bytes: a.cert.Raw},
		files.Cert: {Type: "CERTIFICATE", Bytes: der},
		files.Key:  {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func (a *authority) load(t *testing.T, names ...string) *port.Certificates {
	t.Helper()
	return load(t, a.issue(t, t.TempDir(), x509.Certificate{DNSNames: names}), &journal{})
}

func load(t *testing.T, files port.CertificateFiles, log *journal) *port.Certificates {
	t.Helper()
	certs, err := port.LoadCertificates(files, log.logger())
	if err != nil {
		t.Fatalf("LoadCertificates: %v", err)
	}
	return certs
}

func withCerts(certs *port.Certificates) func(*port.Config) {
	return func(c *port.Config) { c.Certs = certs }
}

func TestOneCertificateMayServeEveryPeer(t *testing.T) {
	shared := newAuthority(t).load(t, "*.test.srsx")
	a, b := start(t, "a", withCerts(shared)), start(t, "b", withCerts(shared))
	requireEcho(t, dial(t, a, port.KindRPC, b.target()), "x")
}

func TestCertificateOfAnotherClusterIsRefused(t *testing.T) {
	ca := newAuthority(t)
	a := start(t, "a", withCerts(ca.load(t, "a.other.srsx")))
	b := start(t, "b", withCerts(ca.load(t, "b.test.srsx")))
	requireRefusal(t, a, b, port.KindRPC, port.ErrUntrusted, "a.test.srsx")
	requireRefusal(t, b, a, port.KindRPC, port.ErrUntrusted, "a.test.srsx")
}

func TestUnfitCertificatesAreRefused(t *testing.T) {
	ca := newAuthority(t)
	b := start(t, "b", withCerts(ca.load(t, "b.test.srsx")))
	for name, c := range map[string]struct {
		template x509.Certificate
		words    string
	}{
		"expired":      {x509.Certificate{NotAfter: time.Now().Add(-time.Minute)}, "expired"},
		"servers only": {x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, "key usage"},
	} {
		t.Run(name, func(t *testing.T) {
			c.template.DNSNames = []string{"a.test.srsx"}
			certs := load(t, ca.issue(t, t.TempDir(), c.template), &journal{})
			requireRefusal(t, start(t, "a", withCerts(certs)), b, port.KindRPC, port.ErrUntrusted, c.words)
		})
	}
}

func TestChangedCertificatesAreReadAgain(t *testing.T) {
	old, fresh := newAuthority(t), newAuthority(t)
	log := &journal{}
	dir := t.TempDir()
	files := old.issue(t, dir, x509.Certificate{DNSNames: []string{"a.test.srsx"}})
	a := start(t, "a", withCerts(load(t, files, log)))
	b := start(t, "b", withCerts(old.load(t, "b.test.srsx")))
	renewed := start(t, "renewed", withCerts(fresh.load(t, "renewed.test.srsx")))
	requireEcho(t, dial(t, a, port.KindRPC, b.target()), "x")

	// Half a replacement: what was there before goes on.
	whole, err := os.ReadFile(files.Cert)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files.Cert, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	requireEcho(t, dial(t, a, port.KindRPC, b.target()), "x")
	requireEcho(t, dial(t, b, port.KindRPC, a.target()), "x")
	if got := strings.Count(log.String(), "changed certificates do not load"); got != 1 {
		t.Errorf("damaged certificate logged %d times; want once", got)
	}

	eventually(t, "a logs which certificates it uses", func() bool { return strings.Contains(a.log.String(), "certificates in use") })

	fresh.issue(t, dir, x509.Certificate{DNSNames: []string{"a.test.srsx"}})
	requireEcho(t, dial(t, a, port.KindRPC, renewed.target()), "x")
	requireRefusal(t, a, b, port.KindRPC, port.ErrUntrusted)
}

func TestFilesThatDoNotFitAreRefusedAtTheStart(t *testing.T) {
	ca := newAuthority(t)
	files := ca.issue(t, t.TempDir(), x509.Certificate{DNSNames: []string{"a.test.srsx"}})
	other := ca.issue(t, t.TempDir(), x509.Certificate{DNSNames: []string{"b.test.srsx"}})
	whole, err := os.ReadFile(files.CA)
	if err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(t.TempDir(), "ca.pem") // one of a bundle
	whole = append(whole, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"...)
	if err := os.WriteFile(damaged, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]port.CertificateFiles{
		"other key":  {CA: files.CA, Cert: files.Cert, Key: other.Key},
		"no CA":      {CA: files.Key, Cert: files.Cert, Key: files.Key},
		"missing":    {CA: files.CA, Cert: files.Cert + ".gone", Key: files.Key},
		"damaged CA": {CA: damaged, Cert: files.Cert, Key: files.Key},
		"none given": {},
	} {
		if _, err := port.LoadCertificates(bad, (&journal{}).logger()); err == nil {
			t.Errorf("LoadCertificates with %s = nil; want an error", name)
		}
	}
}
