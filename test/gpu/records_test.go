package gpu

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func chatBody(more map[string]any) map[string]any {
	body := map[string]any{
		"model": Model,
		"messages": []map[string]any{
			{"role": "system", "content": "be brief"},
			{"role": "user", "content": []map[string]any{{"type": "text", "text": "größer 😀 als je"}}},
		},
	}
	for name, value := range more {
		body[name] = value
	}
	return body
}

func stub(steer map[string]any) map[string]any { return map[string]any{"stub": steer} }

func streamed(more map[string]any) map[string]any {
	body := map[string]any{"stream": true}
	for name, value := range more {
		body[name] = value
	}
	return body
}

const (
	chatPath        = "/v1/chat/completions"
	completionsPath = "/v1/completions"
	embeddingsPath  = "/v1/embeddings"
	responsesPath   = "/v1/responses"
	promptTokens    = 6 // of chatBody
)

// Each kind of request, one after the other: its record says what the client sent and got.
func TestRecords(t *testing.T) {
	t.Parallel()
	dir, checksum := modelDir(t, map[string]string{"config.json": "{}", "model-00001.safetensors": "weights", "README.md": "not counted", "a/b": "c"})
	r := newRig(t, Options{}, "AUDITCHAIN_MODEL="+dir)
	r.await(t, "the model's checksum", func(all *Records) error {
		if len(all.events("model_checksum")) == 0 {
			return fmt.Errorf("no event says so")
		}
		return nil
	})
	chat := func(more map[string]any) Call { return NewCall(chatPath, chatBody(more)) }
	post := func(path, body string) Call { return Call{Path: path, Body: []byte(body)} }
	usage := map[string]any{"include_usage": true}
	continuous := map[string]any{"include_usage": true, "continuous_usage_stats": true}
	userHash := func(name string) string { return "user:" + keyed([]byte(name)) }
	keyHash := func(key string) string { return "key:" + keyed([]byte(key)) }
	tools := []map[string]any{{"type": "function", "function": map[string]any{"name": "find", "parameters": map[string]any{}}}}
	for i, c := range []struct {
		name string
		call Call
		want want
	}{
		{"chat", chat(nil), want{in: promptTokens, out: 8}},
		{"chat, the client has an id", chat(nil).With("X-Request-Id", "client-1"), want{in: promptTokens, out: 8}},
		{"chat, two choices", chat(map[string]any{"n": 2, "max_tokens": 3}), want{in: promptTokens, out: 6}},
		{"chat, tool call", chat(map[string]any{"tools": tools}), want{in: promptTokens, out: 8}},
		{"chat, slow", chat(stub(map[string]any{"delay": 0.3})), want{in: promptTokens, out: 8}},
		{"stream", chat(streamed(nil)), want{stream: true}},
		{"stream with usage", chat(streamed(map[string]any{"stream_options": usage})), want{stream: true, in: promptTokens, out: 8}},
		{"stream with continuous usage", chat(streamed(map[string]any{"stream_options": continuous, "n": 2})), want{stream: true, in: promptTokens, out: 16}},
		{"stream, slow, tool call", chat(streamed(map[string]any{"stream_options": usage, "tools": tools, "stub": map[string]any{"pace": 0.02}})), want{stream: true, in: promptTokens, out: 8}},
		{"stream of 1000 tokens", chat(streamed(map[string]any{"stream_options": usage, "max_tokens": 1000})), want{stream: true, in: promptTokens, out: 1000}},
		{"completion", NewCall(completionsPath, map[string]any{"model": Model, "prompt": "a b c"}), want{in: 3, out: 8}},
		{"completion streamed", NewCall(completionsPath, map[string]any{"model": Model, "prompt": "a b c", "stream": true, "stream_options": usage}), want{stream: true, in: 3, out: 8}},
		{"embeddings", NewCall(embeddingsPath, map[string]any{"model": Model, "input": []string{"a b", "c"}}), want{in: 3, out: 0}},
		{"response", NewCall(responsesPath, map[string]any{"model": Model, "input": "a b"}), want{in: 2, out: 8}},
		{"response streamed", NewCall(responsesPath, map[string]any{"model": Model, "input": "a b", "stream": true}), want{stream: true, in: 2, out: 8}},
		{"large prompt", NewCall(completionsPath, map[string]any{"model": Model, "prompt": strings.Repeat("word ", 200_000)}), want{in: 200_000, out: 8, cut: []string{"input"}}},

		{"no JSON", post(chatPath, "{"), want{http: 400, status: "400", in: 0, out: 0, model: fallbackModel, err: "BadRequestError"}},
		{"no body", post(chatPath, ""), want{http: 400, status: "400", in: 0, out: 0, model: fallbackModel, err: "BadRequestError"}},
		{"no UTF-8", post(chatPath, "{\"model\":\"\xff\"}"), want{http: 400, status: "400", in: 0, out: 0, model: fallbackModel, err: "BadRequestError"}},
		{"no such model", chat(map[string]any{"model": "other"}), want{http: 404, status: "404", in: 0, out: 0, model: "other", err: "NotFoundError"}},
		{"refused", chat(stub(map[string]any{"status": 422})), want{http: 422, status: "422", in: 0, out: 0, err: "UnprocessableEntityError"}},
		{"stream refused", chat(streamed(stub(map[string]any{"status": 400}))), want{http: 400, status: "400", in: 0, out: 0, err: "BadRequestError"}},
		{"error of the engine", chat(stub(map[string]any{"status": 500})), want{http: 500, status: "500", err: "InternalServerError"}},
		{"error in the stream", chat(streamed(stub(map[string]any{"status": 500, "after": 3}))), want{stream: true, status: "500", err: "InternalServerError"}},
		{"error in the stream, continuous usage", chat(streamed(map[string]any{"stream_options": continuous, "stub": map[string]any{"status": 500, "after": 3}})),
			want{stream: true, status: "500", in: promptTokens, out: 2, err: "InternalServerError"}},

		{"user", chat(map[string]any{"user": "alice"}), want{in: promptTokens, out: 8, user: userHash("alice")}},
		{"user before safety identifier and key", chat(map[string]any{"user": "alice", "safety_identifier": "x"}).With("Authorization", "Bearer k"), want{in: promptTokens, out: 8, user: userHash("alice")}},
		{"safety identifier", chat(map[string]any{"safety_identifier": "bob"}), want{in: promptTokens, out: 8, user: userHash("bob")}},
		{"user in metadata", chat(map[string]any{"metadata": map[string]any{"user_id": "carol é"}}), want{in: promptTokens, out: 8, user: userHash("carol é")}},
		{"key", chat(nil).With("Authorization", "Bearer secret"), want{in: promptTokens, out: 8, user: keyHash("secret")}},
		{"key in X-Api-Key", chat(nil).With("X-Api-Key", "secret"), want{in: promptTokens, out: 8, user: keyHash("secret")}},
		{"key in Api-Key", chat(nil).With("Api-Key", "secret"), want{in: promptTokens, out: 8, user: keyHash("secret")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := NewClient(r.URL, 1)
			defer client.Close()
			e := client.Do(t.Context(), c.call, nil)
			if e.Err != nil {
				t.Fatal(e.Err)
			}
			last := lastOf(t, r, i)
			checkRecord(t, last, &e, c.want)
			if last.ModelChecksum == nil || *last.ModelChecksum != checksum {
				t.Errorf("model_checksum is %v, not %s", last.ModelChecksum, checksum)
			}
		})
	}
}

