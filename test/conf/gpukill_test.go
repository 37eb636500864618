package conf

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

const (
	source = "gpu-01/7b0cbe9c-4c9c-4b8e-8f6a-111111111111"
	rolled = 500 // lines of a file, before the feed begins another
)

// feed appends records of one source to files that roll, as the middleware does, until it is stopped.
type feed struct {
	stop func() (records int)
}

func startFeed(t *testing.T, dir string) *feed {
	t.Helper()
	stop, done := make(chan struct{}), new(sync.WaitGroup)
	records := 0
	done.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		var file *os.File
		for ; ; records++ {
			select {
			case <-stop:
				file.Close()
				return
			case <-tick.C:
			}
			if records%rolled == 0 {
				file.Close()
				var err error
				if file, err = os.Create(filepath.Join(dir, fmt.Sprintf("%06d.jsonl", records/rolled))); err != nil {
					t.Error(err)
					return
				}
			}
			_, err := fmt.Fprintf(file, `{"request_id":"r%d","timestamp":"%s","source":{"id":"%s","seq":%d},"pad":"%s"}`+"\n",
				records, time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"), source, records, strings.Repeat("x", 300))
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	f := &feed{stop: sync.OnceValue(func() int { close(stop); done.Wait(); return records })}
	t.Cleanup(func() { f.stop() })
	return f
}

// Either Fluent Bit is killed again and again while records are written: every one is in the log, in an intact chain, and what
// came twice is marked.
func TestGPUKills(t *testing.T) {
	pki := t.TempDir()
	issued(t, pki, "ca")
	issued(t, pki, "server", "localhost")
	issued(t, pki, "client", "gpu-01")
	for i, s := range onGPU(t) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			aggregator := newAggregator(t, all(t)[i], filepath.Join(pki, "localhost"), storage.Config{Bucket: "dir:" + t.TempDir()})
			gpu := newGPUNode(t, s, filepath.Join(pki, "gpu-01"), "localhost", aggregator.port)
			aggregator.start(t)
			gpu.start(t)
			records := startFeed(t, gpu.records)
			for range 3 {
				moves(t, "the GPU server", gpu.httpPort, "fluentbit_input_records_total", "records")
				gpu.kill()
				gpu.start(t)
				moves(t, "the aggregator", aggregator.httpPort, "fluentbit_input_records_total", "gpu")
				aggregator.kill()
				// The one takes records into its buffer while the other is away.
				moves(t, "the GPU server", gpu.httpPort, "fluentbit_input_records_total", "records")
				aggregator.start(t)
			}
			n := records.stop()
			waitFor(t, "every record is in the log", func() bool { return len(aggregator.numbers(t)) == n })
			gpu.stop(t)
			aggregator.stop(t)
			checkNumbers(t, aggregator, n)
		})
	}
}

// While the aggregator is away Fluent Bit fills its buffer up to a bound and reads no further; nothing is lost of what waits in
// the files, of what is in the buffer when it is killed, or of what a second run adds to that.
func TestGPUOutage(t *testing.T) {
	t.Parallel()
	pki := t.TempDir()
	issued(t, pki, "ca")
	issued(t, pki, "server", "localhost")
	issued(t, pki, "client", "gpu-01")
	aggregator := newAggregator(t, all(t)[0], filepath.Join(pki, "localhost"), storage.Config{Bucket: "dir:" + t.TempDir()})
	s := onGPU(t)[0]
	s.text = strings.Replace(s.text, "storage.max_chunks_up: 16", "storage.max_chunks_up: 2", 1)
	gpu := newGPUNode(t, s, filepath.Join(pki, "gpu-01"), "localhost", aggregator.port)
	records := startFeed(t, gpu.records)
	for range 2 {
		gpu.start(t)
		waitFor(t, "reading pauses", func() bool { return metric(gpu.httpPort, "fluentbit_input_ingestion_paused", "records") == 1 })
		gpu.kill()
	}
	aggregator.start(t)
	gpu.start(t)
	n := records.stop()
	waitFor(t, "every record is in the log", func() bool { return len(aggregator.numbers(t)) == n })
	gpu.stop(t)
	aggregator.stop(t)
	checkNumbers(t, aggregator, n)
}

var numberOf = regexp.MustCompile(`"seq":([0-9]+)},"pad"`)

// numbers are those of the records that the journal or the bucket has, while the aggregator runs.
func (a *aggregator) numbers(t *testing.T) map[string]bool {
	t.Helper()
	seen := make(map[string]bool)
	take := func(text []byte) {
		for _, m := range numberOf.FindAllSubmatch(text, -1) {
			seen[string(m[1])] = true
		}
	}
	err := a.log(t).Walk(t.Context(), func(_ *chain.Entry, line []byte) error { take(line); return nil })
	if err != nil {
		t.Fatal(err)
	}
	journals, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(a.file)), "var", "chains", "*", "*.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	for _, journal := range journals {
		text, err := os.ReadFile(journal)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it is in the bucket by now
			t.Fatal(err)
		}
		take(text)
	}
	return seen
}

// checkNumbers checks that the log is intact and has the records from 0 to n − 1, and that all but the first of each are marked.
func checkNumbers(t *testing.T, a *aggregator, n int) {
	t.Helper()
	times := make([]int, n)
	total := 0
	for _, e := range a.entries(t) {
		var r struct{ Source struct{ Seq int } }
		if err := json.Unmarshal(e.Record, &r); err != nil {
			t.Fatal(err)
		}
		if again := times[r.Source.Seq] > 0; e.Redelivered != again || e.Conflict {
			t.Errorf("record %d, in the log %d times before: redelivered %t, conflict %t", r.Source.Seq, times[r.Source.Seq], e.Redelivered, e.Conflict)
		}
		times[r.Source.Seq]++
		total++
	}
	for seq, n := range times {
		if n == 0 {
			t.Errorf("record %d is lost", seq)
		}
	}
	a.verify(t, uint64(total))
	t.Logf("%d records, %d of them came again", n, total-n)
}

// moves waits until a counter has risen twice: it works, and is in the midst of it.
func moves(t *testing.T, who, httpPort, name, instance string) {
	t.Helper()
	last := 0
	for range 2 {
		waitFor(t, who+" gets on", func() bool { return metric(httpPort, name, instance) > last })
		last = metric(httpPort, name, instance)
	}
}
