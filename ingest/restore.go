package ingest

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest/disk"
)

// restore makes jobs of what an earlier life had drafted or signed, once the journals have been read. What it had not, or what
// is damaged and can be made again, begins anew from the journal.
func (l *Log) restore() error {
	numbers, err := l.listPending()
	if err != nil {
		return err
	}
	rotated := l.rotated
	for _, n := range numbers {
		if n != l.committed.NextN+uint64(len(l.jobs)) {
			if err := l.removePending(n); err != nil { // of a manifest that is in the bucket, or behind one that begins anew
				return err
			}
			continue
		}
		job := &job{n: n}
		if err := l.restoreJob(job, rotated); err != nil {
			return err
		}
		switch {
		case job.p != nil && job.p.Journal != "":
			rotated = rotated[1:]
		case job.p == nil:
			if err := l.removePending(n); err != nil {
				return err
			}
			continue
		}
		l.jobs = append(l.jobs, job)
	}
	return nil
}

// restoreJob finds the step at which the job stood. Without a draft that can be used it stays at the first.
func (l *Log) restoreJob(job *job, rotated []*journal) error {
	data, err := disk.ReadFile(l.fs, l.signedPath(job.n), chain.MaxManifest)
	switch {
	case err == nil:
		m, payload, err := chain.OpenManifest(data, l.committed.Key)
		next := l.committed
		if err == nil && l.committed.NextN > 0 {
			err = next.Advance(m, payload)
		}
		if err == nil && m.Rotation != nil && !next.Key.Equal(l.key.Public()) {
			return fmt.Errorf("signing_key: %s, which may be in the bucket, has the chain go over to the key %s, and this key is %s; set previous_signing_key to the file of the key before, %s",
				l.signedPath(job.n), next.Key.Fingerprint(), l.key.Public().Fingerprint(), l.committed.Key.Fingerprint())
		}
		if err == nil { // then its segment is in the bucket
			job.step, job.p = uploaded, &pending{Draft: *m}
			if m.Segment != nil {
				return l.belongs(job, rotated)
			}
			return nil
		}
		aside, asideErr := l.setAside(l.signedPath(job.n))
		if asideErr != nil {
			return asideErr
		}
		l.opts.Logger.Warn(fmt.Sprintf("manifest %d, signed but not in the bucket yet, cannot be used: %v; it is kept aside as %s, and made anew", job.n, err, aside))
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	p := new(pending)
	err = l.load(l.pendingPath(job.n), p)
	if err == nil && p.Draft.Segment == nil && p.Draft.FirstSeq != l.committed.NextSeq {
		err = fmt.Errorf("%s %w: it does not continue the last manifest", l.pendingPath(job.n), errSaved)
	}
	if err == nil && p.Draft.Rotation != nil && !l.stillWanted(p.Draft.Rotation) {
		return nil // the operator has thought better of it, and nothing of it was signed
	}
	if err == nil && p.Draft.Segment != nil {
		job.p = p
		if err = l.belongs(job, rotated); err != nil {
			return err
		}
		err = l.checkSegment(job.n, p.Draft.Segment)
	}
	switch {
	case err == nil:
		job.p, job.step = p, drafted
		return nil
	case errors.Is(err, errSaved):
		aside, asideErr := l.setAside(l.pendingPath(job.n))
		if asideErr != nil {
			return asideErr
		}
		l.opts.Logger.Warn(fmt.Sprintf("%v; manifest %d is made anew, its draft is kept aside as %s", err, job.n, aside))
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	job.p, job.j = nil, nil
	return nil
}

// belongs gives the job the journal that it was made from, which must be the next.
func (l *Log) belongs(job *job, rotated []*journal) error {
	m := &job.p.Draft
	if len(rotated) == 0 {
		return fmt.Errorf("a journal is missing in %s: manifest %d was being made of entries %d to %d", l.dir, m.N, m.FirstSeq, m.NextSeq-1)
	}
	j := rotated[0]
	if j.first != m.FirstSeq || j.end.seq != m.NextSeq || j.end.entry != *m.Head {
		return fmt.Errorf("%s holds entries %d to %d, but manifest %d was being made of %d to %d: %s is not whole; restore it, or move all of it away to go on from the bucket, with an entry in the log that says so",
			j.path, j.first, j.end.seq-1, m.N, m.FirstSeq, m.NextSeq-1, l.dir)
	}
	tree, err := chain.NewTree(m.NextSeq, m.TreeAfter)
	if err != nil {
		return fmt.Errorf("manifest %d in %s: %w", m.N, l.dir, err)
	}
	job.j, j.tree = j, &tree
	job.p.Journal = filepath.Base(j.path)
	return nil
}

// checkSegment compares the segment file with what was drafted of it.
func (l *Log) checkSegment(n uint64, segment *chain.Segment) error {
	path := l.segmentPath(n)
	data, err := disk.ReadFile(l.fs, path, segment.Size)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s %w: it is not there", path, errSaved)
	case err != nil:
		return err
	case chain.Sum(data) != segment.SHA256:
		return fmt.Errorf("%s %w: its SHA-256 is %s, not %s", path, errSaved, chain.Sum(data), segment.SHA256)
	}
	return nil
}
