// Package proxy stands between a client and one server on this machine, and breaks the network between them as a test
// asks, at any time and under load.
//
// What is plain HTTP is passed on request by request, with its Host as it is, so that signatures still verify; each goes to the server
// on a connection of its own. What begins like TLS is passed on byte by byte: there only the faults that need to see no
// request strike.
package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Kind is a way in which a network fails.
type Kind int

// The kinds of faults. Those with a star need to see the request, and leave TLS alone.
const (
	Refuse         Kind = iota + 1 // nobody listens, and existing connections are reset
	Silence                        // connections are taken, and nothing passes either way, nor on existing ones
	ResetRequest                   // a reset after After bytes of the request's body, which the server gets; of the connection with TLS
	ResetAnswer                    // a reset after After bytes of the answer, its head included; of the connection with TLS
	CutAnswer                      // the same, with an orderly end of the connection
	Latency                        // each answer comes Delay later
	Bandwidth                      // Rate each way
	Answer                         // * the proxy answers with Status and Code; the server is not asked
	LoseAnswer                     // * the server gets the request and answers, the client gets a reset
	CorruptAnswer                  // * one bit of the body of each answer to a GET is flipped: of byte After; 0: anywhere
	CorruptRequest                 // * the same in the body of each request
)

// Fault is what goes wrong.
type Fault struct {
	Kind Kind
	// Only says which requests it strikes; nil: all that comes. It must not read the body. Refuse strikes all.
	Only func(r *http.Request) bool

	After int64         // bytes
	Delay time.Duration // of Latency
	Rate  int           // of Bandwidth, bytes per second
	// Forever has connections that were silent stay so when the fault is over, as behind a firewall that has forgotten
	// them. Otherwise what was held back goes on then.
	Forever bool
	Status  int           // of Answer
	Code    string        // of Answer: S3's, for the body
	Skew    time.Duration // of Answer: how far its Date is off
}

// Proxy passes connections to 127.0.0.1 on to the server, until something is broken.
type Proxy struct {
	address  string
	upstream string
	hits     atomic.Int64
	running  sync.WaitGroup

	mu       sync.Mutex
	fault    *Fault        // nil: none
	changed  chan struct{} // closed when fault is another one
	listener net.Listener  // nil while connections are refused
	lines    map[*line]struct{}
	closed   bool
	random   *rand.Rand
}

// Start starts a proxy before the server at the address upstream, host:port. It ends with the test.
func Start(t testing.TB, upstream string) *Proxy {
	t.Helper()
	p := &Proxy{address: "127.0.0.1:0", upstream: upstream, changed: make(chan struct{}), lines: make(map[*line]struct{}), random: rand.New(rand.NewPCG(1, 2))}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

// Address is host:port of the proxy. It stays the same.
func (p *Proxy) Address() string { return p.address }

// Break has f strike from now on, instead of what was broken before.
func (p *Proxy) Break(f Fault) { p.set(&f) }

// Mend has everything pass again.
func (p *Proxy) Mend() { p.set(nil) }

// Hits is how often a request, or a connection on which none was under way, was struck since the last Break.
func (p *Proxy) Hits() int { return int(p.hits.Load()) }

func (p *Proxy) set(f *Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f != nil {
		p.hits.Store(0)
	}
	p.fault = f
	close(p.changed)
	p.changed = make(chan struct{})
	switch refuse := f != nil && f.Kind == Refuse; {
	case refuse && p.listener != nil:
		p.listener.Close()
		p.listener = nil
		p.resetAll()
	case !refuse && p.listener == nil:
		if err := p.listenAgain(); err != nil {
			panic(err) // a test cannot go on without
		}
	}
}

// listen takes connections at p.address. mu is held.
func (p *Proxy) listen() error {
	// What a slow line has not taken must wait at the client, not here.
	config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
		return conn.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, readBuffer) })
	}}
	l, err := config.Listen(context.Background(), "tcp", p.address)
	if err != nil {
		return err
	}
	p.address, p.listener = l.Addr().String(), l
	p.running.Go(func() { p.accept(l) })
	return nil
}

// listenAgain waits for a port that somebody else has for a moment, as the own end of a connection.
func (p *Proxy) listenAgain() error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err := p.listen(); err == nil || !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(deadline) {
			return err
		}
	}
}

func (p *Proxy) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return // closed
		}
		l := &line{conn: conn.(*net.TCPConn), proxy: p}
		l.alive, l.ended = context.WithCancel(context.Background())
		p.mu.Lock()
		if p.closed || p.listener != listener {
			p.mu.Unlock()
			l.reset()
			continue
		}
		p.lines[l] = struct{}{}
		p.mu.Unlock()
		p.running.Go(func() {
			defer func() {
				l.end()
				p.mu.Lock()
				delete(p.lines, l)
				p.mu.Unlock()
			}()
			l.serve()
		})
	}
}

// readBuffer is about how much the kernel keeps of what a client has sent and the proxy has not read, bytes.
const readBuffer = 8 << 10

