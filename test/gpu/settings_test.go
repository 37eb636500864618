package gpu

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// With the payload, a record carries the bytes whose hash it has.
func TestPayload(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{}, "AUDITCHAIN_PAYLOAD=on", "AUDITCHAIN_PAYLOAD_LIMIT=10K")
	client := NewClient(r.URL, 1)
	defer client.Close()
	long := strings.Repeat("word ", 4000)
	for i, c := range []struct {
		name string
		call Call
		cut  []string
	}{
		{"chat", NewCall(chatPath, chatBody(nil)), nil},
		{"stream", NewCall(chatPath, chatBody(streamed(nil))), nil},
		{"no UTF-8", Call{Path: chatPath, Body: []byte("{\"\xff\xfe")}, nil},
		{"no body", Call{Path: chatPath}, nil},
		{"control characters", Call{Path: chatPath, Body: []byte("\x00\x01\x7f\u2028\"\\")}, nil},
		{"long prompt", NewCall(completionsPath, map[string]any{"model": Model, "prompt": long}), []string{"input"}},
		{"long response", NewCall(completionsPath, map[string]any{"model": Model, "prompt": "word", "max_tokens": 4000}), []string{"output"}},
		{"both", NewCall(completionsPath, map[string]any{"model": Model, "prompt": long, "max_tokens": 4000}), []string{"input", "output"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := client.Do(t.Context(), c.call, nil)
			if e.Err != nil {
				t.Fatal(e.Err)
			}
			record := lastOf(t, r, i)
			for name, side := range map[string]struct {
				payload json.RawMessage
				bytes   []byte
				hash    *string
			}{
				"input":  {record.Prompt, c.call.Body, record.InputHash},
				"output": {record.Response, e.Body, record.OutputHash},
			} {
				cut := fmt.Sprint(c.cut) != "[]" && strings.Contains(fmt.Sprint(c.cut), name)
				kept := payload(t, side.payload)
				if *side.hash != plain(side.bytes) {
					t.Errorf("%s: the hash is not that of the whole", name)
				}
				switch {
				case cut && (!bytes.HasPrefix(side.bytes, kept) || len(kept) > 10_000 || len(kept) < 9_990):
					t.Errorf("%s: cut to %d bytes: %.100q", name, len(kept), kept)
				case !cut && !bytes.Equal(kept, side.bytes):
					t.Errorf("%s: kept %.300q of %.300q", name, kept, side.bytes)
				}
			}
			if fmt.Sprint(record.Cut) != fmt.Sprint(c.cut) {
				t.Errorf("cut is %v, not %v", record.Cut, c.cut)
			}
		})
	}
}

