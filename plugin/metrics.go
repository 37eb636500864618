package main

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"sync"
	"time"
	"unsafe"

	"github.com/auditchain/auditchain/ingest"
)

// series are the metrics, fluentbit_auditchain_<name>, each with the label name=<instance>.
var series = []struct {
	gauge      bool
	name, help string
	value      func(*ingest.Stats) float64
}{
	{false, "records_total", "Records that were made durable and acknowledged.",
		func(s *ingest.Stats) float64 { return float64(s.Records) }},
	{false, "events_total", "Other entries that were made durable: what the writer itself had to say.",
		func(s *ingest.Stats) float64 { return float64(s.Events) }},
	{false, "raw_bytes_total", "Bytes of entry lines that were made durable.",
		func(s *ingest.Stats) float64 { return float64(s.Bytes) }},
	{false, "segments_total", "Segments whose manifest is in the bucket.",
		func(s *ingest.Stats) float64 { return float64(s.Segments) }},
	{false, "heartbeats_total", "Heartbeat manifests in the bucket.",
		func(s *ingest.Stats) float64 { return float64(s.Heartbeats) }},
	{false, "upload_failures_total", "Attempts to write to the bucket that failed.",
		func(s *ingest.Stats) float64 { return float64(s.UploadFailures) }},
	{false, "incomplete_records_total", "Records that lack one or more audit fields.",
		func(s *ingest.Stats) float64 { return float64(s.Incomplete) }},
	{false, "source_events_total", "Records that are what a source says of itself, not of an inference.",
		func(s *ingest.Stats) float64 { return float64(s.SourceEvents) }},
	{false, "redeliveries_total", "Records whose source and sequence number had been seen before.",
		func(s *ingest.Stats) float64 { return float64(s.Redeliveries) }},
	{false, "conflicts_total", "Those of them that were not the record that had been seen before.",
		func(s *ingest.Stats) float64 { return float64(s.Conflicts) }},
	{false, "quarantined_total", "Entries that hold bytes which could not be read as events.",
		func(s *ingest.Stats) float64 { return float64(s.Quarantined) }},
	{false, "duplicate_chunks_total", "Chunks that were delivered again after a restart and not written again.",
		func(s *ingest.Stats) float64 { return float64(s.DuplicateChunks) }},
	{true, "head_sequence", "Sequence number of the next entry.",
		func(s *ingest.Stats) float64 { return float64(s.HeadSeq) }},
	{true, "unsealed_age_seconds", "Age of the oldest entry that is in no segment yet.",
		func(s *ingest.Stats) float64 { return s.UnsealedAge }},
	{true, "journal_bytes", "Bytes in store_dir that the bucket has not taken yet.",
		func(s *ingest.Stats) float64 { return float64(s.JournalBytes) }},
}

// metricsInterval is how old the numbers that Fluent Bit shows may be.
const metricsInterval = time.Second

// metrics keeps Fluent Bit's metrics of one instance up to date, until stop.
type metrics struct {
	c     *C.struct_metrics
	index []C.int // of series; negative: could not be added
	stats func() ingest.Stats
	quit  chan struct{}
	done  sync.WaitGroup
}

// startMetrics returns nil if Fluent Bit has no metrics.
func startMetrics(h *host, l *logger, stats func() ingest.Stats) *metrics {
	label := C.CString(h.name)
	defer C.free(unsafe.Pointer(label))
	m := &metrics{c: C.metrics_open(&h.c, label), stats: stats, quit: make(chan struct{})}
	if m.c == nil {
		l.Debug("Fluent Bit offers no metrics to plugins")
		return nil
	}
	for _, s := range series {
		m.index = append(m.index, m.add(s.gauge, s.name, s.help))
	}
	// Here and not in the goroutine: the first value allocates memory that Fluent Bit reads without a lock.
	m.update()
	m.done.Go(func() { m.run(l) })
	return m
}

func (m *metrics) add(gauge bool, name, help string) C.int {
	n, h := C.CString(name), C.CString(help) // Fluent Bit copies them
	defer C.free(unsafe.Pointer(n))
	defer C.free(unsafe.Pointer(h))
	isGauge := C.int(0)
	if gauge {
		isGauge = 1
	}
	return C.metrics_add(m.c, isGauge, n, h)
}

func (m *metrics) run(l *logger) {
	defer onPanic(l, "updating metrics", func() {})
	ticker := time.NewTicker(metricsInterval)
	defer ticker.Stop()
	for {
		select {
		case <-m.quit:
			return
		case <-ticker.C:
			m.update()
		}
	}
}

func (m *metrics) update() {
	stats, now := m.stats(), C.uint64_t(time.Now().UnixNano())
	for i, s := range series {
		if m.index[i] >= 0 {
			C.metrics_set(m.c, m.index[i], now, C.double(s.value(&stats)))
		}
	}
}

// stop updates the metrics for the last time. When it returns Fluent Bit may free them.
func (m *metrics) stop() {
	if m == nil {
		return
	}
	close(m.quit)
	m.done.Wait()
	defer C.metrics_close(m.c)
	m.update()
}
