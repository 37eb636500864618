package query

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// walk checks the manifests from the first to the last, and has the segments of those whose signature is good read.
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
		if err != nil {
			return err
		}
		if v.all++; v.all == 1 {
			v.first = m.data
		}
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
		v.report.LastSealed = parsed.SealedAt.Time
		mark := v.frontier.add(&v.head)
		if !v.known {
			v.frontier.close()
		}
		if parsed.Segment == nil {
			v.frontier.reach(mark, true)
			continue
		}
		key := v.Layout.Root() + parsed.Segment.Key
		s, ok := segments.take(key)
		if key <= v.listedFrom { // the clock was set back far
			versions, err := v.Bucket.Versions(ctx, key)
			s, ok = stored{key, versions}, err == nil
		}
		if ok && v.Bucket.Locks() {
			what := fmt.Sprintf("the segment of entries %d to %d", parsed.FirstSeq, parsed.NextSeq-1)
			v.overlaid(ctx, s, parsed.Segment.VersionID, segmentFinding(key, parsed), what, parsed.Lock.RetainUntil.Time)
		}
		v.submit(ctx, pool, parsed, mark)
	}
	if ctx.Err() != nil || v.all == 0 && v.Since == nil {
		return nil
	}
	if v.Since != nil && next == first {
		v.rolledBack(first)
		v.all++ // there is a chain, as far as anybody can tell
	}
	if v.good == 0 && v.other == v.all {
		v.otherKey()
	}
	if v.head.NextN > 0 && v.head.CheckpointKey == "" {
		v.report.NotChecked = append(v.report.NotChecked, "signatures of the checkpoints: the genesis, which names their key, is not there")
	}
	if v.known && v.head.NextN > 0 {
		entry, root := v.head.Entry, v.head.Tree.Root()
		v.report.Head, v.report.Root, v.report.TreeSize, v.report.Checkpoint = &entry, &root, v.head.NextSeq, v.head.Checkpoint
	}
	v.checkSilence()
	v.checkExpected()
	return nil
}

// gap reports manifests that are not there, before m.
func (v *verification) gap(next uint64, m *manifest) {
	v.known = false
	v.frontier.close()
	f := Finding{Severity: Tampered, Code: ManifestMissing, Manifest: next, Object: v.Layout.Manifest(next)}
	if m.n == next+1 {
		f.Text = fmt.Sprintf("manifest %d is not there", next)
	} else {
		f.Text = fmt.Sprintf("manifests %d to %d are not there", next, m.n-1)
	}
	if next == 0 {
		f.Text += ": the chain cannot be followed from its beginning"
		// No manifest's lock ends before that of the manifest before it.
		if parsed, _, err := chain.OpenManifest(m.data, v.Key); err == nil && parsed.N == m.n && parsed.Chain == v.Layout.Chain && parsed.Lock.RetainUntil.Before(v.Now) {
			f.Severity, f.Code = Notice, Expired
			f.Text += fmt.Sprintf("; their retention ended on %s or before", parsed.Lock.RetainUntil.Format(time.RFC3339))
			v.report.NotChecked = append(v.report.NotChecked, fmt.Sprintf("what lies before manifest %d", m.n))
		}
	}
	v.found.add(f)
}

// anchor compares the manifest that a kept head is of with the one that is there.
func (v *verification) anchor(ctx context.Context, m *manifest) {
	v.overlaidManifest(ctx, m, nil)
	payload, err := chain.BundlePayloadHash(m.data)
	switch {
	case m.err != nil:
		v.unreadable(m)
	case err != nil || payload != v.Since.PreviousManifest:
		v.known = false
		v.frontier.close()
		v.found.add(Finding{Severity: Tampered, Code: HeadNotFound, Object: m.stored.key, Version: m.info.Version, Manifest: m.n,
			Text: fmt.Sprintf("manifest %d is not the one that the kept head is of", m.n)})
	default:
		v.good++
		v.report.LastSealed = v.Since.SealedAt
		v.meet(&v.head, m.n)
	}
}

func (v *verification) rolledBack(n uint64) {
	v.known = false
	v.frontier.close()
	v.found.add(Finding{Severity: Tampered, Code: RolledBack, Object: v.Layout.Manifest(n), Manifest: n,
		Text: fmt.Sprintf("manifest %d, of which a head was kept, is not there, and nothing after it", n)})
}

