package pki_test

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"srsx/cluster/pki"
)

// files are a certificate and its key on disk.
type files struct{ cert, key string }

func write(t *testing.T, dir, name string, issued pki.Issued) files {
	t.Helper()
	f := files{filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")}
	if err := issued.Write(f.cert, f.key); err != nil {
		t.Fatalf("Write = %v", err)
	}
	return f
}

func newCA(t *testing.T, now time.Time, days int) files {
	t.Helper()
	issued, err := pki.NewCA("test CA", now, days)
	if err != nil {
		t.Fatalf("NewCA = %v", err)
	}
	return write(t, t.TempDir(), "ca", issued)
}

func read(t *testing.T, f files) *pki.CA {
	t.Helper()
	ca, err := pki.ReadCA(f.cert, f.key)
	if err != nil {
		t.Fatalf("ReadCA = %v", err)
	}
	return ca
}

// pool holds the certificates of PEM files, as peers read them.
func pool(t *testing.T, paths ...string) *x509.CertPool {
	t.Helper()
	roots := x509.NewCertPool()
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil || !roots.AppendCertsFromPEM(text) {
			t.Fatalf("no certificate in %s (%v)", path, err)
		}
	}
	return roots
}

func TestCertificateServesBothEndsOfMutualTLS(t *testing.T) {
	now := time.Now()
	f := newCA(t, now, 10)
	issued, err := read(t, f).Issue([]string{"*.srsx.srsx", "a.b.srsx.srsx"}, now, 10)
	if err != nil {
		t.Fatalf("Issue = %v", err)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		for name, good := range map[string]bool{"peer1.srsx.srsx": true, "a.b.srsx.srsx": true, "c.b.srsx.srsx": false, "peer1.other.srsx": false} {
			_, err := issued.Cert.Verify(x509.VerifyOptions{DNSName: name, Roots: pool(t, f.cert), KeyUsages: []x509.ExtKeyUsage{usage}})
			if (err == nil) != good {
				t.Errorf("Verify %s for usage %d = %v; want %v", name, usage, err, good)
			}
		}
	}
	if issued.Key.Curve != elliptic.P256() || issued.Cert.IsCA || issued.Cert.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("certificate with curve %v, CA %v, usage %b", issued.Key.Curve, issued.Cert.IsCA, issued.Cert.KeyUsage)
	}
	if ends := now.AddDate(0, 0, 10); !issued.Cert.NotAfter.Equal(ends.Truncate(time.Second)) || !issued.Cert.NotBefore.Before(now) {
		t.Errorf("valid from %v to %v; want from before now to %v", issued.Cert.NotBefore, issued.Cert.NotAfter, ends)
	}
}

// A stolen key of this CA is worth nothing elsewhere.
func TestCASignsNamesOfPeersOnly(t *testing.T) {
	now := time.Now()
	f := newCA(t, now, 10)
	ca := read(t, f)
	for _, name := range []string{"www.example.com", "10.0.0.1", "srsx.example.com"} {
		if _, err := ca.Issue([]string{"peer1.srsx.srsx", name}, now, 1); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("Issue for %s = %v; want an error that names it", name, err)
		}
	}
	issued, err := ca.Issue([]string{strings.Repeat("long", 20) + ".srsx.srsx"}, now, 1)
	if err != nil || issued.Cert.Subject.CommonName != "" { // X.520 allows 64 characters
		t.Errorf("Issue for a long name = %v, %v", issued.Cert.Subject, err)
	}
	// Nor do others accept that it signs addresses, with whatever tool.
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"10.0.0.1", "fd00::1"} {
		template := &x509.Certificate{NotAfter: now.Add(time.Hour), IPAddresses: []net.IP{net.ParseIP(addr)}}
		der, err := x509.CreateCertificate(rand.Reader, template, pair.Leaf, issued.Key.Public(), pair.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		forged, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := forged.Verify(x509.VerifyOptions{Roots: pool(t, f.cert)}); err == nil || !strings.Contains(err.Error(), "excluded") {
			t.Errorf("Verify of a certificate for %s = %v; want it excluded", addr, err)
		}
	}
}

