package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sort"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest/disk"
	"github.com/auditchain/auditchain/storage"
)

// begin looks for the chain in a bucket of which the store directory knows nothing, and makes it if it is not there.
func (l *Log) begin(ctx context.Context) error {
	if err := l.setKeys(); err != nil {
		return err
	}
	_, found, err := l.findLast(ctx)
	if err != nil {
		return fmt.Errorf("looking for the chain in %s: %w", l.bucket, err)
	}
	first := &job{n: 0, step: compressed}
	if err := l.restoreJob(first, nil); err != nil {
		return err
	}
	genesis := (*chain.GenesisInfo)(nil)
	if first.p != nil {
		genesis = first.p.Draft.Genesis
	}
	switch {
	case genesis != nil && genesis.ManifestKey == string(l.key.Public().PEM()):
		// Ours, of a start that was cut off; if it is in the bucket, that will show.
	case found:
		return l.catchUp(ctx, "the store directory has no state of the chain")
	case len(l.rotated) > 0:
		return fmt.Errorf("%s has journals, but no %s, and %s has no such chain: is this the right bucket, endpoint and prefix? if so, restore %s, or move it away to begin a new chain",
			l.dir, headFile, l.bucket, l.dir)
	default:
		if err := l.draftGenesis(ctx, first); err != nil {
			return fmt.Errorf("preparing the genesis: %w", err)
		}
	}
	l.bucketChecked = true
	if err := l.finish(ctx, first); err != nil {
		return err
	}
	l.opts.Logger.Info(fmt.Sprintf("began chain %s in %s; its key has the fingerprint %s", l.cfg.Chain, l.bucket, l.key.Public().Fingerprint()))
	return nil
}

// draftGenesis is step 2 of the chain's first manifest.
func (l *Log) draftGenesis(ctx context.Context, job *job) error {
	now := l.now()
	p := &pending{Draft: chain.Manifest{Kind: chain.KindGenesis}}
	if err := l.decide(ctx, &p.Draft, now, time.Time{}); err != nil {
		return err
	}
	p.Draft.TreeAfter = []chain.Hash{}
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
	job.p = p
	return l.save(l.pendingPath(0), p)
}

// findLast returns the number of the chain's last manifest in the bucket, with O(log n) requests for each run of them: of old ones
// some may be gone, in no order.
func (l *Log) findLast(ctx context.Context) (last uint64, found bool, err error) {
	for after := ""; ; after = l.layout.Manifest(last) {
		n, more, err := l.nextManifest(ctx, after)
		if err != nil || !more {
			return last, found, err
		}
		if last, err = l.lastOfRun(ctx, n); err != nil {
			return 0, false, err
		}
		found = true
	}
}

// nextManifest returns the number of the first manifest whose key comes after the given one.
func (l *Log) nextManifest(ctx context.Context, after string) (n uint64, found bool, err error) {
	for info, err := range l.bucket.List(ctx, l.layout.Manifests(), after) {
		if err != nil {
			return 0, false, err
		}
		if n, ok := l.layout.ParseManifestKey(info.Key); ok && !info.DeleteMarker {
			return n, true, nil
		}
	}
	return 0, false, nil
}

// lastOfRun returns the last of the manifests that follow manifest first, each by the next number, as far as it can tell with
// O(log n) requests.
func (l *Log) lastOfRun(ctx context.Context, first uint64) (last uint64, err error) {
	last = first
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
			return 0, err
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
			return 0, err
		}
		if ok {
			last += half
			step -= half
		} else {
			step = half
		}
	}
	return last, nil
}

// manifest reads manifest n from the bucket and checks its signature.
func (l *Log) manifest(ctx context.Context, n uint64) (signed, error) {
	data, _, err := l.oldest(ctx, n)
	if err != nil {
		return signed{}, fmt.Errorf("reading manifest %d: %w", n, err)
	}
	what := fmt.Sprintf("manifest %d in %s", n, l.bucket)
	s, err := l.open(n, data)
	switch {
	case errors.Is(err, chain.ErrSignature):
		return signed{}, l.strange(what, data)
	case errors.Is(err, errRetired): // says all
	case err != nil:
		err = fmt.Errorf("%s: %w", what, err)
	case s.N != n || s.Chain != l.cfg.Chain:
		err = fmt.Errorf("%s: it is manifest %d of chain %q", what, s.N, s.Chain)
	}
	return s, err
}

