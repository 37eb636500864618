package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/bits"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/auditchain/auditchain/test/proxy"
)

// upstream answers a GET of /n with n bytes, and keeps what it is sent.
type upstream struct {
	*httptest.Server
	mu   sync.Mutex
	last *http.Request
	body []byte // of the last request
	err  error  // of reading it
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/early" {
		w.WriteHeader(http.StatusPreconditionFailed)
		return
	}
	body, err := io.ReadAll(r.Body)
	u.mu.Lock()
	u.last, u.body, u.err = r, body, err
	u.mu.Unlock()
	if n, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/")); err == nil && r.Method != http.MethodPut {
		w.Header().Set("Content-Length", strconv.Itoa(n))
		w.Write(zeros[:n])
	}
}

// got is the last request that the server got, as much of its body as came, and why not all of it.
func (u *upstream) got() (*http.Request, []byte, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last, u.body, u.err
}

var zeros = make([]byte, 4<<20)

// start starts a server and a proxy before it, and returns a client with connections of its own and the proxy's URL.
func start(t *testing.T, overTLS bool) (*upstream, *proxy.Proxy, *http.Client, string) {
	u := &upstream{}
	u.Server = httptest.NewUnstartedServer(u)
	u.Config.ErrorLog = log.New(io.Discard, "", 0)
	scheme := "http://"
	if overTLS {
		u.StartTLS()
		scheme = "https://"
	} else {
		u.Start()
	}
	t.Cleanup(u.Close)
	p := proxy.Start(t, u.Listener.Addr().String())
	client := u.Client()
	client.Timeout = 10 * time.Second
	t.Cleanup(client.CloseIdleConnections)
	return u, p, client, scheme + p.Address()
}

// send makes a request and reads the answer.
func send(client *http.Client, method, url string, body []byte) (*http.Response, []byte, error) {
	request, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	return answer, got, err
}

// TestPasses: what is not broken arrives as it was sent.
func TestPasses(t *testing.T) {
	u, p, client, url := start(t, false)
	for _, c := range []struct {
		method, path string
		body         []byte
		answer       int
	}{
		{http.MethodGet, "/1000?list-type=2&prefix=a%2Fb", nil, 1000},
		{http.MethodGet, "/4000000", nil, 4000000},
		{http.MethodHead, "/1000", nil, 0},
		{http.MethodPut, "/date%3D2026-11-23//x%2Fy", []byte("body"), 0},
		{http.MethodPut, "/large", zeros, 0},
		{http.MethodPut, "/empty", nil, 0},
		{http.MethodDelete, "/x", nil, 0},
	} {
		answer, got, err := send(client, c.method, url+c.path, c.body)
		if err != nil || answer.StatusCode != http.StatusOK || len(got) != c.answer {
			t.Fatalf("%s %s: %v, %d bytes", c.method, c.path, err, len(got))
		}
		r, body, err := u.got()
		if err != nil || r.RequestURI != c.path || r.Method != c.method || r.Host != p.Address() || !bytes.Equal(body, c.body) || r.ContentLength != int64(len(c.body)) {
			t.Errorf("%s %s came as %s %s to %s, %d of %d bytes, %v", c.method, c.path, r.Method, r.RequestURI, r.Host, len(body), r.ContentLength, err)
		}
	}
	// A body of unknown length.
	answer, err := client.Post(url+"/chunked", "text/plain", io.MultiReader(strings.NewReader("a"), strings.NewReader("b")))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if r, body, _ := u.got(); string(body) != "ab" || r.ContentLength != -1 {
		t.Errorf("%q of %d bytes", body, r.ContentLength)
	}
	// An answer that comes before the body is read.
	if answer, _, err := send(client, http.MethodPut, url+"/early", zeros[:1000]); err != nil || answer.StatusCode != http.StatusPreconditionFailed {
		t.Errorf("early answer: %v", err)
	}
	if p.Hits() != 0 {
		t.Errorf("%d hits", p.Hits())
	}
}

