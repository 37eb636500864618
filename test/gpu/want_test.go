package gpu

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
)

// want is what a record must say of an exchange besides what follows from its bytes and times.
type want struct {
	status    string // "": 200
	http      int    // 0: 200; -1: none
	stream    bool
	in, out   any    // tokens: a number or nil
	model     string // "": Model
	user      string // "": anonymous
	err       string // "?": any
	operation string // "": inference
	cut       []string
	anything  bool // the client left before it knew the output
}

var uuid4 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// slack is how far the client's times may be from the server's: either may have to wait for a processor.
const slack = 250 * time.Millisecond

// checkRecord compares a record with what the client sent and got, member by member.
func checkRecord(t *testing.T, r *Record, e *Exchange, w want) {
	t.Helper()
	if w.status == "" {
		w.status = "200"
	}
	switch w.http {
	case 0:
		w.http = 200
	case -1:
		w.http = 0
	}
	if w.model == "" {
		w.model = Model
	}
	if w.user == "" {
		w.user = "anonymous"
	}
	if w.operation == "" {
		w.operation = "inference"
	}
	same := func(member string, got, want any) {
		t.Helper()
		if g, w := text(got), text(want); g != w {
			t.Errorf("%s is %s, not %s", member, g, w)
		}
	}
	if !uuid4.MatchString(r.RequestID) {
		t.Errorf("request_id is %q, no UUID of version 4", r.RequestID)
	}
	if r.Timestamp.Before(e.Sent.Add(-slack)) || r.Timestamp.After(e.Ended.Add(slack)) {
		t.Errorf("timestamp is %s, the client's are %s to %s", r.Timestamp, e.Sent, e.Ended)
	}
	same("model_id", r.ModelID, w.model)
	same("input_hash", r.InputHash, plain(e.Call.Body))
	same("input_bytes", r.InputBytes, len(e.Call.Body))
	if !w.anything {
		same("output_hash", r.OutputHash, plain(e.Body))
		same("output_bytes", r.OutputBytes, len(e.Body))
		if took := e.Ended.Sub(e.Sent) + slack; r.LatencyMS == nil || *r.LatencyMS < 0 || *r.LatencyMS > float64(took)/1e6 {
			t.Errorf("latency_ms is %s, the client waited for %s", text(r.LatencyMS), took)
		}
		same("response_id", r.ResponseID, responseID(e.Body))
		if r.ResponseID != "" && e.Call.Header.Get("X-Request-Id") == "" && !strings.HasSuffix(r.ResponseID, r.RequestID) {
			t.Errorf("the response's id is %q, that of the record %q", r.ResponseID, r.RequestID)
		}
		if (r.TTFTMS != nil) != (len(e.Body) > 0) || r.TTFTMS != nil && (*r.TTFTMS < 0 || *r.TTFTMS > *r.LatencyMS) {
			t.Errorf("ttft_ms is %s, latency_ms %s", text(r.TTFTMS), text(r.LatencyMS))
		}
	}
	same("user_id", r.UserID, w.user)
	same("input_tokens", r.InputTokens, w.in)
	same("output_tokens", r.OutputTokens, w.out)
	same("status", r.Status, w.status)
	same("endpoint", r.Endpoint, e.Call.Path)
	same("method", r.Method, "POST")
	same("operation", r.Operation, w.operation)
	same("stream", r.Stream, w.stream)
	same("http_status", r.HTTPStatus, w.http)
	same("hash_of", r.HashOf, map[string]string{"input": "body", "output": "body"})
	same("client_request_id", r.ClientRequestID, e.Call.Header.Get("X-Request-Id"))
	if w.err != "?" {
		same("error", r.Error, w.err)
	}
	same("cut", r.Cut, w.cut)
	same("prompt", r.Prompt, nil)
	same("response", r.Response, nil)
}

// text is a value as JSON, by which a pointer and what it points to are the same.
func text(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

var anyID = regexp.MustCompile(`"id": ?"((?:chatcmpl|cmpl|embd|resp)-[^"]*)"`)

// responseID is the id of what the stub answered, as a client finds it.
func responseID(body []byte) string {
	if found := anyID.FindSubmatch(body); found != nil {
		return string(found[1])
	}
	return ""
}
