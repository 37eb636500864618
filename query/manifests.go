package query

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// walk checks the manifests from the first to the last, and has the segments of those whose signature is good read. It returns an
// error only if there is nothing to report.
func (v *verification) walk(ctx context.Context, pool *segmentPool, segments *objects) error {
	first := uint64(0)
	if v.Since != nil {
		first = v.Since.NextN - 1 // that one has to be there still
	}
	next := first
	stranger := func(s stored) {
		v.found.add(Finding{Severity: Notice, Code: Stranger, Object: s.key, Text: "an object that is no manifest lies among the manifests"})
	}
	for m, err := range v.manifests(ctx, first, stranger) {
		if err != nil && ctx.Err() != nil {
			break
		}
		if err != nil {
			if v.all == 0 {
				return err
			}
			v.lost()
			v.cut = true
			v.found.add(Finding{Severity: Unchecked, Code: Unreadable, Manifest: next, Text: fmt.Sprintf("what comes after manifest %d cannot be listed: %v", next-1, err)})
			break
		}
		v.all++
		if m.n != next {
			v.gap(next, m)
		}
		next = m.n + 1
		if v.Since != nil && m.n == first {
			v.anchor(ctx, m)
			continue
		}
		parsed := v.check(ctx, m)
		if parsed == nil {
			continue
		}
		v.good++
		v.checkTimes(m, parsed)
		v.report.LastSealed, v.last = parsed.SealedAt.Time, m.n
		mark := v.frontier.add(&v.head)
		if parsed.Segment == nil {
			v.frontier.reach(mark, true)
			continue
		}
		v.lookOver(ctx, segments, parsed)
		v.submit(ctx, pool, parsed, mark)
	}
	switch {
	case ctx.Err() != nil:
		return nil
	case v.all == 0 && v.Since == nil:
		return fmt.Errorf("%w: %q in %s", ErrNoChain, v.Layout.Chain, v.Bucket)
	}
	if v.Since != nil && next == first {
		v.rolledBack(first)
	}
	if v.foreign != nil {
		v.otherKey()
	}
	if v.head.NextN > 0 && v.head.CheckpointKey == "" {
		v.notChecked("signatures of the checkpoints: the genesis, which names their key, is not there, or not genuine")
	}
	if v.policy == nil {
		v.notChecked("what the chain promised when it began, and whether the writer was ever silent: the genesis is not there, or not genuine")
	}
	if v.known && v.head.NextN > 0 {
		entry, root := v.head.Entry, v.head.Tree.Root()
		v.report.Head, v.report.Root, v.report.TreeSize, v.report.Checkpoint = &entry, &root, v.head.NextSeq, v.head.Checkpoint
	}
	if !v.cut {
		v.checkSilence()
	}
	return nil
}

// lost says that nobody knows where the chain stands: from here on it is proven with a gap, if at all.
func (v *verification) lost() {
	v.known = false
	v.frontier.close()
}

// lookOver looks at what is stored beside the version of a segment that its manifest names.
func (v *verification) lookOver(ctx context.Context, segments *objects, m *chain.Manifest) {
	key := v.Layout.Root() + m.Segment.Key
	s, listed := segments.take(key)
	if segments.err != nil && ctx.Err() == nil {
		v.unlisted(segments)
	}
	if key <= v.listedFrom || !listed && segments.dropped { // the clock was set back far
		versions, err := v.Bucket.Versions(ctx, key)
		if err != nil && ctx.Err() == nil {
			f := segmentFinding(key, m)
			f.Severity, f.Code, f.Text = Unchecked, Unreadable, fmt.Sprintf("what lies over the segment of entries %d to %d cannot be listed: %v", m.FirstSeq, m.NextSeq-1, err)
			v.found.add(f)
			v.frontier.close()
		}
		s, listed = stored{key: key, versions: versions}, err == nil
	}
	if listed && v.Bucket.Locks() {
		what := fmt.Sprintf("the segment of entries %d to %d", m.FirstSeq, m.NextSeq-1)
		v.overlaid(ctx, s, m.Segment.VersionID, segmentFinding(key, m), what, m.Lock.RetainUntil.Time)
	}
}