// endOf is where the chain stands after m.
func endOf(m *chain.Manifest, payload chain.Hash) position {
	if m.Head == nil { // the genesis
		return position{m.NextSeq, payload}
	}
	return position{m.NextSeq, *m.Head}
}

// catchUp brings a store directory that knows less than the bucket to where the bucket is. What it holds beyond that, it
// keeps. What the bucket holds beyond it, others may have been told of that is lost: that needs on_lost_journal, and is said in
// an entry. What neither holds of the other is two histories, of which the bucket's counts.
func (l *Log) catchUp(ctx context.Context, why string) error {
	last, found, err := l.findLast(ctx)
	if err != nil {
		return fmt.Errorf("looking for the end of the chain in %s: %w", l.bucket, err)
	}
	if !found {
		return fmt.Errorf("%s has no such chain, and %s: is this the right bucket, endpoint and prefix?", l.bucket, why)
	}
	m, err := l.manifest(ctx, last)
	if err != nil {
		return err
	}
	if l.isPrevious(m.key) && !l.stoodAt(m.payload) {
		if err := l.notRetired(ctx, last); err != nil {
			return err
		}
	}
	// How many of the journals the bucket has; -1: it ends at none of them.
	end, have := endOf(m.Manifest, m.payload), -1
	for i, j := range l.rotated {
		switch end {
		case position{j.first, j.prev}:
			have = i
		case j.end:
			have = i + 1
		}
	}
	if have < 0 && len(l.rotated) == 0 && l.stoodAt(m.payload) {
		have = 0
	}
	lost := have < 0
	if lost && len(l.rotated) > 0 {
		is, err := l.contains(ctx, m, l.rotated[len(l.rotated)-1].end)
		if away(err) {
			return fmt.Errorf("looking for the journals' entries in %s: %w", l.bucket, err)
		}
		if err != nil {
			return fmt.Errorf("looking for the journals' entries in %s: %w; they are kept; see what `auditchain verify` says of the chain, and to go on from the bucket without them move %s away", l.bucket, err, l.dir)
		}
		if !is {
			return fmt.Errorf("%w: manifest %d in %s is not from here, and %s holds entries that are not in it", ErrForked, last, l.bucket, l.dir)
		}
		have = len(l.rotated)
	}
	if lost {
		if err := l.noteLost(last, why); err != nil {
			return err
		}
	}
	// What is in the bucket is of no more use here, nor is what was to go to numbers that are taken.
	numbers, err := l.listPending()
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if err := l.removePending(n); err != nil {
			return err
		}
	}
	if err := l.dropJournals(max(have, 0)); err != nil {
		return err
	}
	if err := l.adopt(m); err != nil {
		return fmt.Errorf("manifest %d in %s: %w", last, l.bucket, err)
	}
	if !l.stoodAt(m.payload) { // else it knows as little
		if err := disk.Remove(l.fs, filepath.Join(l.dir, recentFile)); err != nil {
			return err
		}
	}
	if err := disk.WriteFile(l.fs, filepath.Join(l.dir, headFile), m.data); err != nil {
		return err
	}
	l.bucketChecked = true
	if lost {
		l.opts.Logger.Warn(fmt.Sprintf("%s: going on from manifest %d, entry %d; what an earlier writer had acknowledged but not committed is not in the chain", why, last, m.NextSeq))
	}
	return nil
}

// stoodAt reports whether the last manifest that the store directory saw committed has the payload, though its head cannot be read.
func (l *Log) stoodAt(payload chain.Hash) bool {
	var r recent
	return l.load(filepath.Join(l.dir, recentFile), &r) == nil && r.Payload == payload
}