// lastOf waits for the record with this number of the only source.
func lastOf(t *testing.T, r *rig, seq int) *Record {
	t.Helper()
	all := r.records(t, seq+1)
	if _, err := all.Sources(); err != nil {
		t.Fatal(err)
	}
	if len(all.Requests) != seq+1 {
		t.Fatalf("%d records, not %d", len(all.Requests), seq+1)
	}
	for i := range all.Requests {
		if all.Requests[i].Source.Seq == uint64(seq) {
			return &all.Requests[i]
		}
	}
	t.Fatalf("no record has the number %d", seq)
	return nil
}

// What is no inference leaves no record, and takes no number.
func TestNotRecorded(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	client := NewClient(r.URL, 1)
	defer client.Close()
	for _, call := range []Call{
		{Method: http.MethodGet, Path: "/v1/models"},
		{Method: http.MethodGet, Path: "/health"},
		{Method: http.MethodGet, Path: "/metrics"},
		{Method: http.MethodGet, Path: chatPath},
		{Method: http.MethodPost, Path: "/nowhere"},
	} {
		if e := client.Do(t.Context(), call, nil); e.Err != nil {
			t.Error(e.Err)
		}
	}
	e := client.Do(t.Context(), NewCall(chatPath, chatBody(nil)), nil)
	checkRecord(t, lastOf(t, r, 0), &e, want{in: promptTokens, out: 8})
}

