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
	l.writer = chain.Writer{Version: opts.Version, Instance: newInstance()}
	if l.writer.Host, err = os.Hostname(); err != nil {
		l.writer.Host = "unknown"
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
	if err := l.recover(ctx); err != nil {
		return nil, err
	}
	runCtx, stop := context.WithCancel(context.Background())
	l.cancel = stop
	l.lastCommit = l.now()
	go l.run(runCtx)
	if err := l.sayLost(); err != nil {
		return nil, errors.Join(fmt.Errorf("saying that the journal was lost: %w", err), l.Close(ctx))
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

// recover finds where the chain stands.
func (l *Log) recover(ctx context.Context) error {
	if err := l.loadHead(); err != nil {
		return err
	}
	if err := l.loadPending(); err != nil {
		return err
	}
	journals, err := listJournals(l.dir)
	if err != nil {
		return err
	}
	known := l.committed.NextN > 0
	switch err := l.bucket.Check(ctx); {
	case err == nil && !known:
		if err := l.begin(ctx, len(journals) > 0); err != nil {
			return err
		}
		l.bucketChecked = true
	case err == nil:
		if err := l.reconcile(ctx, len(journals) > 0); err != nil {
			return err
		}
		l.bucketChecked = true
	case errors.Is(err, storage.ErrUnreachable) && known:
		l.opts.Logger.Warn(fmt.Sprintf("%v; going on with what is in %s", err, l.dir))
	default:
		return keyed(err)
	}
	if err := l.replay(journals); err != nil {
		return err
	}
	return l.loadRecent()
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
		return l.removePending(p) // committed; the crash came while tidying up
	}
	if p.Draft.N != l.committed.NextN {
		return fmt.Errorf("%s is of manifest %d, but %d comes next", path, p.Draft.N, l.committed.NextN)
	}
	l.pending = p
	return nil
}
