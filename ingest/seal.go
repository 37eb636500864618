package ingest

import (
	"bufio"
	"context"
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// Files in the chain's directory, besides the journals:
const (
	headFile     = "head.sigstore.json"    // the last manifest that is in the bucket
	pendingFile  = "pending.json"          // what is being committed, from before its first byte is uploaded
	segmentFile  = "pending.ndjson.zst"    // its segment
	manifestFile = "pending.sigstore.json" // its manifest, once signed
	lostFile     = "journal-lost.json"     // what a journal_lost entry must say, until it is in the journal
	chunksFile   = "recent-chunks"         // delivery ids of the last chunks committed, 32 bytes each
	lockFile     = "lock"
)

// pending is a manifest on its way into the bucket. It is written to pendingFile before anything of it is uploaded, so
// that whoever finishes it, after whatever crash, sends the same bytes to the same keys.
type pending struct {
	Draft   chain.Manifest `json:"draft"` // without what is known only after the segment is stored
	MD5     [md5.Size]byte `json:"md5"`   // of the segment
	Journal string         `json:"journal,omitempty"`

	journalSize int64
	chunks      []chain.Hash
	stored      *chain.Head // where the chain stands after it, once it is in the bucket
}

// run seals, uploads and commits, until the log is closed and nothing is left, or ctx ends.
func (l *Log) run(ctx context.Context) {
	defer close(l.done)
	defer func() { // a panic that left here would take all of Fluent Bit down
		if r := recover(); r != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.opts.Logger.Error("sealing and uploading have stopped: " + l.fail(r).Error())
		}
	}()
	failures := 0
	for {
		closed := l.isClosed() // before the step: only what it did not find then is not there
		again, err := l.step(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := l.untilNext()
		switch {
		case err != nil:
			failures++
			l.mu.Lock()
			l.stats.UploadFailures++
			l.mu.Unlock()
			wait = backoff(failures)
			l.opts.Logger.Error(fmt.Sprintf("%v; the data is kept in %s, next try in %s", err, l.dir, wait.Round(time.Millisecond)))
			if errors.Is(err, ErrForked) || errors.Is(err, errDamaged) {
				l.mu.Lock()
				l.failed = err // take no more: what is acknowledged could never be committed
				l.mu.Unlock()
			}
		case again:
			failures = 0
			continue
		case closed:
			return
		default:
			failures = 0
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-l.wake:
			if err != nil { // new data is no reason to try again sooner; closing is
				if !l.isClosed() {
					select {
					case <-ctx.Done():
					case <-timer.C:
					}
				}
			}
		}
		timer.Stop()
	}
}

// backoff is how long to wait after so many failures in a row: from 0.25 s, doubling, to 30 s.
func backoff(failures int) time.Duration {
	return min(250*time.Millisecond<<min(failures-1, 10), 30*time.Second)
}

func (l *Log) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// untilNext is how long nothing is to be done if nothing comes in.
func (l *Log) untilNext() time.Duration {
	next := l.lastCommit.Add(l.cfg.Heartbeat)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.activeFrom.IsZero() {
		next = l.activeFrom.Add(l.cfg.UploadTimeout)
	}
	return min(max(next.Sub(l.now()), 10*time.Millisecond), time.Hour)
}

// step does the next thing there is to do, and reports whether there may be more at once.
func (l *Log) step(ctx context.Context) (again bool, err error) {
	if l.pending != nil {
		return true, l.finish(ctx)
	}
	now := l.now()
	l.disk.Lock()
	if l.active != nil && (l.isClosed() || now.Sub(l.active.since) >= l.cfg.UploadTimeout) {
		l.rotate()
	}
	var j *journal
	if len(l.rotated) > 0 {
		j = l.rotated[0]
	}
	l.disk.Unlock()
	switch {
	case j != nil:
		if err := l.seal(j, now); err != nil {
			return false, fmt.Errorf("sealing %s: %w", j.path, err)
		}
		return true, l.finish(ctx)
	case now.Sub(l.lastCommit) >= l.cfg.Heartbeat && !l.isClosed():
		if err := l.prepare(chain.KindHeartbeat, &l.committed, now, nil); err != nil {
			return false, fmt.Errorf("preparing a heartbeat: %w", err)
		}
		return true, l.finish(ctx)
	}
	return false, nil
}

// errDamaged says that a journal is not what was written to it.
var errDamaged = errors.New("the journal on the disk is not what was written to it")

// seal compresses the rotated journal j into a segment file and prepares its manifest.
func (l *Log) seal(j *journal, now time.Time) error {
	var segment chain.Segment
	var sum [md5.Size]byte
	err := writeDurably(filepath.Join(l.dir, segmentFile), func(w io.Writer) error {
		sw := chain.NewSegmentWriter(w, l.compressor)
		err := copyEntries(sw, j)
		if err != nil {
			return err
		}
		segment, sum, err = sw.Close()
		return err
	})
	if err != nil {
		return err
	}
	end := l.committed
	end.NextSeq, end.Entry, end.Tree = j.end.seq, j.end.entry, j.tree
	return l.prepare(chain.KindSegment, &end, now, func(p *pending) {
		segment.Key = chain.SegmentName(p.Draft.N, now)
		p.Draft.Segment = &segment
		counts := j.summary.Counts()
		p.Draft.Counts = &counts
		p.Draft.Sources, p.Draft.SourcesOmitted = j.summary.SourceRanges()
		p.Draft.EventTime, p.Draft.Received = j.summary.EventTimes(), j.summary.ReceivedTimes()
		p.MD5 = sum
		p.Journal = filepath.Base(j.path)
		p.journalSize, p.chunks = j.size, j.chunks
	})
}

// copyEntries copies the journal's lines to w without the commit lines, and makes sure that they are what was written.
func copyEntries(w io.Writer, j *journal) error {
	f, err := os.Open(j.path)
	if err != nil {
		return err
	}
	defer f.Close()
	crc := uint32(0)
	r := bufio.NewReaderSize(io.LimitReader(f, j.size), 256<<10)
	var long []byte // the begin of a line that is longer than r's buffer
	for {
		line, err := r.ReadSlice('\n')
		crc = crc32.Update(crc, castagnoli, line)
		if err == bufio.ErrBufferFull {
			long = append(long, line...)
			continue
		}
		if err == io.EOF {
			long = append(long, line...)
			break
		}
		if err != nil {
			return err
		}
		if len(long) > 0 {
			line = append(long, line...)
			long = line[:0]
		}
		if line[0] != commitMark {
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
	}
	if crc != j.crc || len(long) > 0 {
		return fmt.Errorf("%s: %w", j.path, errDamaged)
	}
	return nil
}

// maxSkew is how far this machine's clock may be from the store's: S3 refuses requests beyond it.
const maxSkew = 15 * time.Minute

// prepare makes what is to be committed next, durably. From here on it is committed with these very bytes.
func (l *Log) prepare(kind chain.Kind, end *chain.Head, now time.Time, fill func(*pending)) error {
	m, err := l.committed.Next(kind, end, l.key)
	if err != nil {
		return err
	}
	// A lock cannot be shortened: rather wait than promise years too many by a clock that is wrong.
	if skew, known := l.bucket.ClockSkew(); known && skew.Abs() > maxSkew {
		return fmt.Errorf("%w: the store's is %s from this machine's", storage.ErrClockSkew, skew.Round(time.Second))
	}
	m.SealedAt = chain.Time{Time: now.UTC()}
	m.Writer = l.writer
	m.Lock.Mode = "NONE"
	if l.bucket.Locks() {
		m.Lock.Mode = l.cfg.LockMode
	}
	// No manifest may go before the one that it follows.
	until := l.cfg.Retention.After(now.UTC()).Truncate(time.Second)
	if until.Before(l.committed.RetainUntil) {
		until = l.committed.RetainUntil
	}
	m.Lock.RetainUntil = chain.Time{Time: until}
	p := &pending{Draft: *m}
	if fill != nil {
		fill(p)
	}
	if err := l.savePending(p); err != nil {
		return err
	}
	l.pending = p
	return nil
}

// savePending makes durable what is being committed.
func (l *Log) savePending(p *pending) error {
	return writeDurably(filepath.Join(l.dir, pendingFile), func(w io.Writer) error { return json.NewEncoder(w).Encode(p) })
}

// finish takes what is pending into the bucket and cleans up after it. It may be called again after any error, and in
// another process.
func (l *Log) finish(ctx context.Context) error {
	p := l.pending
	if p.stored == nil {
		var err error
		if p.stored, err = l.store(ctx, p); err != nil {
			return err
		}
	}
	// Committed. What follows is tidied up at the next start if a crash comes before it is done.
	if err := l.tidy(p); err != nil {
		return fmt.Errorf("tidying up after manifest %d: %w", p.Draft.N, err)
	}
	return nil
}

// store puts the pending segment and manifest into the bucket and returns where the chain stands then.
func (l *Log) store(ctx context.Context, p *pending) (*chain.Head, error) {
	if err := l.checkBucket(ctx); err != nil {
		return nil, err
	}
	path := filepath.Join(l.dir, manifestFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		data, err = l.storeSegment(ctx, p, path)
	}
	if err != nil {
		return nil, fmt.Errorf("committing manifest %d: %w", p.Draft.N, err)
	}
	// The segment is in the bucket, and the manifest is on our disk for good.
	m, payload, err := chain.OpenManifest(data, l.key.Public())
	if err != nil {
		return nil, fmt.Errorf("manifest %d in %s: %w", p.Draft.N, path, err)
	}
	next := l.committed
	if err := next.Advance(m, payload); err != nil {
		return nil, fmt.Errorf("manifest %d in %s does not continue the chain: %w", p.Draft.N, path, err)
	}
	if err := l.putManifest(ctx, m, data); err != nil {
		return nil, fmt.Errorf("committing manifest %d: %w", p.Draft.N, err)
	}
	return &next, nil
}

// storeSegment uploads the segment, if there is one, and signs the manifest into the file path.
func (l *Log) storeSegment(ctx context.Context, p *pending, path string) ([]byte, error) {
	version := storage.Version("")
	if p.Draft.Segment != nil {
		var err error
		if version, err = l.putSegment(ctx, p); err != nil {
			return nil, err
		}
	}
	m := p.Draft
	if m.Segment != nil {
		segment := *m.Segment
		segment.VersionID = version
		m.Segment = &segment
	}
	if skew, known := l.bucket.ClockSkew(); known {
		ms := skew.Milliseconds()
		m.ClockSkew = &ms
	}
	data, _, err := m.Sign(l.key)
	if err != nil {
		return nil, err
	}
	return data, writeDurably(path, writes(data))
}

// tidy moves the log's own state past p, which is in the bucket. It may be called again after an error.
func (l *Log) tidy(p *pending) error {
	if len(p.chunks) > 0 {
		l.recent = append(l.recent, p.chunks...)
		l.recent = l.recent[max(0, len(l.recent)-maxRecent):]
		// Before the journal goes: a chunk may be delivered again long after its segment was committed.
		if err := writeDurably(filepath.Join(l.dir, chunksFile), l.writeRecent); err != nil {
			return err
		}
		p.chunks = nil
	}
	// The head moves by this rename. A crash before it finds the manifest pending and, in the bucket, itself.
	err := os.Rename(filepath.Join(l.dir, manifestFile), filepath.Join(l.dir, headFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) { // not there: renamed by an earlier try
		return err
	}
	if err := syncDir(l.dir); err != nil {
		return err
	}
	if err := l.removePending(p); err != nil {
		return err
	}
	l.committed, l.lastCommit, l.pending = *p.stored, l.now(), nil
	l.disk.Lock()
	if p.Journal != "" {
		l.rotated = l.rotated[1:]
	}
	l.disk.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stored -= p.journalSize
	if p.Journal != "" {
		l.sealFrom = l.sealFrom[1:]
	}
	switch p.Draft.Kind {
	case chain.KindSegment:
		l.stats.Segments++
	case chain.KindHeartbeat:
		l.stats.Heartbeats++
	}
	return nil
}

// removePending removes the files of p, which is in the bucket. pendingFile goes last: while it is there, a start knows that
// the journal which it names is done with.
func (l *Log) removePending(p *pending) error {
	remove := []string{filepath.Join(l.dir, segmentFile), filepath.Join(l.dir, manifestFile)}
	if p.Journal != "" {
		remove = append(remove, filepath.Join(l.dir, filepath.Base(p.Journal)))
	}
	if err := removeDurably(remove...); err != nil {
		return err
	}
	return removeDurably(filepath.Join(l.dir, pendingFile))
}

// maxRecent is how many chunks of committed journals are remembered, to know them when they are delivered again.
const maxRecent = 8192

func (l *Log) writeRecent(w io.Writer) error {
	for _, h := range l.recent {
		if _, err := w.Write(h[:]); err != nil {
			return err
		}
	}
	return nil
}
