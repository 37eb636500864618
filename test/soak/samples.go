package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"strconv"
)

// sample is what was seen at one moment. A number that was not known is NaN.
type sample struct {
	at     float64 // seconds since the first record
	outage string  // what is done to the S3 server: killed or hanging; empty: nothing

	records float64 // acknowledged, so far
	cpu     float64 // seconds of processor time that the process used, so far

	rss, anon  float64 // resident bytes of the process, and those of them that no file backs: heaps and stacks
	heap       float64 // bytes of Go's heap that were alive at the last garbage collection
	threads    float64
	fds        float64
	goroutines float64

	journal  float64 // bytes that are not in the bucket yet, as the metric journal_bytes says
	storeDir float64 // bytes of all files in store_dir
	unsealed float64 // age of the oldest record that is not in the bucket yet, in seconds
	failures float64 // attempts to write to the bucket that failed, so far

	// Since the sample before: how long the plugin took for each chunk, as its host saw it. With Fluent Bit, whose flushes
	// cannot be seen, how long its forward input took to acknowledge.
	flushes               float64
	flushMedian, flushMax float64 // seconds
}

// columns are the numbers of a sample, in the order of the file.
var columns = []struct {
	name string
	of   func(*sample) *float64
}{
	{"seconds", func(s *sample) *float64 { return &s.at }},
	{"records_acknowledged", func(s *sample) *float64 { return &s.records }},
	{"cpu_seconds", func(s *sample) *float64 { return &s.cpu }},
	{"rss_bytes", func(s *sample) *float64 { return &s.rss }},
	{"rss_anon_bytes", func(s *sample) *float64 { return &s.anon }},
	{"go_heap_live_bytes", func(s *sample) *float64 { return &s.heap }},
	{"threads", func(s *sample) *float64 { return &s.threads }},
	{"open_files", func(s *sample) *float64 { return &s.fds }},
	{"goroutines", func(s *sample) *float64 { return &s.goroutines }},
	{"journal_bytes", func(s *sample) *float64 { return &s.journal }},
	{"store_dir_bytes", func(s *sample) *float64 { return &s.storeDir }},
	{"unsealed_age_seconds", func(s *sample) *float64 { return &s.unsealed }},
	{"upload_failures", func(s *sample) *float64 { return &s.failures }},
	{"flushes", func(s *sample) *float64 { return &s.flushes }},
	{"flush_median_seconds", func(s *sample) *float64 { return &s.flushMedian }},
	{"flush_max_seconds", func(s *sample) *float64 { return &s.flushMax }},
}

// writeCSV writes the samples with a line of names before them. What is not known is left empty.
func writeCSV(w io.Writer, samples []sample) error {
	out := csv.NewWriter(w)
	var row []string
	for _, c := range columns {
		row = append(row, c.name)
	}
	out.Write(append(row, "outage")) // its errors are kept for the end
	for i := range samples {
		row = row[:0]
		for _, c := range columns {
			text := ""
			if v := *c.of(&samples[i]); !math.IsNaN(v) {
				text = strconv.FormatFloat(v, 'f', -1, 64)
			}
			row = append(row, text)
		}
		out.Write(append(row, samples[i].outage))
	}
	out.Flush()
	return out.Error()
}

// readCSV reads what writeCSV wrote.
func readCSV(r io.Reader) ([]sample, error) {
	rows, err := csv.NewReader(r).ReadAll()
	if err != nil {
		return nil, err
	}
	var samples []sample
	for n, row := range rows {
		if len(row) != len(columns)+1 {
			return nil, fmt.Errorf("line %d has %d columns, not %d", n+1, len(row), len(columns)+1)
		}
		s := sample{outage: row[len(columns)]}
		for i, c := range columns {
			if n == 0 {
				if row[i] != c.name {
					return nil, fmt.Errorf("column %d is %q, not %q", i+1, row[i], c.name)
				}
				continue
			}
			v := math.NaN()
			if row[i] != "" {
				if v, err = strconv.ParseFloat(row[i], 64); err != nil {
					return nil, fmt.Errorf("line %d, %s: %w", n+1, c.name, err)
				}
			}
			*c.of(&s) = v
		}
		if n > 0 {
			samples = append(samples, s)
		}
	}
	return samples, nil
}