// payload is what a prompt or response of a record holds.
func payload(t *testing.T, value json.RawMessage) []byte {
	t.Helper()
	var text string
	if json.Unmarshal(value, &text) == nil {
		return []byte(text)
	}
	var other struct{ Base64 string }
	if err := json.Unmarshal(value, &other); err != nil {
		t.Fatalf("%s: %v", value, err)
	}
	data, err := base64.StdEncoding.DecodeString(other.Base64)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// canonical is the JSON text of RFC 8785 of what these tests send: Go sorts members, and escapes nothing that they hold.
func canonical(t *testing.T, value any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// The hash of the content is the same however the text came, and of nothing but it.
func TestHashModes(t *testing.T) {
	t.Parallel()
	said := "größer 😀 als"
	messages := []map[string]any{{"role": "user", "content": said}}
	tools := []map[string]any{{"type": "function", "function": map[string]any{"name": "find"}}}
	body := func(more map[string]any) map[string]any {
		b := map[string]any{"model": Model, "messages": messages, "max_tokens": 3}
		for name, value := range more {
			b[name] = value
		}
		return b
	}
	asked := map[string]any{"messages": messages}
	first, second := said, "😀 als größer"
	two := []map[string]any{{"text": first}, {"text": second}}
	called := []map[string]any{{"tool_calls": []map[string]any{{
		"id": "call-0", "name": "find", "arguments": `{"q": "` + said + `"}`,
	}}}}
	thought := []map[string]any{{"text": said, "reasoning": "größer? 😀? als?"}}
	cases := []struct {
		name string
		call Call
		in   any
		out  any // a string is the text itself
	}{
		{"chat", NewCall(chatPath, body(nil)), asked, first},
		{"two choices", NewCall(chatPath, body(map[string]any{"n": 2})), asked, two},
		{"tool call", NewCall(chatPath, body(map[string]any{"tools": tools})), map[string]any{"messages": messages, "tools": tools}, called},
		{"reasoning", NewCall(chatPath, body(map[string]any{"include_reasoning": true})), asked, thought},
		{"completion", NewCall(completionsPath, map[string]any{"model": Model, "prompt": said, "max_tokens": 3}), map[string]any{"prompt": said}, first},
		{"response", NewCall(responsesPath, map[string]any{"model": Model, "input": said, "max_output_tokens": 3}), map[string]any{"input": said}, first},
	}
	for mode, hash := range map[string]func([]byte) string{"content": plain, "hmac-content": keyed} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, Options{}, "AUDITCHAIN_HASH="+mode)
			client := NewClient(r.URL, 1)
			defer client.Close()
			n := 0
			for _, c := range cases {
				for _, streams := range []bool{false, true} {
					call, name := c.call, c.name
					if streams {
						name += ", streamed"
						call.Body = append([]byte(`{"stream":true,`), call.Body[1:]...)
					}
					t.Run(name, func(t *testing.T) {
						e := client.Do(t.Context(), call, nil)
						if e.Err != nil {
							t.Fatal(e.Err)
						}
						record := lastOf(t, r, n)
						n++
						out, isText := c.out.(string)
						if !isText {
							out = string(canonical(t, c.out))
						}
						if in := canonical(t, c.in); *record.InputHash != hash(in) {
							t.Errorf("input_hash is not that of %s", in)
						}
						if *record.OutputHash != hash([]byte(out)) {
							t.Errorf("output_hash is not that of %s", out)
						}
						if record.HashOf["input"] != "content" || record.HashOf["output"] != "content" {
							t.Errorf("hash_of is %v", record.HashOf)
						}
					})
				}
			}
		})
	}
	t.Run("hmac-body", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, Options{}, "AUDITCHAIN_HASH=hmac-body")
		client := NewClient(r.URL, 1)
		defer client.Close()
		e := client.Do(t.Context(), cases[0].call, nil)
		record := lastOf(t, r, 0)
		if *record.InputHash != keyed(e.Call.Body) || *record.OutputHash != keyed(e.Body) {
			t.Errorf("%s, %s", *record.InputHash, *record.OutputHash)
		}
	})
	t.Run("what is no content", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, Options{}, "AUDITCHAIN_HASH=content")
		client := NewClient(r.URL, 1)
		defer client.Close()
		e := client.Do(t.Context(), Call{Path: chatPath, Body: []byte("{no JSON")}, nil)
		record := lastOf(t, r, 0)
		if *record.InputHash != plain(e.Call.Body) || *record.OutputHash != plain(e.Body) || record.HashOf["input"] != "body" || record.HashOf["output"] != "body" {
			t.Errorf("%s, %s of %v", *record.InputHash, *record.OutputHash, record.HashOf)
		}
	})
}

// An adapter is a model of its own; what changes the models is recorded, and its consequences for checksums are too.
func TestModelChanges(t *testing.T) {
	t.Parallel()
	base, baseSum := modelDir(t, map[string]string{"model.safetensors": "base"})
	one, oneSum := modelDir(t, map[string]string{"adapter_model.safetensors": "one", "adapter_config.json": "{}"})
	r := newRig(t, Options{}, "AUDITCHAIN_MODEL="+base)
	client := NewClient(r.URL, 1)
	defer client.Close()
	checksums := func(n int) {
		r.await(t, "checksums", func(all *Records) error {
			if got := len(all.events("model_checksum")); got < n {
				return fmt.Errorf("%d events", got)
			}
			return nil
		})
	}
	ask := func(seq int, call Call, w want) *Record {
		t.Helper()
		e := client.Do(t.Context(), call, nil)
		if e.Err != nil {
			t.Fatal(e.Err)
		}
		record := lastOf(t, r, seq)
		w.anything = w.operation != ""
		checkRecord(t, record, &e, w)
		return record
	}
	adapter := func(name string) Call { return NewCall(chatPath, chatBody(map[string]any{"model": name})) }
	known := func(record *Record, checksum string) {
		t.Helper()
		if record.ModelChecksum == nil || *record.ModelChecksum != checksum {
			t.Errorf("model_checksum is %v, not %s", record.ModelChecksum, checksum)
		}
	}
	change := want{operation: "model_change", model: "sql"}
	checksums(1)
	ask(0, NewCall("/v1/load_lora_adapter", map[string]any{"lora_name": "sql", "lora_path": one}), change)
	checksums(2)
	record := ask(1, adapter("sql"), want{in: promptTokens, out: 8, model: "sql"})
	known(record, baseSum)
	if record.LoRA == nil || record.LoRA.ID != "sql" || record.LoRA.Checksum == nil || *record.LoRA.Checksum != oneSum {
		t.Errorf("lora is %+v, its checksum should be %s", record.LoRA, oneSum)
	}
	record = ask(2, adapter(Model), want{in: promptTokens, out: 8})
	known(record, baseSum)
	if record.LoRA != nil {
		t.Errorf("lora is %+v", record.LoRA)
	}
	ask(3, NewCall("/v1/unload_lora_adapter", map[string]any{"lora_name": "sql"}), change)
	ask(4, adapter("sql"), want{http: 404, status: "404", in: 0, out: 0, model: "sql", err: "NotFoundError"})
	ask(5, NewCall("/update_weights", map[string]any{"model_path": "/elsewhere"}), want{operation: "model_change", model: fallbackModel})
	record = ask(6, adapter(Model), want{in: promptTokens, out: 8})
	if record.ModelChecksum != nil {
		t.Errorf("after other weights were loaded model_checksum is still %s", *record.ModelChecksum)
	}
}