func TestCertificateDoesNotOutliveItsCA(t *testing.T) {
	made := time.Now().AddDate(0, 0, -10)
	ca := read(t, newCA(t, made, 20))
	for name, test := range map[string]struct {
		at    time.Time
		days  int
		words string
	}{
		"just as long":      {made.Add(time.Hour), 20, ""},
		"longer":            {made, 21, "before the certificate"},
		"of an expired CA":  {made.AddDate(0, 0, 21), 1, "ended on " + made.AddDate(0, 0, 20).UTC().Format(time.DateOnly)},
		"before the CA":     {made.AddDate(0, 0, -2), 1, "begins on"},
		"days of no number": {made, -30, "expired"},
	} {
		issued, err := ca.Issue([]string{"peer1.srsx.srsx"}, test.at, test.days)
		if ends := made.AddDate(0, 0, 20); err == nil && issued.Cert.NotAfter.After(ends) {
			t.Errorf("Issue %s: until %v; want the end of the CA, %v", name, issued.Cert.NotAfter, ends)
		}
		if (err == nil) != (test.words == "") || err != nil && !strings.Contains(err.Error(), test.words) {
			t.Errorf("Issue %s = %v; want %q in it", name, err, test.words)
		}
	}
}

// While the CA is changed its file holds two.
func TestOfABundleTheCAWithTheKeySigns(t *testing.T) {
	now := time.Now()
	old, next := newCA(t, now, 10), newCA(t, now, 10)
	both := filepath.Join(t.TempDir(), "both.pem")
	var text []byte
	for _, f := range []files{old, next} {
		one, err := os.ReadFile(f.cert)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, one...)
	}
	if err := os.WriteFile(both, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []files{old, next} {
		issued, err := read(t, files{both, f.key}).Issue([]string{"a.srsx.srsx"}, now, 1)
		if err != nil {
			t.Fatalf("Issue = %v", err)
		}
		if _, err := issued.Cert.Verify(x509.VerifyOptions{Roots: pool(t, f.cert)}); err != nil {
			t.Errorf("the other CA of the bundle has signed: %v", err)
		}
	}
	if certs, err := pki.ReadCertificates(both); err != nil || len(certs) != 2 {
		t.Errorf("ReadCertificates of the bundle = %d, %v; want 2", len(certs), err)
	}
}

func TestFilesThatAreNoCAAreRefused(t *testing.T) {
	now := time.Now()
	ca, other := newCA(t, now, 10), newCA(t, now, 10)
	issued, err := read(t, ca).Issue([]string{"a.srsx.srsx"}, now, 1)
	if err != nil {
		t.Fatal(err)
	}
	peer := write(t, t.TempDir(), "a", issued)
	broken := filepath.Join(t.TempDir(), "broken.pem")
	if err := os.WriteFile(broken, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		files files
		words []string
	}{
		"key of another":     {files{ca.cert, other.key}, []string{ca.cert, other.key, "does not match"}},
		"a peer's":           {peer, []string{peer.cert, "no CA"}},
		"files exchanged":    {files{ca.key, ca.cert}, []string{ca.key, "no certificate"}},
		"certificate as key": {files{ca.cert, ca.cert}, []string{"certificate rather than a key"}},
		"missing":            {files{ca.cert + ".gone", ca.key}, []string{".gone", "no such file"}},
		"key missing":        {files{ca.cert, ca.key + ".gone"}, []string{".gone", "no such file"}},
		"damaged":            {files{broken, ca.key}, []string{broken, "x509"}},
	} {
		_, err := pki.ReadCA(test.files.cert, test.files.key)
		for _, word := range test.words {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("ReadCA of %s = %v; want %q in it", name, err, word)
			}
		}
	}
}

func TestFilesArePrivateAndNeverReplaced(t *testing.T) {
	first, err := pki.NewCA("first", time.Now(), 1)
	if err != nil {
		t.Fatal(err)
	}
	second, err := pki.NewCA("second", time.Now(), 1)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f := write(t, dir, "ca", first)
	for path, want := range map[string]os.FileMode{f.cert: 0o644, f.key: 0o600} {
		info, statErr := os.Stat(path)
		if statErr != nil {
			t.Fatal(statErr)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o; want %o", path, info.Mode().Perm(), want)
		}
	}
	for name, other := range map[string]files{
		"both":            f,
		"the key":         {filepath.Join(dir, "new.pem"), f.key},
		"the certificate": {f.cert, filepath.Join(dir, "new-key.pem")},
	} {
		if err = second.Write(other.cert, other.key); err == nil || !strings.Contains(err.Error(), "is not replaced") {
			t.Errorf("Write over %s = %v; want a refusal", name, err)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("%d files; want the first pair alone", len(entries))
	}
	certs, err := pki.ReadCertificates(f.cert)
	if err != nil || certs[0].Subject.CommonName != "first" {
		t.Errorf("certificate = %v, %v; want that of the first", certs, err)
	}
	if !first.Key.PublicKey.Equal(certs[0].PublicKey) {
		t.Error("certificate and key are no pair")
	}
}
