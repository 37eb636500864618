// Package query reads a log: it walks the manifests and segments in a bucket, checks them, finds records in them and says
// what was found. It needs a reader's rights only, and trusts nothing but the public key that it is given.
package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// Log is one chain in a bucket, as a reader sees it.
type Log struct {
	Bucket storage.Bucket
	Layout chain.Layout
	Key    chain.PublicKey // that the manifests must be signed with
}

// parallel is how many requests are under way at the same time.
const parallel = 16

// stored is what a bucket holds at one key: its versions and delete markers, oldest first.
type stored struct {
	key      string
	versions []storage.Info
}

// list returns what is stored under prefix, by key in ascending order.
func (l *Log) list(ctx context.Context, prefix string) ([]stored, error) {
	var all []stored
	for info, err := range l.Bucket.List(ctx, prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", l.Bucket, err)
		}
		if n := len(all); n == 0 || all[n-1].key != info.Key {
			all = append(all, stored{key: info.Key})
		}
		last := &all[len(all)-1]
		last.versions = append(last.versions, info)
	}
	return all, nil
}

// oldest returns the first version that was written; false if there are only delete markers.
func (s stored) oldest() (storage.Info, bool) {
	for _, v := range s.versions {
		if !v.DeleteMarker {
			return v, true
		}
	}
	return storage.Info{}, false
}

// manifest is one manifest as it was read, not yet trusted.
type manifest struct {
	n      uint64
	stored stored
	info   storage.Info // of the version that counts, with its lock
	data   []byte
	err    error // of reading it
}

// read fetches one version of an object of at most limit bytes.
func (l *Log) read(ctx context.Context, key, version string, limit int64) ([]byte, storage.Info, error) {
	r, info, err := l.open(ctx, key, version)
	if err != nil {
		return nil, info, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is longer than the %d bytes allowed", key, limit)
	}
	return data, info, err
}

// open is Bucket.Open of one version, with the lock in the Info though some stores (versitygw) tell it to a Stat only.
func (l *Log) open(ctx context.Context, key, version string) (io.ReadCloser, storage.Info, error) {
	r, info, err := l.Bucket.Open(ctx, key, version, 0, -1)
	if err != nil || info.LockMode != "" || !l.Bucket.Locks() {
		return r, info, err
	}
	stat, err := l.Bucket.Stat(ctx, key, version)
	switch {
	case errors.Is(err, storage.ErrDenied):
		info.LockMode = lockUnknown
		return r, info, nil
	case err != nil:
		r.Close()
		return nil, info, err
	}
	return r, stat, nil
}

// lockUnknown stands for the lock mode of an object about whose lock this user may not ask.
const lockUnknown = "unknown"

// manifests lists all manifests in the order of their numbers; see fetched. Objects that are none are returned as
// strangers.
func (l *Log) manifests(ctx context.Context) (all []*manifest, strangers []stored, err error) {
	objects, err := l.list(ctx, l.Layout.Manifests())
	if err != nil {
		return nil, nil, err
	}
	for _, o := range objects {
		if n, ok := l.Layout.ParseManifestKey(o.key); ok {
			all = append(all, &manifest{n: n, stored: o})
		} else {
			strangers = append(strangers, o)
		}
	}
	if len(all) == 0 {
		return nil, strangers, fmt.Errorf("%w: %q in %s", ErrNoChain, l.Layout.Chain, l.Bucket)
	}
	return all, strangers, nil
}

// fetched gives the manifests one after the other with their bytes, which are let go of afterwards: however large what
// lies among the manifests is, no more than a few are held.
func (l *Log) fetched(ctx context.Context, all []*manifest) iter.Seq[*manifest] {
	return func(yield func(*manifest) bool) {
		for batch := range slices.Chunk(all, parallel) {
			forEach(batch, parallel, func(m *manifest) {
				version, ok := m.stored.oldest()
				if !ok {
					m.err = storage.ErrNotFound
					return
				}
				if m.data, m.info, m.err = l.read(ctx, m.stored.key, version.Version, chain.MaxManifest); m.err != nil {
					m.info = version
				}
			})
			for _, m := range batch {
				ok := ctx.Err() == nil && yield(m)
				m.data = nil
				if !ok {
					return
				}
			}
		}
	}
}

// trusted returns what manifest m says, if it is signed by the trusted key and of this chain and place.
func (l *Log) trusted(m *manifest) (*chain.Manifest, error) {
	if m.err != nil {
		return nil, fmt.Errorf("manifest %d: %w", m.n, m.err)
	}
	parsed, _, err := chain.OpenManifest(m.data, l.Key)
	if err != nil {
		return nil, fmt.Errorf("manifest %d: %w", m.n, err)
	}
	if parsed.Chain != l.Layout.Chain || parsed.N != m.n {
		return nil, fmt.Errorf("manifest %d says that it is number %d of chain %s", m.n, parsed.N, parsed.Chain)
	}
	return parsed, nil
}

// ErrNoChain says that the bucket has nothing of the chain.
var ErrNoChain = errors.New("no such chain")

// forEach calls f for each item, n at a time, and returns when all calls have.
func forEach[T any](items []T, n int, f func(T)) {
	var wg sync.WaitGroup
	next := make(chan T)
	for range min(n, len(items)) {
		wg.Go(func() {
			for item := range next {
				f(item)
			}
		})
	}
	for _, item := range items {
		next <- item
	}
	close(next)
	wg.Wait()
}
