package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/record"
)

// Errors that Append returns. After any error the log is as if the chunk had never come: deliver it again later.
var (
	// ErrFull says that the store directory holds store_dir_limit_size bytes that the bucket has not taken yet.
	ErrFull = errors.New("store_dir is full: the bucket has not taken what waits there")
	// ErrDiskFull says that the disk of the store directory is full, and that what room is left is needed to seal what is there.
	ErrDiskFull = errors.New("the disk of store_dir is full: what is there goes to the bucket first")
	// ErrClosed says that the log was closed.
	ErrClosed = errors.New("the log is closed")
	// ErrForked says that another writer has continued this chain. Nothing is written any more until an operator decides.
	ErrForked = errors.New("another writer owns this chain")
)

// Logger takes the log's messages: one line each, without a newline.
type Logger interface {
	Error(msg string)
	Warn(msg string)
	Info(msg string)
	Debug(msg string)
}

// Options are what a Log needs besides its configuration.
type Options struct {
	Logger  Logger           // required
	Version string           // of the program, for the manifests
	Now     func() time.Time // the clock; nil: time.Now
	// Compressor makes what compresses segments, each for one goroutine; nil: chain.NewCompressor.
	Compressor func(chain.Level) (chain.Compressor, error)
}

// Log is the writer of one chain. Its promises:
//
//   - When Append returns nil, the chunk is synced to the disk of the store directory, and will be in the bucket once,
//     in order, whatever crashes.
//   - When Append returns an error, nothing of the chunk is in the log.
//   - There is one writer: a lock file in the store directory, and on the bucket's side the number of the next
//     manifest, which only one writer can create.
//
// Append may be called at the same time by any number of goroutines.
//
// Life of a chunk: decoded with no lock held; numbered, chained and hashed under mu; written and synced by one of the
// callers for all that wait (group commit, see commit.go). The goroutine run turns rotated journals into segments and
// manifests (see pipeline.go).
type Log struct {
	world
	cfg      Config
	opts     Options
	now      func() time.Time
	key      *chain.SigningKey
	previous *previousKey // nil: none is configured
	layout   chain.Layout
	dir      string    // the chain's own, below the store directory
	lock     io.Closer // the advisory lock on dir
	flushes  sync.Pool
	writer   chain.Writer       // what manifests say of this program
	cancel   context.CancelFunc // ends run, whatever it is doing
	done     chan struct{}      // closed when run has ended
	wake     chan struct{}      // holds one token when run has something to look at
	arrived  chan struct{}      // holds one token when something has been queued

	mu         sync.Mutex
	written    *sync.Cond // on mu: flushes are done, or nobody leads any more
	tip        position   // after the last entry that was chained, synced or not
	queue      []*flush   // chained, waiting to be written
	leading    bool       // some caller of Append is writing, for all
	closed     bool
	failed     error // why nothing can be taken any more, until the log is opened again
	diskFull   bool  // the room that is left is for sealing
	delivered  map[chain.Hash]struct{}
	seen       sources
	contents   contents
	stats      Stats
	stored     int64       // bytes in the store directory that the bucket has not taken yet
	activeFrom time.Time   // when the active journal's first chunk was received; zero: there is none
	sealFrom   []time.Time // the same of the rotated ones, oldest first

	writing   sync.Mutex // held while writing, syncing and rotating; taken before mu
	durable   position   // after the last synced entry
	active    *journal   // nil until there is something to write
	abandoned string     // path of a journal that failed before anything in it was synced; "": there is none
	rotated   []*journal // oldest first
	tree      chain.Tree // after the last rotated one, if treeKnown
	treeKnown bool
	ended     bool // the directory may be another Log's by now

	// Of the caller of Append that leads:
	lastSync time.Duration // how long the last sync took
	crowd    int           // how many flushes came together lately
	said     time.Time     // when the log said last that records conflict
	unsaid   uint64        // how many conflicts there were since

	pipeline // of run alone
}

// position is a place between two entries of the chain.
type position struct {
	seq   uint64     // of the entry after it
	entry chain.Hash // of the entry before it
}

// flush is one chunk on its way to the disk.
type flush struct {
	batch    record.Batch
	middle   []byte
	lines    []byte // what goes into the journal, with a batch mark before it
	out      []byte // what of lines was written
	marker   *chain.ChunkMarker
	id       chain.Hash // by which it would be known again
	arrived  time.Time  // by the monotonic clock too: a clock that is set back must not delay sealing
	received time.Time
	hashes   []chain.Hash // of its entries
	marks    []mark       // of its entries
	after    position     // after its last entry
	counts   Stats        // what it adds to the log's
	done     bool         // under mu
	err      error
}

// mark is what the log remembered of a record's source and number as it took the record, and what it did to remember the record.
type mark struct {
	redelivered, conflict bool
	added                 bool    // to what was seen
	before                content // what lay where its content lies
}

// deliveryID is what a chunk is known by when it is delivered again: its bytes, and its tag as JSON, since the same bytes
// under another tag are other entries.
func deliveryID(sum chain.Hash, tag []byte) chain.Hash { return chain.Sum(append(sum[:], tag...)) }

// Append takes one chunk, a run of msgpack events as Fluent Bit hands them to an output, with its tag. It does not keep
// either after it returns.
func (l *Log) Append(tag, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	f := l.flushes.Get().(*flush)
	defer l.flushes.Put(f)
	f.batch.Decode(data)
	if len(f.batch.Entries) == 0 {
		return nil
	}
	f.marker = &chain.ChunkMarker{SHA256: sha256.Sum256(data), Entries: uint64(len(f.batch.Entries))}
	if reasons := f.batch.Reasons(); reasons != "" {
		l.opts.Logger.Warn(fmt.Sprintf("chunk of %d bytes, tag %.80q: %s; the bytes are kept as quarantine entries", len(data), tag, reasons))
	}
	return l.commit(f, tag)
}

