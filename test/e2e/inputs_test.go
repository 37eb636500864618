package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tinylib/msgp/msgp"

	"github.com/auditchain/auditchain/test/fluentbit"
)

// testInputs sends records through every input that a deployment uses, on every store, and reads them back.
func testInputs(t *testing.T) {
	for _, s := range stores {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			l := newLog(t, s.open(t))
			httpPort, otelPort := freePort(t), freePort(t)
			dir := t.TempDir()
			a := newAggregator(t, []fluentbit.Section{l.section()},
				fluentbit.Section{"name": "http", "listen": "127.0.0.1", "port": strconv.Itoa(httpPort)},
				fluentbit.Section{"name": "opentelemetry", "listen": "127.0.0.1", "port": strconv.Itoa(otelPort), "tag": "otel", "tag_from_uri": "false"},
				fluentbit.Section{"name": "tail", "path": filepath.Join(dir, "*.jsonl"), "tag": "tail", "parser": "json", "read_from_head": "true", "refresh_interval": "1", "buffer_max_size": "16M"},
				fluentbit.Section{"name": "dummy", "tag": "dummy", "samples": "3", "rate": "20", "dummy": `{"request_id":"dummy"}`, "metadata": `{"m":1}`},
			)
			a.run(t)

			all := []sent{{id: "dummy", tag: "dummy", meta: `{"m":1}`, record: `{"request_id":"dummy"}`, copies: 3}}
			all = append(all, sendForward(t, a.forward)...)
			all = append(all, appendLines(t, filepath.Join(dir, "gpu-1.jsonl"))...)
			all = append(all, post(t, fmt.Sprintf("http://127.0.0.1:%d/app.http", httpPort))...)
			all = append(all, postOTLP(t, fmt.Sprintf("http://127.0.0.1:%d/v1/logs", otelPort))...)

			l.waitFor(t, len(all)+2)
			c := l.load(t)
			c.checkRecords(t, all)
			c.checkCounts(t)
			c.checkSources(t, map[string][]uint64{"gpu-1/v1": upTo(40), "gpu-1/v2": upTo(40)})
			a.checkMetrics(t, "auditchain.0", c)
			l.verify(t)
			a.stop(t)
			if again := l.load(t); len(again.entries) != len(c.entries) {
				t.Errorf("after Fluent Bit has ended there are %d entries, before %d", len(again.entries), len(c.entries))
			}
		})
	}
}

func upTo(n uint64) []uint64 {
	var all []uint64
	for i := range n {
		all = append(all, i)
	}
	return all
}

// sendForward sends records in both forms of events, with values that only msgpack has.
func sendForward(t *testing.T, address string) []sent {
	t.Helper()
	f, err := fluentbit.Dial(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []sent
	for version, appendEvent := range map[string]func([]byte, fluentbit.Event) ([]byte, error){"v1": fluentbit.AppendV1, "v2": fluentbit.AppendV2} {
		for half := range 2 {
			c := fluentbit.Chunk{Tag: "forward." + version, Packed: half == 1, ID: fmt.Sprint(version, half)}
			for i := 20 * half; i < 20*half+20; i++ {
				s := sent{id: recordID(version, i), tag: c.Tag, time: time.Unix(1700000000, int64(i)).UTC()}
				record := auditRecord(s.id, i)
				record["source"] = map[string]any{"id": "gpu-1/" + version, "seq": i}
				record["most"], record["least"], record["float"] = uint64(1<<64-1), int64(-1<<63), 0.1
				s.record = text(t, record)
				// What JSON has no words for.
				record["bytes"] = []byte{0, 255}
				record["ext"] = &msgp.RawExtension{Type: 7, Data: []byte{1, 2}}
				s.record = strings.TrimSuffix(s.record, "}") + `,"bytes":{"$bin":"AP8="},"ext":{"$ext":[7,"AQI="]}}`
				e := fluentbit.Event{Time: s.time, Record: record}
				if version == "v2" {
					e.Meta = map[string]any{"node": "gpu-1", "n": i}
					s.meta = text(t, e.Meta)
				}
				if c.Events, err = appendEvent(c.Events, e); err != nil {
					t.Fatal(err)
				}
				c.Count++
				all = append(all, s)
			}
			if err := f.Send(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
	}
	return all
}

// appendLines writes records into a file as the middleware does.
func appendLines(t *testing.T, path string) []sent {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []sent
	for i := range 30 {
		s := sent{id: recordID("tail", i), tag: "tail"}
		s.record = text(t, auditRecord(s.id, i))
		if _, err := file.WriteString(s.record + "\n"); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

// post sends records to the http input.
func post(t *testing.T, url string) []sent {
	t.Helper()
	var all []sent
	var records []json.RawMessage
	for i := range 10 {
		s := sent{id: recordID("http", i), tag: "app.http"}
		s.record = text(t, auditRecord(s.id, i))
		records = append(records, json.RawMessage(s.record))
		all = append(all, s)
	}
	postJSON(t, url, text(t, records))
	return all
}

func postJSON(t *testing.T, url, body string) {
	t.Helper()
	answer, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		t.Fatalf("%s: %s", url, answer.Status)
	}
}

// postOTLP sends log records of two scopes in two resources, with OpenTelemetry's names for the audit fields.
func postOTLP(t *testing.T, url string) []sent {
	t.Helper()
	stringValue := func(s string) map[string]any { return map[string]any{"stringValue": s} }
	attribute := func(key, value string) map[string]any {
		return map[string]any{"key": key, "value": stringValue(value)}
	}
	var all []sent
	var resources []any
	for r := range 2 {
		var scopes []any
		for sc := range 2 {
			var records []any
			for i := range 3 {
				s := sent{id: fmt.Sprintf("otel-%d-%d-%d", r, sc, i), tag: "otel", time: time.Unix(1700000000, int64(i)).UTC()}
				s.meta = text(t, map[string]any{"otlp": map[string]any{"severity_text": "INFO", "attributes": map[string]any{
					"gen_ai.response.id": s.id, "gen_ai.request.model": "llama",
				}}})
				s.record = text(t, map[string]any{"log": "said " + s.id})
				s.group = text(t, map[string]any{
					"meta": map[string]any{"schema": "otlp", "resource_id": r, "scope_id": sc},
					"record": map[string]any{
						"resource": map[string]any{"attributes": map[string]any{"service.name": fmt.Sprint("vllm-", r)}},
						"scope":    map[string]any{"name": fmt.Sprint("scope-", sc), "version": "1"},
					},
				})
				records = append(records, map[string]any{
					"timeUnixNano": strconv.FormatInt(s.time.UnixNano(), 10), "severityText": "INFO", "body": stringValue("said " + s.id),
					"attributes": []any{attribute("gen_ai.response.id", s.id), attribute("gen_ai.request.model", "llama")},
				})
				all = append(all, s)
			}
			scopes = append(scopes, map[string]any{"scope": map[string]any{"name": fmt.Sprint("scope-", sc), "version": "1"}, "logRecords": records})
		}
		resources = append(resources, map[string]any{
			"resource": map[string]any{"attributes": []any{attribute("service.name", fmt.Sprint("vllm-", r))}}, "scopeLogs": scopes,
		})
	}
	postJSON(t, url, text(t, map[string]any{"resourceLogs": resources}))
	return all
}
