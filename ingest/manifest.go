package ingest

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest/disk"
	"github.com/auditchain/auditchain/storage"
)

// finish takes the first job, whose segment is in the bucket, through steps 4 and 5. It may be called again after any
// error, and in another process.
func (l *Log) finish(ctx context.Context, job *job) error {
	if job.stored == nil {
		if err := l.store(ctx, job); err != nil {
			return fmt.Errorf("committing manifest %d: %w", job.n, err)
		}
	}
	// Committed. What follows is tidied up at the next start if a crash comes before it is done.
	if err := l.tidy(job); err != nil {
		return fmt.Errorf("tidying up after manifest %d: %w", job.n, err)
	}
	return nil
}

// store signs the manifest, unless that was done before, and puts it into the bucket.
func (l *Log) store(ctx context.Context, job *job) error {
	if err := l.checkBucket(ctx); err != nil {
		return err
	}
	path := l.signedPath(job.n)
	data, err := disk.ReadFile(l.fs, path, chain.MaxManifest)
	if err == nil {
		err = l.fs.SyncDir(l.dir) // perhaps that is what failed in the try before
	} else if errors.Is(err, fs.ErrNotExist) {
		if data, err = l.sign(job); err == nil {
			err = disk.WriteFile(l.fs, path, data)
		}
	}
	if err != nil {
		return err
	}
	// The segment is in the bucket, and the manifest is on our disk for good.
	m, payload, err := chain.OpenManifest(data, l.committed.Key)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	next := l.committed
	if err := next.Advance(m, payload); err != nil {
		return fmt.Errorf("%s does not continue the chain: %w", path, err)
	}
	if m.N > 0 { // in the bucket where the others are, not in one that was made anew
		if _, _, err := l.oldest(ctx, m.N-1); err != nil {
			return fmt.Errorf("looking for the manifest before it: %w", err)
		}
	}
	if end := job.end(l.committed); m.NextSeq != end.seq || m.Head != nil && *m.Head != end.entry {
		return fmt.Errorf("%w: %s ends at another entry than the journal", errDamaged, path)
	}
	if err := l.putManifest(ctx, m, data); err != nil {
		return err
	}
	job.m, job.stored = m, &next
	return nil
}

// sign makes the job's manifest. It is the next, so that it is known which key holds there.
func (l *Log) sign(job *job) ([]byte, error) {
	d := &job.p.Draft
	key, err := l.signer()
	if err != nil {
		return nil, err
	}
	end := l.committed
	end.NextSeq = d.NextSeq
	if d.Kind != chain.KindGenesis {
		end.Entry = *d.Head
	}
	if end.Tree, err = chain.NewTree(d.NextSeq, d.TreeAfter); err != nil {
		return nil, err
	}
	m, err := l.committed.Next(d.Kind, &end, key)
	if err != nil {
		return nil, err
	}
	m.SealedAt, m.Writer, m.Lock, m.Genesis, m.Rotation = d.SealedAt, d.Writer, d.Lock, d.Genesis, d.Rotation
	m.Counts, m.Sources, m.SourcesOmitted, m.EventTime, m.Received = d.Counts, d.Sources, d.SourcesOmitted, d.EventTime, d.Received
	if d.Segment != nil {
		segment := *d.Segment
		segment.VersionID = job.version
		m.Segment = &segment
	}
	if skew, known := l.bucket.ClockSkew(); known {
		ms := skew.Milliseconds()
		m.ClockSkew = &ms
	}
	data, _, err := m.Sign(key)
	return data, err
}

// end is where the chain stands after the job.
func (job *job) end(before chain.Head) position {
	if job.j != nil {
		return job.j.end
	}
	return position{before.NextSeq, before.Entry}
}

// putManifest creates the manifest's object: the commit. Of all writers only one can.
func (l *Log) putManifest(ctx context.Context, m *chain.Manifest, data []byte) error {
	key := l.layout.Manifest(m.N)
	_, err := l.bucket.Create(ctx, key, bytes.NewReader(data), storage.CreateOptions{
		Size: int64(len(data)), SHA256: chain.Sum(data), MD5: md5.Sum(data), ContentType: chain.ManifestMediaType,
		LockMode: l.lockMode(m), RetainUntil: m.Lock.RetainUntil.Time,
	})
	if err != nil && !errors.Is(err, storage.ErrExists) {
		return err
	}
	// Readers go by the oldest version, and some stores create a second one below a delete marker.
	theirs, version, err := l.oldest(ctx, m.N)
	if err != nil {
		return err
	}
	if !bytes.Equal(theirs, data) {
		return l.notOurs(m.N, theirs, data)
	}
	return l.checkLock(ctx, key, version, m)
}

// notOurs says what it means that manifest n in the bucket is not ours, the one that was sent; nil: none was. Only another
// payload that was signed with a key of the chain shows another writer. Anything else may be an answer that was changed on its
// way, in what a bundle holds besides its payload too: asking again tells.
func (l *Log) notOurs(n uint64, theirs, ours []byte) error {
	m, err := l.open(n, theirs)
	if errors.Is(err, errRetired) {
		return err
	}
	if err == nil && m.Chain == l.cfg.Chain && !samePayload(ours, m.payload) {
		return fmt.Errorf("%w: manifest %d in %s is not the one that was sent", ErrForked, n, l.bucket)
	}
	return fmt.Errorf("what %s gives for manifest %d is not what was sent, and no manifest of this chain: somebody put it there, or something changes answers on their way", l.bucket, n)
}

// samePayload reports whether the bundle data, which may be nil, has the payload.
func samePayload(data []byte, payload chain.Hash) bool {
	hash, err := chain.BundlePayloadHash(data)
	return err == nil && hash == payload
}

// tidy is step 5: the log's own state moves past the job's manifest, which is in the bucket. It may be called again after an
// error.
func (l *Log) tidy(job *job) error {
	j := job.j
	if !job.remembered {
		job.remembered = true
		l.recent.Payload = job.stored.PreviousManifest
		if j != nil {
			l.recent.addChunks(j.chunks)
			l.known.remember(job.m.Sources)
			l.recent.Sources = l.known.list()
		}
	}
	// Before the journal goes: a chunk may be delivered again long after its segment was committed.
	if err := l.save(filepath.Join(l.dir, recentFile), &l.recent); err != nil {
		return err
	}
	// The head moves by this rename. A crash before it finds the manifest signed and, in the bucket, itself.
	err := l.fs.Rename(l.signedPath(job.n), filepath.Join(l.dir, headFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // not there: renamed by an earlier try
		return err
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return err
	}
	// From here on a start takes the journal and what is left of the pending files for done with.
	remove := []string{l.segmentPath(job.n), l.pendingPath(job.n)}
	if j != nil {
		remove = append(remove, j.path)
	}
	if err := disk.Remove(l.fs, remove...); err != nil {
		return err
	}
	l.committed, l.lastCommit = *job.stored, l.now()
	if j != nil {
		l.writing.Lock()
		l.rotated = l.rotated[1:]
		l.writing.Unlock()
	}
	l.sayRotated(job.m)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch job.m.Kind {
	case chain.KindSegment:
		l.stored -= j.size
		l.sealFrom = l.sealFrom[1:]
		l.stats.Segments++
	case chain.KindHeartbeat:
		l.stats.Heartbeats++
	}
	return nil
}

// removePending removes the files of manifest n.
func (l *Log) removePending(n uint64) error {
	return disk.Remove(l.fs, l.segmentPath(n), l.signedPath(n), l.pendingPath(n))
}
