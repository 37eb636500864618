// Package query reads a log: it walks the manifests and segments in a bucket, checks them, finds records in them, proves
// them, and says what was found. It needs a reader's rights only, and trusts nothing but the public key that it is given.
package query

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// Log is one chain in a bucket, as a reader sees it.
type Log struct {
	Bucket storage.Bucket
	Layout chain.Layout
	Key    chain.PublicKey // that is trusted: the one of the genesis. Rotations lead on from it
}

// ErrNoChain says that the bucket has nothing of the chain.
var ErrNoChain = errors.New("no such chain")

// How far manifests are fetched ahead of the one that is looked at: so many, and so many bytes, unless a single one is longer.
// Anybody who may write can put objects as long as a manifest may be where manifests belong.
const (
	parallel   = 16
	aheadBytes = chain.MaxManifest
)

// stored is what a bucket holds at one key: its versions and delete markers, oldest first.
type stored struct {
	key      string
	versions []storage.Info
	more     int // how many further ones there are
}

// maxVersions is how many versions of one key are held: whoever may write can lay any number of them over an object. The one that
// counts is among the first.
const maxVersions = 1000

// list gives what is stored below prefix at keys after startAfter, ascending by key.
func (l *Log) list(ctx context.Context, prefix, startAfter string) iter.Seq2[stored, error] {
	return func(yield func(stored, error) bool) {
		var s stored
		for info, err := range l.Bucket.List(ctx, prefix, startAfter) {
			if err != nil {
				yield(stored{}, fmt.Errorf("reading %s: %w", l.Bucket, err))
				return
			}
			if info.Key != s.key {
				if s.key != "" && !yield(s, nil) {
					return
				}
				s = stored{key: info.Key}
			}
			if len(s.versions) < maxVersions {
				s.versions = append(s.versions, info)
			} else {
				s.more++
			}
		}
		if s.key != "" {
			yield(s, nil)
		}
	}
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

// fetched is how many bytes of a manifest are read, as far as the store says.
func (s stored) fetched() int64 {
	info, _ := s.oldest()
	return min(info.Size, chain.MaxManifest+1)
}

// manifest is one manifest as it was read, not yet trusted.
type manifest struct {
	n      uint64
	stored stored
	info   storage.Info // of the version that counts, with its lock
	data   []byte
	err    error // of reading it
}

// manifests gives the manifests from number first on in their order, with their bytes, fetched ahead. No more than a few are
// held, however many there are and however large what lies among them is. Objects that are no manifests go to stranger, if
// that is not nil. It ends at the first error of the listing.
func (l *Log) manifests(ctx context.Context, first uint64, stranger func(stored)) iter.Seq2[*manifest, error] {
	startAfter := ""
	if first > 0 {
		startAfter = l.Layout.Manifest(first - 1)
	}
	return func(yield func(*manifest, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		queue := make(chan chan *manifest, parallel)
		done := make(chan int64, 2*parallel) // bytes that are held no more; never full, since fewer manifests are held
		var listing error
		wg.Go(func() {
			defer close(queue)
			var held int64
			for s, err := range l.list(ctx, l.Layout.Manifests(), startAfter) {
				if err != nil {
					listing = err
					return
				}
				n, ok := l.Layout.ParseManifestKey(s.key)
				if !ok {
					if stranger != nil {
						stranger(s)
					}
					continue
				}
				size := s.fetched()
				for held > 0 && held+size > aheadBytes {
					select {
					case n := <-done:
						held -= n
					case <-ctx.Done():
						return
					}
				}
				held += size
				for len(done) > 0 {
					held -= <-done
				}
				slot := make(chan *manifest, 1)
				select {
				case queue <- slot:
				case <-ctx.Done():
					return
				}
				wg.Go(func() { slot <- l.fetch(ctx, n, s) })
			}
		})
		for slot := range queue {
			m := <-slot
			if ctx.Err() != nil || !yield(m, nil) {
				return
			}
			done <- m.stored.fetched()
		}
		if listing != nil && ctx.Err() == nil {
			yield(nil, listing)
		}
	}
}

// fetch reads manifest n: its oldest version.
func (l *Log) fetch(ctx context.Context, n uint64, s stored) *manifest {
	m := &manifest{n: n, stored: s}
	version, ok := s.oldest()
	if !ok {
		m.err = storage.ErrNotFound
		return m
	}
	if m.data, m.info, m.err = l.read(ctx, s.key, version.Version, chain.MaxManifest); m.err != nil {
		m.info = version
	}
	m.info.LastModified = version.LastModified
	return m
}

// manifest reads manifest n, which is not yet trusted.
func (l *Log) manifest(ctx context.Context, n uint64) (*manifest, error) {
	versions, err := l.Bucket.Versions(ctx, l.Layout.Manifest(n))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", l.Bucket, err)
	}
	m := l.fetch(ctx, n, stored{key: l.Layout.Manifest(n), versions: versions})
	if m.err != nil {
		return nil, fmt.Errorf("manifest %d: %w", n, m.err)
	}
	return m, nil
}

// GenesisKey returns the key that the chain's genesis names, whoever wrote it: to be compared with a fingerprint. The error wraps
// storage.ErrNotFound if there is no genesis.
func (l *Log) GenesisKey(ctx context.Context) (chain.PublicKey, error) {
	m, err := l.manifest(ctx, 0)
	if err != nil {
		return chain.PublicKey{}, err
	}
	parsed, err := chain.PeekManifest(m.data)
	if err != nil {
		return chain.PublicKey{}, fmt.Errorf("manifest 0: %w", err)
	}
	if parsed.Genesis == nil {
		return chain.PublicKey{}, errors.New("manifest 0 is no genesis")
	}
	return chain.ParsePublicKey([]byte(parsed.Genesis.ManifestKey))
}

// read fetches one version of an object of at most limit bytes.
func (l *Log) read(ctx context.Context, key, version string, limit int64) ([]byte, storage.Info, error) {
	r, info, err := l.open(ctx, key, version)
	if err != nil {
		return nil, info, err
	}
	defer r.Close()
	var buf bytes.Buffer
	buf.Grow(int(max(0, min(info.Size, limit)) + bytes.MinRead)) // once
	_, err = buf.ReadFrom(io.LimitReader(r, limit+1))
	data := buf.Bytes()
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%w: it has more than the %d bytes allowed", errTooLong, limit)
	}
	return data, info, err
}

