package host_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/record/recordtest"
	"github.com/auditchain/auditchain/test/host"
)

// place is where the chains of a test live, in files.
type place struct{ keys, chunk, bucket string }

// events are two events, [[time, {}], {"a": 1}] twice, but for the last byte, which is a small number.
const (
	event  = "\x92\x92\xd7\x00\x65\x00\x00\x00\x00\x00\x00\x01\x80\x81\xa1a"
	events = event + "\x01" + event
)

func newPlace(t *testing.T) place {
	t.Helper()
	dir := t.TempDir()
	key, err := chain.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	bucket := filepath.Join(dir, "bucket")
	if err := os.Mkdir(bucket, 0o700); err != nil {
		t.Fatal(err)
	}
	return place{
		keys: fmt.Sprintf("retention=7d bucket=dir:%s store_dir=%s signing_key=%s", bucket, filepath.Join(dir, "store"),
			write(t, filepath.Join(dir, "key.pem"), string(key))),
		chunk:  write(t, filepath.Join(dir, "two.msgpack"), events+"\x02"),
		bucket: bucket,
	}
}

func write(t *testing.T, path, data string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// init makes the instance name with a chain of its own.
func (p place) init(name string, more ...string) string {
	return fmt.Sprintf("init %s chain=test.example.com/%s %s %s", name, name, p.keys, strings.Join(more, " "))
}

func (p place) flush(name string, times int) string {
	return fmt.Sprintf("flush %s some.tag %s %d", name, p.chunk, times)
}

func want(t *testing.T, a host.Answer, op, ret string) {
	t.Helper()
	if a.Op != op || a.Ret != ret {
		t.Fatalf("answer %+v, want %s %s", a, op, ret)
	}
}

func TestStartFailsWithOneLine(t *testing.T) {
	p := newPlace(t)
	for _, c := range []struct {
		name, init string
		want       []string
	}{
		{"no keys", "init x", []string{"chain: missing", "bucket: missing", "signing_key: missing", "retention: missing"}},
		{"no such key file", p.init("x", "signing_key=/does/not/exist"), []string{"signing_key: ", "/does/not/exist"}},
		{"bad value", p.init("x", "total_file_size=64Q"), []string{"total_file_size: ", "64Q"}},
		{"no such bucket", p.init("x", "bucket=dir:/does/not/exist"), []string{"/does/not/exist"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := host.Start(t, host.Plugin(t), host.Options{})
			want(t, h.Do(t, c.init), "init", "ERROR")
			h.End(t)
			lines := strings.Split(strings.TrimSpace(h.Log()), "\n")
			if len(lines) != 1 || !strings.Contains(lines[0], "[error] [output:auditchain:x] ") {
				t.Fatalf("log is %q, want one error", lines)
			}
			for _, w := range c.want {
				if !strings.Contains(lines[0], w) {
					t.Errorf("%q lacks %q", lines[0], w)
				}
			}
		})
	}
}

func TestFlushLogAndMetrics(t *testing.T) {
	p := newPlace(t)
	h := host.Start(t, host.Plugin(t), host.Options{})
	want(t, h.Do(t, p.init("a")), "init", "OK")
	want(t, h.Do(t, p.init("b")), "init", "OK")
	h.Send(t, p.flush("a", 3))
	for range 3 {
		a := h.Next(t)
		want(t, a, "flush", "OK")
		if a.Instance != "a" || a.Tag != "some.tag" || a.File != p.chunk || a.Tries != 1 {
			t.Errorf("answer %+v", a)
		}
	}
	want(t, h.Do(t, "exit a"), "exit", "OK") // brings the metrics up to date
	values := h.Do(t, "metrics").Values
	for name, v := range map[string]float64{
		"fluentbit_auditchain_records_total{a}": 6, "fluentbit_auditchain_head_sequence{a}": 6,
		"fluentbit_auditchain_segments_total{a}": 1, "fluentbit_auditchain_journal_bytes{a}": 0,
		"fluentbit_auditchain_incomplete_records_total{a}": 6, "fluentbit_auditchain_records_total{b}": 0,
	} {
		if got, ok := values[name]; !ok || got != v {
			t.Errorf("%s = %v (there: %v), want %v", name, got, ok, v)
		}
	}
	if len(values) != 30 {
		t.Errorf("%d metrics, want 15 of each instance", len(values))
	}
	h.End(t)
	info := regexp.MustCompile(`(?m)^\[[\d/]+ [\d:.]+\] \[ info\] \[output:auditchain:a\] auditchain \S+: chain test\.example\.com/a, next entry 0$`)
	if !info.MatchString(h.Log()) {
		t.Errorf("log is %q", h.Log())
	}
}

func TestOldFluentBit(t *testing.T) {
	p := newPlace(t)
	h := host.Start(t, host.Plugin(t), host.Options{Bare: true, NoLog: true})
	want(t, h.Do(t, p.init("a")), "init", "OK")
	want(t, h.Do(t, p.flush("a", 1)), "flush", "OK")
	if m := h.Do(t, "metrics"); len(m.Values) > 0 {
		t.Errorf("metrics %v", m.Values)
	}
	h.End(t)
	if line := regexp.MustCompile(`(?m)^\[[\d/]+ [\d:.]+\] \[ info\] \[output:auditchain:auditchain\] auditchain .*chain test`); !line.MatchString(h.Log()) {
		t.Errorf("stderr has %q", h.Log())
	}

	h = host.Start(t, host.Plugin(t), host.Options{Bare: true, LogLevel: "debug"})
	want(t, h.Do(t, p.init("a")), "init", "OK")
	h.End(t)
	if n := strings.Count(h.Log(), "no metrics"); n != 1 {
		t.Errorf("%d lines say that there are no metrics:\n%s", n, h.Log())
	}
}

func TestInstancesThatAreNotOpen(t *testing.T) {
	p := newPlace(t)
	h := host.Start(t, host.Plugin(t), host.Options{})
	want(t, h.Do(t, p.flush("-", 1)), "flush", "RETRY")
	want(t, h.Do(t, "exit -"), "exit", "OK")
	want(t, h.Do(t, p.init("a")), "init", "OK")
	want(t, h.Do(t, "exit -"), "exit", "OK")
	want(t, h.Do(t, p.flush("a", 1)), "flush", "OK")
	h.End(t)
	if !strings.Contains(h.Log(), "chunk not taken") {
		t.Errorf("log is %q", h.Log())
	}
}

func TestRetry(t *testing.T) {
	p := newPlace(t)
	h := host.Start(t, host.Plugin(t), host.Options{})
	want(t, h.Do(t, p.init("a", "store_dir_limit_size=1 upload_timeout=1h")), "init", "OK")
	want(t, h.Do(t, p.flush("a", 1)), "flush", "OK")
	h.Send(t, "retries 2 10")
	a := h.Do(t, p.flush("a", 1))
	want(t, a, "flush", "RETRY")
	if a.Tries != 3 {
		t.Errorf("%d tries, want 3", a.Tries)
	}
	h.End(t)
	if n := strings.Count(h.Log(), "store_dir is full"); n != 1 {
		t.Errorf("said %d times that store_dir is full, want once:\n%s", n, h.Log())
	}
}

func TestThreadsOnSmallStacks(t *testing.T) {
	p := newPlace(t)
	h := host.Start(t, host.Plugin(t), host.Options{})
	want(t, h.Do(t, p.init("a")), "init", "OK")
	want(t, h.Do(t, p.init("b")), "init", "OK")
	h.Send(t, "threads 8", "stack 64", p.flush("a", 100), p.flush("b", 100))
	for range 200 {
		want(t, h.Next(t), "flush", "OK")
	}
	want(t, h.Do(t, "exit a"), "exit", "OK")
	want(t, h.Do(t, "exit b"), "exit", "OK")
	values := h.Do(t, "metrics").Values
	for _, name := range []string{"a", "b"} {
		if got := values["fluentbit_auditchain_records_total{"+name+"}"]; got != 200 {
			t.Errorf("%s has %v records, want 200", name, got)
		}
	}
	h.End(t)
}

// A load delivers in time, each record with a number of its own, and the metrics are there meanwhile.
func TestLoad(t *testing.T) {
	p := newPlace(t)
	var files []string
	for n := range 2 {
		chunk := recordtest.New(recordtest.Config{Seed: uint64(n), SourceID: "gpu-1/x", FirstSeq: 1 << 32}).Chunk(10)
		files = append(files, write(t, fmt.Sprintf("%s.%d", p.chunk, n), string(chunk)))
	}
	h := host.Start(t, host.Plugin(t), host.Options{})
	want(t, h.Do(t, p.init("a")), "init", "OK")
	h.Send(t, "threads 2", "load a some.tag 100 1.5 "+strings.Join(files, " "), "metrics", "wait")
	byFile := make(map[string]int)
	metrics, records := false, uint64(0)
	for {
		a := h.Next(t)
		if a.Op == "wait" {
			break
		}
		switch a.Op {
		case "flush":
			want(t, a, "flush", "OK")
			byFile[a.File]++
		case "load":
			if records = a.Records; a.Instance != "a" || a.Micros < 1_400_000 || !metrics {
				t.Errorf("answer %+v (metrics before it: %v), want records of a until 1.4 s, when the last are due", a, metrics)
			}
		case "metrics":
			metrics = true
		default:
			t.Fatalf("answer %+v", a)
		}
	}
	want(t, h.Do(t, "exit a"), "exit", "OK")
	values := h.Do(t, "metrics").Values
	h.End(t)
	// Fewer than 150 if the machine is busy.
	if records == 0 || records > 150 || values["fluentbit_auditchain_records_total{a}"] != float64(records) || values["fluentbit_auditchain_redeliveries_total{a}"] != 0 {
		t.Errorf("%d records were delivered, and the plugin says %v", records, values)
	}
	if n := byFile[files[0]] - byFile[files[1]]; n != 0 && n != 1 {
		t.Errorf("the files were delivered %v times", byFile)
	}
}

func TestHotReload(t *testing.T) {
	p := newPlace(t)
	h := host.Start(t, host.Plugin(t), host.Options{})
	for round := range 3 {
		want(t, h.Do(t, p.init("a")), "init", "OK")
		if seq := h.Do(t, "metrics").Values["fluentbit_auditchain_head_sequence{a}"]; seq != float64(2*round) {
			t.Errorf("round %d begins with entry %v", round, seq)
		}
		// Another chunk each time: the same one, after a start, is one that is delivered again.
		chunk := write(t, fmt.Sprintf("%s.%d", p.chunk, round), events+string(rune(round)))
		want(t, h.Do(t, "flush a some.tag "+chunk), "flush", "OK")
		want(t, h.Do(t, "reload"), "exit", "OK")
		if a := h.Next(t); a.Op != "register" || a.Name != "auditchain" || a.Description == "" {
			t.Fatalf("answer %+v, want register", a)
		}
	}
	h.End(t)
}

func TestKilled(t *testing.T) {
	p := newPlace(t)
	h := host.Start(t, host.Plugin(t), host.Options{})
	want(t, h.Do(t, p.init("a")), "init", "OK")
	h.Send(t, "threads 4", p.flush("a", 5000))
	acknowledged := 0
	for ; acknowledged < 50; acknowledged++ {
		want(t, h.Next(t), "flush", "OK")
	}
	for _, a := range h.Kill() {
		want(t, a, "flush", "OK")
		acknowledged++
	}
	h = host.Start(t, host.Plugin(t), host.Options{})
	want(t, h.Do(t, p.init("a")), "init", "OK")
	seq := h.Do(t, "metrics").Values["fluentbit_auditchain_head_sequence{a}"]
	if seq < float64(2*acknowledged) || seq > float64(2*(acknowledged+4)) {
		t.Errorf("%d chunks of 2 were acknowledged and at most 4 were under way, but the chain goes on with %v", acknowledged, seq)
	}
	h.End(t)
}

func TestNothingOfABadChunkGetsIntoFormats(t *testing.T) {
	p := newPlace(t)
	bad := write(t, p.chunk+".bad", "\xc1\xc1 %s%n\n")
	h := host.Start(t, host.Plugin(t), host.Options{})
	want(t, h.Do(t, p.init("a")), "init", "OK")
	want(t, h.Do(t, "flush a %s%n%s "+bad), "flush", "OK")
	h.End(t)
	if !strings.Contains(h.Log(), "%s%n%s") {
		t.Errorf("log is %q", h.Log())
	}
}
