package chain

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Version is the version of the format that this package reads and writes.
const Version = 1

// MediaTypes of the stored objects.
const (
	SegmentMediaType  = "application/zstd"
	ManifestMediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
)

var chainName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]*[a-z0-9])?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)*$`)

// CheckName reports why name cannot be a chain's name. A name is a path of lower-case letters, digits, ".", "_" and "-",
// like audit.example.com/prod-eu1, of at most 200 bytes, of which none is "manifests" or "segments": it stands in object keys and is the checkpoint's origin.
func CheckName(name string) error {
	for element := range strings.SplitSeq(name, "/") {
		if element == "manifests" || element == "segments" {
			return fmt.Errorf("chain name %q has an element %q, where another chain's objects would lie", name, element)
		}
	}
	if len(name) > 200 || !chainName.MatchString(name) || strings.Contains(name, "..") {
		return fmt.Errorf("chain name %q is not like audit.example.com/prod-eu1: lower-case letters, digits, '.', '_', '-' and '/', at most 200", name)
	}
	return nil
}

// Layout names the objects of one chain in a bucket.
type Layout struct {
	Prefix string // of the bucket's keys; "" or a path without slashes at its ends
	Chain  string
}

// Root is what all keys of the chain begin with; it ends with a slash.
func (l Layout) Root() string {
	if l.Prefix == "" {
		return l.Chain + "/"
	}
	return l.Prefix + "/" + l.Chain + "/"
}

// Manifests is what the keys of all manifests begin with.
func (l Layout) Manifests() string { return l.Root() + "manifests/" }

// Segments is what the keys of all segments begin with.
func (l Layout) Segments() string { return l.Root() + "segments/" }

// Manifest is the key of manifest n.
func (l Layout) Manifest(n uint64) string {
	return fmt.Sprintf("%s%012d.sigstore.json", l.Manifests(), n)
}

// Segment is the key of the segment of manifest n, sealed at the given time.
func (l Layout) Segment(n uint64, sealed time.Time) string { return l.Root() + SegmentName(n, sealed) }

// SegmentName is a segment's name below the chain's root, as its manifest's first subject says it.
func SegmentName(n uint64, sealed time.Time) string {
	return fmt.Sprintf("segments/date=%s/%012d.ndjson.zst", sealed.UTC().Format(time.DateOnly), n)
}

// SegmentNameBeside is the segment's name where other bytes lie at [SegmentName] already. The mark is 16 hex digits.
func SegmentNameBeside(n uint64, sealed time.Time, mark string) string {
	return strings.TrimSuffix(SegmentName(n, sealed), ".ndjson.zst") + "-" + mark + ".ndjson.zst"
}

// ParseManifestKey returns the number of the manifest at key, and whether the key is one of a manifest.
func (l Layout) ParseManifestKey(key string) (uint64, bool) {
	rest, ok := strings.CutPrefix(key, l.Manifests())
	digits, isManifest := strings.CutSuffix(rest, ".sigstore.json")
	if !ok || !isManifest {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil && l.Manifest(n) == key
}

var segmentName = regexp.MustCompile(`^date=\d{4}-\d\d-\d\d/(\d{12,20})(-[0-9a-f]{16})?\.ndjson\.zst$`)

// ParseSegmentKey returns the number of the manifest whose segment lies at key, and whether the key is one of a segment.
func (l Layout) ParseSegmentKey(key string) (uint64, bool) {
	rest, ok := strings.CutPrefix(key, l.Segments())
	match := segmentName.FindStringSubmatch(rest)
	if !ok || match == nil {
		return 0, false
	}
	n, err := strconv.ParseUint(match[1], 10, 64)
	return n, err == nil
}
