package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// TestLostJournalIsSaidThoughACrashComes between taking the bucket's head and saying so.
func TestLostJournalIsSaidThoughACrashComes(t *testing.T) {
	r := newRig(t)
	r.mustClose(r.mustOpen())
	l := r.mustOpen()
	crash(l)
	if err := l.save(filepath.Join(l.dir, lostFile), json.RawMessage(`{"reason":"r","last_manifest":0,"known_manifests":0}`)); err != nil {
		t.Fatal(err)
	}
	r.mustClose(r.mustOpen())
	r.mustClose(r.mustOpen()) // and it is said once
	if _, events := r.verify(); len(events) != 1 || events[0] != chain.EventJournalLost {
		t.Errorf("events %v", events)
	}
}

// TestFlushAfterClose: who was waiting for the disk when the log was closed must not write into a directory that may be
// another Log's by then.
func TestFlushAfterClose(t *testing.T) {
	r := newRig(t)
	l := r.mustOpen()
	f := new(flush)
	chunk := testChunk(0, 1, 1)
	f.batch.Decode(chunk)
	f.marker = &chain.ChunkMarker{SHA256: chain.Sum(chunk), Entries: 1}
	if _, err := l.enqueue(f, []byte("tag")); err != nil {
		t.Fatal(err)
	}
	r.mustClose(l)
	l.writing.Lock()
	l.writeQueue()
	l.writing.Unlock()
	if !errors.Is(f.err, ErrClosed) {
		t.Errorf("the flush ended with %v", f.err)
	}
	if journals, err := listJournals(l.fs, l.dir); err != nil || len(journals) != 0 {
		t.Errorf("journals %v, %v", journals, err)
	}
}

// skewed is a bucket whose clock is far from ours.
type skewed struct{ storage.Bucket }

func (skewed) ClockSkew() (time.Duration, bool) { return -3 * time.Hour, true }

func TestWrongClockSignsNothing(t *testing.T) {
	r := newRig(t)
	r.bucket = skewed{r.bucket}
	if _, err := r.open(); !errors.Is(err, storage.ErrClockSkew) {
		t.Errorf("a chain was begun by a wrong clock: %v", err)
	}
	r.bucket = r.plainBucket()
	l := r.mustOpen()
	mustAppend(t, l, testChunk(0, 2, 10))
	l.bucket = skewed{l.bucket}
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if err := l.Close(ctx); err == nil || !r.log.has("clock") {
		t.Errorf("closed with %v; log %q", err, r.log.lines)
	}
	r.mustClose(r.mustOpen())
	numbers, _ := r.verify()
	r.wantNumbers(numbers, 2)
}

// stepped is a bucket whose clock was far from ours in one answer, and is right in the next.
type stepped struct {
	storage.Bucket
	mu    sync.Mutex
	right bool
}

func (b *stepped) ClockSkew() (time.Duration, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.right {
		return 0, true
	}
	return time.Hour, true
}

func (b *stepped) Check(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.right = true
	return b.Bucket.Check(ctx)
}

// TestClockThatIsRightAgain: one answer with a wrong time is asked about, not believed for ever.
func TestClockThatIsRightAgain(t *testing.T) {
	r := newRig(t)
	l := r.mustOpen()
	mustAppend(t, l, testChunk(0, 2, 10))
	l.bucket = &stepped{Bucket: l.bucket}
	r.mustClose(l)
	numbers, _ := r.verify()
	r.wantNumbers(numbers, 2)
}

// TestCloseRightAfterAppend: whatever the sealer is doing when the log is closed, it looks once more.
func TestCloseRightAfterAppend(t *testing.T) {
	r := newRig(t)
	for n := range 60 {
		l := r.mustOpen()
		mustAppend(t, l, testChunk(n, 1, 1))
		r.mustClose(l) // fails if anything is left
	}
}
