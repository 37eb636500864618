package gpu

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
)

func dial(t *testing.T, url string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// wire sends a call by hand and returns every byte that comes back until the server closes.
func wire(t *testing.T, url string, call Call) []byte {
	t.Helper()
	conn := dial(t, url)
	defer conn.Close()
	method := call.Method
	if method == "" {
		method = "POST"
	}
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: model.example.com\r\nConnection: close\r\nContent-Length: %d\r\n", method, call.Path, len(call.Body))
	for name, values := range call.Header {
		for _, value := range values {
			fmt.Fprintf(conn, "%s: %s\r\n", name, value)
		}
	}
	conn.Write(append([]byte("\r\n"), call.Body...)) // who refuses may have closed already
	all, err := io.ReadAll(conn)
	if err != nil && len(all) == 0 {
		t.Fatal(err)
	}
	return all
}

var date = regexp.MustCompile(`(?m)^date: .*\r\n`)

// What a client gets is the same with and without the middleware, byte by byte: status, headers, chunks, order.
func TestSameOnTheWire(t *testing.T) {
	t.Parallel()
	audited := newRig(t, Options{APIKeys: []string{"k"}}, "AUDITCHAIN_PAYLOAD=on")
	bare, err := Start(Options{Dir: t.TempDir(), APIKeys: []string{"k"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bare.Kill)
	calls := []Call{
		{Method: "GET", Path: "/v1/models"},
		{Method: "GET", Path: "/health"},
		{Path: "/nowhere"},
		{Method: "OPTIONS", Path: chatPath},
		{Path: chatPath, Body: []byte("{")},
		{Path: chatPath},
		NewCall("/v1/load_lora_adapter", map[string]any{"lora_name": "l", "lora_path": "/nowhere"}),
		NewCall(completionsPath, map[string]any{"model": Model, "prompt": strings.Repeat("a ", 100_000), "max_tokens": 5000}),
		NewCall(embeddingsPath, map[string]any{"model": Model, "input": "a"}),
		NewCall(responsesPath, map[string]any{"model": Model, "input": "a", "stream": true}),
	}
	for _, more := range []map[string]any{
		nil,
		{"model": "other"},
		{"n": 3, "max_tokens": 2000},
		stub(map[string]any{"status": 422}),
		stub(map[string]any{"raise": "x"}),
		streamed(nil),
		streamed(map[string]any{"max_tokens": 2000, "stream_options": map[string]any{"include_usage": true}}),
		streamed(stub(map[string]any{"pace": 0.01})),
		streamed(stub(map[string]any{"status": 500, "after": 3})),
		streamed(stub(map[string]any{"raise": "x", "after": 3})),
		streamed(stub(map[string]any{"status": 400})),
	} {
		calls = append(calls, NewCall(chatPath, chatBody(more)))
	}
	for i, call := range calls {
		if call.Header == nil {
			call.Header = make(map[string][]string)
		}
		// The response's id is made from it; without one it is another each time.
		call = call.With("X-Request-Id", fmt.Sprint("same-", i))
		for _, key := range []string{"k", "wrong"} {
			call := call.With("Authorization", "Bearer "+key)
			with, without := wire(t, audited.URL, call), wire(t, bare.URL, call)
			if !bytes.Equal(date.ReplaceAll(with, nil), date.ReplaceAll(without, nil)) {
				t.Errorf("%s %.100s: with the middleware\n%.2000s\nwithout\n%.2000s", call.Path, call.Body, with, without)
			}
		}
	}
}
