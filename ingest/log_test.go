package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest/disk/disktest"
	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/storage/storagetest"
)

func TestAppendCloseVerify(t *testing.T) {
	r := newRig(t)
	l := r.mustOpen()
	for i := range 20 {
		mustAppend(t, l, testChunk(10*i, 10, 100))
	}
	s := l.Stats()
	if s.Records != 200 || s.HeadSeq != 200 || s.Incomplete != 200 || s.JournalBytes == 0 {
		t.Errorf("stats %+v", s)
	}
	r.mustClose(l)
	if err := l.Append([]byte("tag"), testChunk(0, 1, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("appending to a closed log: %v", err)
	}
	if s := l.Stats(); s.Segments != 1 || s.JournalBytes != 0 {
		t.Errorf("stats %+v", s)
	}
	numbers, events := r.verify()
	r.wantNumbers(numbers, 200)
	if len(events) != 0 {
		t.Errorf("events %v", events)
	}

	// The same store directory goes on where it stood.
	l = r.mustOpen()
	mustAppend(t, l, testChunk(200, 5, 100))
	r.mustClose(l)
	numbers, _ = r.verify()
	r.wantNumbers(numbers, 205)
}

func TestParallelAppendsAndRotation(t *testing.T) {
	r := newRig(t)
	r.cfg.TotalFileSize = 20_000
	l := r.mustOpen()
	var wg sync.WaitGroup
	const workers, chunks = 8, 25
	for w := range workers {
		wg.Go(func() {
			for i := range chunks {
				if err := l.Append([]byte("tag"), testChunk((w*chunks+i)*4, 4, 300)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	r.mustClose(l)
	if s := l.Stats(); s.Segments < 10 || s.JournalBytes != 0 {
		t.Errorf("stats %+v", s)
	}
	numbers, _ := r.verify()
	r.wantNumbers(numbers, workers*chunks*4)
}

// TestLongLines has lines longer than any buffer on the way, between short ones.
func TestLongLines(t *testing.T) {
	r := newRig(t)
	l := r.mustOpen()
	for i, pad := range []int{10, 700_000, 3_000_000, 10, 256 << 10} {
		mustAppend(t, l, testChunk(2*i, 2, pad))
	}
	r.mustClose(l)
	numbers, _ := r.verify()
	r.wantNumbers(numbers, 10)
}

func TestCrashKeepsWhatWasAcknowledged(t *testing.T) {
	r := newRig(t)
	l := r.mustOpen()
	for i := range 10 {
		mustAppend(t, l, testChunk(i, 1, 10))
	}
	crash(l)
	// A torn write after it, which was never acknowledged.
	journals, err := listJournals(l.fs, l.dir)
	if err != nil || len(journals) != 1 {
		t.Fatal(journals, err)
	}
	f, err := os.OpenFile(journals[0], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, `{"seq":10,"prev":"`)
	f.Close()

	l = r.mustOpen()
	if !r.log.has("are no whole chunk") {
		t.Errorf("log: %q", r.log.lines)
	}
	// Fluent Bit delivers again what it had not heard of.
	mustAppend(t, l, testChunk(9, 1, 10))
	if s := l.Stats(); s.DuplicateChunks != 1 || s.Records != 0 {
		t.Errorf("stats %+v", s)
	}
	// The same bytes once more are new: someone sent them.
	mustAppend(t, l, testChunk(10, 1, 10))
	r.mustClose(l)

	// Long after its segment was committed, too.
	l = r.mustOpen()
	mustAppend(t, l, testChunk(5, 1, 10))
	mustAppend(t, l, testChunk(10, 1, 10))
	if s := l.Stats(); s.DuplicateChunks != 2 {
		t.Errorf("stats %+v", s)
	}
	r.mustClose(l)
	numbers, _ := r.verify()
	r.wantNumbers(numbers, 11)
}

func TestDamagedJournalIsNotPassedOver(t *testing.T) {
	r := newRig(t)
	l := r.mustOpen()
	for i := range 3 {
		mustAppend(t, l, testChunk(i, 1, 10))
	}
	crash(l)
	journals, _ := listJournals(l.fs, l.dir)
	data, err := os.ReadFile(journals[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(data); i += 1 + i%11*min(1, (len(data)-i)/70) { // each byte of the last commit line, too
		was := data[i]
		for _, now := range []byte{was ^ 4, 0} {
			if now == 0 && ((i+1)%sector == 0 || i == len(data)-1) {
				continue // as a power cut leaves it
			}
			data[i] = now
			if err := os.WriteFile(journals[0], data, 0o600); err != nil {
				t.Fatal(err)
			}
			if l, err := r.open(); err == nil {
				crash(l)
				t.Fatalf("a journal with byte %d changed from %q to %q was taken", i, was, now)
			} else if !strings.Contains(err.Error(), journals[0]) {
				t.Errorf("the error does not name the journal: %v", err)
			}
		}
		data[i] = was
	}
}

// TestSegmentKeyTaken has something else lie where the next segment belongs: left by a writer that died, or by somebody who
// wants to stop this one.
func TestSegmentKeyTaken(t *testing.T) {
	r := newRig(t)
	l := r.mustOpen()
	key := l.layout.Segment(1, time.Now())
	junk := []byte("junk")
	if _, err := r.bucket.Create(context.Background(), key, bytes.NewReader(junk), storage.CreateOptions{Size: 4, SHA256: chain.Sum(junk)}); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, testChunk(0, 3, 10))
	r.mustClose(l)
	if !r.log.has("goes to another key") {
		t.Errorf("log: %q", r.log.lines)
	}
	r.leftover = key
	numbers, _ := r.verify()
	r.wantNumbers(numbers, 3)
}

// TestSameBytesUnderAnotherTag: they are other entries, also after a restart.
func TestSameBytesUnderAnotherTag(t *testing.T) {
	r := newRig(t)
	l := r.mustOpen()
	mustAppend(t, l, testChunk(0, 1, 1))
	r.mustClose(l)
	l = r.mustOpen()
	if err := l.Append([]byte("another"), testChunk(0, 1, 1)); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, testChunk(0, 1, 1))
	if s := l.Stats(); s.Records != 1 || s.DuplicateChunks != 1 {
		t.Errorf("stats %+v", s)
	}
	r.mustClose(l)
}

func TestLostStoreDirectory(t *testing.T) {
	for _, mode := range []OnLostJournal{Resume, Refuse} {
		t.Run(string(mode), func(t *testing.T) {
			r := newRig(t)
			l := r.mustOpen()
			mustAppend(t, l, testChunk(0, 3, 10))
			r.mustClose(l)
			if err := os.RemoveAll(r.cfg.StoreDir); err != nil {
				t.Fatal(err)
			}
			r.cfg.OnLostJournal = mode
			l, err := r.open()
			if mode == Refuse {
				if err == nil || !strings.Contains(err.Error(), "on_lost_journal") {
					t.Errorf("opened: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			mustAppend(t, l, testChunk(3, 3, 10))
			r.mustClose(l)
			numbers, events := r.verify()
			r.wantNumbers(numbers, 6)
			if len(events) != 1 || events[0] != chain.EventJournalLost {
				t.Errorf("events %v", events)
			}
		})
	}
}

func TestOneWriter(t *testing.T) {
	r := newRig(t)
	first := r.mustOpen()
	if _, err := r.open(); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second writer in the same directory: %v", err)
	}
	// Another machine: the same chain and bucket, a directory of its own.
	other := *r
	other.cfg.StoreDir = filepath.Join(t.TempDir(), "other")
	second := other.mustOpen()
	if !r.log.has("what an earlier writer had acknowledged") {
		t.Errorf("log: %q", r.log.lines)
	}
	r.mustClose(second) // commits its journal_lost entry
	mustAppend(t, first, testChunk(0, 3, 10))
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := first.Close(ctx); err == nil {
		t.Error("both writers committed")
	}
	if !r.log.has(ErrForked.Error()) {
		t.Errorf("log: %q", r.log.lines)
	}
	if _, err := r.open(); !errors.Is(err, ErrForked) {
		t.Errorf("reopening the writer that lost: %v", err)
	}
	if _, events := r.verify(); len(events) != 1 {
		t.Errorf("events %v", events)
	}
}

// faulty fails the k-th call of a bucket's write, in one of two ways.
type faulty struct {
	storage.Bucket
	mu       sync.Mutex
	calls    int
	k        int
	done     bool // done, but reported as failed
	always   bool // every call from the k-th on
	failures int
}

func (b *faulty) Create(ctx context.Context, key string, body io.ReadSeeker, opts storage.CreateOptions) (storage.Version, error) {
	b.mu.Lock()
	call := b.calls
	b.calls++
	fail := call == b.k || b.always && call > b.k
	if fail {
		b.failures++
	}
	b.mu.Unlock()
	if fail && !b.done {
		return "", fmt.Errorf("injected: %w", storage.ErrUnreachable)
	}
	v, err := b.Bucket.Create(ctx, key, body, opts)
	if fail {
		return "", fmt.Errorf("injected, after it was done: %w", storage.ErrUnreachable)
	}
	return v, err
}

func TestFailedUploads(t *testing.T) {
	for _, done := range []bool{false, true} {
		for k := range 6 {
			t.Run(fmt.Sprintf("done=%t/%d", done, k), func(t *testing.T) {
				r := newRig(t)
				r.cfg.TotalFileSize = 2000
				b := &faulty{Bucket: r.bucket, k: k, done: done}
				r.bucket = b
				n := 0
				l, err := r.open()
				if err != nil { // the genesis failed; the next start finishes it
					if l, err = r.open(); err != nil {
						t.Fatal(err)
					}
				}
				for range 6 {
					mustAppend(t, l, testChunk(n, 2, 300))
					n += 2
				}
				r.mustClose(l)
				if b.failures != 1 {
					t.Fatalf("%d failures injected in %d calls", b.failures, b.calls)
				}
				numbers, _ := r.verify()
				r.wantNumbers(numbers, n)
			})
		}
	}
}

func TestBucketAwayAndStoreDirFull(t *testing.T) {
	r := newRig(t)
	b := &faulty{Bucket: r.bucket, k: 1, always: true} // all but the genesis
	r.bucket = b
	r.cfg.StoreDirLimit = 20_000
	r.cfg.TotalFileSize = 2000
	l := r.mustOpen()
	n := 0
	for {
		err := l.Append([]byte("tag"), testChunk(n, 1, 500))
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n++; n > 100 {
			t.Fatal("store_dir never fills")
		}
	}
	if n < 10 {
		t.Errorf("only %d records were taken", n)
	}
	if first := l.Stats().UnsealedAge; first <= 0 {
		t.Errorf("stats %+v", l.Stats())
	}
	crash(l)
	// The bucket comes back.
	r.bucket = r.plainBucket()
	l = r.mustOpen()
	for deadline := time.Now().Add(10 * time.Second); l.Stats().JournalBytes > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("stats %+v", l.Stats())
		}
	}
	mustAppend(t, l, testChunk(n, 1, 500))
	r.mustClose(l)
	numbers, _ := r.verify()
	r.wantNumbers(numbers, n+1)
}

func TestQuarantine(t *testing.T) {
	r := newRig(t)
	l := r.mustOpen()
	chunk := append(testChunk(0, 2, 5), 0xc1, 1, 2, 3)
	mustAppend(t, l, chunk)
	if s := l.Stats(); s.Quarantined != 1 || s.Records != 2 || s.Events != 1 {
		t.Errorf("stats %+v", s)
	}
	mustAppend(t, l, nil) // a chunk of nothing
	r.mustClose(l)
	numbers, events := r.verify()
	r.wantNumbers(numbers, 2)
	if len(events) != 1 || events[0] != chain.EventQuarantine {
		t.Errorf("events %v", events)
	}
	if !r.log.has("quarantine") {
		t.Errorf("log: %q", r.log.lines)
	}
}

// sourceChunk is a chunk of one record {"n":seq,"source":{"id":"gpu","seq":seq}}, sent at a time.
func sourceChunk(seq, time byte) []byte {
	b := []byte{0x92, 0x92, 0xd7, 0, 0x6b, 3, 0xf7, 0xf6, 0, 0, 0, time, 0x80, 0x82, 0xa1, 'n', seq, 0xa6}
	b = append(b, "source"...)
	return append(b, 0x82, 0xa2, 'i', 'd', 0xa3, 'g', 'p', 'u', 0xa3, 's', 'e', 'q', seq)
}

// TestRedeliveriesAreMarked: a record whose source and number were there before is kept, marked and counted, also after a
// restart, and also where the segment that holds the first copy is long gone from the disk.
func TestRedeliveriesAreMarked(t *testing.T) {
	r := newRig(t)
	l := r.mustOpen()
	mustAppend(t, l, append(sourceChunk(0, 0), sourceChunk(1, 0)...))
	mustAppend(t, l, sourceChunk(1, 1)) // again, at another time: not the same chunk
	if s := l.Stats(); s.Redeliveries != 1 || s.Records != 3 {
		t.Errorf("stats %+v", s)
	}
	r.mustClose(l)
	for range 3 { // others in between
		l = r.mustOpen()
		mustAppend(t, l, testChunk(100, 1, 1))
		r.mustClose(l)
	}
	l = r.mustOpen()
	mustAppend(t, l, sourceChunk(0, 2))
	crash(l)
	l = r.mustOpen()
	mustAppend(t, l, sourceChunk(2, 2))
	mustAppend(t, l, sourceChunk(0, 3))
	if s := l.Stats(); s.Redeliveries != 1 {
		t.Errorf("after a restart: stats %+v", s)
	}
	r.mustClose(l)
	r.wantMarks("0 1 1r 0r 2 0r")
}

// TestFailedChunkIsNoDelivery: what a chunk brought that was not taken is new when the chunk comes again.
func TestFailedChunkIsNoDelivery(t *testing.T) {
	m := newMachine(t)
	m.start()
	mustAppend(t, m.log, sourceChunk(0, 0))
	for _, fault := range []storagetest.Fault{
		storagetest.Fail(syscall.EIO), storagetest.FailDone(syscall.EIO), storagetest.Fail(syscall.ENOSPC),
	} {
		for _, kind := range []string{disktest.OpWrite, disktest.OpSync} {
			struck := false
			m.inject(func(op storagetest.Op) (storagetest.Fault, bool) {
				if struck || op.Kind != kind || role(op.Path) != "journal-N.ndjson" {
					return storagetest.Fault{}, false
				}
				struck = true
				return fault, false
			})
			if err := m.log.Append([]byte("tag"), sourceChunk(1, 0)); !struck || err == nil {
				t.Fatalf("%s: struck %t, %v", kind, struck, err)
			}
		}
	}
	m.inject(func(storagetest.Op) (storagetest.Fault, bool) { return storagetest.Fault{}, false })
	mustAppend(t, m.log, sourceChunk(1, 0))
	mustAppend(t, m.log, sourceChunk(1, 1))
	m.finish()
	m.rig.reader = m.memory
	m.wantMarks("0 1 1r")
}

// wantMarks compares the numbers of the records that have a source, an r behind those that are marked as redelivered, a c behind
// those of them that conflict.
func (r *rig) wantMarks(want string) *query.Report {
	r.t.Helper()
	var got []string
	reader := &query.Log{Bucket: r.plainBucket(), Layout: chain.Layout{Chain: r.cfg.Chain}, Key: r.trusted}
	err := reader.Walk(context.Background(), func(e *chain.Entry, _ []byte) error {
		if f := e.Facts(); f.SourceID != nil {
			mark := ""
			switch {
			case f.Conflict:
				mark = "c"
			case f.Redelivered:
				mark = "r"
			}
			got = append(got, fmt.Sprint(f.SourceSeq)+mark)
		}
		return nil
	})
	if err != nil || strings.Join(got, " ") != want {
		r.t.Errorf("records %v, want %v (%v)", got, want, err)
	}
	report, err := reader.Verify(context.Background(), query.VerifyOptions{Now: time.Now()})
	conflicts := uint64(strings.Count(want, "c"))
	if err != nil || report.Verdict != "intact" || report.Counts.Redelivered != conflicts+uint64(strings.Count(want, "r")) || report.Counts.Conflicts != conflicts {
		r.t.Errorf("%+v, %v", report, err)
	}
	return report
}

// TestJournalFactsMatch sees to it that what the writer counts as it decodes is what a reader counts off the lines.
func TestJournalFactsMatch(t *testing.T) {
	chunks, err := filepath.Glob("../record/testdata/*.msgpack")
	if err != nil || len(chunks) == 0 {
		t.Fatal("no chunks", err)
	}
	r := newRig(t)
	l := r.mustOpen()
	for _, path := range chunks {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, data)
	}
	l.writing.Lock()
	want := l.active.summary
	l.writing.Unlock()
	crash(l)
	journals, _ := listJournals(l.fs, l.dir)
	j, err := replayJournal(l.fs, journals[0], noLimit, func([]replayed) {})
	if err != nil {
		t.Fatal(err)
	}
	wantSources, _ := want.SourceRanges()
	gotSources, _ := j.summary.SourceRanges()
	if got, want := fmt.Sprintf("%+v %+v %v %v", j.summary.Counts(), gotSources, j.summary.EventTimes(), j.summary.ReceivedTimes()),
		fmt.Sprintf("%+v %+v %v %v", want.Counts(), wantSources, want.EventTimes(), want.ReceivedTimes()); got != want {
		t.Errorf("read off the lines:\n%s\ncounted when decoding:\n%s", got, want)
	}
}

// panicking panics where a bucket is asked to write.
type panicking struct{ storage.Bucket }

func (panicking) Create(context.Context, string, io.ReadSeeker, storage.CreateOptions) (storage.Version, error) {
	panic("injected")
}

func TestPanicsAreContained(t *testing.T) {
	r := newRig(t)
	l := r.mustOpen()
	mustAppend(t, l, testChunk(0, 2, 10))
	r.mustClose(l)

	// In the background: the log takes no more, loudly, and keeps what it has.
	r.cfg.UploadTimeout = time.Millisecond
	r.bucket = panicking{r.bucket}
	l = r.mustOpen()
	mustAppend(t, l, testChunk(2, 2, 10))
	<-l.done
	if !r.log.has("sealing and uploading have stopped") {
		t.Errorf("log: %q", r.log.lines)
	}
	if err := l.Append([]byte("tag"), testChunk(4, 2, 10)); err == nil || !strings.Contains(err.Error(), "internal error") {
		t.Errorf("appending after a panic: %v", err)
	}
	crash(l)

	// While chaining: nothing of the chunk is taken.
	r.bucket = r.plainBucket()
	r.cfg.UploadTimeout = time.Hour
	var broken atomic.Bool
	l, err := open(context.Background(), r.cfg, Options{Logger: r.log, Version: "test", Now: func() time.Time {
		if broken.Load() {
			panic("injected")
		}
		return time.Now()
	}}, world{r.bucket, r.fs, r.backoff})
	if err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	if err := l.Append([]byte("tag"), testChunk(4, 2, 10)); err == nil {
		t.Error("a chunk was taken though chaining it panicked")
	}
	crash(l)
	l = r.mustOpen()
	mustAppend(t, l, testChunk(4, 2, 10))
	r.mustClose(l)
	numbers, _ := r.verify()
	r.wantNumbers(numbers, 6)
}