// inEachLoop runs a test in both event loops, which differ in when they tell that a client is gone.
func inEachLoop(t *testing.T, test func(t *testing.T, loop string)) {
	t.Parallel()
	for _, loop := range []string{"uvloop", "asyncio"} {
		t.Run(loop, func(t *testing.T) {
			t.Parallel()
			test(t, loop)
		})
	}
}

// An exception of the application is a 500 that the server makes outside of the middleware, or a torn stream.
func TestExceptions(t *testing.T) { inEachLoop(t, testExceptions) }

func testExceptions(t *testing.T, loop string) {
	r := newRig(t, Options{Loop: loop})
	do := func(call Call) Exchange {
		client := NewClient(r.URL, 1) // the server closes the connection
		defer client.Close()
		return client.Do(t.Context(), call, nil)
	}
	e := do(NewCall(chatPath, chatBody(stub(map[string]any{"raise": "it quotes größer"}))))
	if e.Err != nil || e.Status != 500 || string(e.Body) != "Internal Server Error" {
		t.Errorf("the client got %d %q, %v", e.Status, e.Body, e.Err)
	}
	e.Body = nil // the middleware did not see it
	checkRecord(t, lastOf(t, r, 0), &e, want{http: -1, status: "500", err: "RuntimeError"})

	e = do(NewCall(chatPath, chatBody(streamed(stub(map[string]any{"raise": "x", "after": 3})))))
	if e.Err == nil || e.Status != 200 {
		t.Errorf("the client got %d %q, %v", e.Status, e.Body, e.Err)
	}
	checkRecord(t, lastOf(t, r, 1), &e, want{stream: true, status: "500", err: "RuntimeError"})
}

// The middleware is outside of authentication, and so sees whom that refuses.
func TestUnauthorized(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{APIKeys: []string{"right"}})
	client := NewClient(r.URL, 1)
	defer client.Close()
	call := NewCall(chatPath, chatBody(nil))
	for i, c := range []struct {
		call Call
		want want
	}{
		{call, want{http: 401, status: "401", in: 0, out: 0, err: "?"}},
		{call.With("Authorization", "Bearer wrong"), want{http: 401, status: "401", in: 0, out: 0, err: "?", user: "key:" + keyed([]byte("wrong"))}},
		{call.With("Authorization", "Bearer right"), want{in: promptTokens, out: 8, user: "key:" + keyed([]byte("right"))}},
	} {
		e := client.Do(t.Context(), c.call, nil)
		if e.Err != nil {
			t.Fatal(e.Err)
		}
		record := lastOf(t, r, i)
		e.Call = c.call
		if c.want.http == 401 {
			// Who is refused unread: the application took nothing of the body, and answered all the same.
			checkRefusedUnread(t, record, &e, c.want)
			continue
		}
		checkRecord(t, record, &e, c.want)
	}
}

func checkRefusedUnread(t *testing.T, r *Record, e *Exchange, w want) {
	t.Helper()
	unread := *e
	unread.Call.Body = nil
	w.model = fallbackModel
	checkRecord(t, r, &unread, w)
}

// A client that goes before the answer, or in the middle of it.
func TestAborts(t *testing.T) { inEachLoop(t, testAborts) }

