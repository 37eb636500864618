package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/host"
	"github.com/auditchain/auditchain/test/servers"
)

// instance is the name of the one instance in a plugin host, as Fluent Bit would call it.
const instance = "auditchain.0"

// startHost starts a plugin host with one instance, which begins well.
func startHost(t *testing.T, section fluentbit.Section) *host.Host {
	t.Helper()
	h := host.Start(t, host.Plugin(t), host.Options{})
	for _, key := range slices.Sorted(maps.Keys(section)) {
		h.Send(t, "set "+key+" "+section[key])
	}
	if a := h.Do(t, "init "+instance); a.Ret != "OK" {
		t.Fatalf("it does not start: %+v", a)
	}
	h.Send(t, "stack 32") // what a release with small coroutine stacks gives
	return h
}

// chunkFile is a chunk for the plugin host, with what it holds.
type chunkFile struct {
	path    string
	records []sent
}

// chunkFiles writes n chunks of 20 records.
func chunkFiles(t *testing.T, name string, n int) []chunkFile { return paddedChunkFiles(t, name, n, 0) }

// paddedChunkFiles is chunkFiles with records that are longer by pad bytes.
func paddedChunkFiles(t *testing.T, name string, n, pad int) []chunkFile {
	t.Helper()
	dir := t.TempDir()
	var all []chunkFile
	for i := range n {
		c := chunkFile{path: filepath.Join(dir, fmt.Sprint(i, ".msgpack"))}
		var events []byte
		for k := 20 * i; k < 20*i+20; k++ {
			s := sent{id: recordID(name, k), tag: "host", time: time.Unix(1700000000, int64(k)).UTC(), meta: `{"node":"gpu-1"}`}
			record := auditRecord(s.id, k)
			if pad > 0 {
				record["prompt"] = strings.Repeat(s.id, 1+pad/len(s.id))[:pad]
			}
			s.record = text(t, record)
			var err error
			if events, err = fluentbit.AppendV2(events, fluentbit.Event{Time: s.time, Meta: map[string]any{"node": "gpu-1"}, Record: record}); err != nil {
				t.Fatal(err)
			}
			c.records = append(c.records, s)
		}
		if err := os.WriteFile(c.path, events, 0o600); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// flush delivers a chunk, without waiting for the answer.
func flush(t *testing.T, h *host.Host, path string) {
	t.Helper()
	h.Send(t, "flush "+instance+" host "+path)
}

// hostMetrics returns the metrics of the instance.
func hostMetrics(t *testing.T, h *host.Host) map[string]float64 {
	t.Helper()
	values := make(map[string]float64)
	for key, value := range h.Do(t, "metrics").Values {
		values[key[:len(key)-len("{"+instance+"}")]] = value
	}
	return values
}

// testChunks delivers chunks one after the other and all at once, on every store.
func testChunks(t *testing.T) {
	for i, s := range stores {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			l := newLog(t, s.open(t))
			h := startHost(t, l.section())
			files := chunkFiles(t, "c", 60)
			var all []sent
			for n, c := range files {
				if n == len(files)/2 {
					h.Send(t, fmt.Sprint("threads ", 1+3*i))
				}
				flush(t, h, c.path)
				all = append(all, c.records...)
			}
			for range files {
				if a := h.Next(t); a.Op != "flush" || a.Ret != "OK" {
					t.Fatalf("%+v", a)
				}
			}
			l.waitFor(t, len(all))
			c := l.load(t)
			c.checkRecords(t, all)
			c.checkCounts(t)
			eventually(t, "the metrics say what is in the log", func() error {
				m := hostMetrics(t, h)
				if m["fluentbit_auditchain_records_total"] != float64(len(all)) || m["fluentbit_auditchain_journal_bytes"] != 0 ||
					m["fluentbit_auditchain_raw_bytes_total"] != float64(c.rawBytes) {
					return fmt.Errorf("they say %v, the log has %d records in %d bytes", m, len(all), c.rawBytes)
				}
				return nil
			})
			h.End(t)
			l.verify(t)
		})
	}
}

