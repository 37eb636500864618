package query

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// overlaidManifest reports what lies over the version of a manifest that counts. Another manifest there that is signed with the
// chain's key is a second history.
func (v *verification) overlaidManifest(ctx context.Context, m *manifest, parsed *chain.Manifest) {
	f := Finding{Object: m.stored.key, Manifest: m.n}
	f.entriesOf(parsed)
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
	if s.more > 0 {
		f.Severity, f.Code, f.Version = Tampered, OverlaidVersion, ""
		f.Text = fmt.Sprintf("%d more versions and delete markers were laid over %s", s.more, what)
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
