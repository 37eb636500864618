package ingest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/auditchain/auditchain/chain"
)

// replay reads the journals that an earlier writer left. They are sealed as they are; new chunks go into a new one.
func (l *Log) replay(paths []string) error {
	head := position{l.committed.NextSeq, l.committed.Entry}
	l.tree = l.committed.Tree
	for i, path := range paths {
		first, err := journalFirst(path)
		if err != nil {
			return err
		}
		if first < l.committed.NextSeq {
			return fmt.Errorf("%s begins at entry %d, but entries up to %d are committed already: %s is not whole; move all of it away to go on from the bucket, with an entry in the log that says so", path, first, l.committed.NextSeq, l.dir)
		}
		j, err := replayJournal(path, head)
		torn, isTorn := errors.AsType[*tornError](err)
		if err != nil && !(isTorn && i == len(paths)-1) {
			return err
		}
		if isTorn {
			aside, err := j.cutTorn()
			if err != nil {
				return fmt.Errorf("cutting off the torn end of %s: %w", path, err)
			}
			l.opts.Logger.Warn(fmt.Sprintf("%v: never acknowledged, kept aside as %s", torn, aside))
		}
		if j.size == 0 {
			if err := removeDurably(path); err != nil {
				return err
			}
			continue
		}
		sources, _ := j.summary.SourceRanges()
		for _, source := range sources {
			j.summary.Redelivered += l.seen.remember(source)
		}
		for _, h := range j.chunks {
			l.delivered[h] = struct{}{}
		}
		if p := l.pending; p != nil && p.Journal == filepath.Base(path) {
			p.journalSize, p.chunks = j.size, j.chunks
		}
		l.grow(j)
		l.rotated = append(l.rotated, j)
		l.sealFrom = append(l.sealFrom, j.since)
		l.stored += j.size
		head = j.end
	}
	if p := l.pending; p != nil && p.Journal != "" {
		if len(l.rotated) == 0 || filepath.Base(l.rotated[0].path) != p.Journal {
			return fmt.Errorf("%s is missing: manifest %d was being made from it", filepath.Join(l.dir, p.Journal), p.Draft.N)
		}
	}
	l.tip, l.durable = head, head
	l.stats.HeadSeq = head.seq
	if n := head.seq - l.committed.NextSeq; n > 0 {
		l.opts.Logger.Info(fmt.Sprintf("recovered %d entries that were not in the bucket yet", n))
	}
	return nil
}

// loadRecent reads which chunks were committed lately.
func (l *Log) loadRecent() error {
	data, err := os.ReadFile(filepath.Join(l.dir, chunksFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for ; len(data) >= chain.HashSize; data = data[chain.HashSize:] {
		h := chain.Hash(data[:chain.HashSize])
		l.recent = append(l.recent, h)
		l.delivered[h] = struct{}{}
	}
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

// writes returns a function for writeDurably that writes data.
func writes(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}
