package gpu

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Call is a request as a client makes it.
type Call struct {
	Method string // "": POST
	Path   string
	Body   []byte
	Header http.Header
}

// NewCall is a POST of a JSON object.
func NewCall(path string, body map[string]any) Call {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // what tests send can be written
	}
	return Call{Path: path, Body: text, Header: http.Header{"Content-Type": {"application/json"}}}
}

// With returns the call with another header.
func (c Call) With(name, value string) Call {
	c.Header = c.Header.Clone()
	c.Header.Set(name, value)
	return c
}

// Exchange is what a client sent and got.
type Exchange struct {
	Call
	Sent, Ended time.Time
	Status      int // 0: no answer came
	Header      http.Header
	Body        []byte // as far as it came, without transfer encoding
	Err         error  // nil: the answer came whole
}

// Client sends calls, each connection one call at a time.
type Client struct {
	url  string
	http *http.Client
}

// NewClient makes a client of a server, that keeps at most so many connections open.
func NewClient(url string, connections int) *Client {
	return &Client{url, &http.Client{Transport: &http.Transport{
		MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections, DisableCompression: true,
	}}}
}

// Close closes the connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Do sends a call and reads the answer, until ctx ends: then the connection is closed. Each part of the answer's body
// that arrives is shown to arrived, which may be nil.
func (c *Client) Do(ctx context.Context, call Call, arrived func(soFar []byte)) (e Exchange) {
	e.Call, e.Sent = call, time.Now()
	defer func() { e.Ended = time.Now() }()
	method := call.Method
	if method == "" {
		method = http.MethodPost
	}
	request, err := http.NewRequestWithContext(ctx, method, c.url+call.Path, bytes.NewReader(call.Body))
	if err != nil {
		e.Err = err
		return e
	}
	if call.Header != nil {
		request.Header = call.Header.Clone()
	}
	answer, err := c.http.Do(request)
	if err != nil {
		e.Err = fmt.Errorf("calling %s: %w", call.Path, err)
		return e
	}
	defer answer.Body.Close()
	e.Status, e.Header = answer.StatusCode, answer.Header
	buffer := make([]byte, 32<<10)
	for {
		n, err := answer.Body.Read(buffer)
		e.Body = append(e.Body, buffer[:n]...)
		if arrived != nil && n > 0 {
			arrived(e.Body)
		}
		switch {
		case err == io.EOF:
			return e
		case err != nil:
			e.Err = fmt.Errorf("reading the answer of %s: %w", call.Path, err)
			return e
		}
	}
}