// noteLost has the log say that a journal was lost, if the configuration allows to go on without it. It comes before the new
// head: once that is there, no later start can tell that anything was lost.
func (l *Log) noteLost(last uint64, why string) error {
	if l.cfg.OnLostJournal == Refuse {
		return fmt.Errorf("chain %s stands at manifest %d in %s, but %s, and on_lost_journal is refuse: restore store_dir, or set on_lost_journal to resume", l.cfg.Chain, last, l.bucket, why)
	}
	detail, err := json.Marshal(struct {
		Reason       string `json:"reason"`
		LastManifest uint64 `json:"last_manifest"`
		Known        uint64 `json:"known_manifests"`
	}{why, last, l.committed.NextN})
	if err != nil {
		return err
	}
	return l.save(filepath.Join(l.dir, lostFile), json.RawMessage(detail))
}

// sayLost puts an entry into the log that says that the journal was lost, if it was and none has said so yet.
func (l *Log) sayLost() error {
	path := filepath.Join(l.dir, lostFile)
	var detail json.RawMessage
	err := l.load(path, &detail)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, errSaved) {
		l.opts.Logger.Warn(err.Error())
		detail, err = json.RawMessage(`{"reason":"not known any more: the note of it is damaged"}`), nil
	}
	if err == nil {
		err = l.appendEvent(chain.EventJournalLost, string(detail))
	}
	if err != nil {
		return err
	}
	return disk.Remove(l.fs, path)
}

// contains reports whether the chain in the bucket, up to its manifest last, runs through the position. What the journals hold up to there
// is dropped then, so nothing counts that last does not vouch for: manifests signed with its key are found by their signatures, with
// O(log n) requests; those before the rotation to that are read one after the other, each vouched for by the one after it. That
// needs no key of theirs, and whoever has one of those cannot make them up.
func (l *Log) contains(ctx context.Context, last signed, at position) (bool, error) {
	m, err := l.firstEnding(ctx, last, at.seq)
	if err != nil {
		return false, err
	}
	if m.FirstSeq >= at.seq {
		// Longer than the rest of a start may take.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), historyTimeout)
		defer cancel()
		l.opts.Logger.Info(fmt.Sprintf("the journals in %s end before manifest %d in %s; reading those before it, one by one, to see whether it has their entries", l.dir, m.N, l.bucket))
	}
	for m.FirstSeq >= at.seq && m.PreviousManifest != nil {
		n := m.N - 1
		m, err = l.vouchedFor(ctx, n, *m.PreviousManifest)
		if ctx.Err() != nil { // and not that the bucket is away, with which a start goes on
			return false, fmt.Errorf("within %s it came to manifest %d only", historyTimeout, n)
		}
		if err != nil {
			return false, err
		}
	}
	if m.NextSeq < at.seq || m.Segment == nil || m.FirstSeq >= at.seq {
		return false, nil
	}
	if m.NextSeq == at.seq {
		return *m.Head == at.entry, nil
	}
	found := false
	err = l.readSegment(ctx, m, func(e *chain.Entry, line []byte) error {
		if e.Seq == at.seq {
			found = e.Prev == at.entry
		}
		return nil
	})
	return found, err
}

// firstEnding returns the first of the manifests signed with last's key that ends at entry seq or behind it, or last.
func (l *Log) firstEnding(ctx context.Context, last signed, seq uint64) (*chain.Manifest, error) {
	read := func(n uint64) (*chain.Manifest, error) {
		data, _, err := l.oldest(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("reading manifest %d: %w", n, err)
		}
		m, _, err := chain.OpenManifest(data, last.key)
		if err == nil && (m.N != n || m.Chain != l.cfg.Chain) {
			err = fmt.Errorf("it is manifest %d of chain %q", m.N, m.Chain)
		}
		if err != nil {
			return nil, fmt.Errorf("manifest %d in %s, which was to be signed with the key of manifest %d, %s: %w", n, l.bucket, last.N, last.key.Fingerprint(), err)
		}
		return m, nil
	}
	first := l.committed.NextN // manifests before it end before seq
	if last.KeySince > 0 {
		first = max(first, last.KeySince+1)
	}
	first = min(first, last.N)
	var failed error
	n := first + uint64(sort.Search(int(last.N-first), func(i int) bool {
		if failed != nil {
			return true
		}
		m, err := read(first + uint64(i))
		if errors.Is(err, storage.ErrNotFound) {
			return false // past its retention, as all before it
		}
		if err != nil {
			failed = err
			return true
		}
		return m.NextSeq >= seq
	}))
	if failed != nil {
		return nil, failed
	}
	return read(n)
}