// seen is what a client sees of its request.
type seen struct {
	answer *http.Response
	body   []byte
	err    error
}

func fails(want ...error) func(seen) bool {
	return func(s seen) bool {
		return slices.ContainsFunc(want, func(w error) bool { return errors.Is(s.err, w) })
	}
}

func whole(n int) func(seen) bool {
	return func(s seen) bool {
		return s.err == nil && s.answer.StatusCode == http.StatusOK && bytes.Equal(s.body, zeros[:n])
	}
}

// says is an answer of the proxy's own with that status, text in its body and clock.
func says(status int, text string, skew time.Duration) func(seen) bool {
	return func(s seen) bool {
		if s.err != nil {
			return false
		}
		date, err := http.ParseTime(s.answer.Header.Get("Date"))
		return err == nil && (time.Until(date)-skew).Abs() < 3*time.Second && s.answer.StatusCode == status && strings.Contains(string(s.body), text)
	}
}

func ones(b []byte) (n int) {
	for _, c := range b {
		n += bits.OnesCount8(c)
	}
	return n
}

// TestFaults: what the client sees of each fault and what the server, and that it is over afterwards.
func TestFaults(t *testing.T) {
	const (
		size  = 1 << 20
		reset = syscall.ECONNRESET
		get   = http.MethodGet
		put   = http.MethodPut
	)
	puts := func(r *http.Request) bool { return r.Method == put }
	large := func(r *http.Request) bool { return r.URL.Path == fmt.Sprint("/", size) }
	for _, c := range []struct {
		name    string
		fault   proxy.Fault
		method  string
		see     func(seen) bool
		least   time.Duration // that it takes
		arrives int           // bytes of the body that the server gets; -1: it gets no request
		flipped int           // bits of them
		tls     bool          // the same is true of TLS
	}{
		{name: "refused", fault: proxy.Fault{Kind: proxy.Refuse}, method: get, see: fails(syscall.ECONNREFUSED), arrives: -1, tls: true},
		{name: "reset at once", fault: proxy.Fault{Kind: proxy.ResetRequest}, method: get, see: fails(reset), arrives: -1, tls: true},
		{name: "reset of a PUT at once", fault: proxy.Fault{Kind: proxy.ResetRequest}, method: put, see: fails(reset, syscall.EPIPE, net.ErrClosed), arrives: -1, tls: true},
		{name: "reset in the middle of the request", fault: proxy.Fault{Kind: proxy.ResetRequest, After: 100_000}, method: put, see: fails(reset, syscall.EPIPE, net.ErrClosed), arrives: 100_000},
		{name: "reset before the answer", fault: proxy.Fault{Kind: proxy.ResetAnswer}, method: get, see: fails(reset)},
		{name: "reset in the middle of the answer", fault: proxy.Fault{Kind: proxy.ResetAnswer, After: 100_000}, method: get, see: fails(reset), tls: true},
		{name: "cut before the answer", fault: proxy.Fault{Kind: proxy.CutAnswer}, method: get, see: fails(io.EOF)},
		{name: "cut in the answer's head", fault: proxy.Fault{Kind: proxy.CutAnswer, After: 20}, method: get, see: func(s seen) bool { return s.answer == nil && s.err != nil }},
		{name: "cut in the middle of the answer", fault: proxy.Fault{Kind: proxy.CutAnswer, After: 100_000}, method: get, see: func(s seen) bool {
			return errors.Is(s.err, io.ErrUnexpectedEOF) && len(s.body) > 60_000 && len(s.body) < 100_000
		}, tls: true},
		{name: "latency", fault: proxy.Fault{Kind: proxy.Latency, Delay: 200 * time.Millisecond}, method: get, see: whole(size), least: 200 * time.Millisecond, tls: true},
		{name: "a slow download", fault: proxy.Fault{Kind: proxy.Bandwidth, Rate: 4 << 20}, method: get, see: whole(size), least: 240 * time.Millisecond, tls: true},
		{name: "a slow upload", fault: proxy.Fault{Kind: proxy.Bandwidth, Rate: 4 << 20}, method: put, see: whole(0), least: 240 * time.Millisecond, arrives: size, tls: true},
		{name: "500", fault: proxy.Fault{Kind: proxy.Answer, Status: 500, Code: "InternalError"}, method: get, see: says(500, "<Code>InternalError</Code>", 0), arrives: -1},
		{name: "503 to a PUT", fault: proxy.Fault{Kind: proxy.Answer, Status: 503, Code: "SlowDown"}, method: put, see: says(503, "<Code>SlowDown</Code>", 0), arrives: -1},
		{name: "403 to a HEAD, from a clock that is off", fault: proxy.Fault{Kind: proxy.Answer, Status: 403, Code: "RequestTimeTooSkewed", Skew: 20 * time.Minute},
			method: http.MethodHead, see: says(403, "", 20*time.Minute), arrives: -1},
		{name: "no answer of the proxy's with TLS", fault: proxy.Fault{Kind: proxy.Answer, Status: 500, Only: puts}, method: get, see: whole(size), tls: true},
		{name: "an answer lost", fault: proxy.Fault{Kind: proxy.LoseAnswer}, method: put, see: fails(reset), arrives: size},
		{name: "a corrupt answer", fault: proxy.Fault{Kind: proxy.CorruptAnswer}, method: get, see: func(s seen) bool {
			return s.err == nil && len(s.body) == size && ones(s.body) == 1
		}},
		{name: "an answer corrupt at one byte", fault: proxy.Fault{Kind: proxy.CorruptAnswer, After: 123_456, Only: large}, method: get, see: func(s seen) bool {
			return s.err == nil && len(s.body) == size && ones(s.body) == 1 && s.body[123_456] != 0
		}},
		{name: "no corrupt answer to a PUT", fault: proxy.Fault{Kind: proxy.CorruptAnswer}, method: put, see: whole(0), arrives: size},
		{name: "a corrupt request", fault: proxy.Fault{Kind: proxy.CorruptRequest}, method: put, see: whole(0), arrives: size, flipped: 1},
		{name: "other requests", fault: proxy.Fault{Kind: proxy.ResetRequest, Only: puts}, method: get, see: whole(size)},
		{name: "these requests", fault: proxy.Fault{Kind: proxy.ResetRequest, Only: puts}, method: put, see: fails(reset, syscall.EPIPE, net.ErrClosed), arrives: -1},
	} {
		for _, overTLS := range []bool{false, true} {
			if overTLS && !c.tls {
				continue
			}
			t.Run(fmt.Sprintf("%s, TLS %v", c.name, overTLS), func(t *testing.T) {
				u, p, client, url := start(t, overTLS)
				p.Break(c.fault)
				var body []byte
				if c.method == put {
					body = zeros[:size]
				}
				began := time.Now()
				var s seen
				s.answer, s.body, s.err = send(client, c.method, fmt.Sprint(url, "/", size), body)
				if !c.see(s) {
					t.Errorf("%v, %d bytes, %v", s.answer, len(s.body), s.err)
				}
				if took := time.Since(began); took < c.least || took > c.least+5*time.Second {
					t.Errorf("it took %v, want %v", took, c.least)
				}
				await(t, "the server got it", func() bool {
					r, body, _ := u.got()
					return r == nil && c.arrives < 0 || r != nil && len(body) == c.arrives && ones(body) == c.flipped
				})
				p.Mend()
				if _, _, err := send(client, get, url+"/7", nil); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			})
		}
	}
}