// resetAll ends all connections. mu is held.
func (p *Proxy) resetAll() {
	for l := range p.lines {
		p.hits.Add(1)
		l.reset()
	}
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	if p.listener != nil {
		p.listener.Close()
	}
	p.resetAll()
	p.mu.Unlock()
	p.running.Wait()
}

// current returns the fault, and a channel that is closed when there is another.
func (p *Proxy) current() (*Fault, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault, p.changed
}

// line is a client's connection.
type line struct {
	conn  *net.TCPConn
	proxy *Proxy
	once  sync.Once
	alive context.Context // until the connection is closed
	ended func()

	request atomic.Pointer[http.Request] // the one that is under way; nil where requests cannot be seen
	hit     atomic.Pointer[Fault]        // the last fault that was counted for it
	dead    atomic.Bool                  // silent for ever
}

func (l *line) end() {
	l.once.Do(func() { l.conn.Close(); l.ended() })
}

// reset ends the connection with an RST.
func (l *line) reset() {
	l.once.Do(func() { l.conn.SetLinger(0); l.conn.Close(); l.ended() })
}

// struck returns the fault if it is of the kind and strikes this line now.
func (l *line) struck(kind Kind) (*Fault, <-chan struct{}) {
	f, changed := l.proxy.current()
	r := l.request.Load()
	if f == nil || f.Kind != kind || f.Only != nil && (r == nil || !f.Only(r)) {
		return nil, changed
	}
	if l.hit.Swap(f) != f {
		l.proxy.hits.Add(1)
	}
	return f, changed
}

// Read is the client's bytes, as slowly and as late as the fault wants.
func (l *line) Read(b []byte) (int, error) {
	l.listenInSilence()
	if f, _ := l.struck(Bandwidth); f != nil {
		b = b[:min(len(b), f.portion())]
	}
	n, err := l.conn.Read(b)
	l.listenInSilence() // it may have begun while the read waited
	l.pace(n)
	return n, err
}

// Write sends bytes to the client.
func (l *line) Write(b []byte) (written int, err error) {
	for len(b) > written && err == nil {
		l.listenInSilence()
		part := b[written:]
		if f, _ := l.struck(Bandwidth); f != nil {
			part = part[:min(len(part), f.portion())]
		}
		var n int
		n, err = l.conn.Write(part)
		l.pace(n)
		written += n
	}
	return written, err
}

// listenInSilence returns when nothing keeps bytes from passing.
func (l *line) listenInSilence() {
	for {
		f, changed := l.struck(Silence)
		if f != nil && f.Forever {
			l.dead.Store(true)
		}
		switch {
		case l.dead.Load():
			<-l.alive.Done()
			return
		case f == nil:
			return
		}
		select {
		case <-changed:
		case <-l.alive.Done():
			return
		}
	}
}

// pace takes the time that n bytes take.
func (l *line) pace(n int) {
	if f, _ := l.struck(Bandwidth); f != nil {
		l.pause(time.Duration(n) * time.Second / time.Duration(f.Rate))
	}
}

// portion is what passes in a twentieth of a second, bytes.
func (f *Fault) portion() int { return max(1, f.Rate/20) }

// pause waits, at most until another fault strikes.
func (l *line) pause(d time.Duration) {
	_, changed := l.proxy.current()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-changed:
	case <-l.alive.Done():
	}
}

// late waits as long as an answer is to come later.
func (l *line) late() {
	if f, _ := l.struck(Latency); f != nil {
		l.pause(f.Delay)
	}
}

// dial connects to the server, at most as long as the client is connected.
func (l *line) dial() (*net.TCPConn, error) {
	conn, err := net.Dial("tcp", l.proxy.upstream)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(l.alive, func() { conn.Close() })
	return conn.(*net.TCPConn), nil
}

const tlsHandshake = 0x16 // first byte of every TLS connection

func (l *line) serve() {
	r := bufio.NewReader(l)
	first, err := r.Peek(1)
	if err != nil {
		return
	}
	if first[0] == tlsHandshake {
		l.pipe(r)
		return
	}
	for {
		request, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		l.hit.Store(nil)
		l.request.Store(request)
		if !l.exchange(request) {
			return
		}
		l.request.Store(nil)
	}
}