// errTooLong says that an object is too long to be what it should be: that is a definite no, unlike other errors of reading.
var errTooLong = errors.New("too long")

// open is Bucket.Open of one version, with the lock in the Info though some stores (versitygw) tell it to a Stat only. A store
// without versions has the object only, whatever version a manifest names: there it is a copy.
func (l *Log) open(ctx context.Context, key, version string) (io.ReadCloser, storage.Info, error) {
	if !l.Bucket.Locks() {
		return l.Bucket.Open(ctx, key, "", 0, -1)
	}
	r, info, err := l.Bucket.Open(ctx, key, version, 0, -1)
	if err != nil || info.LockMode != "" {
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

// follower reads manifests one after the other for what they say, not for whether they follow each other, and goes over from
// key to key where a rotation says so.
type follower struct {
	log   *Log
	key   chain.PublicKey
	since uint64
	next  uint64   // number of the manifest that comes next
	keys  [][]byte // the stored genesis and rotations
}

// missing returns an error if there are manifests missing before m.
func (f *follower) missing(m *manifest) error {
	next := f.next
	if f.next = m.n + 1; m.n == next {
		return nil
	}
	return errors.New(notThere(next, m.n-1))
}

// open returns what manifest m says, if it is signed with the key that holds at its place, and of this chain and place.
func (f *follower) open(m *manifest) (*chain.Manifest, error) {
	if m.err != nil {
		return nil, fmt.Errorf("manifest %d: %w", m.n, m.err)
	}
	parsed, payload, err := chain.OpenManifest(m.data, f.key)
	if err != nil {
		return nil, fmt.Errorf("manifest %d: %w", m.n, err)
	}
	if parsed.Chain != f.log.Layout.Chain || parsed.N != m.n {
		return nil, fmt.Errorf("manifest %d says that it is number %d of chain %s", m.n, parsed.N, parsed.Chain)
	}
	if parsed.KeySince != f.since {
		return nil, fmt.Errorf("manifest %d says that its key came with manifest %d, but %d announced it", m.n, parsed.KeySince, f.since)
	}
	if parsed.Genesis != nil || parsed.Rotation != nil {
		head, err := chain.HeadOf(parsed, payload, f.key)
		if err != nil {
			return nil, fmt.Errorf("manifest %d: %w", m.n, err)
		}
		f.key, f.since = head.Key, head.KeySince
		f.keys = append(f.keys, m.data)
	}
	return parsed, nil
}

func (l *Log) follow() *follower { return &follower{log: l, key: l.Key} }

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