func await(t *testing.T, what string, there func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !there(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// TestExistingConnections: a fault strikes connections that were there before, in the middle of an answer too.
func TestExistingConnections(t *testing.T) {
	for _, c := range []struct {
		fault proxy.Fault
		see   func(error) bool // nil: the rest comes when the fault is over
	}{
		{proxy.Fault{Kind: proxy.Refuse}, func(err error) bool { return errors.Is(err, syscall.ECONNRESET) }},
		{proxy.Fault{Kind: proxy.Silence}, nil},
		{proxy.Fault{Kind: proxy.Silence, Forever: true}, func(err error) bool { return errors.Is(err, context.Canceled) }},
	} {
		for _, overTLS := range []bool{false, true} {
			t.Run(fmt.Sprintf("kind %d, forever %v, TLS %v", c.fault.Kind, c.fault.Forever, overTLS), func(t *testing.T) {
				_, p, client, url := start(t, overTLS)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				// Slow enough to be in the middle.
				p.Break(proxy.Fault{Kind: proxy.Bandwidth, Rate: 1 << 20})
				request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprint(url, "/", len(zeros)), nil)
				if err != nil {
					t.Fatal(err)
				}
				answer, err := client.Do(request)
				if err != nil {
					t.Fatal(err)
				}
				defer answer.Body.Close()
				var read atomic.Int64
				done := make(chan error, 1)
				go func() {
					_, err := io.Copy(&counter{&read}, answer.Body)
					done <- err
				}()
				await(t, "some of the answer is there", func() bool { return read.Load() > 0 })
				p.Break(c.fault)
				if c.fault.Kind == proxy.Silence {
					await(t, "it is silent", func() bool { return p.Hits() > 0 })
					before := read.Load()
					select {
					case err := <-done:
						t.Fatalf("it ended: %v", err)
					case <-time.After(200 * time.Millisecond):
					}
					// What was on its way when the silence began may still come.
					if after := read.Load(); after > before+1<<18 {
						t.Errorf("%d bytes came in the silence", after-before)
					}
				}
				p.Mend()
				if c.fault.Forever {
					if _, _, err := send(client, http.MethodGet, url+"/7", nil); err != nil {
						t.Errorf("another connection: %v", err)
					}
					select {
					case err := <-done:
						t.Errorf("it ended: %v", err)
					case <-time.After(200 * time.Millisecond):
					}
					cancel()
				}
				switch err := <-done; {
				case c.see != nil:
					if !c.see(err) {
						t.Error(err)
					}
				case err != nil || read.Load() != int64(len(zeros)):
					t.Errorf("%d bytes, %v", read.Load(), err)
				}
			})
		}
	}
}

type counter struct{ n *atomic.Int64 }

func (c *counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}

// TestUnderLoad switches faults while requests are under way. When all is mended all is well.
func TestUnderLoad(t *testing.T) {
	u, p, client, url := start(t, false)
	client.Timeout = time.Second
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var good, bad atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				method, body := http.MethodGet, []byte(nil)
				if i%2 == 0 {
					method, body = http.MethodPut, zeros[:50_000]
				}
				if answer, got, err := send(client, method, url+"/50000", body); err == nil && answer.StatusCode == http.StatusOK && ones(got) == 0 {
					good.Add(1)
				} else {
					bad.Add(1)
				}
			}
		})
	}
	for round := range 2 {
		for kind := proxy.Refuse; kind <= proxy.CorruptRequest; kind++ {
			before := good.Load()
			await(t, fmt.Sprint("requests go well before kind ", kind), func() bool { return good.Load() > before+20 })
			p.Break(proxy.Fault{Kind: kind, After: 1000, Delay: 50 * time.Millisecond, Rate: 1 << 20, Status: 500, Code: "InternalError", Forever: round == 1})
			await(t, fmt.Sprint("kind ", kind, " strikes"), func() bool { return p.Hits() > 0 })
			p.Mend()
		}
	}
	before := good.Load()
	await(t, "requests go well at the end", func() bool { return good.Load() > before+20 })
	close(stop)
	wg.Wait()
	if bad.Load() == 0 {
		t.Error("nothing went wrong")
	}
	if _, body, err := u.got(); err != nil || len(body) > 0 && len(body) != 50_000 {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}
