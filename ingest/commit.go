package ingest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest/disk"
)

// commit chains f and returns when it is synced. Of all callers that wait one leads: it writes and syncs what is queued,
// for all of them.
func (l *Log) commit(f *flush, tag []byte) error {
	again, err := l.enqueue(f, tag)
	if err != nil || again {
		return err
	}
	signal(l.arrived)
	l.mu.Lock()
	defer l.mu.Unlock()
	for !f.done {
		if l.leading {
			l.written.Wait()
			continue
		}
		l.leading = true
		l.mu.Unlock()
		l.lead()
		l.mu.Lock()
		l.leading = false
		l.written.Broadcast()
	}
	return f.err
}

// A sync that takes longer than slowSync is worth waiting for others to share it, for a part of the time it takes.
const (
	slowSync  = 300 * time.Microsecond
	maxGather = 5 * time.Millisecond
)

// gather waits until as many flushes are queued as came together lately, but not for long.
func (l *Log) gather() {
	if l.crowd < 2 || l.lastSync < slowSync {
		return
	}
	queued := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.closed {
			return l.crowd
		}
		return len(l.queue)
	}
	timeout := time.NewTimer(min(l.lastSync, maxGather))
	defer timeout.Stop()
	for queued() < l.crowd {
		select {
		case <-l.arrived:
		case <-timeout.C:
			l.crowd = queued()
			return
		}
	}
}

// lead writes and syncs all that waits.
func (l *Log) lead() {
	l.gather()
	l.writing.Lock()
	defer l.writing.Unlock()
	l.writeQueue()
}

// writeQueue is lead with writing held.
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
				if !f.done {
					f.done, f.err = true, err
				}
			}
			l.queue = nil
		}
	}()

	synced, err := l.write(batch)
	if errors.Is(err, errSync) || errors.Is(err, errRollback) {
		l.abandon(err)
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range batch[:synced] {
		f.done = true
		l.count(f)
		l.stored -= int64(len(f.lines) - len(f.out)) // no batch mark was needed
	}
	l.crowd = max(l.crowd-1, len(batch)+len(l.queue))
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
	for _, f := range slices.Backward(append(batch[synced:], l.queue...)) {
		l.forget(f)
		f.done, f.err = true, err
	}
	l.queue = nil
	l.tip = l.durable
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
				unsynced += int64(len(g.out))
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
			first := f.after.seq - uint64(len(f.batch.Entries))
			if err := l.clearAbandoned(first); err != nil {
				return synced, err
			}
			if l.active, err = createJournal(l.fs, l.dir, first, f.arrived); err != nil {
				l.abandoned = journalPath(l.dir, first) // it may be there
				return synced, err
			}
		}
		f.out = f.lines
		if i > synced {
			f.out = f.lines[2:] // within a batch: no mark
		}
		if _, err := l.active.file.Write(f.out); err != nil {
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
	start := time.Now()
	if err := l.active.sync(); err != nil {
		return err
	}
	l.lastSync = time.Since(start)
	// From here on a crash loses nothing of the batch.
	for _, f := range batch {
		l.active.accept(f)
		l.account(f, l.active)
		l.durable = f.after
	}
	return nil
}

// abandon ends the active journal at its last synced byte, after a failure that leaves it open what lies behind: that was
// acknowledged to nobody. What was synced is sealed as ever; the next chunk begins another journal, whose name tells a later
// start where this one ends.
func (l *Log) abandon(why error) {
	j := l.active
	l.opts.Logger.Error(fmt.Sprintf("%v; nothing is written to this journal any more, what was acknowledged ends at byte %d, the next chunk begins another journal", why, j.size))
	if err := j.rollback(); err != nil {
		l.opts.Logger.Debug("cutting off what was not acknowledged: " + err.Error())
	}
	if j.size > 0 {
		l.rotate()
		return
	}
	l.active = nil
	if err := j.close(); err != nil {
		l.opts.Logger.Debug("closing a journal that failed: " + err.Error())
	}
	l.abandoned = j.path
}

// clearAbandoned removes a journal in which nothing was acknowledged, if it has the name of the next.
func (l *Log) clearAbandoned(first uint64) error {
	if l.abandoned == "" {
		return nil
	}
	if l.abandoned == journalPath(l.dir, first) {
		if err := disk.Remove(l.fs, l.abandoned); err != nil {
			return fmt.Errorf("removing a journal that failed: %w", err)
		}
	}
	l.abandoned = ""
	return nil
}

// rotate hands the active journal to the sealer. writing is held.
func (l *Log) rotate() {
	if l.active == nil || l.active.size == 0 {
		return
	}
	j := l.active
	l.active = nil
	if err := j.close(); err != nil {
		l.opts.Logger.Warn("closing a journal, after it was synced: " + err.Error())
	}
	l.grow(j)
	l.rotated = append(l.rotated, j)
	l.mu.Lock()
	l.sealFrom = append(l.sealFrom, j.since)
	l.activeFrom = time.Time{}
	l.mu.Unlock()
	l.poke()
}

// grow takes the entries of the journal, the next to be sealed after those that are rotated, into the tree, while their
// hashes are in memory. It is done once for a whole journal, off the path of most chunks. While journals of an earlier life are
// not sealed the tree before them is not known: then the sealer finds the hashes again.
func (l *Log) grow(j *journal) {
	if l.treeKnown {
		for _, h := range j.hashes {
			l.tree.Append(h)
		}
		j.tree = new(chain.Tree)
		*j.tree = l.tree
	}
	j.hashes = nil
}
