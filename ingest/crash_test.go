package ingest

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// committing runs a function when a segment's manifest has just been created.
type committing struct {
	storage.Bucket
	then func()
}

func (b *committing) Create(ctx context.Context, key string, body io.ReadSeeker, opts storage.CreateOptions) (storage.Version, error) {
	v, err := b.Bucket.Create(ctx, key, body, opts)
	if strings.HasSuffix(key, "/manifests/000000000001.sigstore.json") {
		b.then()
	}
	return v, err
}

// TestCrashAfterCommit stops the tidying up after a manifest's commit at each file that it moves or removes.
func TestCrashAfterCommit(t *testing.T) {
	for _, name := range []string{chunksFile, headFile, segmentFile, journalName(0), pendingFile} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			var path string
			b := &committing{r.bucket, func() {
				// Where a directory that is not empty lies, nothing can be removed or renamed to.
				if err := os.Rename(path, path+".kept"); err != nil && !os.IsNotExist(err) {
					t.Error(err)
				}
				if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
					t.Error(err)
				}
			}}
			r.bucket = b
			l := r.mustOpen()
			path = filepath.Join(l.dir, name)
			mustAppend(t, l, testChunk(0, 3, 10))
			ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
			defer cancel()
			l.Close(ctx) // the error is of no interest: it is taken for a crash
			if !r.log.has("tidying up") {
				t.Fatalf("nothing was in the way; log: %q", r.log.lines)
			}
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".kept", path); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			r.bucket = b.Bucket
			l = r.mustOpen()
			mustAppend(t, l, testChunk(0, 3, 10)) // delivered again
			mustAppend(t, l, testChunk(3, 3, 10))
			r.mustClose(l)
			numbers, events := r.verify()
			r.wantNumbers(numbers, 6)
			if len(events) != 0 {
				t.Errorf("events %v", events)
			}
		})
	}
}

// TestLostJournalIsSaidThoughACrashComes between taking the bucket's head and saying so.
func TestLostJournalIsSaidThoughACrashComes(t *testing.T) {
	r := newRig(t)
	r.mustClose(r.mustOpen())
	l := r.mustOpen()
	crash(l)
	if err := os.WriteFile(filepath.Join(l.dir, lostFile), []byte(`{"reason":"r","last_manifest":0,"known_manifests":0}`), 0o600); err != nil {
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
	l.disk.Lock()
	l.writeQueue()
	l.disk.Unlock()
	if !errors.Is(f.err, ErrClosed) {
		t.Errorf("the flush ended with %v", f.err)
	}
	if journals, err := listJournals(l.dir); err != nil || len(journals) != 0 {
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

// TestCloseRightAfterAppend: whatever the sealer is doing when the log is closed, it looks once more.
func TestCloseRightAfterAppend(t *testing.T) {
	r := newRig(t)
	for n := range 60 {
		l := r.mustOpen()
		mustAppend(t, l, testChunk(n, 1, 1))
		r.mustClose(l) // fails if anything is left
	}
}
