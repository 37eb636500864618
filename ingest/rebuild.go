package ingest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest/disk"
	"github.com/auditchain/auditchain/storage"
)

// Bounds of what is read from the bucket to know again what was committed lately.
const (
	rebuildTimeout  = 2 * time.Minute
	rebuildSegments = 16
	rebuildBytes    = 256 << 20 // of lines
)

// loadRecent reads which chunks and records were committed lately, and takes in those of the journals. Where the file is
// gone or damaged the bucket says it.
func (l *Log) loadRecent(ctx context.Context) error {
	path := filepath.Join(l.dir, recentFile)
	err := l.load(path, &l.recent)
	if err == nil && !l.fits(&l.recent) {
		err = fmt.Errorf("%s %w: it is not of the last manifest", path, errSaved)
	}
	switch {
	case err == nil:
	case errors.Is(err, errSaved), errors.Is(err, fs.ErrNotExist):
		if l.committed.NextSeq == 0 {
			break
		}
		l.opts.Logger.Info(fmt.Sprintf("%v; reading what was committed lately from %s", err, l.bucket))
		ctx, cancel := context.WithTimeout(ctx, rebuildTimeout)
		defer cancel()
		if l.recent, err = l.rebuild(ctx); err != nil {
			return fmt.Errorf("endpoint: finding out which chunks were committed lately, since %s is gone or damaged: %w", path, err)
		}
		if err := l.save(path, &l.recent); err != nil {
			return err
		}
	default:
		return err
	}
	for id := range l.recent.chunks {
		l.delivered[id] = struct{}{}
	}
	l.known.remember(l.recent.Sources)
	l.seen.remember(l.recent.Sources)
	for _, j := range l.rotated {
		sources, _ := j.summary.SourceRanges()
		l.seen.remember(sources)
	}
	return nil
}

// fits reports whether r was saved with the last manifest, or with the next, which was being tidied up after.
func (l *Log) fits(r *recent) bool {
	if r.Payload == l.committed.PreviousManifest {
		return true
	}
	signed, err := disk.ReadFile(l.fs, l.signedPath(l.committed.NextN), chain.MaxManifest)
	return err == nil && samePayload(signed, r.Payload)
}

// vouchedFor reads manifest n, whose payload has the given hash, as the manifest after it says. So it needs no key: it may be signed with one
// that was retired long ago.
func (l *Log) vouchedFor(ctx context.Context, n uint64, payload chain.Hash) (*chain.Manifest, error) {
	data, _, err := l.oldest(ctx, n)
	if err != nil {
		return nil, fmt.Errorf("reading manifest %d: %w", n, err)
	}
	if !samePayload(data, payload) {
		return nil, fmt.Errorf("manifest %d in %s is not the one that the manifest after it continues", n, l.bucket)
	}
	return chain.PeekManifest(data)
}

// rebuild reads the last segments in the bucket.
func (l *Log) rebuild(ctx context.Context) (recent, error) {
	var (
		all      [][]chain.Hash // of each segment, the last first
		known    sources
		chunks   int
		segments int
		size     int64
	)
	payload := l.committed.PreviousManifest
	for n := l.committed.NextN; n > 0 && chunks < maxRecent && segments < rebuildSegments && size < rebuildBytes; n-- {
		m, err := l.vouchedFor(ctx, n-1, payload)
		if errors.Is(err, storage.ErrNotFound) && n < l.committed.NextN {
			break // past its retention
		}
		if err != nil {
			return recent{}, err
		}
		if m.PreviousManifest != nil {
			payload = *m.PreviousManifest
		}
		if m.Segment == nil {
			continue
		}
		var ids []chain.Hash
		err = l.readSegment(ctx, m, func(e *chain.Entry, _ []byte) error {
			if e.Chunk != nil {
				ids = append(ids, deliveryID(e.Chunk.SHA256, e.Tag))
			}
			return nil
		})
		if errors.Is(err, storage.ErrNotFound) && m.Lock.RetainUntil.Before(l.now()) {
			break // manifests may be kept for longer
		}
		if err != nil {
			return recent{}, fmt.Errorf("reading segment %d: %w", m.N, err)
		}
		all = append(all, ids)
		known.remember(m.Sources)
		chunks, segments, size = chunks+len(ids), segments+1, size+m.Segment.RawSize
	}
	r := recent{Payload: l.committed.PreviousManifest}
	for i := len(all) - 1; i >= 0; i-- {
		r.addChunks(all[i])
	}
	r.Sources = known.list()
	return r, nil
}
