package ingest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest/disk"
	"github.com/auditchain/auditchain/storage"
)

// Bounds of what Open asks of the bucket. A store that hangs does not keep Fluent Bit from starting for long.
const (
	checkTimeout = 10 * time.Second
	openTimeout  = 30 * time.Second
)

// Open opens the log that cfg describes: a new chain if the bucket has none of that name, otherwise the old one, with
// whatever an earlier writer left in the store directory. Where it cannot tell where the chain stands it fails.
func Open(ctx context.Context, cfg Config, opts Options) (*Log, error) {
	bucket, err := storage.Open(cfg.Storage)
	if err != nil {
		return nil, err // it names the key
	}
	return open(ctx, cfg, opts, world{bucket, disk.OS{}, backoff})
}

// world is what a log works with that tests replace.
type world struct {
	bucket storage.Bucket
	fs     disk.FS
	// backoff is how long to wait after so many failures in a row.
	backoff func(failures int) time.Duration
}

func open(ctx context.Context, cfg Config, opts Options, w world) (_ *Log, err error) {
	l := &Log{
		cfg: cfg, opts: opts, now: opts.Now, world: w,
		layout: chain.Layout{Prefix: cfg.Prefix, Chain: cfg.Chain},
		dir:    filepath.Join(cfg.StoreDir, strings.ReplaceAll(cfg.Chain, "/", "~")),
		done:   make(chan struct{}), wake: make(chan struct{}, 1), arrived: make(chan struct{}, 1),
		delivered: make(map[chain.Hash]struct{}),
	}
	l.written = sync.NewCond(&l.mu)
	l.finished = make(chan *job, window)
	if l.now == nil {
		l.now = time.Now
	}
	l.flushes.New = func() any { return new(flush) }
	if err := l.readKeys(); err != nil {
		return nil, err
	}
	if l.opts.Compressor == nil {
		l.opts.Compressor = chain.NewCompressor
	}
	compressor, err := l.opts.Compressor(cfg.Level)
	if err != nil {
		return nil, fmt.Errorf("compression_level: %w", err)
	}
	l.idle = append(l.idle, compressor)
	l.writer = chain.Writer{Version: opts.Version, Instance: newInstance()}
	if l.writer.Host, err = os.Hostname(); err != nil {
		l.writer.Host = "unknown"
	}
	if err := l.lockDir(); err != nil {
		return nil, fmt.Errorf("store_dir: %w", err)
	}
	opened := false
	defer func() { // a panic is no reason to keep the directory, for a later start in the same process
		if opened {
			return
		}
		if l.cancel != nil {
			l.cancel()
			<-l.done
		}
		l.lock.Close() // what counts is on its way already
	}()
	if err := l.recover(ctx); err != nil {
		return nil, err
	}
	l.reserve()
	runCtx, stop := context.WithCancel(context.Background())
	l.cancel = stop
	l.lastCommit = l.now()
	go l.run(runCtx)
	if err := l.sayLost(); err != nil {
		ctx, cancel := context.WithCancel(ctx)
		cancel() // nothing is waited for: what is there stays for the next start
		return nil, errors.Join(fmt.Errorf("saying that the journal was lost: %w", err), l.Close(ctx))
	}
	opened = true
	return l, nil
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
func (l *Log) lockDir() (err error) {
	if err := disk.MakeDir(l.fs, l.dir); err != nil {
		return err
	}
	l.lock, err = l.fs.Lock(filepath.Join(l.dir, lockFile))
	if errors.Is(err, disk.ErrLocked) {
		return fmt.Errorf("%s is in use by another writer of this chain: another output of this Fluent Bit, or another Fluent Bit", l.dir)
	}
	if err != nil {
		return err
	}
	err = disk.RemoveTemporary(l.fs, l.dir)
	if err == nil {
		err = l.fs.SyncDir(l.dir) // what an earlier life named here and could not sync is relied on from now on
	}
	if err != nil {
		return errors.Join(err, l.lock.Close())
	}
	return nil
}

// recover finds where the chain stands: what is in the bucket, and what the journals hold after it.
func (l *Log) recover(ctx context.Context) error {
	damage := l.loadHead()
	if damage != nil && !errors.Is(damage, errSaved) {
		return damage
	}
	if err := l.replay(); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	known := l.committed.NextN > 0
	checking, checked := context.WithTimeout(bounded, checkTimeout)
	defer checked()
	switch err := l.bucket.Check(checking); {
	case err == nil && damage != nil:
		l.opts.Logger.Warn(fmt.Sprintf("%v; looking for it in %s", damage, l.bucket))
		err = l.catchUp(bounded, "the store directory's note of where the chain stands is damaged")
		if err != nil {
			return err
		}
	case err == nil && known:
		if err := l.reconcile(bounded); err != nil {
			return err
		}
	case err == nil:
		if err := l.begin(bounded); err != nil {
			return err
		}
	case away(err) && known:
		l.goOn(err)
	case damage != nil:
		return errors.Join(damage, keyed(err))
	default:
		return keyed(err)
	}
	if err := l.checkKey(); err != nil {
		return err
	}
	if l.bucketChecked {
		if err := l.checkPromises(bounded); away(err) {
			l.bucketChecked = false
			l.goOn(err)
		} else if err != nil {
			return err
		}
	}
	if err := l.link(); err != nil {
		return err
	}
	if err := l.restore(); err != nil {
		return err
	}
	if err := l.rotateKey(); err != nil {
		return err
	}
	return l.loadRecent(ctx)
}

// loadHead reads the last manifest that this store directory saw committed. The error wraps errSaved if it cannot be read as
// one that was signed with a key of ours.
func (l *Log) loadHead() error {
	path := filepath.Join(l.dir, headFile)
	data, err := disk.ReadFile(l.fs, path, chain.MaxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	s, err := l.open(0, data)
	if errors.Is(err, chain.ErrSignature) { // the bucket says whether the chain is to go over, or has gone over since
		if theirs, unknown := chain.BundleSigner(data); unknown == nil {
			err = fmt.Errorf("it names the key %s: %w", theirs, err)
		}
	}
	if err != nil {
		return fmt.Errorf("%s %w, or of another signing key: %w", path, errSaved, err)
	}
	if err := l.adopt(s); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