// readSegment reads a segment from the bucket and checks all of it.
func (l *Log) readSegment(ctx context.Context, m *chain.Manifest, visit func(e *chain.Entry, line []byte) error) error {
	r, _, err := l.bucket.Open(ctx, l.layout.Root()+m.Segment.Key, m.Segment.VersionID, 0, -1)
	if err != nil {
		return err
	}
	defer r.Close()
	return chain.VerifySegment(m, r, visit)
}

// reconcile compares what the store directory knows with the bucket, when the log is opened.
func (l *Log) reconcile(ctx context.Context) error {
	behind, err := l.compare(ctx)
	if away(err) {
		l.goOn(err)
		return nil
	}
	if err != nil {
		return err
	}
	l.bucketChecked = true
	if behind {
		return l.catchUp(ctx, fmt.Sprintf("the store directory stands at manifest %d, the bucket further on", l.committed.NextN-1))
	}
	return nil
}

// away reports whether err says that the bucket does not talk to us, which may pass. A machine that starts in such an outage
// takes chunks as one that has been running does.
func away(err error) bool {
	return errors.Is(err, storage.ErrUnreachable) || errors.Is(err, storage.ErrDenied) || errors.Is(err, storage.ErrClockSkew)
}

// goOn says that the bucket is away, and that the log goes on with what it knows.
func (l *Log) goOn(err error) {
	l.opts.Logger.Error(fmt.Sprintf("%v; going on with what is in %s", err, l.dir))
}

// compare sees to it that the last manifest that the store directory knows is in the bucket. behind says that the bucket has a
// next one that is not the one that was signed here.
func (l *Log) compare(ctx context.Context) (behind bool, err error) {
	n := l.committed.NextN - 1
	data, _, err := l.oldest(ctx, n)
	if errors.Is(err, storage.ErrNotFound) {
		return false, fmt.Errorf("%s has no manifest %d of chain %s, though %s says that it was committed: is this the right bucket, endpoint and prefix?", l.bucket, n, l.cfg.Chain, l.dir)
	}
	if err != nil {
		return false, fmt.Errorf("reading manifest %d: %w", n, err)
	}
	payload, err := chain.BundlePayloadHash(data)
	if err != nil || payload != l.committed.PreviousManifest {
		return false, l.notOurs(n, data, nil)
	}
	next, _, err := l.oldest(ctx, n+1)
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading manifest %d: %w", n+1, err)
	}
	s, err := l.open(n+1, next)
	if err != nil {
		return false, l.notOurs(n+1, next, nil)
	}
	// Ours, committed just before a crash or an answer that was lost: finish will find it so.
	ours, err := disk.ReadFile(l.fs, l.signedPath(n+1), chain.MaxManifest)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if !samePayload(ours, s.payload) {
		return true, nil
	}
	// Whoever came after it was not here.
	_, _, err = l.oldest(ctx, n+2)
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading manifest %d: %w", n+2, err)
	}
	return true, nil
}

// checkBucket looks at the bucket anew after anything went wrong, or if it was out of reach when the log was opened.
func (l *Log) checkBucket(ctx context.Context) error {
	if l.bucketChecked {
		return nil
	}
	if err := l.bucket.Check(ctx); err != nil {
		return err
	}
	behind, err := l.compare(ctx)
	if err != nil {
		return err
	}
	if behind {
		return fmt.Errorf("%w: %s has a manifest %d that is not from here", ErrForked, l.bucket, l.committed.NextN)
	}
	if err := l.checkPromises(ctx); err != nil {
		return err
	}
	l.bucketChecked = true
	return nil
}
