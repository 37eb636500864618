package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/storage/storagetest"
	"github.com/auditchain/auditchain/test/proxy"
)

// behindProxy starts an S3 server that answers as it is told, and a proxy before it.
func behindProxy(t *testing.T, overTLS bool, answer http.HandlerFunc) (*proxy.Proxy, storage.Config) {
	server := httptest.NewUnstartedServer(answer)
	server.Config.BaseContext = func(net.Listener) context.Context { return t.Context() } // who hangs does not outlast the test
	cfg := storage.Config{Bucket: "audit", AccessKey: "a", SecretKey: "s", InsecureSkipVerify: true}
	scheme := "http://"
	if overTLS {
		server.StartTLS()
		scheme = "https://"
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	p := proxy.Start(t, server.Listener.Addr().String())
	cfg.Endpoint = scheme + p.Address()
	return p, cfg
}

// TestSlowUpload: a line that is slow is not one that hangs. The whole body fits into the kernel's buffer, so that it has long
// been read when it is still on its way.
func TestSlowUpload(t *testing.T) {
	for _, overTLS := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", overTLS), func(t *testing.T) {
			t.Parallel()
			var got bytes.Buffer
			p, cfg := behindProxy(t, overTLS, func(w http.ResponseWriter, r *http.Request) { io.Copy(&got, r.Body) })
			cfg.Timeout = time.Second
			p.Break(proxy.Fault{Kind: proxy.Bandwidth, Rate: 64 << 10})
			body := bytes.Repeat([]byte("0123456789abcdef"), 16<<10)
			began := time.Now()
			_, err := open(t, cfg).Create(t.Context(), "k", bytes.NewReader(body), storagetest.Options(body))
			if err != nil || !bytes.Equal(got.Bytes(), body) {
				t.Errorf("%v, %d bytes arrived", err, got.Len())
			}
			if took := time.Since(began); took < 3*cfg.Timeout {
				t.Errorf("%v is not slow", took)
			}
		})
	}
}

// TestStalls: wherever it is that nothing moves any more, a call gives up after Timeout, and at once when it is cancelled.
func TestStalls(t *testing.T) {
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	largeOptions := storagetest.Options(large)
	calls := map[string]func(context.Context, storage.Bucket) error{
		"check":  calls["check"],
		"create": calls["create"],
		"create large": func(ctx context.Context, b storage.Bucket) error {
			_, err := b.Create(ctx, "new", bytes.NewReader(large), largeOptions)
			return err
		},
		"stat":     calls["stat"],
		"versions": calls["versions"],
		"read": func(ctx context.Context, b storage.Bucket) error {
			r, _, err := b.Open(ctx, "k", "", 0, -1)
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = io.Copy(io.Discard, r)
			return err
		},
	}
	hang := func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	slow := proxy.Fault{Kind: proxy.Bandwidth, Rate: 1 << 20}
	for _, c := range []struct {
		name   string
		fault  *proxy.Fault
		later  *proxy.Fault // while the call is under way
		answer http.HandlerFunc
		only   string // the call that it is about
	}{
		{name: "nothing is heard", fault: &proxy.Fault{Kind: proxy.Silence}},
		{name: "no answer comes", answer: func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}},
		{name: "half an answer comes", answer: func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, "<?xml")
			hang(w, r)
		}},
		{name: "half an error comes", answer: func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, "<Error>")
			hang(w, r)
		}},
		{name: "half the body is taken", only: "create large", answer: func(w http.ResponseWriter, r *http.Request) {
			io.CopyN(io.Discard, r.Body, 1<<20)
			<-r.Context().Done()
		}},
		{name: "silence in the middle of a body", only: "create large", fault: &slow, later: &proxy.Fault{Kind: proxy.Silence},
			answer: func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }},
	} {
		for name, call := range calls {
			if c.only != "" && c.only != name {
				continue
			}
			// The answer to a HEAD has no body, and Create does not read that of a PUT that went well.
			if strings.HasPrefix(c.name, "half an") && (name == "stat" || c.name == "half an answer comes" && strings.HasPrefix(name, "create")) {
				continue
			}
			for _, cancelled := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, cancelled %v", c.name, name, cancelled), func(t *testing.T) {
					t.Parallel()
					if c.answer == nil {
						c.answer = hang
					}
					p, cfg := behindProxy(t, false, c.answer)
					cfg.Timeout = 250 * time.Millisecond
					ends, want := time.After(time.Hour), storage.ErrUnreachable
					if cancelled {
						cfg.Timeout = time.Minute
						ends, want = time.After(100*time.Millisecond), context.Canceled
					}
					if c.fault != nil {
						p.Break(*c.fault)
					}
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					began := time.Now()
					done := make(chan error, 1)
					go func() { done <- call(ctx, open(t, cfg)) }()
					if c.later != nil {
						for p.Hits() == 0 {
							time.Sleep(time.Millisecond)
						}
						p.Break(*c.later)
					}
					select {
					case <-ends:
						began = time.Now()
						cancel()
					case err := <-done:
						done <- err
					}
					select {
					case err := <-done:
						if !errors.Is(err, want) || strings.Contains(err.Error(), "\n") {
							t.Errorf("%v, want %v", err, want)
						}
						if took := time.Since(began); !cancelled && took < 200*time.Millisecond {
							t.Errorf("it took only %v", took)
						}
					case <-time.After(5 * time.Second): // far from the minute, and from what a large body would have had
						t.Error("it does not end")
					}
				})
			}
		}
	}
}

// TestSilentRoleService: a call that waits for credentials ends when it is cancelled, also when another has waited before.
func TestSilentRoleService(t *testing.T) {
	services, cfg := behindProxy(t, false, func(http.ResponseWriter, *http.Request) {})
	services.Break(proxy.Fault{Kind: proxy.Silence})
	cfg.RoleARN = "arn:aws:iam::123456789012:role/auditor"
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			bucket := open(t, cfg)
			for range 2 {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				began := time.Now()
				if err := call(ctx, bucket); !errors.Is(err, storage.ErrUnreachable) {
					t.Error(err)
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("it took %v", took)
				}
				cancel()
			}
		})
	}
}
