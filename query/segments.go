package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// segmentPool reads segments beside each other: two for each processor, so that one is on the line while another is checked.
type segmentPool struct {
	todo chan segmentTask
	wg   sync.WaitGroup
}

type segmentTask struct {
	m    *chain.Manifest
	mark *mark
}

func (v *verification) startPool(ctx context.Context) *segmentPool {
	p := &segmentPool{todo: make(chan segmentTask)}
	for range 2 * runtime.GOMAXPROCS(0) {
		p.wg.Go(func() {
			for task := range p.todo {
				proven := v.checkSegment(ctx, task.m)
				v.frontier.reach(task.mark, proven)
			}
		})
	}
	return p
}

// end waits for all that was put in.
func (p *segmentPool) end() {
	close(p.todo)
	p.wg.Wait()
}

// checkSegment reads one segment whole, and reports whether all of it is proven, or gone as it may be.
func (v *verification) checkSegment(ctx context.Context, m *chain.Manifest) (proven bool) {
	read := false
	defer func() {
		if !read {
			v.unread.Add(1)
		}
	}()
	key := v.Layout.Root() + m.Segment.Key
	f := segmentFinding(key, m)
	first, last := m.FirstSeq, m.NextSeq-1
	if ctx.Err() != nil {
		return false
	}
	r, info, err := v.open(ctx, key, m.Segment.VersionID)
	if err != nil {
		if ctx.Err() != nil {
			return false
		}
		f.Severity, f.Code, f.Text = Unchecked, Unreadable, fmt.Sprintf("entries %d to %d cannot be read: %v", first, last, err)
		if errors.Is(err, storage.ErrNotFound) {
			until := m.Lock.RetainUntil
			f.Severity, f.Code, f.Text = Tampered, SegmentMissing, fmt.Sprintf("the version that holds entries %d to %d is not there any more, though it was to be kept until %s", first, last, until.Format(time.RFC3339))
			if until.Before(v.Now) {
				f.Severity, f.Code, f.Text = Notice, Expired, fmt.Sprintf("entries %d to %d are gone: their retention ended on %s", first, last, until.Format(time.RFC3339))
			}
		}
		v.found.add(f)
		return f.Code == Expired
	}
	defer r.Close()
	v.checkLock(f, info, m, fmt.Sprintf("the segment of entries %d to %d", first, last))
	counted := &countingReader{r: r, add: v.count}
	events := make(map[string]uint64)
	err = chain.VerifySegment(m, counted, func(e *chain.Entry, line []byte) error {
		if v.hashes && e.Seq > 0 { // before entry 0 there is the genesis
			v.meetEntry(e.Prev, e.Seq-1)
		}
		if e.Conflict {
			facts, conflict, seq := e.Facts(), f, e.Seq
			conflict.Severity, conflict.Code, conflict.FirstSeq, conflict.LastSeq = Warning, Conflict, &seq, &seq
			conflict.Text = fmt.Sprintf("entry %d is record %d of source %q, of which another record with that number had come before", e.Seq, facts.SourceSeq, facts.SourceID)
			v.found.add(conflict)
		}
		if e.Event != "" {
			events[e.Event]++
			if e.Event == chain.EventJournalLost {
				lost, seq := f, e.Seq
				lost.Severity, lost.Code, lost.FirstSeq, lost.LastSeq = Warning, JournalLost, &seq, &seq
				lost.Text = fmt.Sprintf("entry %d of %s says that the writer lost its journal: %.200s", e.Seq, e.Received.Format(time.RFC3339), e.Detail)
				v.found.add(lost)
			}
		}
		return nil
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return false
	case err != nil && counted.err != nil: // reading failed, not the content
		f.Severity, f.Code, f.Text = Unchecked, Unreadable, fmt.Sprintf("entries %d to %d cannot be read to their end: %v", first, last, counted.err)
		v.found.add(f)
		return false
	case err != nil:
		f.Severity, f.Code, f.Text = Tampered, SegmentChanged, fmt.Sprintf("the segment of entries %d to %d is not what was written: %v", first, last, err)
		v.found.add(f)
		return false
	}
	read = true
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Segments++
	v.report.RawBytes += m.Segment.RawSize
	v.report.Bytes += m.Segment.Size
	v.report.Counts.Add(m.Counts)
	for name, n := range events {
		if v.report.Events == nil {
			v.report.Events = make(map[string]uint64)
		}
		if len(v.report.Events) < 100 || v.report.Events[name] > 0 {
			v.report.Events[name] += n
		}
	}
	return true
}

func segmentFinding(key string, m *chain.Manifest) Finding {
	f := Finding{Object: key, Version: m.Segment.VersionID, Manifest: m.N}
	f.entriesOf(m)
	return f
}

func (v *verification) count(n int) {
	v.mu.Lock()
	v.done += int64(n)
	done, total := v.done, max(v.total, v.done)
	v.mu.Unlock()
	if v.Progress != nil {
		v.Progress(done, total)
	}
}

// countingReader remembers the error that reading ended with, and counts bytes.
type countingReader struct {
	r   io.Reader
	add func(n int)
	err error
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.add(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}
