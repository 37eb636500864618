package storagetest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/auditchain/auditchain/storage"
)

func (s *suite) lock() {
	until := time.Now().Add(retention)
	for _, mode := range []string{storage.Compliance, storage.Governance, ""} {
		key := s.prefix + "mode " + mode
		opts := Options([]byte("x"))
		opts.LockMode, opts.RetainUntil = mode, until
		version, err := s.Bucket.Create(s.ctx, key, strings.NewReader("x"), opts)
		if err != nil {
			s.Fatal(err)
		}
		want := storage.Info{LockMode: mode, RetainUntil: until.Truncate(time.Second)}
		if mode == "" || !s.Bucket.Locks() {
			want = storage.Info{}
		}
		info, err := s.Bucket.Stat(s.ctx, key, version)
		if err != nil || info.LockMode != want.LockMode || !info.RetainUntil.Equal(want.RetainUntil) {
			s.Errorf("stat: %+v, %v, want %+v", info, err, want)
		}
		if s.DeleteVersion == nil || mode == storage.Governance {
			continue
		}
		err = s.DeleteVersion(s.ctx, key, version)
		if _, gone := s.Bucket.Stat(s.ctx, key, version); (err == nil) != (mode == "") || (gone != nil) != (mode == "") {
			s.Errorf("deleting the version in mode %q: %v; then stat: %v", mode, err, gone)
		}
	}
}

// lockLater: an object that lies there without a lock can be locked, and locked for longer, never for shorter.
func (s *suite) lockLater() {
	key := s.prefix + "later"
	opts := Options([]byte("x"))
	opts.LockMode = ""
	version, err := s.Bucket.Create(s.ctx, key, strings.NewReader("x"), opts)
	if err != nil {
		s.Fatal(err)
	}
	if s.Overwrite != nil && s.Bucket.Locks() { // it is the version that is locked, not the key
		if err := s.Overwrite(s.ctx, key, []byte("y")); err != nil {
			s.Fatal(err)
		}
	}
	until := time.Now().Add(retention)
	for _, c := range []struct {
		until time.Time
		want  time.Time
	}{{until, until}, {until.Add(time.Hour), until.Add(time.Hour)}, {until, until.Add(time.Hour)}} {
		err := s.Bucket.Lock(s.ctx, key, version, storage.Compliance, c.until)
		if s.Bucket.Locks() && (err == nil) != c.until.Equal(c.want) || !s.Bucket.Locks() && err != nil {
			s.Errorf("locking until %s: %v", c.until, err)
		}
		want := storage.Info{LockMode: storage.Compliance, RetainUntil: c.want.Truncate(time.Second)}
		if !s.Bucket.Locks() {
			want = storage.Info{}
		}
		info, err := s.Bucket.Stat(s.ctx, key, version)
		if err != nil || info.LockMode != want.LockMode || !info.RetainUntil.Equal(want.RetainUntil) {
			s.Errorf("stat: %+v, %v, want %+v", info, err, want)
		}
	}
	s.wantError("locking what is not there", s.Bucket.Lock(s.ctx, s.prefix+"missing", "", storage.Compliance, until), storage.ErrNotFound)
}

// many objects are more than a page of a bucket that lists a few at a time.
const many = 21

// wantLocked: a version tells its lock also when it is not the current one.
func (s *suite) wantLocked(key string, version storage.Version) {
	s.Helper()
	info, err := s.Bucket.Stat(s.ctx, key, version)
	if err != nil || info.LockMode != storage.Compliance || (time.Until(info.RetainUntil)-retention).Abs() > time.Minute {
		s.Errorf("stat of a version that is not current: %+v, %v", info, err)
	}
}

// fill creates an empty object at each key, some at a time.
func (s *suite) fill(keys []string) {
	var wg sync.WaitGroup
	next := make(chan string)
	for range 8 {
		wg.Go(func() {
			for key := range next {
				if _, err := s.Bucket.Create(s.ctx, s.prefix+key, bytes.NewReader(nil), Options(nil)); err != nil {
					s.Errorf("creating %s: %v", key, err)
				}
			}
		})
	}
	for _, key := range keys {
		next <- key
	}
	close(next)
	wg.Wait()
}

// listed is every key below the prefix, each version of it with a mark: "key", "key+" for what lies over the first, "key-" for delete markers.
func (s *suite) listed(prefix, startAfter string) []string {
	s.Helper()
	if startAfter != "" {
		startAfter = s.prefix + startAfter
	}
	var out []string
	last := ""
	for info, err := range s.Bucket.List(s.ctx, s.prefix+prefix, startAfter) {
		if err != nil {
			s.Fatal(err)
		}
		key, ok := strings.CutPrefix(info.Key, s.prefix)
		if !ok {
			s.Fatalf("listed %q", info.Key)
		}
		mark := ""
		switch {
		case info.DeleteMarker:
			mark = "-"
		case key == last:
			mark = "+"
		}
		out = append(out, key+mark)
		last = key
	}
	return out
}