// exchange passes one request and its answer on, and reports whether the connection may be used again.
func (l *line) exchange(r *http.Request) bool {
	if f, _ := l.struck(Answer); f != nil {
		return l.answer(r, f)
	}
	if f, _ := l.struck(ResetRequest); f != nil && (f.After == 0 || r.ContentLength == 0) {
		l.reset()
		return false
	}
	upstream, err := l.dial()
	if err != nil {
		l.reset()
		return false
	}
	defer upstream.Close()
	passed := *r
	passed.URL = &url.URL{Opaque: r.RequestURI} // as it is: it is signed
	body := &requestBody{body: r.Body, line: l, upstream: upstream}
	if f, _ := l.struck(CorruptRequest); f != nil {
		body.body = l.proxy.corrupt(r.Body, f, r.ContentLength)
	}
	if r.ContentLength != 0 { // else Go would take it for a body of unknown length
		passed.Body = body
	}
	sent := make(chan error, 1)
	go func() { sent <- passed.Write(upstream) }()
	answer, err := http.ReadResponse(bufio.NewReader(upstream), r)
	if err != nil {
		l.reset()
		<-sent
		return false
	}
	defer answer.Body.Close()
	if f, _ := l.struck(LoseAnswer); f != nil {
		<-sent
		io.Copy(io.Discard, answer.Body)
		l.reset()
		return false
	}
	l.late()
	if f, _ := l.struck(CorruptAnswer); f != nil && r.Method == http.MethodGet {
		answer.Body = l.proxy.corrupt(answer.Body, f, answer.ContentLength)
	}
	err = answer.Write(&answerWriter{line: l})
	if r.ContentLength != 0 && !body.whole.Load() {
		// The server has answered before it has read everything, and will not read the rest.
		l.end()
		<-sent
		return false
	}
	return <-sent == nil && err == nil && !answer.Close && !r.Close
}

// answer answers as f says, in the server's place.
func (l *line) answer(r *http.Request, f *Fault) bool {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return false
	}
	body := fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>`+"\n"+`<Error><Code>%s</Code><Message>A test has put this answer here.</Message><RequestId>1</RequestId></Error>`, f.Code)
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n",
		f.Status, http.StatusText(f.Status), time.Now().Add(f.Skew).UTC().Format(http.TimeFormat), len(body))
	if r.Method == http.MethodHead {
		body = ""
	}
	_, err := io.WriteString(l, head+body)
	return err == nil && !r.Close
}

// requestBody is what goes to the server.
type requestBody struct {
	body     io.ReadCloser
	line     *line
	upstream net.Conn
	read     int64
	whole    atomic.Bool
}

func (b *requestBody) Read(p []byte) (int, error) {
	if f, _ := b.line.struck(ResetRequest); f != nil {
		p = p[:min(int64(len(p)), max(0, f.After-b.read))]
		if len(p) == 0 {
			b.line.reset()
			b.upstream.Close()
			return 0, net.ErrClosed
		}
	}
	n, err := b.body.Read(p)
	b.read += int64(n)
	switch {
	case err == io.EOF:
		b.whole.Store(true)
	case err != nil:
		b.upstream.Close() // the client is gone: so is its request
	}
	return n, err
}

func (b *requestBody) Close() error { return b.body.Close() }

// answerWriter is what goes to the client.
type answerWriter struct {
	line    *line
	written int64
}

func (w *answerWriter) Write(b []byte) (int, error) {
	return w.line.writeUpTo(b, &w.written)
}

// writeUpTo sends b, or as much of it as ResetAnswer and CutAnswer allow after what was written before.
func (l *line) writeUpTo(b []byte, before *int64) (int, error) {
	end := l.reset
	f, _ := l.struck(ResetAnswer)
	if f == nil {
		end = l.end
		f, _ = l.struck(CutAnswer)
	}
	over := f != nil && int64(len(b)) >= f.After-*before
	if over {
		b = b[:max(0, f.After-*before)]
	}
	n, err := l.Write(b)
	*before += int64(n)
	if over && err == nil {
		end()
		err = net.ErrClosed
	}
	return n, err
}

// corrupt flips one bit of a body of size bytes; in its first byte if f does not say and the size is not known, -1.
func (p *Proxy) corrupt(body io.ReadCloser, f *Fault, size int64) io.ReadCloser {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &corrupted{ReadCloser: body, at: f.After, mask: 1 << p.random.IntN(8)}
	if c.at == 0 && size > 0 {
		c.at = p.random.Int64N(size)
	}
	return c
}

// corrupted flips a bit of one byte.
type corrupted struct {
	io.ReadCloser
	at   int64 // what is to be read before the byte
	mask byte
}

func (c *corrupted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if c.at >= 0 && c.at < int64(n) {
		p[c.at] ^= c.mask
	}
	c.at -= int64(n)
	return n, err
}

// pipe passes bytes on both ways. from is the client's.
func (l *line) pipe(from io.Reader) {
	upstream, err := l.dial()
	if err != nil {
		l.reset()
		return
	}
	defer upstream.Close()
	var asked atomic.Bool // since the last answer
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer upstream.CloseWrite()
		var passed int64
		b := make([]byte, 32<<10)
		for {
			n, err := from.Read(b)
			if f, _ := l.struck(ResetRequest); f != nil && passed+int64(n) >= f.After {
				n = int(max(0, f.After-passed))
				l.reset()
				err = net.ErrClosed
			}
			asked.Store(true)
			if _, failed := upstream.Write(b[:n]); failed != nil || err != nil {
				return
			}
			passed += int64(n)
		}
	}()
	var passed int64
	b := make([]byte, 32<<10)
	for {
		n, err := upstream.Read(b)
		if asked.Swap(false) {
			l.late()
		}
		if _, failed := l.writeUpTo(b[:n], &passed); failed != nil || err != nil {
			break
		}
	}
	l.end()
	<-done
}
