package ingest

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"github.com/auditchain/auditchain/ingest/disk"
)

// replay reads the journals that an earlier writer left, several at once, and checks that each continues the one before it.
// What was never acknowledged is cut off. They are sealed as they are; new chunks go into a new one.
func (l *Log) replay() error {
	paths, err := listJournals(l.fs, l.dir)
	if err != nil {
		return err
	}
	limits := make([]uint64, len(paths))
	for i := range paths {
		limits[i] = noLimit
		if i+1 < len(paths) {
			if limits[i], err = journalFirst(paths[i+1]); err != nil {
				return err
			}
		}
	}
	journals, errs := make([]*journal, len(paths)), make([]error, len(paths))
	var readers sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i := range paths {
		slots <- struct{}{}
		readers.Go(func() {
			defer func() { <-slots }()
			defer func() {
				if r := recover(); r != nil {
					errs[i] = fmt.Errorf("%s: internal error: %v", paths[i], r)
				}
			}()
			journals[i], errs[i] = replayJournal(l.fs, paths[i], limits[i], l.recall)
		})
	}
	readers.Wait()
	for i, j := range journals {
		err := errs[i]
		torn, isTorn := errors.AsType[*tornError](err)
		if isTorn {
			err = l.keepAside(j, torn)
		}
		if err != nil {
			return err
		}
		if j.size == 0 {
			if err := disk.Remove(l.fs, j.path); err != nil {
				return err
			}
			continue
		}
		if isTorn || limits[i] == noLimit { // of the others all was acknowledged, and so synced
			if err := l.withRoom(func() error { return j.rewrite(l.fs) }); err != nil {
				return fmt.Errorf("making %s durable: %w", j.path, err)
			}
		}
		if n := len(l.rotated); n > 0 && l.rotated[n-1].end != (position{j.first, j.prev}) {
			return fmt.Errorf("%s does not continue %s: %s is not whole; restore it, or move all of it away to go on from the bucket, with an entry in the log that says so", j.path, l.rotated[n-1].path, l.dir)
		}
		l.rotated = append(l.rotated, j)
	}
	return nil
}

// recall takes the contents of a chunk's records from a journal.
func (l *Log) recall(chunk []replayed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range chunk {
		if f := &chunk[i].facts; f.SourceID != nil {
			l.contents.recall(chunk[i].content, f.Redelivered)
		}
	}
}

// keepAside keeps what is no whole chunk, before it is cut off.
func (l *Log) keepAside(j *journal, torn *tornError) error {
	var aside string
	err := l.withRoom(func() (err error) {
		aside, err = j.keepAside(l.fs, l.now())
		return err
	})
	if err != nil {
		return fmt.Errorf("keeping the torn end of %s aside: %w", j.path, err)
	}
	l.opts.Logger.Warn(fmt.Sprintf("%v; it is kept aside as %s", torn, aside))
	return nil
}

// withRoom does what needs room on the disk, in that of the reserve if there is no other.
func (l *Log) withRoom(do func() error) error {
	err := do()
	if errors.Is(err, syscall.ENOSPC) {
		l.reserved = true // if it is there
		l.makeRoom()
		err = do()
	}
	return err
}

// link puts the journals behind the last manifest. One that is in the bucket already, whole, is done with.
func (l *Log) link() error {
	head := position{l.committed.NextSeq, l.committed.Entry}
	if len(l.rotated) > 0 && l.rotated[0].end == head {
		if err := l.dropJournals(1); err != nil {
			return err
		}
	}
	if len(l.rotated) > 0 && (position{l.rotated[0].first, l.rotated[0].prev}) != head {
		return fmt.Errorf("%s begins at entry %d and does not continue the last manifest, after which entry %d comes: %s is not whole; restore it, or move all of it away to go on from the bucket, with an entry in the log that says so",
			l.rotated[0].path, l.rotated[0].first, head.seq, l.dir)
	}
	missing, err := l.missing()
	if err != nil {
		return err
	}
	if missing {
		const why = "the journal that was written last is gone, or shorter than it was"
		if err := l.noteLost(l.committed.NextN-1, why); err != nil {
			return err
		}
		if err := disk.Remove(l.fs, filepath.Join(l.dir, noteFile)); err != nil {
			return err
		}
		l.opts.Logger.Warn(fmt.Sprintf("%s: going on without it; what had been acknowledged in it is not in the chain", why))
	}
	for _, j := range l.rotated {
		for _, h := range j.chunks {
			l.delivered[h] = struct{}{}
		}
		l.sealFrom = append(l.sealFrom, j.since)
		l.stored += j.size
		head = j.end
	}
	if len(l.rotated) == 0 {
		l.tree, l.treeKnown = l.committed.Tree, true
	}
	l.tip, l.durable = head, head
	l.stats.HeadSeq = head.seq
	if n := head.seq - l.committed.NextSeq; n > 0 {
		l.opts.Logger.Info(fmt.Sprintf("recovered %d entries that were not in the bucket yet", n))
	}
	return nil
}

// dropJournals removes the first n journals, whose entries are in the bucket.
func (l *Log) dropJournals(n int) error {
	for _, j := range l.rotated[:n] {
		if err := disk.Remove(l.fs, j.path); err != nil {
			return err
		}
	}
	l.rotated = l.rotated[n:]
	return nil
}

// appendEvent puts an entry of the writer's own into the log.
func (l *Log) appendEvent(event, detail string) error {
	f := l.flushes.Get().(*flush)
	defer l.flushes.Put(f)
	f.marker = nil
	f.batch.SetEvent(event, detail)
	return l.commit(f, nil)
}