func testAborts(t *testing.T, loop string) {
	r := newRig(t, Options{Loop: loop})
	client := NewClient(r.URL, 1)
	defer client.Close()

	t.Run("before the answer", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		e := client.Do(ctx, NewCall(chatPath, chatBody(stub(map[string]any{"delay": 30}))), nil)
		record := lastOf(t, r, 0)
		e.Ended = time.Now()
		checkRecord(t, record, &e, want{status: "client_abort", http: record.HTTPStatus, anything: true, err: "?"})
		if *record.LatencyMS < 150 || *record.LatencyMS > 20_000 {
			t.Errorf("latency_ms is %v", *record.LatencyMS)
		}
	})
	t.Run("in the stream", func(t *testing.T) {
		// The same request whole first: what was sent until the client left is a beginning of it.
		call := NewCall(chatPath, chatBody(streamed(map[string]any{
			"stream_options": map[string]any{"include_usage": true, "continuous_usage_stats": true}, "max_tokens": 100,
		}))).With("X-Request-Id", "twice")
		whole := client.Do(t.Context(), call, nil)
		lastOf(t, r, 1)
		slow := NewCall(chatPath, chatBody(streamed(map[string]any{
			"stream_options": map[string]any{"include_usage": true, "continuous_usage_stats": true}, "max_tokens": 100,
			"stub": map[string]any{"pace": 0.02},
		}))).With("X-Request-Id", "twice")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		e := client.Do(ctx, slow, func(soFar []byte) {
			if strings.Count(string(soFar), "\n\n") > 10 {
				cancel()
			}
		})
		record := lastOf(t, r, 2)
		e.Ended = time.Now()
		if record.OutputBytes < len(e.Body) || record.OutputBytes >= len(whole.Body) {
			t.Fatalf("output_bytes is %d, the client got %d of %d", record.OutputBytes, len(e.Body), len(whole.Body))
		}
		sent := whole.Body[:record.OutputBytes]
		if got := *record.OutputHash; got != plain(sent) {
			t.Errorf("output_hash is not that of the first %d bytes", len(sent))
		}
		// The events: one with the role, then one for each token, with the tokens so far.
		tokens := strings.Count(string(sent), "\n\n") - 1
		checkRecord(t, record, &e, want{status: "client_abort", stream: true, in: promptTokens, out: tokens, anything: true, err: "?"})
	})
	t.Run("before the body", func(t *testing.T) {
		conn := dial(t, r.URL)
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"model\"", chatPath)
		conn.Close()
		record := lastOf(t, r, 3)
		if record.Status != "client_abort" {
			t.Errorf("status is %q", record.Status)
		}
	})
}

// A deadline of one's own: the request is not cut, its record says that it was late.
func TestTimeout(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{}, "AUDITCHAIN_TIMEOUT=1s")
	client := NewClient(r.URL, 1)
	defer client.Close()
	e := client.Do(t.Context(), NewCall(chatPath, chatBody(stub(map[string]any{"delay": 1.5}))), nil)
	if e.Err != nil {
		t.Fatal(e.Err)
	}
	checkRecord(t, lastOf(t, r, 0), &e, want{status: "timeout", in: promptTokens, out: 8, err: "?"})
	e = client.Do(t.Context(), NewCall(chatPath, chatBody(nil)), nil)
	checkRecord(t, lastOf(t, r, 1), &e, want{in: promptTokens, out: 8})
}

// A server that is asked to end answers what it has begun, and its last word comes after the last record.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	const workers, clients = 2, 40
	r := newRig(t, Options{Workers: workers})
	client := NewClient(r.URL, clients)
	defer client.Close()
	answers := make(chan Exchange, clients)
	begun := make(chan struct{}, clients)
	for n := range clients {
		go func() {
			call := NewCall(chatPath, chatBody(streamed(map[string]any{"user": fmt.Sprint(n), "max_tokens": 20, "stub": map[string]any{"pace": 0.05}})))
			said := false
			answers <- client.Do(t.Context(), call, func([]byte) {
				if !said {
					said = true
					begun <- struct{}{}
				}
			})
		}()
	}
	for range clients {
		<-begun
	}
	r.stop(t)
	for range clients {
		if e := <-answers; e.Err != nil || e.Status != 200 {
			t.Errorf("status %d, %v", e.Status, e.Err)
		}
	}
	all := r.records(t, clients)
	if _, err := all.Sources(); err != nil {
		t.Error(err)
	}
	for i := range all.Requests {
		if all.Requests[i].Status != "200" {
			t.Errorf("status is %s", all.Requests[i].Status)
		}
	}
	served := 0
	for _, e := range all.events("stop") {
		served += int(e.Served)
		if e.Recorded != e.Served || len(e.Open) > 0 {
			t.Errorf("stop: %+v", e)
		}
	}
	if n := len(all.events("stop")); n != workers || served != clients {
		t.Errorf("%d processes stopped after %d requests", n, served)
	}
}
