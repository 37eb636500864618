package servers

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
)

// TestRestart: what a server holds outlives a stop, a crash, a hang and the server itself.
func TestRestart(t *testing.T) {
	for _, program := range []string{"minio", "versitygw"} {
		t.Run(program, func(t *testing.T) {
			dir := t.TempDir()
			s := start(t, program, []Option{WithDir(dir), WithTLS()})
			s.MakeLockedBucket(t, "audit")
			read := func() error {
				_, err := s.Client(t).StatObject(t.Context(), "audit", "k", minio.StatObjectOptions{})
				return err
			}
			if _, err := s.Client(t).PutObject(t.Context(), "audit", "k", strings.NewReader("x"), 1, minio.PutObjectOptions{SendContentMd5: true}); err != nil {
				t.Fatal(err)
			}
			for name, end := range map[string]func(){"stop": s.Stop, "kill": s.Kill, "stop while paused": func() { s.Pause(); s.Stop() }} {
				end()
				if err := read(); err == nil {
					t.Errorf("%s: it still answers", name)
				}
				if err := s.Restart(); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if err := read(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			s.Stop()
			s = start(t, program, []Option{WithDir(dir), WithPort(s.port)})
			if err := read(); err != nil || s.CAFile != "" {
				t.Errorf("another server on the same data: %v", err)
			}
		})
	}
}

func TestNotBuilt(t *testing.T) {
	t.Setenv(toolsEnv, t.TempDir())
	if _, err := Find("minio"); !errors.Is(err, ErrNotBuilt) || !strings.Contains(err.Error(), "make tools") {
		t.Error(err)
	}
	if _, err := Start("minio", WithDir(t.TempDir())); !errors.Is(err, ErrNotBuilt) {
		t.Error(err)
	}
	t.Setenv(requireEnv, "")
	if !t.Run("skipped", func(t *testing.T) { Tool(t, "minio"); t.Error("went on") }) {
		t.Error("not skipped")
	}
}

func TestRoot(t *testing.T) {
	if _, err := os.Stat(filepath.Join(Root(), "go.mod")); err != nil {
		t.Error(err)
	}
}

// TestMutualTLS: certificates serve for both ends, and only those of the same CA.
func TestMutualTLS(t *testing.T) {
	issue := func(ca *CA, name string) tls.Certificate {
		t.Helper()
		base := filepath.Join(t.TempDir(), name)
		if err := ca.Issue(base+".crt", base+".key", name, "127.0.0.1"); err != nil {
			t.Fatal(err)
		}
		pair, err := tls.LoadX509KeyPair(base+".crt", base+".key")
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	newCA := func() *CA {
		t.Helper()
		ca, err := NewCA(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return ca
	}
	ca, other := newCA(), newCA()
	pool, err := Pool(ca.File)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{issue(ca, "aggregator.test")}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	server.StartTLS()
	defer server.Close()
	get := func(config *tls.Config) (string, error) {
		config.RootCAs = pool
		answer, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: config}}).Get(server.URL)
		if err != nil {
			return "", err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		return string(body), err
	}
	if got, err := get(&tls.Config{Certificates: []tls.Certificate{issue(ca, "gpu-1.test")}, ServerName: "aggregator.test"}); err != nil || got != "gpu-1.test" {
		t.Errorf("%q, %v", got, err)
	}
	for name, config := range map[string]*tls.Config{
		"no certificate":  {},
		"of another CA":   {Certificates: []tls.Certificate{issue(other, "gpu-1.test")}},
		"of another name": {Certificates: []tls.Certificate{issue(ca, "gpu-1.test")}, ServerName: "somebody.test"},
	} {
		if got, err := get(config); err == nil {
			t.Errorf("%s: got %q", name, got)
		}
	}
}
