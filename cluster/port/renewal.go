package port

import (
	"context"
	"crypto/x509"
	"time"
)

const (
	// certificatePace is how often the files are looked at while nobody connects:
	// who replaces them wants to hear whether they are good.
	certificatePace = 10 * time.Second
	// A certificate that will end is spoken of a month before, or in the last
	// third of a shorter life, once a day. Connections that are open outlive it, so
	// nothing else would tell until the day on which peers do not meet again.
	renewalNotice = 30 * 24 * time.Hour
	renewalShare  = 3
	renewalRepeat = 24 * time.Hour
)

// renewal tells of this peer's certificate: what is in use, whether others will
// refuse it, when it has to be renewed. It is used by one goroutine.
type renewal struct {
	port     *Port
	told     *x509.CertPool // that of the files as they were told of
	refused  bool           // as was told
	reminded time.Time
}

// watch looks at the certificate until ctx ends.
func (r *renewal) watch(ctx context.Context) {
	pace := time.NewTicker(certificatePace)
	defer pace.Stop()
	for {
		r.look(ctx, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
	}
}

func (r *renewal) look(ctx context.Context, now time.Time) {
	self, certs, log := r.port.self, r.port.config.Certs, r.port.config.Log
	used := certs.current()
	own := used.own.Leaf
	if used.roots != r.told {
		var ca []string
		for _, cert := range used.ca {
			ca = append(ca, cert.Subject.CommonName)
		}
		log.InfoContext(ctx, "certificates in use", "names", own.DNSNames, "until", own.NotAfter, "issuer", own.Issuer.CommonName, "ca", ca)
		*r = renewal{port: r.port, told: used.roots}
	}
	err := certs.Check(self.nodeName, self.clusterName)
	if err != nil && !r.refused {
		log.ErrorContext(ctx, "other peers will refuse this one", "err", err)
	}
	r.refused = err != nil
	notice := min(renewalNotice, own.NotAfter.Sub(own.NotBefore)/renewalShare)
	if left := own.NotAfter.Sub(now); left > 0 && left < notice && now.Sub(r.reminded) >= renewalRepeat {
		log.WarnContext(ctx, "certificate has to be renewed", "until", own.NotAfter, "days_left", int(left.Hours()/24))
		r.reminded = now
	}
}
