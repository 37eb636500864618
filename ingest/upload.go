package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// upload is step 3: the segment is in the bucket, locked.
func (l *Log) upload(ctx context.Context, job *job) error {
	version, err := l.putSegment(ctx, job.p)
	if err != nil {
		return fmt.Errorf("uploading segment %d: %w", job.n, err)
	}
	job.version = version
	return nil
}

// putSegment uploads the segment file, locked, and returns the version that holds it.
func (l *Log) putSegment(ctx context.Context, p *pending) (storage.Version, error) {
	m := &p.Draft
	key := l.layout.Root() + m.Segment.Key
	f, err := l.fs.OpenFile(l.segmentPath(m.N), os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	version, err := l.bucket.Create(ctx, key, f, storage.CreateOptions{
		Size: m.Segment.Size, SHA256: m.Segment.SHA256, MD5: p.MD5, ContentType: chain.SegmentMediaType,
		LockMode: l.lockMode(m), RetainUntil: m.Lock.RetainUntil.Time,
	})
	if errors.Is(err, storage.ErrExists) {
		// Ours, from a try whose answer was lost, or somebody else's.
		version, err = l.findSame(ctx, key, m.Segment)
	}
	if errors.Is(err, errTaken) {
		// Left there by a writer that died before its manifest, or laid there to stop us. Only manifests say who owns
		// the chain: the segment goes to a name of its own, which the manifest will tell.
		if theirs, _, there := l.oldest(ctx, m.N); there == nil {
			return "", l.notOurs(m.N, theirs, nil)
		} else if !errors.Is(there, storage.ErrNotFound) {
			return "", there
		}
		l.opts.Logger.Warn(fmt.Sprintf("%v; this segment goes to another key", err))
		m.Segment.Key = chain.SegmentNameBeside(m.N, m.SealedAt.Time, newInstance())
		if err := l.save(l.pendingPath(m.N), p); err != nil {
			return "", err
		}
		return l.putSegment(ctx, p)
	}
	if err != nil {
		return "", err
	}
	return version, l.checkLock(ctx, key, version, m)
}

// findSame returns the oldest version at key that is the segment.
func (l *Log) findSame(ctx context.Context, key string, segment *chain.Segment) (storage.Version, error) {
	versions, err := l.bucket.Versions(ctx, key)
	if err != nil {
		return "", err
	}
	for _, v := range versions {
		if v.DeleteMarker || v.Size != segment.Size {
			continue
		}
		data, err := l.read(ctx, key, v.Version, segment.Size)
		if err != nil {
			return "", err
		}
		if chain.Sum(data) == segment.SHA256 {
			return v.Version, nil
		}
	}
	return "", fmt.Errorf("%w: %s in %s", errTaken, key, l.bucket)
}

// errTaken says that there are other bytes at a segment's key.
var errTaken = errors.New("an object that is not ours lies where a segment belongs")

// oldest reads the oldest version of manifest n; the error wraps storage.ErrNotFound if there never was one.
func (l *Log) oldest(ctx context.Context, n uint64) ([]byte, storage.Version, error) {
	key := l.layout.Manifest(n)
	versions, err := l.bucket.Versions(ctx, key)
	if err != nil {
		return nil, "", err
	}
	for _, v := range versions {
		if !v.DeleteMarker {
			data, err := l.read(ctx, key, v.Version, chain.MaxManifest)
			return data, v.Version, err
		}
	}
	return nil, "", fmt.Errorf("%s: %w", key, storage.ErrNotFound)
}

// read returns one version of an object of at most max bytes.
func (l *Log) read(ctx context.Context, key string, version storage.Version, max int64) ([]byte, error) {
	r, _, err := l.bucket.Open(ctx, key, version, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, max+1))
	if err == nil && int64(len(data)) > max {
		err = fmt.Errorf("%s is longer than %d bytes", key, max)
	}
	return data, err
}

func (l *Log) lockMode(m *chain.Manifest) string {
	if !l.bucket.Locks() {
		return ""
	}
	return m.Lock.Mode
}

// checkLock reads back what the store says of the lock, and asks for it anew if it is not there: some stores lock an object when they
// have it, and may fail in between. A store that took the object and does not give it its lock is none for us.
func (l *Log) checkLock(ctx context.Context, key string, version storage.Version, m *chain.Manifest) error {
	if !l.bucket.Locks() {
		return nil
	}
	info, err := l.bucket.Stat(ctx, key, version)
	if err == nil && !locked(info, m) {
		if err := l.bucket.Lock(ctx, key, version, m.Lock.Mode, m.Lock.RetainUntil.Time); err != nil {
			return fmt.Errorf("%s was stored without its lock: %w", key, err)
		}
		info, err = l.bucket.Stat(ctx, key, version)
	}
	if err != nil {
		return fmt.Errorf("reading the lock back: %w", err)
	}
	if !locked(info, m) {
		return fmt.Errorf("%s in %s was to be locked %s until %s, but is %q until %s",
			key, l.bucket, m.Lock.Mode, m.Lock.RetainUntil.Format(time.RFC3339), info.LockMode, info.RetainUntil.Format(time.RFC3339))
	}
	return nil
}

// locked reports whether the version is locked as m says, or for longer.
func locked(info storage.Info, m *chain.Manifest) bool {
	return info.LockMode == m.Lock.Mode && !info.RetainUntil.Before(m.Lock.RetainUntil.Time)
}
