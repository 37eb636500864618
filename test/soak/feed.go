package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/auditchain/auditchain/record/recordtest"
)

// feed is a process that holds the plugin and is given records at a steady rate.
type feed interface {
	pid() int
	// ended is closed when the process has ended.
	ended() <-chan struct{}
	// start begins to deliver records, numbered from 0. load.done is closed when the last of them is on its way.
	start(rate int, duration time.Duration) *load
	// settle waits until all that was delivered is acknowledged.
	settle(ctx context.Context) error
	// metrics are the plugin's, without the prefix that all of them have.
	metrics(ctx context.Context) (map[string]float64, error)
	// stop ends the process in good order.
	stop(ctx context.Context) error
	kill()
}

// metricPrefix is what the names of the plugin's metrics begin with.
const metricPrefix = "fluentbit_auditchain_"

// pluginMetrics are the plugin's, without their prefix and label.
func pluginMetrics(all map[string]float64) map[string]float64 {
	ours := make(map[string]float64)
	for key, value := range all {
		name, _, _ := strings.Cut(key, "{")
		if name, ok := strings.CutPrefix(name, metricPrefix); ok {
			ours[name] = value
		}
	}
	return ours
}

// load is what becomes of the records.
type load struct {
	done chan struct{}

	mu           sync.Mutex
	delivered    uint64 // records, once done
	acknowledged uint64 // records
	retried      uint64 // chunks that the plugin did not take at once
	flushes      []float64
	err          error
}

func newLoad() *load { return &load{done: make(chan struct{})} }

// acknowledge notes that a chunk was taken, which took so many seconds.
func (l *load) acknowledge(records uint64, seconds float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acknowledged += records
	l.flushes = append(l.flushes, seconds)
}

// fail keeps the first error.
func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
}

// take fills in what happened since it was called last.
func (l *load) take(s *sample) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.records = float64(l.acknowledged)
	s.flushes = float64(len(l.flushes))
	if len(l.flushes) > 0 {
		slices.Sort(l.flushes)
		s.flushMedian, s.flushMax = l.flushes[len(l.flushes)/2], l.flushes[len(l.flushes)-1]
	}
	l.flushes = l.flushes[:0]
	return l.err
}

const (
	tag = "vllm.audit"

	// chunks of so many records are made beforehand and delivered by turns, each time with other numbers in the records:
	// equal chunks would be legitimate, but no plugin ever sees so many of them.
	chunks       = 16
	chunkRecords = 1000
)

// numberMark is what comes before a record's number in a chunk: the key "seq", and msgpack's mark of a 64-bit integer.
const numberMark = "\xa3seq\xcf"

// makeChunk makes the nth of the chunks.
func makeChunk(n int) []byte {
	return recordtest.New(recordtest.Config{
		Seed: uint64(n), SourceID: "gpu-1/soak", FirstSeq: 1 << 32, // so large that every number takes 64 bits
	}).Chunk(chunkRecords)
}

// writeChunks writes the chunks into files.
func writeChunks(dir string) (paths []string, err error) {
	for n := range chunks {
		path := filepath.Join(dir, fmt.Sprintf("chunk-%d.msgpack", n))
		if err := os.WriteFile(path, makeChunk(n), 0o600); err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// renumber numbers the records of a chunk from first on.
func renumber(chunk []byte, first uint64) {
	for {
		at := bytes.Index(chunk, []byte(numberMark))
		if at < 0 {
			return
		}
		chunk = chunk[at+len(numberMark):]
		binary.BigEndian.PutUint64(chunk, first)
		chunk = chunk[8:]
		first++
	}
}