// unreadable reports a manifest that could not be read.
func (v *verification) unreadable(m *manifest) {
	v.known = false
	v.frontier.close()
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
		f.Code, f.Text = ManifestForged, fmt.Sprintf("manifest %d is not what the holder of the key wrote: %v", m.n, err)
		if errors.Is(err, chain.ErrSignature) {
			v.other++
			f.Text += v.whoseKey(m.data)
		}
		v.found.add(f)
		v.known = false
		v.frontier.close()
		return nil
	}
	if parsed.Segment != nil {
		first, last := parsed.FirstSeq, parsed.NextSeq-1
		f.FirstSeq, f.LastSeq = &first, &last
	}
	if parsed.N != m.n || parsed.Chain != v.Layout.Chain {
		f.Code, f.Text = ManifestMisplaced, fmt.Sprintf("in the place of manifest %d lies number %d of chain %q", m.n, parsed.N, parsed.Chain)
		v.found.add(f)
		v.known = false
		v.frontier.close()
		return nil
	}
	v.report.Manifests++
	if v.known {
		err := v.head.Advance(parsed, payload)
		if err == nil {
			v.advanced(m, parsed, key)
			return parsed
		}
		f.Code, f.Text = ChainBroken, err.Error()
		if errors.Is(err, chain.ErrOtherKey) {
			f.Code = OtherKey
		}
		v.found.add(f)
		v.frontier.close()
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
	v.advanced(m, parsed, key)
	return parsed
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

// otherKey puts one finding in the place of those of all manifests, of which none is signed by the trusted key.
func (v *verification) otherKey() {
	text := fmt.Sprintf("none of the %d manifests is signed with the trusted key", v.all)
	if m, err := chain.PeekManifest(v.first); err == nil && m.Genesis != nil {
		if named, err := chain.ParsePublicKey([]byte(m.Genesis.ManifestKey)); err == nil {
			text += fmt.Sprintf("; the genesis names the key %s", named.Fingerprint())
		}
	}
	v.found.replace(ManifestForged, Finding{Severity: Tampered, Code: OtherKey, Object: v.Layout.Manifest(0), Text: text})
}

// overlaidManifest reports what lies over the version of a manifest that counts. Another manifest there that is signed with the
// chain's key is a second history.
func (v *verification) overlaidManifest(ctx context.Context, m *manifest, parsed *chain.Manifest) {
	f := Finding{Object: m.stored.key, Manifest: m.n}
	if parsed != nil && parsed.Segment != nil {
		first, last := parsed.FirstSeq, parsed.NextSeq-1
		f.FirstSeq, f.LastSeq = &first, &last
	}
	v.overlaid(ctx, m.stored, m.info.Version, f, fmt.Sprintf("manifest %d", m.n), time.Time{})
}

// maxOverlaid is how many versions of one manifest are looked into.
const maxOverlaid = 4

// overlaid reports what lies over the version of an object that counts. f and what say which object it is. After until, if that is
// not zero, it may be deleted, which leaves a delete marker.
func (v *verification) overlaid(ctx context.Context, s stored, counts storage.Version, f Finding, what string, until time.Time) {
	read := 0
	for _, version := range s.versions {
		if !version.DeleteMarker && version.Version == counts {
			continue
		}
		f.Severity, f.Version = Tampered, version.Version
		when := version.LastModified.UTC().Format(time.RFC3339)
		if version.DeleteMarker {
			f.Code, f.Text = DeleteMarker, fmt.Sprintf("a delete marker was laid over %s on %s", what, when)
			if !until.IsZero() && version.LastModified.After(until) && until.Before(v.Now) {
				f.Severity, f.Code, f.Text = Notice, Expired, fmt.Sprintf("%s was deleted on %s; its retention ended on %s", what, when, until.Format(time.RFC3339))
			}
			v.found.add(f)
			continue
		}
		f.Code, f.Text = OverlaidVersion, fmt.Sprintf("another version of %d bytes was laid over %s on %s", version.Size, what, when)
		if _, isManifest := v.Layout.ParseManifestKey(s.key); isManifest && read < maxOverlaid {
			read++
			if data, _, err := v.read(ctx, s.key, version.Version, chain.MaxManifest); err == nil {
				if m, _, err := chain.OpenManifest(data, v.head.Key); err == nil && m.Chain == v.Layout.Chain && m.N == f.Manifest {
					switch v.compareManifest(ctx, s.key, counts, data) {
					case anotherManifest:
						f.Code, f.Text = Forked, fmt.Sprintf("another manifest %d, signed with the chain's key, was laid over it on %s", m.N, when)
					case noManifest:
						f.Text += "; that one is signed with the chain's key"
					}
				}
			}
		}
		v.found.add(f)
	}
}

// What the version of a manifest that counts is, beside another version of it that is signed with the chain's key.
const (
	sameManifest    = iota // or it cannot be told
	anotherManifest        // signed with the chain's key, too
	noManifest             // not signed with it
)

// compareManifest compares the version that counts with data.
func (v *verification) compareManifest(ctx context.Context, key, version string, data []byte) int {
	ours, _, err := v.read(ctx, key, version, chain.MaxManifest)
	if errors.Is(err, errTooLong) {
		return noManifest
	}
	if err != nil || bytes.Equal(ours, data) {
		return sameManifest
	}
	_, a, err := chain.OpenManifest(ours, v.head.Key)
	if err != nil {
		return noManifest
	}
	if b, err := chain.BundlePayloadHash(data); err != nil || a == b {
		return sameManifest
	}
	return anotherManifest
}

// beforeSince reports whether a segment's key is of a manifest before the kept head.
func (v *verification) beforeSince(key string) bool {
	digits, _, _ := strings.Cut(strings.TrimSuffix(path.Base(key), ".ndjson.zst"), "-")
	n, err := strconv.ParseUint(digits, 10, 64)
	return err == nil && n < v.Since.NextN
}
