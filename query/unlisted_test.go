package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

var errReset = errors.New("connection reset")

// faulty is a bucket that fails at some of its keys.
type faulty struct {
	*memory
	list, versions, open, read func(key string) error // may be nil
	junk                       int                    // so many objects are listed before the segments
}

func fail(f func(string) error, key string) error {
	if f == nil {
		return nil
	}
	return f(key)
}

// at fails at the given keys.
func at(keys ...string) func(string) error {
	return func(key string) error {
		for _, k := range keys {
			if k == key {
				return errReset
			}
		}
		return nil
	}
}

func (f *faulty) Versions(ctx context.Context, key string) ([]storage.Info, error) {
	if err := fail(f.versions, key); err != nil {
		return nil, err
	}
	return f.memory.Versions(ctx, key)
}

func (f *faulty) Open(ctx context.Context, key, id string, from, n int64) (io.ReadCloser, storage.Info, error) {
	if err := fail(f.open, key); err != nil {
		return nil, storage.Info{}, err
	}
	r, info, err := f.memory.Open(ctx, key, id, from, n)
	if broken := fail(f.read, key); broken != nil && err == nil {
		r = io.NopCloser(io.MultiReader(io.LimitReader(r, 50), iotest.ErrReader(broken)))
	}
	return r, info, err
}

func (f *faulty) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		for n := range f.junk {
			if strings.HasSuffix(prefix, "/segments/") && !yield(storage.Info{Key: fmt.Sprintf("%sdate=2000-01-01/%06d", prefix, n)}, nil) {
				return
			}
		}
		for info, err := range f.memory.List(ctx, prefix, after) {
			if err = cmp.Or(err, fail(f.list, info.Key)); !yield(info, err) || err != nil {
				return
			}
		}
	}
}

// four is a log of four segments, in manifests 1 to 4, and their keys from number 1 on.
func four(t *testing.T) (*builder, *faulty, []string) {
	b, keys := build(t, "audit.example.com/faulty"), []string{""}
	for range 4 {
		b.at = b.at.Add(time.Minute)
		keys = append(keys, b.segment(3))
	}
	f := &faulty{memory: b.m}
	b.Bucket = f
	return b, f, keys
}

// TestUnlisted: what cannot be asked for is not checked, and what lies beside it is told all the same.
func TestUnlisted(t *testing.T) {
	const stranger = "segments/date=2027-01-01/a"
	for _, test := range []struct {
		name   string
		fault  func(b *builder, f *faulty, keys []string)
		text   string // of the one finding that says it
		told   uint64 // manifests
		behind string // text of a finding about what lies behind
	}{
		{"segments from the first on", func(_ *builder, f *faulty, keys []string) { f.list = at(keys[1]) }, "the segments cannot be listed to their end", 5, ""},
		{"segments from the third on", func(b *builder, f *faulty, keys []string) {
			f.list = at(keys[3])
			b.m.objects[keys[4]][0].data[10] ^= 1
		}, "the segments cannot be listed to their end", 5, "the segment of entries 9 to 11 is not what was written"},
		{"what is left of the segments", func(b *builder, f *faulty, _ []string) {
			for _, name := range []string{stranger, stranger + "b", stranger + "c"} {
				b.m.put(b.Layout.Root()+name, "x", nil, now)
			}
			f.list = at(b.Layout.Root() + stranger + "c")
		}, "the segments cannot be listed to their end", 5, "no manifest names this object"},
		{"manifests from the third on", func(b *builder, f *faulty, keys []string) {
			f.list = at(b.Layout.Manifest(4))
			b.m.objects[keys[1]][0].data[10] ^= 1
		}, "what comes after manifest 2 cannot be listed", 3, "the segment of entries 0 to 2 is not what was written"}, // 3 is given out once 4 is there
		{"a manifest that cannot be read", func(b *builder, f *faulty, _ []string) { f.open = at(b.Layout.Manifest(2)) }, "manifest 2 cannot be read", 4, ""},
		{"a segment that cannot be opened", func(_ *builder, f *faulty, keys []string) { f.open = at(keys[2]) }, "entries 3 to 5 cannot be read", 5, ""},
		{"a segment that breaks off", func(_ *builder, f *faulty, keys []string) { f.read = at(keys[2]) }, "entries 3 to 5 cannot be read to their end", 5, ""},
	} {
		b, f, keys := four(t)
		test.fault(b, f, keys)
		r := verify(t, b.Log, VerifyOptions{Now: b.at})
		if texts := found(r, Unchecked, Unreadable); len(texts) != 1 || !strings.HasPrefix(texts[0], test.text) || !strings.Contains(texts[0], errReset.Error()) {
			t.Errorf("%s: %+v", test.name, r.Findings)
		}
		if r.Manifests != test.told || r.Proven != nil || r.Verdict == "intact" {
			t.Errorf("%s: %+v", test.name, r)
		}
		if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return strings.HasPrefix(f.Text, test.behind) }) {
			t.Errorf("%s: %+v", test.name, r.Findings)
		}
	}
	// Where not one manifest can be listed there is nothing to say.
	b, f, _ := four(t)
	since := verify(t, b.Log, VerifyOptions{Now: b.at}).Proven
	f.list = at(b.Layout.Manifest(0), b.Layout.Manifest(4))
	for _, since := range []*chain.Head{nil, since} {
		if r, err := b.Verify(t.Context(), VerifyOptions{Now: b.at, Since: since}); !errors.Is(err, errReset) {
			t.Errorf("%+v, %v", r, err)
		}
	}
}