// unlisted reports, once, that the listing of segments came to an end too early.
func (v *verification) unlisted(segments *objects) {
	v.found.add(Finding{Severity: Unchecked, Code: Unreadable, Object: v.Layout.Segments(), Manifest: v.last,
		Text: fmt.Sprintf("the segments cannot be listed to their end, so that what lies over them is not known: %v", segments.err)})
	v.frontier.close()
	segments.err = nil
}

// gap reports manifests that are not there, before m. What is no manifest of this chain, not even by its own word, shows no gap: whoever
// may write can put it anywhere.
func (v *verification) gap(next uint64, m *manifest) {
	v.lost()
	claims, err := chain.PeekManifest(m.data)
	if errors.Is(m.err, errTooLong) || m.err == nil && (err != nil || claims.N != m.n || claims.Chain != v.Layout.Chain) {
		return
	}
	f := Finding{Severity: Tampered, Code: ManifestMissing, Manifest: next, Object: v.Layout.Manifest(next), Text: notThere(next, m.n-1)}
	if next == 0 {
		f.Text += ": the chain cannot be followed from its beginning"
		// No manifest's lock ends before that of the manifest before it.
		if parsed, _, err := chain.OpenManifest(m.data, v.Key); err == nil && parsed.Lock.RetainUntil.Before(v.Now) {
			f.Severity, f.Code = Notice, Expired
			f.Text += fmt.Sprintf("; their retention ended on %s or before", parsed.Lock.RetainUntil.Format(time.RFC3339))
			v.notChecked(fmt.Sprintf("what lies before manifest %d", m.n))
		}
	}
	v.found.add(f)
}

// notThere says which manifests are missing.
func notThere(first, last uint64) string {
	if first == last {
		return fmt.Sprintf("manifest %d is not there", first)
	}
	return fmt.Sprintf("manifests %d to %d are not there", first, last)
}

// anchor compares the manifest that a kept head is of with the one that is there.
func (v *verification) anchor(ctx context.Context, m *manifest) {
	v.overlaidManifest(ctx, m, nil)
	payload, err := chain.BundlePayloadHash(m.data)
	switch {
	case m.err != nil:
		v.unreadable(m)
	case err != nil || payload != v.Since.PreviousManifest:
		v.lost()
		v.found.add(Finding{Severity: Tampered, Code: HeadNotFound, Object: m.stored.key, Version: m.info.Version, Manifest: m.n,
			Text: fmt.Sprintf("manifest %d is not the one that the kept head is of", m.n)})
	default:
		v.good++
		v.report.LastSealed, v.last = v.Since.SealedAt, m.n
		v.meet(&v.head, m.n)
	}
}

func (v *verification) rolledBack(n uint64) {
	v.lost()
	v.found.add(Finding{Severity: Tampered, Code: RolledBack, Object: v.Layout.Manifest(n), Manifest: n,
		Text: fmt.Sprintf("manifest %d, of which a head was kept, is not there, and nothing after it", n)})
}

// unreadable reports a manifest that could not be read.
func (v *verification) unreadable(m *manifest) {
	v.lost()
	f := Finding{Severity: Unchecked, Code: Unreadable, Object: m.stored.key, Version: m.info.Version, Manifest: m.n,
		Text: fmt.Sprintf("manifest %d cannot be read: %v", m.n, m.err)}
	switch {
	case errors.Is(m.err, storage.ErrNotFound):
		f.Severity, f.Code, f.Text = Tampered, ManifestMissing, fmt.Sprintf("manifest %d is not there any more; only delete markers are", m.n)
	case errors.Is(m.err, errTooLong):
		f.Severity, f.Code, f.Text = Tampered, ManifestForged, fmt.Sprintf("manifest %d is not what the holder of the key wrote: %v", m.n, m.err)
	}
	v.found.add(f)
}

