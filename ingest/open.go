package ingest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// openTimeout bounds what Open asks of the bucket.
const openTimeout = 30 * time.Second

// Open opens the log that cfg describes: a new chain if the bucket has none of that name, otherwise the old one, with
// whatever an earlier writer left in the store directory. Where it cannot tell where the chain stands it fails.
func Open(ctx context.Context, cfg Config, opts Options) (*Log, error) {
	bucket, err := storage.Open(cfg.Storage)
	if err != nil {
		return nil, err // it names the key
	}
	return open(ctx, cfg, opts, bucket)
}

func open(ctx context.Context, cfg Config, opts Options, bucket storage.Bucket) (_ *Log, err error) {
	l := &Log{
		cfg: cfg, opts: opts, now: opts.Now, bucket: bucket,
		layout: chain.Layout{Prefix: cfg.Prefix, Chain: cfg.Chain},
		dir:    filepath.Join(cfg.StoreDir, strings.ReplaceAll(cfg.Chain, "/", "~")),
		done:   make(chan struct{}), wake: make(chan struct{}, 1),
		delivered: make(map[chain.Hash]struct{}),
	}
	if l.now == nil {
		l.now = time.Now
	}
	l.flushes.New = func() any { return new(flush) }
	if l.key, err = readSigningKey(cfg.SigningKey); err != nil {
		return nil, fmt.Errorf("signing_key: %w", err)
	}
	newCompressor := opts.Compressor
	if newCompressor == nil {
		newCompressor = chain.NewCompressor
	}
	if l.compressor, err = newCompressor(cfg.Level); err != nil {
		return nil, fmt.Errorf("compression_level: %w", err)
	}
	l.hidden = chain.Writer{Version: opts.Version, Instance: newInstance()}
	if l.hidden.Host, err = os.Hostname(); err != nil {
		l.hidden.Host = "unknown"
	}
	if err := l.lockDir(); err != nil {
		return nil, fmt.Errorf("store_dir: %w", err)
	}
	defer func() {
		if err != nil {
			l.unlockDir() // the error that counts is there already
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	lost, err := l.recover(ctx)
	if err != nil {
		return nil, err
	}
	runCtx, stop := context.WithCancel(context.Background())
	l.cancel = stop
	l.lastCommit = l.now()
	go l.run(runCtx)
	if lost != "" {
		if err := l.appendEvent(chain.EventJournalLost, lost); err != nil {
			return nil, errors.Join(fmt.Errorf("saying that the journal was lost: %w", err), l.Close(ctx))
		}
	}
	return l, nil
}

func readSigningKey(path string) (*chain.SigningKey, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w; `auditchain keygen` makes one", err)
	}
	if err != nil {
		return nil, err
	}
	key, err := chain.ParseSigningKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// keyed says which key of the configuration an error of the bucket's check is about, and what to do.
func keyed(err error) error {
	switch {
	case errors.Is(err, storage.ErrNoBucket), errors.Is(err, storage.ErrNoVersioning), errors.Is(err, storage.ErrNoObjectLock):
		return fmt.Errorf("bucket: %w; `auditchain init` makes one that is fit", err)
	case errors.Is(err, storage.ErrDenied):
		return fmt.Errorf("access_key: %w", err)
	case errors.Is(err, storage.ErrUnreachable):
		return fmt.Errorf("endpoint: %w; the first start of a chain here needs the store", err)
	case errors.Is(err, storage.ErrClockSkew):
		return err
	}
	return fmt.Errorf("endpoint: %w", err)
}

func newInstance() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// lockDir makes the chain's directory and sees to it that this is the only writer in it.
func (l *Log) lockDir() error {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(l.dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("%s is in use by another writer of this chain: another output of this Fluent Bit, or another Fluent Bit", l.dir)
		}
		return fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	l.lock = f
	leftover, err := filepath.Glob(filepath.Join(l.dir, temporaryPrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range leftover {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// unlockDir ends what lockDir began. Closing the file is not enough: a process that is just being forked, as Fluent Bit's
// exec input does, has a copy of it and so the lock until it execs.
func (l *Log) unlockDir() error {
	return errors.Join(unix.Flock(int(l.lock.Fd()), unix.LOCK_UN), l.lock.Close())
}

// recover finds where the chain stands. lost is not empty if local state of the chain is gone: the detail of the entry
// that must say so.
func (l *Log) recover(ctx context.Context) (lost string, err error) {
	if err := l.loadHead(); err != nil {
		return "", err
	}
	if err := l.loadPending(); err != nil {
		return "", err
	}
	journals, err := listJournals(l.dir)
	if err != nil {
		return "", err
	}
	known := l.committed.NextN > 0
	switch err := l.bucket.Check(ctx); {
	case err == nil && !known:
		if lost, err = l.begin(ctx, len(journals) > 0); err != nil {
			return "", err
		}
		l.bucketChecked = true
	case err == nil:
		if lost, err = l.reconcile(ctx, len(journals) > 0); err != nil {
			return "", err
		}
		l.bucketChecked = true
	case errors.Is(err, storage.ErrUnreachable) && known:
		l.opts.Logger.Warn(fmt.Sprintf("%v; going on with what is in %s", err, l.dir))
	default:
		return "", keyed(err)
	}
	if err := l.replay(journals); err != nil {
		return "", err
	}
	return lost, l.loadRecent()
}

// loadHead reads the last manifest that this store directory saw committed.
func (l *Log) loadHead() error {
	path := filepath.Join(l.dir, headFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := l.adopt(data); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// adopt takes the manifest data, of this chain and with our signature, for where the chain stands.
func (l *Log) adopt(data []byte) error {
	m, payload, err := chain.OpenManifest(data, l.key.Public())
	if errors.Is(err, chain.ErrSignature) {
		return fmt.Errorf("%w with this signing key (fingerprint %s): it is not the chain's", err, l.key.Public().Fingerprint())
	}
	if err != nil {
		return err
	}
	if m.Chain != l.cfg.Chain {
		return fmt.Errorf("it is of chain %q, not %q", m.Chain, l.cfg.Chain)
	}
	h, err := chain.HeadOf(m, payload)
	if err != nil {
		return err
	}
	l.committed = h
	if err := l.setKeys(); err != nil {
		return err
	}
	for _, source := range m.Sources {
		l.seen.remember(source)
	}
	return nil
}

func (l *Log) setKeys() (err error) {
	l.committed.Chain, l.committed.Key = l.cfg.Chain, l.key.Public()
	l.committed.CheckpointKey, err = l.key.CheckpointKey(l.cfg.Chain)
	return err
}

// loadPending reads what was being committed, unless it has been.
func (l *Log) loadPending() error {
	path := filepath.Join(l.dir, pendingFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		// Nothing of a manifest was uploaded before its pendingFile was there.
		return removeDurably(filepath.Join(l.dir, segmentFile), filepath.Join(l.dir, manifestFile))
	}
	if err != nil {
		return err
	}
	p := new(pending)
	if err := json.Unmarshal(data, p); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if p.Draft.N < l.committed.NextN {
		// Committed; the crash came while tidying up.
		remove := []string{path, filepath.Join(l.dir, segmentFile), filepath.Join(l.dir, manifestFile)}
		if p.Journal != "" {
			remove = append(remove, filepath.Join(l.dir, filepath.Base(p.Journal)))
		}
		return removeDurably(remove...)
	}
	if p.Draft.N != l.committed.NextN {
		return fmt.Errorf("%s is of manifest %d, but %d comes next", path, p.Draft.N, l.committed.NextN)
	}
	l.pending = p
	return nil
}

// begin looks for the chain in a bucket of which the store directory knows nothing, and makes it if it is not there.
func (l *Log) begin(ctx context.Context, haveJournals bool) (lost string, err error) {
	if err := l.setKeys(); err != nil {
		return "", err
	}
	if l.pending == nil {
		last, found, err := l.findLast(ctx)
		if err != nil {
			return "", fmt.Errorf("looking for the chain in %s: %w", l.bucket, err)
		}
		if haveJournals {
			return "", fmt.Errorf("%s has journals but no %s: it is not whole; restore it, or move it away to go on without what is in it", l.dir, headFile)
		}
		if found {
			return l.resume(ctx, last, "the store directory has no state of the chain")
		}
		if err := l.prepareGenesis(); err != nil {
			return "", fmt.Errorf("preparing the genesis: %w", err)
		}
	}
	// A pending genesis, ours or of an earlier start.
	l.bucketChecked = true
	if err := l.finish(ctx); err != nil {
		return "", err
	}
	l.opts.Logger.Info(fmt.Sprintf("began chain %s in %s; its key has the fingerprint %s", l.cfg.Chain, l.bucket, l.key.Public().Fingerprint()))
	return "", nil
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
func (l *Log) resume(ctx context.Context, n uint64, why string) (lost string, err error) {
	if l.cfg.OnLostJournal == Refuse {
		return "", fmt.Errorf("chain %s stands at manifest %d in %s, but %s, and on_lost_journal is refuse: restore store_dir, or set on_lost_journal to resume", l.cfg.Chain, n, l.bucket, why)
	}
	data, _, err := l.oldest(ctx, n)
	if err != nil {
		return "", fmt.Errorf("reading manifest %d: %w", n, err)
	}
	known := l.committed.NextN
	if err := l.adopt(data); err != nil {
		return "", fmt.Errorf("manifest %d in %s: %w", n, l.bucket, err)
	}
	if err := writeDurably(filepath.Join(l.dir, headFile), writes(data)); err != nil {
		return "", err
	}
	l.opts.Logger.Warn(fmt.Sprintf("%s: going on from manifest %d, entry %d; what an earlier writer had acknowledged but not committed is not in the chain", why, n, l.committed.NextSeq))
	detail, err := json.Marshal(struct {
		Reason       string `json:"reason"`
		LastManifest uint64 `json:"last_manifest"`
		Known        uint64 `json:"known_manifests"`
	}{why, n, known})
	return string(detail), err
}

// reconcile compares what the store directory knows with the bucket.
func (l *Log) reconcile(ctx context.Context, haveJournals bool) (lost string, err error) {
	n := l.committed.NextN - 1
	data, _, err := l.oldest(ctx, n)
	if errors.Is(err, storage.ErrNotFound) {
		return "", fmt.Errorf("%s has no manifest %d of chain %s, though %s says that it was committed: is this the right bucket, endpoint and prefix?", l.bucket, n, l.cfg.Chain, l.dir)
	}
	if err != nil {
		return "", fmt.Errorf("reading manifest %d: %w", n, err)
	}
	payload, err := chain.BundlePayloadHash(data)
	if err != nil || payload != l.committed.PreviousManifest {
		return "", fmt.Errorf("%w: manifest %d in %s is not the one that %s knows", ErrForked, n, l.bucket, l.dir)
	}
	data, _, err = l.oldest(ctx, n+1)
	if errors.Is(err, storage.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading manifest %d: %w", n+1, err)
	}
	ours, err := os.ReadFile(filepath.Join(l.dir, manifestFile))
	if err == nil && string(ours) == string(data) {
		return "", nil // ours, committed just before a crash; finish will find it so
	}
	if haveJournals || l.pending != nil && l.pending.Journal != "" {
		return "", fmt.Errorf("%w: manifest %d in %s is not from here, and %s holds entries that follow manifest %d", ErrForked, n+1, l.bucket, l.dir, n)
	}
	last, _, err := l.findLast(ctx)
	if err != nil {
		return "", err
	}
	l.pending = nil
	if err := removeDurably(filepath.Join(l.dir, pendingFile), filepath.Join(l.dir, manifestFile)); err != nil {
		return "", err
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
	if _, err := l.reconcile(ctx, true); err != nil {
		return err
	}
	l.bucketChecked = true
	return nil
}