// A checksum that cannot be made is said, and nothing else suffers.
func TestNoModel(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{}, "AUDITCHAIN_MODEL="+filepath.Join(t.TempDir(), "nowhere"))
	client := NewClient(r.URL, 1)
	defer client.Close()
	e := client.Do(t.Context(), NewCall(chatPath, chatBody(nil)), nil)
	record := lastOf(t, r, 0)
	checkRecord(t, record, &e, want{in: promptTokens, out: 8})
	if record.ModelChecksum != nil {
		t.Errorf("model_checksum is %s", *record.ModelChecksum)
	}
	r.await(t, "the failure is said", func(all *Records) error {
		for _, e := range all.events("model_checksum") {
			if len(e.Model) == 1 && e.Model[0].Error != "" && e.Model[0].Checksum == nil {
				return nil
			}
		}
		return fmt.Errorf("events: %+v", all.Events)
	})
}

// A directory that cannot be written to: what happens to requests is AUDITCHAIN_ON_FAILURE's to say.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"deny", "allow"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			disk := smallDisk(t)
			dir := filepath.Join(disk, "records")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			r := newRig(t, Options{}, "AUDITCHAIN_DIR="+dir, "AUDITCHAIN_ON_FAILURE="+policy, "AUDITCHAIN_HEARTBEAT=1s", "AUDITCHAIN_QUEUE_LIMIT=4K")
			client := NewClient(r.URL, 1)
			defer client.Close()
			n, refused := 0, 0
			ask := func() Exchange {
				call, _ := anyCall("full", 6*n)
				n++
				e := client.Do(t.Context(), call, nil)
				if e.Status == 503 {
					refused++ // by the middleware: the model has not seen it, and it has no number
				}
				return e
			}
			if e := ask(); e.Status != 200 {
				t.Fatalf("status %d, %v", e.Status, e.Err)
			}
			r.records(t, 1)
			filler := fill(t, disk)
			if policy == "deny" {
				eventually(t, "requests are refused", func() error {
					if e := ask(); e.Status != 503 {
						return fmt.Errorf("status %d, %v", e.Status, e.Err)
					}
					return nil
				})
			} else {
				for range 60 {
					if e := ask(); e.Status != 200 || e.Err != nil {
						t.Fatalf("status %d, %v", e.Status, e.Err)
					}
				}
			}
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			eventually(t, "requests are served again", func() error {
				if e := ask(); e.Status != 200 {
					return fmt.Errorf("status %d", e.Status)
				}
				return nil
			})
			r.stop(t)
			all := r.await(t, "the stop", func(all *Records) error {
				if len(all.events("stop")) == 0 {
					return fmt.Errorf("not yet")
				}
				return nil
			})
			stop := all.events("stop")[0]
			t.Logf("%d requests, %d refused; served %d, recorded %d, lost %d; %d records", n, refused, stop.Served, stop.Recorded, stop.Lost, len(all.Requests))
			if int(stop.Served) != n-refused || stop.Recorded+stop.Lost != stop.Served || len(all.Requests) != int(stop.Recorded) {
				t.Errorf("stop: %+v; %d requests, %d records", stop, n, len(all.Requests))
			}
			switch {
			case policy == "deny" && stop.Lost != 0:
				t.Errorf("%d records are lost", stop.Lost)
			case policy == "allow" && stop.Lost == 0:
				t.Error("nothing is said to be lost")
			}
		})
	}
}