func (s *suite) list() {
	keys := []string{"b", "a-b", "a.b", "a/b", "a/c/d", "a0", "manifests/000000000000.sigstore.json", "segments/date=2026-11-22/1", "segments/date=2026-11-23/2"}
	for i := range many {
		keys = append(keys, fmt.Sprintf("n/%06d", i))
	}
	s.fill(keys)
	slices.Sort(keys)
	for _, c := range []struct{ prefix, startAfter string }{
		{"", ""},
		{"", "a-b"},
		{"", "a/"},
		{"", "a/b"},
		{"", "a/c/d"},
		{"", "a/zzz"},
		{"", "zzz"},
		{"a", ""},
		{"a/", ""},
		{"a/b", ""},
		{"a/b", "a/b"},
		{"n/", "n/000003"},
		{"n/", "n/0000035"},
		{"n/", "m"},
		{"n/", "o"},
		{"n/00000", ""},
		{"segments/date=2026-11-2", "segments/date=2026-11-22/5"},
		{"x", ""},
	} {
		var want []string
		for _, key := range keys {
			if strings.HasPrefix(key, c.prefix) && key > c.startAfter {
				want = append(want, key)
			}
		}
		if got := s.listed(c.prefix, c.startAfter); !slices.Equal(got, want) {
			s.Errorf("listing %q after %q:\n%q\nwant\n%q", c.prefix, c.startAfter, got, want)
		}
	}
	for range s.Bucket.List(s.ctx, s.prefix, "") { // whoever has seen enough may stop
		break
	}
}

// overwritten: whoever may write can lay another object over a locked one, and can not get at it.
func (s *suite) overwritten() {
	key := s.prefix + "k"
	version := s.put(key, "original")
	if err := s.Overwrite(s.ctx, key, []byte("forgery")); err != nil {
		s.Fatal(err)
	}
	s.put(key+"k", "neighbour")
	if got := s.get(key, ""); got != "forgery" {
		s.Errorf("the current version holds %q", got)
	}
	if got := s.get(key, version); got != "original" {
		s.Errorf("the original holds %q", got)
	}
	found, err := s.Bucket.Versions(s.ctx, key)
	if err != nil || len(found) != 2 {
		s.Fatalf("versions: %+v, %v", found, err)
	}
	if o := found[0]; o.Version != version || o.Key != key || o.Size != int64(len("original")) || o.Latest || o.DeleteMarker || time.Since(o.LastModified).Abs() > time.Minute {
		s.Errorf("oldest is %+v", o)
	}
	if f := found[1]; f.Version == version || f.Size != int64(len("forgery")) || !f.Latest || f.DeleteMarker {
		s.Errorf("newest is %+v", f)
	}
	s.wantLocked(key, version)
	if err := s.DeleteVersion(s.ctx, key, version); err == nil {
		s.Error("the locked original was deleted")
	}
	_, err = s.Bucket.Create(s.ctx, key, strings.NewReader("original"), Options([]byte("original")))
	s.wantError("creating it again", err, storage.ErrExists)
}

// deleteMarker: whoever may delete can hide an object, and can not get at it.
func (s *suite) deleteMarker() {
	key := s.prefix + "k"
	version := s.put(key, "original")
	if err := s.Delete(s.ctx, key); err != nil {
		s.Fatal(err)
	}
	_, err := s.Bucket.Stat(s.ctx, key, "")
	s.wantError("stat of what is hidden", err, storage.ErrNotFound)
	_, _, err = s.Bucket.Open(s.ctx, key, "", 0, -1)
	s.wantError("open of what is hidden", err, storage.ErrNotFound)
	if got := s.get(key, version); got != "original" {
		s.Errorf("the original holds %q", got)
	}
	s.wantLocked(key, version)
	found, err := s.Bucket.Versions(s.ctx, key)
	if err != nil || len(found) != 2 || found[0].Version != version || found[0].DeleteMarker || !found[1].DeleteMarker || !found[1].Latest {
		s.Fatalf("versions: %+v, %v", found, err)
	}
	_, err = s.Bucket.Stat(s.ctx, key, found[1].Version)
	s.wantError("stat of the delete marker", err, storage.ErrNotFound)
	_, _, err = s.Bucket.Open(s.ctx, key, found[1].Version, 0, -1)
	s.wantError("open of the delete marker", err, storage.ErrNotFound)

	again, err := s.Bucket.Create(s.ctx, key, strings.NewReader("second"), Options([]byte("second")))
	if !s.CreatesOverDeleteMarker {
		s.wantError("creating over a delete marker", err, storage.ErrExists)
		return
	}
	if err != nil || again == version {
		s.Fatalf("creating over a delete marker: %q, %v", again, err)
	}
	if found, err = s.Bucket.Versions(s.ctx, key); err != nil || len(found) != 3 || found[0].Version != version {
		s.Errorf("versions: %+v, %v", found, err)
	}
}

// listVersions: all that lies over objects is listed, across the borders of pages too.
func (s *suite) listVersions() {
	var keys, want []string
	for i := range many {
		keys = append(keys, fmt.Sprintf("k%03d", i))
	}
	s.fill(keys)
	for i, key := range keys {
		want = append(want, key)
		for range i % 5 {
			if err := s.Overwrite(s.ctx, s.prefix+key, []byte("forgery")); err != nil {
				s.Fatal(err)
			}
			want = append(want, key+"+")
		}
		if i%3 == 0 {
			if err := s.Delete(s.ctx, s.prefix+key); err != nil {
				s.Fatal(err)
			}
			want = append(want, key+"-")
		}
	}
	if got := s.listed("", ""); !slices.Equal(got, want) {
		s.Errorf("listed\n%q\nwant\n%q", got, want)
	}
	startAfter := keys[len(keys)/2]
	if got, want := s.listed("", startAfter), want[slices.Index(want, keys[len(keys)/2+1]):]; !slices.Equal(got, want) {
		s.Errorf("listed after %s\n%q\nwant\n%q", startAfter, got, want)
	}
	for _, key := range keys { // the original is the oldest, however many lie over it
		found, err := s.Bucket.Versions(s.ctx, s.prefix+key)
		if err != nil || len(found) == 0 || found[0].Size != 0 || found[0].DeleteMarker {
			s.Errorf("versions of %s: %+v, %v", key, found, err)
		}
	}
}
