package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// checkPromises reads what the chain promised in its genesis, and refuses a configuration that would keep less. It gets there from rotation
// to rotation: each announced the key that holds after it, and is signed with the key that the one before it announced. Of a chain
// that was never rotated that is one manifest.
func (l *Log) checkPromises(ctx context.Context) error {
	if l.promisesChecked {
		return nil
	}
	key := l.committed.Key
	var after []byte // the rotation that was announced by the next to be read
	for n := l.committed.KeySince; ; {
		data, _, err := l.oldest(ctx, n)
		if errors.Is(err, storage.ErrNotFound) {
			break // past its retention, and so is all before it
		}
		if err != nil {
			return fmt.Errorf("reading manifest %d: %w", n, err)
		}
		m, announced, err := l.announcement(n, data)
		if err == nil && after != nil {
			key = announced
			_, _, err = chain.OpenManifest(after, key)
		}
		if err == nil && !announced.Equal(key) {
			err = fmt.Errorf("it announces the key %s, and what comes after it is signed with %s", announced.Fingerprint(), key.Fingerprint())
		}
		if err == nil && m.Genesis != nil {
			_, _, err = chain.OpenManifest(data, key)
		}
		if err != nil {
			return fmt.Errorf("manifest %d in %s, with which a key of this chain began: %w", n, l.bucket, err)
		}
		if key.Equal(l.key.Public()) && l.isPrevious(l.committed.Key) {
			return fmt.Errorf("signing_key: the chain had this key (%s) before, since manifest %d: a retired key must not be used again; `auditchain keygen` makes a new one", key.Fingerprint(), n)
		}
		if m.Genesis != nil {
			if err := l.keeps(m.Genesis.Policy); err != nil {
				return err
			}
			break
		}
		after, n = data, m.KeySince
	}
	l.promisesChecked = true
	return nil
}

// announcement returns manifest n, whose signature nobody has checked yet, and the key that it announces.
func (l *Log) announcement(n uint64, data []byte) (m *chain.Manifest, key chain.PublicKey, err error) {
	m, err = chain.PeekManifest(data)
	switch {
	case err != nil:
	case m.N != n || m.Chain != l.cfg.Chain:
		err = fmt.Errorf("it is manifest %d of chain %q", m.N, m.Chain)
	case m.Genesis != nil:
		key, err = chain.ParsePublicKey([]byte(m.Genesis.ManifestKey))
	case m.Rotation != nil:
		key, err = chain.ParsePublicKey([]byte(m.Rotation.ManifestKey))
	default:
		err = fmt.Errorf("it is a %s", m.Kind)
	}
	return m, key, err
}

// unlocked is what manifests have for a mode where the bucket cannot lock.
const unlocked = "NONE"

// lockModes are the modes of a lock, the weakest first.
var lockModes = []string{unlocked, storage.Governance, storage.Compliance}

// mode is the mode that the next manifest asks for.
func (l *Log) mode() string {
	if !l.bucket.Locks() {
		return unlocked
	}
	return l.cfg.LockMode
}

// keeps reports whether the configuration keeps what was promised.
func (l *Log) keeps(promised chain.Policy) error {
	retention, err := chain.ParseRetention(promised.Retention)
	if err != nil {
		return fmt.Errorf("the policy in the chain's genesis: %w", err)
	}
	if l.cfg.Retention.Less(retention) {
		return fmt.Errorf("retention: %s is shorter than the %s that the chain promised when it began: it can only be made longer", l.cfg.Retention, retention)
	}
	if slices.Index(lockModes, l.mode()) < slices.Index(lockModes, promised.LockMode) {
		if !l.bucket.Locks() {
			return fmt.Errorf("bucket: %s cannot lock objects, and the chain promised lock_mode %s when it began: what is there can be verified and not continued; set bucket to the one that the chain is in, or begin another chain",
				l.bucket, strings.ToLower(promised.LockMode))
		}
		return fmt.Errorf("lock_mode: %s is weaker than the %s that the chain promised when it began", strings.ToLower(l.cfg.LockMode), strings.ToLower(promised.LockMode))
	}
	if interval := time.Duration(promised.HeartbeatInterval) * time.Second; l.cfg.Heartbeat > interval {
		l.opts.Logger.Warn(fmt.Sprintf("heartbeat_interval: %s is longer than the %s that the chain promised when it began; auditors will see gaps", l.cfg.Heartbeat, interval))
	}
	return nil
}
