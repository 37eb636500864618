package storage

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
)

func (cfg Config) transport() (*http.Transport, error) {
	t, err := minio.DefaultTransport(true)
	if err != nil {
		return nil, err
	}
	t.TLSClientConfig.InsecureSkipVerify = cfg.InsecureSkipVerify
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tls_ca_file: reading the CA file: %w", err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_ca_file: %s holds no PEM certificate", cfg.CAFile)
		}
	}
	t.TLSClientConfig.MinVersion = tls.VersionTLS12
	t.ResponseHeaderTimeout = 0 // each call has a limit of its own; this would begin while megabytes are still on their way
	return t, nil
}

// clockReader notes the Date of every answer that passes.
type clockReader struct {
	next http.RoundTripper
	last atomic.Pointer[time.Duration]
}

func (c *clockReader) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := c.next.RoundTrip(r)
	if err == nil {
		if date, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
			skew := time.Until(date)
			c.last.Store(&skew)
		}
	}
	return answer, err
}

func (c *clockReader) skew() (time.Duration, bool) {
	if skew := c.last.Load(); skew != nil {
		return *skew, true
	}
	return 0, false
}
