package port

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"srsx/cluster/pki"
)

// issueFiles makes a CA and the certificate of node a of cluster test, both from
// made on and for so many days.
func issueFiles(t *testing.T, made time.Time, days int, name string) CertificateFiles {
	t.Helper()
	dir := t.TempDir()
	f := CertificateFiles{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "a.pem"), Key: filepath.Join(dir, "a-key.pem")}
	ca, err := pki.NewCA("CA of "+name, made, days)
	if err != nil {
		t.Fatal(err)
	}
	if err = ca.Write(f.CA, f.CA+".key"); err != nil {
		t.Fatal(err)
	}
	signs, err := pki.ReadCA(f.CA, f.CA+".key")
	if err != nil {
		t.Fatal(err)
	}
	issued, err := signs.Issue([]string{CertificateName(name, "test")}, made, days)
	if err != nil {
		t.Fatal(err)
	}
	if err = issued.Write(f.Cert, f.Key); err != nil {
		t.Fatal(err)
	}
	return f
}

// newRenewal returns that of node a of cluster test, and its log.
func newRenewal(t *testing.T, files CertificateFiles) (*renewal, *bytes.Buffer) {
	t.Helper()
	log := &bytes.Buffer{}
	logger := slog.New(slog.NewTextHandler(log, nil))
	certs, err := LoadCertificates(files, logger)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Listen(t.Context(), "127.0.0.1:0", Config{
		NodeID: uuid.NewString(), NodeName: "a", ClusterName: "test", Certs: certs, Log: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return &renewal{port: p}, log
}

func requireLines(t *testing.T, log *bytes.Buffer, what string, want int) {
	t.Helper()
	if got := strings.Count(log.String(), what); got != want {
		t.Errorf("%q logged %d times; want %d:\n%s", what, got, want, log)
	}
}

func TestCertificateThatWillEndIsSpokenOfOnceADay(t *testing.T) {
	now := time.Now()
	for name, days := range map[string]int{"long": 365, "short": 9} {
		r, log := newRenewal(t, issueFiles(t, now, days, "a"))
		ends := now.AddDate(0, 0, days)
		notice := min(30, days/3)
		r.look(t.Context(), ends.AddDate(0, 0, -notice-1))
		requireLines(t, log, "has to be renewed", 0)
		for hours := range 36 {
			r.look(t.Context(), ends.AddDate(0, 0, -notice+1).Add(time.Duration(hours)*time.Hour))
		}
		requireLines(t, log, "has to be renewed", 2)
		r.look(t.Context(), ends.Add(time.Hour))
		requireLines(t, log, "has to be renewed", 2)
		requireLines(t, log, "certificates in use", 1)
		if name == "long" {
			requireLines(t, log, "days_left=28", 1)
		}
	}
}

func TestPeerThatOthersWillRefuseSaysSo(t *testing.T) {
	now := time.Now()
	for words, files := range map[string]CertificateFiles{
		"certificate has expired":                 issueFiles(t, now.AddDate(0, 0, -3), 2, "a"),
		"is valid for b.test.srsx, not a.test":    issueFiles(t, now, 2, "b"),
		"certificate signed by unknown authority": {CA: issueFiles(t, now, 2, "b").CA, Cert: issueFiles(t, now, 2, "a").Cert},
	} {
		if files.Key == "" {
			files.Key = strings.Replace(files.Cert, ".pem", "-key.pem", 1)
		}
		r, log := newRenewal(t, files)
		for range 3 {
			r.look(t.Context(), now)
		}
		requireLines(t, log, "other peers will refuse this one", 1)
		requireLines(t, log, words, 1)

		good := issueFiles(t, now, 2, "a")
		for from, to := range map[string]string{good.CA: files.CA, good.Cert: files.Cert, good.Key: files.Key} {
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
		r.look(t.Context(), now)
		requireLines(t, log, "other peers will refuse this one", 1)
		requireLines(t, log, "certificates in use", 2)
	}
}
