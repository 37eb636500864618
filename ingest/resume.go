package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// begin looks for the chain in a bucket of which the store directory knows nothing, and makes it if it is not there.
func (l *Log) begin(ctx context.Context, haveJournals bool) error {
	if err := l.setKeys(); err != nil {
		return err
	}
	if l.pending == nil {
		last, found, err := l.findLast(ctx)
		if err != nil {
			return fmt.Errorf("looking for the chain in %s: %w", l.bucket, err)
		}
		if haveJournals {
			return fmt.Errorf("%s has journals but no %s: it is not whole; restore it, or move the whole directory away to go on from the bucket, with an entry in the log that says so", l.dir, headFile)
		}
		if found {
			return l.resume(ctx, last, "the store directory has no state of the chain")
		}
		if err := l.prepareGenesis(); err != nil {
			return fmt.Errorf("preparing the genesis: %w", err)
		}
	}
	// A pending genesis, ours or of an earlier start.
	l.bucketChecked = true
	if err := l.finish(ctx); err != nil {
		return err
	}
	l.opts.Logger.Info(fmt.Sprintf("began chain %s in %s; its key has the fingerprint %s", l.cfg.Chain, l.bucket, l.key.Public().Fingerprint()))
	return nil
}

func (l *Log) prepareGenesis() error {
	now := l.now()
	return l.prepare(chain.KindGenesis, &l.committed, now, func(p *pending) {
		p.Draft.Genesis = &chain.GenesisInfo{
			Created:       chain.Time{Time: now.UTC()},
			ManifestKey:   string(l.key.Public().PEM()),
			CheckpointKey: l.committed.CheckpointKey,
			Policy: chain.Policy{
				Retention:         l.cfg.Retention.String(),
				LockMode:          p.Draft.Lock.Mode,
				HeartbeatInterval: int64(l.cfg.Heartbeat / time.Second),
			},
		}
	})
}

// findLast returns the number of the chain's last manifest in the bucket, with O(log n) requests.
func (l *Log) findLast(ctx context.Context) (last uint64, found bool, err error) {
	// The first that is there: not number 0 when that has outlived its retention.
	for info, err := range l.bucket.List(ctx, l.layout.Manifests(), "") {
		if err != nil {
			return 0, false, err
		}
		n, ok := l.layout.ParseManifestKey(info.Key)
		if ok && !info.DeleteMarker {
			last, found = n, true
			break
		}
	}
	if !found {
		return 0, false, nil
	}
	there := func(n uint64) (bool, error) {
		versions, err := l.bucket.Versions(ctx, l.layout.Manifest(n))
		for _, v := range versions {
			if !v.DeleteMarker {
				return true, err
			}
		}
		return false, err
	}
	step := uint64(1)
	for {
		ok, err := there(last + step)
		if err != nil {
			return 0, false, err
		}
		if !ok {
			break
		}
		last += step
		step *= 2
	}
	// last is there, last+step is not.
	for step > 1 {
		half := step / 2
		ok, err := there(last + half)
		if err != nil {
			return 0, false, err
		}
		if ok {
			last += half
			step -= half
		} else {
			step = half
		}
	}
	return last, true, nil
}

// resume goes on from manifest n in the bucket, if the configuration allows it.
func (l *Log) resume(ctx context.Context, n uint64, why string) error {
	if l.cfg.OnLostJournal == Refuse {
		return fmt.Errorf("chain %s stands at manifest %d in %s, but %s, and on_lost_journal is refuse: restore store_dir, or set on_lost_journal to resume", l.cfg.Chain, n, l.bucket, why)
	}
	data, _, err := l.oldest(ctx, n)
	if err != nil {
		return fmt.Errorf("reading manifest %d: %w", n, err)
	}
	known := l.committed.NextN
	if err := l.adopt(data); err != nil {
		return fmt.Errorf("manifest %d in %s: %w", n, l.bucket, err)
	}
	detail, err := json.Marshal(struct {
		Reason       string `json:"reason"`
		LastManifest uint64 `json:"last_manifest"`
		Known        uint64 `json:"known_manifests"`
	}{why, n, known})
	if err != nil {
		return err
	}
	// Before the head: once that is there, no later start can tell that anything was lost.
	if err := writeDurably(filepath.Join(l.dir, lostFile), writes(detail)); err != nil {
		return err
	}
	if err := writeDurably(filepath.Join(l.dir, headFile), writes(data)); err != nil {
		return err
	}
	l.opts.Logger.Warn(fmt.Sprintf("%s: going on from manifest %d, entry %d; what an earlier writer had acknowledged but not committed is not in the chain", why, n, l.committed.NextSeq))
	return nil
}

// sayLost puts an entry into the log that says that the journal was lost, if it was and none has said so yet.
func (l *Log) sayLost() error {
	path := filepath.Join(l.dir, lostFile)
	detail, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = l.appendEvent(chain.EventJournalLost, string(detail))
	}
	if err != nil {
		return err
	}
	return removeDurably(path)
}

// reconcile compares what the store directory knows with the bucket.
func (l *Log) reconcile(ctx context.Context, haveJournals bool) error {
	n := l.committed.NextN - 1
	data, _, err := l.oldest(ctx, n)
	if errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("%s has no manifest %d of chain %s, though %s says that it was committed: is this the right bucket, endpoint and prefix?", l.bucket, n, l.cfg.Chain, l.dir)
	}
	if err != nil {
		return fmt.Errorf("reading manifest %d: %w", n, err)
	}
	payload, err := chain.BundlePayloadHash(data)
	if err != nil || payload != l.committed.PreviousManifest {
		return fmt.Errorf("%w: manifest %d in %s is not the one that %s knows", ErrForked, n, l.bucket, l.dir)
	}
	data, _, err = l.oldest(ctx, n+1)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading manifest %d: %w", n+1, err)
	}
	ours, err := os.ReadFile(filepath.Join(l.dir, manifestFile))
	if err == nil && string(ours) == string(data) {
		return nil // ours, committed just before a crash; finish will find it so
	}
	if haveJournals || l.pending != nil && l.pending.Journal != "" {
		return fmt.Errorf("%w: manifest %d in %s is not from here, and %s holds entries that follow manifest %d", ErrForked, n+1, l.bucket, l.dir, n)
	}
	last, _, err := l.findLast(ctx)
	if err != nil {
		return err
	}
	l.pending = nil
	if err := removeDurably(filepath.Join(l.dir, pendingFile), filepath.Join(l.dir, manifestFile)); err != nil {
		return err
	}
	return l.resume(ctx, last, fmt.Sprintf("the store directory stands at manifest %d, the bucket further on", n))
}

// checkBucket makes up for what Open could not ask of a bucket that was out of reach.
func (l *Log) checkBucket(ctx context.Context) error {
	if l.bucketChecked {
		return nil
	}
	if err := l.bucket.Check(ctx); err != nil {
		return err
	}
	if err := l.reconcile(ctx, true); err != nil {
		return err
	}
	l.bucketChecked = true
	return nil
}