// check checks one manifest, and returns it if its signature is good and it is of this chain and place.
func (v *verification) check(ctx context.Context, m *manifest) *chain.Manifest {
	f := Finding{Severity: Tampered, Object: m.stored.key, Version: m.info.Version, Manifest: m.n}
	if m.err != nil {
		if ctx.Err() == nil {
			v.overlaidManifest(ctx, m, nil)
			v.unreadable(m)
		}
		return nil
	}
	key := v.head.Key
	parsed, payload, err := chain.OpenManifest(m.data, key)
	v.overlaidManifest(ctx, m, parsed)
	if err != nil {
		f.Code, f.Text = ManifestForged, forgedText(m.n, err)
		if errors.Is(err, chain.ErrSignature) {
			f.Text += v.whoseKey(m.data)
			v.noteForeign(m)
		}
		v.found.add(f)
		v.lost()
		return nil
	}
	f.entriesOf(parsed)
	if parsed.N != m.n || parsed.Chain != v.Layout.Chain {
		f.Code, f.Text = ManifestMisplaced, fmt.Sprintf("in the place of manifest %d lies number %d of chain %q", m.n, parsed.N, parsed.Chain)
		v.found.add(f)
		v.lost()
		return nil
	}
	v.report.Manifests++
	if v.known {
		err := v.head.Advance(parsed, payload)
		if err == nil {
			v.advanced(m, parsed, key)
			return parsed
		}
		v.frontier.close()
		f.Code, f.Text = ChainBroken, err.Error()
		if errors.Is(err, chain.ErrOtherKey) {
			f.Code = OtherKey
		}
		v.found.add(f)
	}
	// Pick the thread up again after what is missing, so that the rest is checked at least against itself.
	before := v.head
	head, err := chain.HeadOf(parsed, payload, key)
	if err != nil {
		f.Code, f.Text = ChainBroken, err.Error()
		v.found.add(f)
		return nil
	}
	if v.head = head; head.CheckpointKey == "" && head.KeySince == before.KeySince {
		v.head.CheckpointKey = before.CheckpointKey
	}
	v.known = true
	v.gaps = parsed.FirstSeq + 1
	v.advanced(m, parsed, key)
	return parsed
}

func forgedText(n uint64, err error) string {
	return fmt.Sprintf("manifest %d is not what the holder of the key wrote: %v", n, err)
}

// advanced takes in what a manifest that counts says besides where the chain stands.
func (v *verification) advanced(m *manifest, parsed *chain.Manifest, key chain.PublicKey) {
	v.checkLock(Finding{Object: m.stored.key, Version: m.info.Version, Manifest: m.n}, m.info, parsed, fmt.Sprintf("manifest %d", m.n))
	if parsed.Genesis != nil {
		v.setPolicy(parsed)
	}
	if parsed.Rotation != nil {
		v.before = key
		v.report.Rotations = append(v.report.Rotations, KeyChange{m.n, v.head.Key.Fingerprint(), parsed.SealedAt.Time})
	}
	v.checkPolicy(m, parsed)
	v.meet(&v.head, m.n)
}

// whoseKey says what is known of the key of a manifest that is not signed with the chain's.
func (v *verification) whoseKey(data []byte) string {
	if v.head.KeySince == 0 {
		return ""
	}
	if _, _, err := chain.OpenManifest(data, v.before); err == nil {
		return fmt.Sprintf(": it is signed with a key that manifest %d replaced", v.head.KeySince)
	}
	return ": its key was never announced"
}

// noteForeign notes whether the genesis is whole, but of another key than the one that is trusted.
func (v *verification) noteForeign(m *manifest) {
	if v.good > 0 || m.n != 0 && v.foreign == nil {
		return
	}
	if v.foreign != nil { // and so are those that follow it
		v.foreignUpTo = m.n
		return
	}
	claims, err := chain.PeekManifest(m.data)
	if err != nil || claims.Genesis == nil {
		return
	}
	key, err := chain.ParsePublicKey([]byte(claims.Genesis.ManifestKey))
	if err != nil {
		return
	}
	if _, _, err := chain.OpenManifest(m.data, key); err == nil {
		v.foreign, v.foreignUpTo = &key, 0
	}
}

// otherKey puts one finding in the place of those of the manifests that are not signed with the trusted key, from the genesis on.
func (v *verification) otherKey() {
	text := fmt.Sprintf("the genesis names the key %s, trusted is %s; manifests 0 to %d are not signed with that", v.foreign.Fingerprint(), v.Key.Fingerprint(), v.foreignUpTo)
	v.found.replace(func(f Finding) bool { return f.Code == ManifestForged && f.Manifest <= v.foreignUpTo },
		Finding{Severity: Tampered, Code: OtherKey, Object: v.Layout.Manifest(0), Text: text})
}