// TestUnlistedEnd: of what was not listed nobody can say that the writer was silent, or that the end was cut off.
func TestUnlistedEnd(t *testing.T) {
	b, f, _ := four(t)
	late := VerifyOptions{Now: b.at.AddDate(0, 0, 2)}
	if r := verify(t, b.Log, late); len(found(r, Warning, Silence)) != 1 {
		t.Errorf("%+v", r.Findings)
	}
	f.list = at(b.Layout.Manifest(4))
	if r := verify(t, b.Log, late); len(r.Findings) != 1 {
		t.Errorf("%+v", r.Findings)
	}
	if severity, _, text := expect(t, b.Log, late, b.kept(t)); severity != Unchecked {
		t.Errorf("%s: %s", severity, text)
	}
}

// TestUnlistedInterrupted: a listing that failed before the interruption is told; one that the interruption ended is no fault, and what
// was proven before can be gone on from.
func TestUnlistedInterrupted(t *testing.T) {
	for name, test := range map[string]struct {
		failAt, cancelAt int // segments; from 5 on they are strangers
		findings         int
		proven           uint64 // manifests at the most
	}{"failed before": {2, 3, 1, 0}, "ended by it": {0, 3, 0, 1}, "ended by it while the rest is listed": {0, 7, 0, 5}} {
		b, f, keys := four(t)
		for _, name := range []string{"a", "b", "c"} {
			keys = append(keys, b.Layout.Segments()+"date=2027-01-01/"+name)
			b.m.put(keys[len(keys)-1], "x", nil, now)
		}
		ctx, cancel := context.WithCancel(t.Context())
		f.list = func(key string) error {
			if key == keys[test.cancelAt] {
				cancel()
			}
			if key == keys[test.failAt] {
				return errReset
			}
			return ctx.Err()
		}
		if test.failAt > 0 { // nothing is listed any more
			b.m.before = func(key string) {
				if key == keys[test.cancelAt] {
					cancel()
				}
			}
		}
		r, err := b.Verify(ctx, VerifyOptions{Now: b.at})
		if err != nil || !r.Interrupted || r.Verdict != "unchecked" || (r.Proven == nil) != (test.findings > 0) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if len(found(r, Unchecked, Unreadable)) != test.findings {
			t.Errorf("%s: %+v", name, r.Findings)
		}
		if r.Proven != nil && r.Proven.NextN != test.proven {
			t.Errorf("%s: %d manifests are proven, want %d", name, r.Proven.NextN, test.proven)
		}
	}
}

// TestUnlistedSince: a segment whose key comes long before the kept head's is asked for by itself.
func TestUnlistedSince(t *testing.T) {
	b := build(t, "audit.example.com/back")
	b.at = b.at.AddDate(0, 1, 0)
	b.segment(3)
	since := verify(t, b.Log, VerifyOptions{Now: b.at}).Proven
	b.at = b.at.AddDate(0, 0, -20)
	key := b.segment(3)
	for _, fault := range []func(string) error{nil, at(key)} {
		b.Bucket = &faulty{memory: b.m, versions: fault}
		r := verify(t, b.Log, VerifyOptions{Now: since.SealedAt, Since: since})
		if fault == nil && (r.Verdict != "intact" || r.Proven == nil || r.Proven.NextN != 3) {
			t.Errorf("%+v", r)
		}
		if fault != nil && (r.Proven != nil || !says(found(r, Unchecked, Unreadable), "what lies over the segment of entries 3 to 5 cannot be listed: connection reset")) {
			t.Errorf("%+v", r)
		}
	}
}

// TestManyObjects: where more lies among the segments than is held, one that comes late is asked for by itself.
func TestManyObjects(t *testing.T) {
	b := build(t, "audit.example.com/many")
	b.at = b.at.AddDate(0, 0, 3)
	b.segment(3)
	b.at = b.at.AddDate(0, 0, -2)
	key := b.segment(3)
	b.m.put(key, "x", []byte("forged"), now)
	b.Bucket = &faulty{memory: b.m, junk: maxPassed}
	r := verify(t, b.Log, VerifyOptions{Now: b.at.AddDate(0, 0, 2)})
	if len(found(r, Tampered, OverlaidVersion)) != 1 || r.Omitted[Uncommitted] != maxPassed-maxNotices {
		t.Errorf("%d findings, omitted %v: %+v", len(r.Findings), r.Omitted, r.Findings[0])
	}
	o := newObjects(b.list(t.Context(), b.Layout.Segments(), ""))
	defer o.stop()
	if _, ok := o.take("~"); ok || len(o.passed) != maxPassed || !o.dropped {
		t.Errorf("%d are held", len(o.passed))
	}
}

// TestManyVersions: whoever may write can lay any number of versions over an object.
func TestManyVersions(t *testing.T) {
	b, _, keys := four(t)
	for n := range maxVersions + 4 {
		id := fmt.Sprint(n)
		b.m.put(keys[2], id, nil, now)
		b.m.put(b.Layout.Manifest(2), id, nil, now)
	}
	b.m.opened.Store(0)
	r := verify(t, b.Log, VerifyOptions{Now: b.at})
	texts := found(r, Tampered, OverlaidVersion)
	if len(texts) != 2*maxVersions || !says(texts, "5 more versions and delete markers were laid over manifest 2") ||
		!says(texts, "5 more versions and delete markers were laid over the segment of entries 3 to 5") {
		t.Errorf("%d findings: %q", len(texts), texts[len(texts)-1])
	}
	if n := b.m.opened.Load(); n != 5+4+maxOverlaid {
		t.Errorf("%d objects were read", n)
	}
	if r.Segments != 4 || r.Manifests != 5 {
		t.Errorf("%+v", r)
	}
}