// testKilledHost: what the plugin said OK to is in the chain though its process was killed at once, and what it was
// given again, because nobody had heard the OK, is there once.
func testKilledHost(t *testing.T) {
	for _, threads := range []int{0, 4} {
		t.Run(fmt.Sprint(threads, " threads"), func(t *testing.T) {
			t.Parallel()
			l := newLog(t, gatewayHTTP.open(t))
			files := chunkFiles(t, "k", 200)
			open := make(map[string]chunkFile) // not answered yet
			var all []sent
			for _, c := range files {
				open[c.path] = c
				all = append(all, c.records...)
			}
			taken := func(answers ...host.Answer) {
				t.Helper()
				for _, a := range answers {
					if _, ok := open[a.File]; a.Op != "flush" || a.Ret != "OK" || !ok {
						t.Fatalf("%+v", a)
					}
					delete(open, a.File)
				}
			}
			for life := 0; len(open) > 0; life++ {
				h := startHost(t, l.section())
				h.Send(t, fmt.Sprint("threads ", threads))
				for _, path := range slices.Sorted(maps.Keys(open)) {
					flush(t, h, path)
				}
				if life == 3 {
					for len(open) > 0 {
						taken(h.Next(t))
					}
					h.End(t)
					break
				}
				for range 30 {
					taken(h.Next(t))
				}
				taken(h.Kill()...)
			}
			c := l.load(t)
			c.checkRecords(t, all)
			c.checkCounts(t)
			l.verify(t)
		})
	}
}

// testStoreAway: while the store is out of reach chunks are taken until store_dir is full, and then not, and nothing is
// lost of either.
func testStoreAway(t *testing.T) {
	t.Parallel()
	server := servers.Versitygw(t)
	l := newLog(t, server)
	h := startHost(t, l.section().With("store_dir_limit_size", "500K"))
	files := chunkFiles(t, "s", 200)
	var all []sent
	deliver := func(c chunkFile) (ret string) {
		t.Helper()
		flush(t, h, c.path)
		if ret = h.Next(t).Ret; ret == "OK" {
			all = append(all, c.records...)
		}
		return ret
	}
	if ret := deliver(files[0]); ret != "OK" {
		t.Fatal(ret)
	}
	l.waitFor(t, len(all))
	server.Kill()

	n := 1
	for n < len(files) && deliver(files[n]) == "OK" {
		n++
	}
	if n < 10 || n == len(files) {
		t.Fatalf("%d chunks were taken while the store was away", n)
	}
	if ret := deliver(files[n]); ret != "RETRY" {
		t.Errorf("a chunk that there is no room for: %s", ret)
	}
	if want := "chunk not taken, Fluent Bit keeps it and will send it again: store_dir is full: the bucket has not taken what waits there"; !slices.Contains(ourErrors(h.Log()), want) {
		t.Errorf("it said %q, want %q among it", ourErrors(h.Log()), want)
	}
	eventually(t, "the metrics tell", func() error {
		m := hostMetrics(t, h)
		if bytes := m["fluentbit_auditchain_journal_bytes"]; bytes < 100_000 || bytes > 510_000 || m["fluentbit_auditchain_upload_failures_total"] < 1 {
			return fmt.Errorf("they say %v", m)
		}
		return nil
	})

	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	l.waitFor(t, len(all))
	for ; n < len(files); n++ {
		eventually(t, "there is room again", func() error {
			if ret := deliver(files[n]); ret != "OK" {
				return fmt.Errorf("%s", ret)
			}
			return nil
		})
	}
	h.End(t)
	c := l.load(t)
	c.checkRecords(t, all)
	if len(all) != 20*len(files) {
		t.Errorf("%d records were taken of %d", len(all), 20*len(files))
	}
	l.verify(t)
}
