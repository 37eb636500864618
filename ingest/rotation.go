package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/auditchain/auditchain/chain"
)

// The chain goes over from previous_signing_key to signing_key by two manifests: a rotation, signed with the old key, and right behind it
// a heartbeat (or a segment, if one is drafted already), signed with the new one, after which nothing needs the old key any more. Both
// are jobs like a heartbeat (pipeline.go). What earlier lives had drafted comes before them. No job is signed before it is the next, and
// then with the key that the last committed manifest leaves: whatever a crash cuts off, nothing is signed with a key that does not hold at
// its place.

// checkKey sees to it that the chain's key is one of those configured.
func (l *Log) checkKey() error {
	key := l.committed.Key
	switch {
	case l.isPrevious(key):
		return nil
	case !key.Equal(l.key.Public()):
		return fmt.Errorf("signing_key: the chain went over to the key %s with manifest %d, and this key is %s", key.Fingerprint(), l.committed.KeySince, l.key.Public().Fingerprint())
	case l.previous != nil && l.committed.KeySince == 0:
		l.opts.Logger.Warn(fmt.Sprintf("previous_signing_key is of no use: the chain has been signed with signing_key (%s) since it began", key.Fingerprint()))
	}
	return nil
}

// rotateKey has the chain go over to signing_key, if it has not, once the bucket has what earlier lives had on its way.
func (l *Log) rotateKey() error {
	if l.isPrevious(l.committed.Key) {
		if err := l.announceKey(); err != nil {
			return err
		}
	}
	// At once, so that the last manifest is not one of the old key.
	if n := len(l.jobs); n > 0 && l.jobs[n-1].rotates() || n == 0 && l.committed.KeySince > 0 && l.committed.KeySince == l.committed.NextN-1 {
		l.jobs = append(l.jobs, &job{n: l.committed.NextN + uint64(n), step: compressed})
	}
	return nil
}

// announceKey puts the rotation behind the jobs of earlier lives, if it is not one of them.
func (l *Log) announceKey() error {
	there := slices.ContainsFunc(l.jobs, (*job).rotates)
	isSigned := there && l.jobs[0].rotates() && l.jobs[0].step == uploaded // and perhaps in the bucket
	if l.previous.private == nil && !isSigned {
		return fmt.Errorf("previous_signing_key: %s holds the public key, but the private one is still needed, to sign the manifest with which the chain goes over to signing_key", l.cfg.PreviousKey)
	}
	l.opts.Logger.Info(fmt.Sprintf("the signing key will be rotated, once the bucket has what is on its way: from %s to %s", l.previous.public.Fingerprint(), l.key.Public().Fingerprint()))
	if there {
		return nil
	}
	checkpointKey, err := l.key.CheckpointKey(l.cfg.Chain)
	if err != nil {
		return err
	}
	l.jobs = append(l.jobs, &job{
		n: l.committed.NextN + uint64(len(l.jobs)), step: compressed,
		announces: &chain.NewKeys{ManifestKey: string(l.key.Public().PEM()), CheckpointKey: checkpointKey},
	})
	return nil
}

// rotates reports whether the job's manifest is a rotation.
func (job *job) rotates() bool {
	return job.announces != nil || job.p != nil && job.p.Draft.Rotation != nil
}

// stillWanted reports whether a rotation that was drafted and not signed is the one that the configuration asks for.
func (l *Log) stillWanted(r *chain.NewKeys) bool {
	return l.isPrevious(l.committed.Key) && r.ManifestKey == string(l.key.Public().PEM())
}

// sayRotated says that the chain has gone over, once the first manifest of the new key is in the bucket.
func (l *Log) sayRotated(m *chain.Manifest) {
	if l.previous != nil && m.KeySince > 0 && m.KeySince == m.N-1 {
		l.opts.Logger.Info(fmt.Sprintf("the signing key was rotated with manifest %d: from %s to %s; previous_signing_key is not needed any more",
			m.KeySince, l.previous.public.Fingerprint(), l.key.Public().Fingerprint()))
	}
}

// historyTimeout is for how long a start looks through old manifests in the bucket, which few have to do.
const historyTimeout = 10 * time.Minute

// retiredReaders is how many of them notRetired reads at a time.
const retiredReaders = 16

// notRetired sees to it that manifest last, the last in the bucket, which is signed with previous_signing_key, is the chain's, where the store
// directory cannot tell. If the chain went over to signing_key before, then whoever has the old key wrote it; and he may have written any number of
// them, so that nothing but reading all that come after what is known here shows whether one was signed with the new key.
func (l *Log) notRetired(ctx context.Context, last uint64) error {
	// Longer than the rest of a start may take.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), historyTimeout)
	defer cancel()
	l.opts.Logger.Info(fmt.Sprintf("the last manifest in %s, %d, is signed with previous_signing_key; reading those from %d on, to be sure that the chain has not gone over to signing_key yet", l.bucket, last, l.committed.NextN))
	var (
		mu      sync.Mutex
		failed  error
		readers sync.WaitGroup
		key     string
	)
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if failed == nil {
			failed = err
		}
		cancel()
	}
	after := ""
	if l.committed.NextN > 0 {
		after = l.layout.Manifest(l.committed.NextN - 1)
	}
	slots := make(chan struct{}, retiredReaders)
	for info, err := range l.bucket.List(ctx, l.layout.Manifests(), after) {
		if err != nil {
			fail(err)
			break
		}
		n, ok := l.layout.ParseManifestKey(info.Key)
		if !ok || info.DeleteMarker || info.Key == key {
			continue
		}
		key = info.Key // this is its oldest version
		slots <- struct{}{}
		readers.Go(func() {
			defer func() { <-slots }()
			defer func() {
				if r := recover(); r != nil {
					fail(fmt.Errorf("manifest %d: internal error: %v", n, r))
				}
			}()
			data, err := l.read(ctx, info.Key, info.Version, chain.MaxManifest)
			if err != nil {
				fail(fmt.Errorf("reading manifest %d: %w", n, err))
				return
			}
			if _, _, err := chain.OpenManifest(data, l.key.Public()); err == nil {
				fail(fmt.Errorf("%w: manifest %d in %s has the signature of previous_signing_key (%s), but manifest %d that of signing_key already: either the chain had signing_key before, and a retired key must not be used again, or whoever has the retired key put it there; it is not followed",
					errRetired, last, l.bucket, l.previous.public.Fingerprint(), n))
			}
		})
	}
	readers.Wait()
	if failed != nil && !errors.Is(failed, errRetired) {
		return fmt.Errorf("finding out whether the chain has gone over to signing_key: %w", failed)
	}
	return failed
}
