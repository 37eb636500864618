package ingest

import (
	"bufio"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest/disk"
	"github.com/auditchain/auditchain/storage"
)

// errDamaged says that a journal is not what was written to it.
var errDamaged = errors.New("the journal on the disk is not what was written to it")

// compress is step 1: the journal becomes a segment file.
func (l *Log) compress(ctx context.Context, job *job) error {
	j := job.j
	job.hashes = nil
	err := disk.Write(l.fs, l.segmentPath(job.n), func(w io.Writer) error {
		sw := chain.NewSegmentWriter(w, job.compressor)
		err := l.copyEntries(ctx, sw, job)
		if err != nil {
			return err
		}
		job.segment, job.md5, err = sw.Close()
		return err
	})
	if err != nil {
		return fmt.Errorf("sealing %s: %w", j.path, err)
	}
	return nil
}

// copyEntries copies the journal's entry lines to w, and makes sure that they are what was written.
func (l *Log) copyEntries(ctx context.Context, w io.Writer, job *job) error {
	j := job.j
	f, err := l.fs.OpenFile(j.path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	crc := uint32(0)
	r := bufio.NewReaderSize(io.LimitReader(f, j.size), 256<<10)
	var long []byte // the begin of a line that is longer than r's buffer
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
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
		if line[0] == commitMark || line[0] == batchMark {
			continue
		}
		if j.tree == nil {
			job.hashes = append(job.hashes, chain.Sum(line[:len(line)-1]))
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	if crc != j.crc || len(long) > 0 {
		return errDamaged
	}
	return nil
}

// pending is what was decided of a manifest on its way into the bucket, saved before anything of it is uploaded, so that
// whoever finishes it, after whatever crash, sends the same bytes to the same keys.
type pending struct {
	Draft   chain.Manifest `json:"draft"` // without what depends on the manifest before it, or is known only after the upload
	MD5     [md5.Size]byte `json:"md5"`   // of the segment
	Journal string         `json:"journal,omitempty"`
}

// maxSkew is how far this machine's clock may be from the store's: S3 refuses requests beyond it.
const maxSkew = 15 * time.Minute

// draft is step 2: what the manifest of the i-th job will say is decided and saved.
func (l *Log) draft(ctx context.Context, i int, now time.Time) error {
	job := l.jobs[i]
	if !l.promisesChecked { // what is decided here by a configuration that keeps too little would outlive it
		if err := l.checkBucket(ctx); err != nil {
			return err
		}
	}
	p := &pending{Draft: chain.Manifest{N: job.n, Kind: chain.KindHeartbeat}}
	m := &p.Draft
	// Where the chain stands before it.
	tree, entry, until := l.committed.Tree, l.committed.Entry, l.committed.RetainUntil
	m.FirstSeq = l.committed.NextSeq
	if i > 0 {
		before := &l.jobs[i-1].p.Draft
		var err error
		if tree, err = chain.NewTree(before.NextSeq, before.TreeAfter); err != nil {
			return err
		}
		m.FirstSeq, entry, until = before.NextSeq, *before.Head, before.Lock.RetainUntil.Time
	}
	m.NextSeq = m.FirstSeq
	if job.announces != nil {
		m.Kind, m.Rotation = chain.KindRotation, job.announces
	}
	if j := job.j; j != nil {
		m.Kind = chain.KindSegment
		if j.first != m.FirstSeq {
			return fmt.Errorf("%s begins at entry %d, but %d comes next", j.path, j.first, m.FirstSeq)
		}
		if j.tree != nil {
			tree = *j.tree
		} else {
			for _, h := range job.hashes {
				tree.Append(h)
			}
		}
		m.NextSeq, entry = j.end.seq, j.end.entry
		segment := job.segment
		segment.Key = chain.SegmentName(job.n, now)
		m.Segment = &segment
		counts := j.summary.Counts()
		m.Counts = &counts
		m.Sources, m.SourcesOmitted = j.summary.SourceRanges()
		m.EventTime, m.Received = j.summary.EventTimes(), j.summary.ReceivedTimes()
		p.MD5, p.Journal = job.md5, filepath.Base(j.path)
	}
	if tree.Size() != m.NextSeq {
		return fmt.Errorf("drafting manifest %d: %w: it has %d entries, not %d", job.n, errDamaged, tree.Size()-m.FirstSeq, m.NextSeq-m.FirstSeq)
	}
	m.Head, m.TreeAfter = &entry, tree.Compact()
	if err := l.decide(ctx, m, now, until); err != nil {
		return fmt.Errorf("drafting manifest %d: %w", job.n, err)
	}
	if err := l.save(l.pendingPath(job.n), p); err != nil {
		return fmt.Errorf("drafting manifest %d: %w", job.n, err)
	}
	job.p = p
	l.drafted(job, tree)
	return nil
}

// decide fills in what does not follow from the entries. No manifest's lock may end before that of the manifest before it.
func (l *Log) decide(ctx context.Context, m *chain.Manifest, now, notBefore time.Time) error {
	// A lock cannot be shortened: rather wait than promise years too many by a clock that is wrong.
	skew, known := l.bucket.ClockSkew()
	if known && skew.Abs() > maxSkew && l.bucket.Check(ctx) == nil { // perhaps it was
		skew, known = l.bucket.ClockSkew()
	}
	if known && skew.Abs() > maxSkew {
		return fmt.Errorf("%w: the store's is %s from this machine's", storage.ErrClockSkew, skew.Round(time.Second))
	}
	m.SealedAt = chain.Time{Time: now.UTC()}
	m.Writer = l.writer
	m.Lock.Mode = l.mode()
	until := l.cfg.Retention.After(now.UTC()).Truncate(time.Second)
	if until.Before(notBefore) {
		until = notBefore
	}
	m.Lock.RetainUntil = chain.Time{Time: until}
	return nil
}

// drafted notes the tree after a journal of an earlier life. After the last of them the tree of those that follow is known as
// they are rotated.
func (l *Log) drafted(job *job, tree chain.Tree) {
	if job.j == nil || job.j.tree != nil {
		return
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	job.j.tree = &tree
	job.hashes = nil
	if !l.treeKnown && l.rotated[len(l.rotated)-1] == job.j {
		l.tree, l.treeKnown = tree, true
	}
}
