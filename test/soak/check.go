package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/storage"
)

// reader is the log as an auditor sees it.
type reader struct {
	bucket storage.Bucket
	layout chain.Layout
	key    chain.PublicKey
}

// check verifies the whole log, and that each record that was delivered is in it exactly once. bytesOnDisk is what the
// server uses.
func check(ctx context.Context, out io.Writer, l *load, o *options, r reader, bytesOnDisk float64) error {
	var wrong []error
	if l.acknowledged != l.delivered {
		wrong = append(wrong, fmt.Errorf("%d records were delivered and %d acknowledged", l.delivered, l.acknowledged))
	}
	// A machine that is too slow says nothing of the plugin at this rate.
	if wanted := float64(o.rate) * o.duration.Seconds(); float64(l.delivered) < 0.99*wanted {
		wrong = append(wrong, fmt.Errorf("%d records were delivered in time, not %.0f: the rate was not kept", l.delivered, wanted))
	}
	start := time.Now()
	report, err := (&query.Log{Bucket: r.bucket, Layout: r.layout, Key: r.key}).Verify(ctx, query.VerifyOptions{Now: time.Now()})
	if err != nil {
		return errors.Join(append(wrong, err)...)
	}
	fmt.Fprintf(out, "\n%d records acknowledged, %d chunks of them after a retry; the log is %s: %d records and %d events in %d segments, %d manifests; "+
		"%.0f bytes stored per record, %.1f GB on the server's disk; verified in %.0f s\n",
		l.acknowledged, l.retried, report.Verdict, report.Counts.Records, report.Counts.Events, report.Segments, report.Manifests,
		float64(report.Bytes)/float64(max(report.Counts.Records, 1)), bytesOnDisk/1e9, time.Since(start).Seconds())
	if report.Verdict != "intact" || len(report.Findings) > 0 {
		wrong = append(wrong, fmt.Errorf("the log is %s: %v", report.Verdict, report.Findings))
	}
	if report.Counts.Records != l.acknowledged || report.Counts.Events != 0 || report.Counts.Redelivered != 0 {
		wrong = append(wrong, fmt.Errorf("%d records were acknowledged, the manifests have %d, %d of them redelivered, and %d events",
			l.acknowledged, report.Counts.Records, report.Counts.Redelivered, report.Counts.Events))
	}
	t := tally{seen: make([]uint64, (l.delivered+63)/64), delivered: l.delivered}
	if err := r.count(ctx, &t); err != nil {
		return errors.Join(append(wrong, err)...)
	}
	if err := t.judge(); err != nil {
		wrong = append(wrong, err)
	} else {
		fmt.Fprintf(out, "each of the records is in the log exactly once\n")
	}
	return errors.Join(wrong...)
}

// count reads the records' numbers from all segments.
func (r reader) count(ctx context.Context, t *tally) error {
	var segments []*chain.Manifest
	for info, err := range r.bucket.List(ctx, r.layout.Manifests(), "") {
		if err != nil {
			return err
		}
		data, err := r.read(ctx, info)
		if err != nil {
			return err
		}
		m, _, err := chain.OpenManifest(data, r.key)
		if err != nil {
			return fmt.Errorf("%s: %w", info.Key, err)
		}
		if m.Segment != nil {
			segments = append(segments, m)
		}
	}
	var wait sync.WaitGroup
	next := make(chan *chain.Manifest, len(segments))
	for _, m := range segments {
		next <- m
	}
	close(next)
	readers := runtime.GOMAXPROCS(0)
	errs := make([]error, readers)
	for n := range readers {
		wait.Go(func() {
			for m := range next {
				errs[n] = cmp.Or(errs[n], r.countSegment(ctx, m, t))
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

func (r reader) read(ctx context.Context, info storage.Info) ([]byte, error) {
	body, _, err := r.bucket.Open(ctx, info.Key, info.Version, 0, -1)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(io.LimitReader(body, chain.MaxManifest))
}

func (r reader) countSegment(ctx context.Context, m *chain.Manifest, t *tally) error {
	body, _, err := r.bucket.Open(ctx, r.layout.Root()+m.Segment.Key, m.Segment.VersionID, 0, -1)
	if err != nil {
		return err
	}
	defer body.Close()
	var numbers []uint64
	err = chain.VerifySegment(m, body, func(e *chain.Entry, line []byte) error {
		n, err := recordNumber(e.Record)
		if err != nil {
			return fmt.Errorf("%w: %s", err, line)
		}
		numbers = append(numbers, n)
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", m.Segment.Key, err)
	}
	t.add(numbers)
	return nil
}

// recordNumber is the number of a record at its source. Nothing else in the records of a soak looks like it.
func recordNumber(record []byte) (uint64, error) {
	const before = `"seq":`
	at := bytes.LastIndex(record, []byte(before))
	if at < 0 {
		return 0, errors.New("a record has no number")
	}
	digits := record[at+len(before):]
	if end := bytes.IndexByte(digits, '}'); end >= 0 {
		digits = digits[:end]
	}
	return strconv.ParseUint(string(digits), 10, 64)
}

// tally counts which records are in the log.
type tally struct {
	delivered uint64 // numbers 0 to delivered-1

	mu       sync.Mutex
	seen     []uint64 // one bit per record
	count    uint64   // of those
	twice    uint64
	strange  uint64 // that were not delivered
	firstBad uint64 // the first of the last two
}

func (t *tally) add(numbers []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range numbers {
		var bad *uint64
		switch {
		case n >= t.delivered:
			bad = &t.strange
		case t.seen[n/64]&(1<<(n%64)) != 0:
			bad = &t.twice
		default:
			t.seen[n/64] |= 1 << (n % 64)
			t.count++
			continue
		}
		if t.twice+t.strange == 0 || n < t.firstBad {
			t.firstBad = n
		}
		*bad++
	}
}

// judge is nil if each record is there once, and nothing else.
func (t *tally) judge() error {
	if t.count == t.delivered && t.twice == 0 && t.strange == 0 {
		return nil
	}
	text := fmt.Sprintf("of %d records %d are missing, %d are there twice, %d were never delivered", t.delivered, t.delivered-t.count, t.twice, t.strange)
	for n := range t.delivered {
		if t.seen[n/64]&(1<<(n%64)) == 0 {
			text += fmt.Sprintf("; the first that is missing has number %d", n)
			break
		}
	}
	if t.twice+t.strange > 0 {
		text += fmt.Sprintf("; the first that does not belong has number %d", t.firstBad)
	}
	return errors.New(text)
}