// enqueue gives f's entries their numbers and hashes and puts f into the queue. again says that the chunk was taken
// before, in an earlier life of this log: Fluent Bit had not heard of it.
func (l *Log) enqueue(f *flush, tag []byte) (again bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() {
		if r := recover(); r != nil {
			err = l.fail(r)
		}
	}()
	switch {
	case l.closed:
		return false, ErrClosed
	case l.failed != nil:
		return false, l.failed
	}
	if f.marker != nil {
		f.id = deliveryID(f.marker.SHA256, chain.AppendString(nil, tag))
		if _, ok := l.delivered[f.id]; ok {
			delete(l.delivered, f.id) // once: the same bytes may well be sent anew later
			l.stats.DuplicateChunks++
			return true, nil
		}
	}
	switch {
	case l.diskFull:
		return false, ErrDiskFull
	case l.cfg.StoreDirLimit > 0 && l.stored+int64(len(f.batch.Bodies)) > l.cfg.StoreDirLimit && l.stored > 0:
		return false, ErrFull
	}
	f.arrived = l.now()
	f.received = f.arrived.Round(0) // without the monotonic clock: it goes into lines
	f.middle = chain.AppendMiddle(f.middle[:0], f.received, tag)
	f.lines = append(f.lines[:0], batchMark, '\n')
	f.hashes, f.marks = f.hashes[:0], f.marks[:0]
	marker, from := f.marker, 0
	for i := range f.batch.Entries {
		e := &f.batch.Entries[i]
		var m mark
		if e.SourceID != nil {
			m = l.remember(e)
		}
		start := len(f.lines)
		f.lines = chain.AppendEntry(f.lines, l.tip.seq, l.tip.entry, f.middle, marker, m.redelivered, m.conflict, f.batch.Bodies[from:e.End])
		l.tip = position{l.tip.seq + 1, sha256.Sum256(f.lines[start:])}
		f.hashes = append(f.hashes, l.tip.entry)
		f.marks = append(f.marks, m)
		f.lines = append(f.lines, '\n')
		marker, from = nil, e.End
	}
	f.lines = append(f.lines, commitMark)
	f.lines = l.tip.entry.AppendHex(f.lines)
	f.lines = append(f.lines, '\n')
	f.after = l.tip
	f.done, f.err = false, nil
	l.queue = append(l.queue, f)
	l.stored += int64(len(f.lines))
	return false, nil
}

// remember takes a record with a source into what is known of sources.
func (l *Log) remember(e *record.Entry) mark {
	c := contentOf(e.SourceID, e.SourceSeq, e.Content)
	added, before := l.seen.add(e.SourceID, e.SourceSeq), l.contents.add(c)
	known := before.name == c.name // also where the numbers of so many sources, or with so many gaps, are forgotten
	return mark{redelivered: known || !added, conflict: known && before.bytes != c.bytes, added: added, before: before}
}

// entryBytes is how many bytes of f's lines are entries: all but the batch mark and the commit line.
func (f *flush) entryBytes() int { return len(f.lines) - 2 - (1 + 2*chain.HashSize + 1) }

// forget takes back what enqueue did for a chunk that did not become durable, but for the numbering. What came after it is forgotten
// already. mu is held.
func (l *Log) forget(f *flush) {
	l.stored -= int64(len(f.lines))
	for i, m := range slices.Backward(f.marks) {
		e := &f.batch.Entries[i]
		if e.SourceID == nil {
			continue
		}
		if m.added {
			l.seen.remove(e.SourceID, e.SourceSeq)
		}
		l.contents.remove(contentOf(e.SourceID, e.SourceSeq, e.Content), m.before)
	}
}

// fail has the log take nothing more after a panic: what it holds in memory may be half done, what is on the disk is
// whole. mu is held.
func (l *Log) fail(panicked any) error {
	l.failed = fmt.Errorf("internal error, restart to go on from what is on the disk: %v\n%s", panicked, debug.Stack())
	return l.failed
}

// failure is why nothing can be taken any more; nil if it can.
func (l *Log) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// poke has run look at what there is to do.
func (l *Log) poke() { signal(l.wake) }

// signal puts a token into a channel that holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (l *Log) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// Close takes no more chunks, seals and uploads what is there and ends. If ctx ends before that, what is left stays in
// the store directory, for the next Open to go on with.
func (l *Log) Close(ctx context.Context) error {
	l.mu.Lock()
	already := l.closed
	l.closed = true
	l.mu.Unlock()
	if already {
		return nil
	}
	l.poke()
	select {
	case <-l.done:
	case <-ctx.Done():
	}
	l.cancel()
	<-l.done // its waits all end with the context
	l.writing.Lock()
	defer l.writing.Unlock()
	var err error
	l.ended = true
	left := l.durable.seq - l.committed.NextSeq
	switch failed := l.failure(); {
	case left > 0 && errors.Is(failed, ErrForked):
		err = fmt.Errorf("%d acknowledged entries cannot go into this chain any more, since another writer has continued it; they stay in the journals in %s (docs/OPERATIONS.md says what to do with them)", left, l.dir)
	case left > 0:
		err = fmt.Errorf("%d entries are not in the bucket yet; they stay in %s and go there after the next start", left, l.dir)
	}
	if l.active != nil {
		err = errors.Join(err, l.active.close())
	}
	return errors.Join(err, l.lock.Close())
}
