package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/record"
	"github.com/auditchain/auditchain/storage"
)

// Errors that Append returns. After any error the log is as if the chunk had never come: deliver it again later.
var (
	// ErrFull says that the store directory holds store_dir_limit_size bytes that the bucket has not taken yet.
	ErrFull = errors.New("store_dir is full: the bucket has not taken what waits there")
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
	// Compressor makes what compresses segments; nil: chain.NewCompressor.
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
// Life of a chunk: decoded with no lock held; numbered, chained and hashed under mu; written and synced under disk, by
// whichever caller comes there first, for all that wait (group commit). The goroutine run turns rotated journals into
// segments and manifests.
type Log struct {
	cfg     Config
	opts    Options
	now     func() time.Time
	bucket  storage.Bucket
	key     *chain.SigningKey
	layout  chain.Layout
	dir     string   // the chain's own, below the store directory
	lock    *os.File // holds the advisory lock on dir
	flushes sync.Pool
	writer  chain.Writer       // what manifests say of this program
	cancel  context.CancelFunc // ends run, whatever it is doing
	done    chan struct{}      // closed when run has ended
	wake    chan struct{}      // holds one token when run has something to look at

	mu         sync.Mutex
	tip        position // after the last entry that was chained, synced or not
	queue      []*flush // chained, waiting to be written
	closed     bool
	failed     error // why nothing can be taken any more, until the log is opened again
	delivered  map[chain.Hash]struct{}
	stats      Stats
	stored     int64       // bytes in the store directory that the bucket has not taken yet
	activeFrom time.Time   // when the active journal's first chunk was received; zero: there is none
	sealFrom   []time.Time // the same of the rotated ones, oldest first

	disk    sync.Mutex // held while writing, syncing and rotating; taken before mu
	durable position   // after the last synced entry
	active  *journal   // nil until there is something to write
	seen    sources
	rotated []*journal // oldest first
	tree    chain.Tree // after the last rotated one
	ended   bool       // the directory may be another Log's by now

	// Of run alone:
	compressor    chain.Compressor
	committed     chain.Head // after the last manifest in the bucket
	lastCommit    time.Time
	pending       *pending
	recent        []chain.Hash // delivery ids of the last chunks in committed journals, oldest first
	bucketChecked bool
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
	lines    []byte // what goes into the journal
	marker   *chain.ChunkMarker
	id       chain.Hash // by which it would be known again
	arrived  time.Time  // by the monotonic clock too: a clock that is set back must not delay sealing
	received time.Time
	hashes   []chain.Hash // of its entries
	after    position     // after its last entry
	counts   Stats        // what it adds to the log's
	done     bool         // under disk
	err      error
}

// deliveryID is what a chunk is known by when it is delivered again: its bytes, and its tag as JSON, since the same bytes
// under another tag are other entries.
func deliveryID(sum chain.Hash, tag []byte) chain.Hash { return chain.Sum(append(sum[:], tag...)) }

// written is how many bytes of f's lines are entries: all but the commit line.
func (f *flush) written() int { return len(f.lines) - 2*chain.HashSize - 2 }

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

// commit chains f and returns when it is synced.
func (l *Log) commit(f *flush, tag []byte) error {
	again, err := l.enqueue(f, tag)
	if err != nil || again {
		return err
	}
	l.disk.Lock()
	defer l.disk.Unlock()
	if !f.done { // else someone who held disk before has written f with his own
		l.writeQueue()
	}
	return f.err
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
	case l.cfg.StoreDirLimit > 0 && l.stored+int64(len(f.batch.Bodies)) > l.cfg.StoreDirLimit && l.stored > 0:
		return false, ErrFull
	}
	if f.marker != nil {
		f.id = deliveryID(f.marker.SHA256, chain.AppendString(nil, tag))
		if _, ok := l.delivered[f.id]; ok {
			delete(l.delivered, f.id) // once: the same bytes may well be sent anew later
			l.stats.DuplicateChunks++
			return true, nil
		}
	}
	f.arrived = l.now()
	f.received = f.arrived.Round(0) // without the monotonic clock: it goes into lines
	f.middle = chain.AppendMiddle(f.middle[:0], f.received, tag)
	f.lines, f.hashes = f.lines[:0], f.hashes[:0]
	marker, from := f.marker, 0
	for i := range f.batch.Entries {
		end := f.batch.Entries[i].End
		start := len(f.lines)
		f.lines = chain.AppendEntry(f.lines, l.tip.seq, l.tip.entry, f.middle, marker, f.batch.Bodies[from:end])
		l.tip = position{l.tip.seq + 1, sha256.Sum256(f.lines[start:])}
		f.hashes = append(f.hashes, l.tip.entry)
		f.lines = append(f.lines, '\n')
		marker, from = nil, end
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

// fail has the log take nothing more after a panic: what it holds in memory may be half done, what is on the disk is
// whole. mu is held.
func (l *Log) fail(panicked any) error {
	l.failed = fmt.Errorf("internal error, restart to go on from what is on the disk: %v\n%s", panicked, debug.Stack())
	return l.failed
}

// writeQueue writes and syncs all that waits. disk is held.
func (l *Log) writeQueue() {
	l.mu.Lock()
	batch := l.queue
	l.queue = nil
	l.mu.Unlock()
	defer func() {
		if r := recover(); r != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			err := l.fail(r)
			for _, f := range append(batch, l.queue...) {
				f.done, f.err = true, err
			}
			l.queue = nil
		}
	}()

	synced, err := l.write(batch)
	for _, f := range batch[:synced] {
		f.done = true
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range batch[:synced] {
		l.count(f)
	}
	if l.active != nil && l.active.size > 0 {
		if l.activeFrom.IsZero() {
			l.poke() // run was waiting for the next heartbeat
		}
		l.activeFrom = l.active.since
	}
	if err == nil {
		return
	}
	// What was chained on top of the failed chunk cannot stand either.
	for _, f := range append(batch[synced:], l.queue...) {
		l.stored -= int64(len(f.lines))
		f.done, f.err = true, err
	}
	l.queue = nil
	l.tip = l.durable
	if errors.Is(err, errSync) || errors.Is(err, errRollback) {
		l.failed = fmt.Errorf("the journal cannot be trusted any more, restart to recover it: %w", err)
	}
}

// errRollback says that bytes of a failed write could not be taken back.
var errRollback = errors.New("taking back a failed write")

// write writes the flushes to the journal, a new one where the active one is full, and returns how many are synced.
func (l *Log) write(batch []*flush) (synced int, err error) {
	if l.ended {
		return 0, ErrClosed
	}
	for i, f := range batch {
		if l.active != nil {
			unsynced := int64(0)
			for _, g := range batch[synced:i] {
				unsynced += int64(len(g.lines))
			}
			if size := l.active.size + unsynced; size > 0 && size+int64(len(f.lines)) > l.cfg.TotalFileSize {
				if err := l.sync(batch[synced:i]); err != nil {
					return synced, err
				}
				synced = i
				l.rotate()
			}
		}
		if l.active == nil {
			if l.active, err = createJournal(l.dir, f.after.seq-uint64(len(f.batch.Entries)), f.arrived); err != nil {
				return synced, err
			}
		}
		if _, err := l.active.file.Write(f.lines); err != nil {
			err = fmt.Errorf("writing the journal: %w", err)
			if undo := l.active.rollback(); undo != nil {
				err = errors.Join(err, fmt.Errorf("%w: %w", errRollback, undo))
			}
			return synced, err
		}
	}
	if err := l.sync(batch[synced:]); err != nil {
		return synced, err
	}
	return len(batch), nil
}

// sync makes the flushes, the last that were written to the active journal, durable.
func (l *Log) sync(batch []*flush) error {
	if len(batch) == 0 {
		return nil
	}
	if err := l.active.sync(); err != nil {
		return err
	}
	// From here on a crash loses nothing of the batch.
	for _, f := range batch {
		l.active.accept(f)
		l.account(f, l.active)
		l.durable = f.after
	}
	return nil
}

// rotate hands the active journal to the sealer. disk is held.
func (l *Log) rotate() {
	if l.active == nil || l.active.size == 0 {
		return
	}
	if err := l.active.close(); err != nil {
		l.opts.Logger.Warn("closing a journal, after it was synced: " + err.Error())
	}
	l.grow(l.active)
	since := l.active.since
	l.rotated = append(l.rotated, l.active)
	l.active = nil
	l.mu.Lock()
	l.sealFrom = append(l.sealFrom, since)
	l.activeFrom = time.Time{}
	l.mu.Unlock()
	l.poke()
}

// grow takes the entries of the journal, the next to be sealed after those that are rotated, into the tree. It is done once for
// a whole journal, off the path of most chunks, and before it has to wait for the bucket, with its hashes in memory.
func (l *Log) grow(j *journal) {
	for _, h := range j.hashes {
		l.tree.Append(h)
	}
	j.tree, j.hashes = l.tree, nil
}

// failure is why nothing can be taken any more; nil if it can.
func (l *Log) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// poke has run look at what there is to do.
func (l *Log) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
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
	l.disk.Lock()
	defer l.disk.Unlock()
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
	return errors.Join(err, l.unlockDir())
}
