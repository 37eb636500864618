// Package storagetest holds the suite that every storage.Bucket passes: what the interface promises, and what
// those who may write to the bucket can and cannot do to an object.
//
// It also holds what tests of those who use a bucket need: [Memory] is one, that behaves as S3 does, and [Client] a process's way to
// a bucket of any kind. Of its operations [Faults] can fail each, before or after it is done; the same Faults count the steps on a disk of the
// package disktest, so that one number names a step of either.
package storagetest

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/auditchain/auditchain/storage"
)

// Target is a bucket and, where it has versions, the means of an attacker. Run may be called on one bucket several times.
type Target struct {
	Bucket storage.Bucket
	// Overwrite puts other bytes at key without any condition; Delete deletes key without naming a version;
	// DeleteVersion deletes one version with every right there is. All nil where the bucket has no versions.
	Overwrite     func(ctx context.Context, key string, body []byte) error
	Delete        func(ctx context.Context, key string) error
	DeleteVersion func(ctx context.Context, key, version string) error
	// CreatesOverDeleteMarker: with a delete marker on top the store takes the key for free.
	CreatesOverDeleteMarker bool
}

// retention is long enough for a run and short enough that a bucket can be removed soon.
const retention = time.Hour

// Run runs the suite. Objects go below a prefix of their own.
func Run(t *testing.T, target Target) {
	run := rand.Text()[:8]
	for _, c := range []struct {
		name     string
		versions bool // needs the means of an attacker
		test     func(*suite)
	}{
		{"Check", false, (*suite).check},
		{"Create", false, (*suite).create},
		{"CreateRace", false, (*suite).createRace},
		{"CreateMismatch", false, (*suite).createMismatch},
		{"CreateCanceled", false, (*suite).createCanceled},
		{"Sizes", false, (*suite).sizes},
		{"Ranges", false, (*suite).ranges},
		{"Missing", false, (*suite).missing},
		{"Keys", false, (*suite).keys},
		{"Lock", false, (*suite).lock},
		{"LockLater", false, (*suite).lockLater},
		{"List", false, (*suite).list},
		{"Overwritten", true, (*suite).overwritten},
		{"DeleteMarker", true, (*suite).deleteMarker},
		{"ListVersions", true, (*suite).listVersions},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.versions && target.Overwrite == nil {
				t.Skip("the bucket has no versions")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			c.test(&suite{T: t, Target: target, ctx: ctx, prefix: "storagetest/" + run + "/" + c.name + "/"})
		})
	}
}

type suite struct {
	*testing.T
	Target
	ctx    context.Context
	prefix string
}

// Options describes body as Create wants it, locked until an hour from now.
func Options(body []byte) storage.CreateOptions {
	return storage.CreateOptions{
		Size: int64(len(body)), SHA256: sha256.Sum256(body), MD5: md5.Sum(body), ContentType: "application/x-ndjson",
		LockMode: storage.Compliance, RetainUntil: time.Now().Add(retention),
	}
}

func (s *suite) put(key, body string) storage.Version {
	s.Helper()
	version, err := s.Bucket.Create(s.ctx, key, strings.NewReader(body), Options([]byte(body)))
	if err != nil {
		s.Fatalf("creating %s: %v", key, err)
	}
	return version
}

func (s *suite) get(key string, version storage.Version) string {
	s.Helper()
	r, _, err := s.Bucket.Open(s.ctx, key, version, 0, -1)
	if err != nil {
		s.Fatalf("opening %s: %v", key, err)
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	if err != nil {
		s.Fatalf("reading %s: %v", key, err)
	}
	return string(body)
}

func (s *suite) wantError(what string, err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func (s *suite) check() {
	if err := s.Bucket.Check(s.ctx); err != nil {
		s.Error(err)
	}
	if s.Bucket.String() == "" {
		s.Error("the bucket has no name for messages")
	}
	if skew, known := s.Bucket.ClockSkew(); known && skew.Abs() > 5*time.Second {
		s.Errorf("clock skew %v to a store on this machine", skew)
	} else if s.Bucket.Locks() && !known {
		s.Error("no clock skew after an answer")
	}
}

func (s *suite) create() {
	key := s.prefix + "segments/date=2026-11-23/000000000001.ndjson.zst"
	version := s.put(key, "one")
	if s.Bucket.Locks() == (version == "") {
		s.Errorf("version %q of a bucket that locks: %v", version, s.Bucket.Locks())
	}
	for _, body := range []string{"one", "two", ""} {
		_, err := s.Bucket.Create(s.ctx, key, strings.NewReader(body), Options([]byte(body)))
		s.wantError("creating it again as "+body, err, storage.ErrExists)
	}
	if got := s.get(key, version); got != "one" {
		s.Errorf("holds %q", got)
	}
	if got := s.get(key, ""); got != "one" {
		s.Errorf("currently holds %q", got)
	}

	// The body counts from its start, wherever it stands; what is not given is found.
	body := strings.NewReader("three")
	body.Seek(2, io.SeekStart)
	opts := Options([]byte("three"))
	opts.MD5, opts.ContentType = [16]byte{}, ""
	if _, err := s.Bucket.Create(s.ctx, key+".b", body, opts); err != nil {
		s.Error(err)
	}
	if got := s.get(key+".b", ""); got != "three" {
		s.Errorf("holds %q", got)
	}
}

func (s *suite) createRace() {
	const writers = 20
	key := s.prefix + "manifests/000000000007.sigstore.json"
	var (
		wg   sync.WaitGroup
		errs [writers]error
		vers [writers]storage.Version
	)
	for i := range writers {
		wg.Go(func() {
			body := fmt.Appendf(nil, "writer %d", i)
			vers[i], errs[i] = s.Bucket.Create(s.ctx, key, bytes.NewReader(body), Options(body))
		})
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			s.Fatalf("writers %d and %d both won", winner, i)
		case err == nil:
			winner = i
		case errors.Is(err, storage.ErrExists):
		default: // the store may refuse otherwise while two of them meet, but by the next call has decided
			body := fmt.Appendf(nil, "writer %d", i)
			_, err := s.Bucket.Create(s.ctx, key, bytes.NewReader(body), Options(body))
			s.wantError(fmt.Sprintf("writer %d again after %v", i, errs[i]), err, storage.ErrExists)
		}
	}
	if winner < 0 {
		s.Fatalf("nobody won: %v", errs)
	}
	if got, want := s.get(key, vers[winner]), fmt.Sprintf("writer %d", winner); got != want {
		s.Errorf("holds %q, want %q", got, want)
	}
	if found, err := s.Bucket.Versions(s.ctx, key); err != nil || len(found) != 1 {
		s.Errorf("versions: %v, %v", found, err)
	}
}

func (s *suite) createMismatch() {
	body := []byte("the body that was sent")
	for name, change := range map[string]func(*storage.CreateOptions){
		"sha256": func(o *storage.CreateOptions) { o.SHA256[3] ^= 1 },
		"short":  func(o *storage.CreateOptions) { o.Size++ },
		"long":   func(o *storage.CreateOptions) { o.Size-- },
	} {
		key := s.prefix + name
		opts := Options(body)
		change(&opts)
		_, err := s.Bucket.Create(s.ctx, key, bytes.NewReader(body), opts)
		s.wantError(name, err, storage.ErrMismatch)
		if found, err := s.Bucket.Versions(s.ctx, key); err != nil || len(found) != 0 {
			s.Errorf("%s: stored all the same: %v, %v", name, found, err)
		}
	}
}

func (s *suite) createCanceled() {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, err := s.Bucket.Create(ctx, s.prefix+"k", strings.NewReader("x"), Options([]byte("x")))
	s.wantError("canceled", err, context.Canceled)
	if errors.Is(err, storage.ErrUnreachable) {
		s.Errorf("our own cancelling is taken for the store's silence: %v", err)
	}
	s.put(s.prefix+"k", "x")
}

func (s *suite) sizes() {
	for _, size := range []int{0, 1, 1 << 10, 20 << 20} {
		body := make([]byte, size)
		rand.Read(body)
		key := fmt.Sprintf("%s%d", s.prefix, size)
		version := s.put(key, string(body))
		if got := s.get(key, version); got != string(body) {
			s.Errorf("%d bytes: other bytes came back, %d of them", size, len(got))
		}
		info, err := s.Bucket.Stat(s.ctx, key, version)
		if err != nil || info.Size != int64(size) || info.Key != key || info.Version != version {
			s.Errorf("%d bytes: %+v, %v", size, info, err)
		}
		if info.SHA256 != [32]byte{} && info.SHA256 != sha256.Sum256(body) { // a multipart upload has another
			s.Errorf("%d bytes: SHA-256 is %x", size, info.SHA256)
		}
		// A store that has the object may answer before it has read the body.
		_, err = s.Bucket.Create(s.ctx, key, bytes.NewReader(body), Options(body))
		s.wantError(fmt.Sprintf("%d bytes again", size), err, storage.ErrExists)
	}
}

func (s *suite) ranges() {
	const body = "0123456789"
	s.put(s.prefix+"ten", body)
	s.put(s.prefix+"empty", "")
	for _, c := range []struct {
		key            string
		offset, length int64
		want           string
		err            error
	}{
		{"ten", 0, -1, body, nil},
		{"ten", 0, 10, body, nil},
		{"ten", 0, 1, "0", nil},
		{"ten", 9, 1, "9", nil},
		{"ten", 3, 4, "3456", nil},
		{"ten", 3, -1, "3456789", nil},
		{"ten", 8, 100, "89", nil},
		{"ten", 4, 0, "", nil},
		{"ten", 10, 0, "", nil},
		{"ten", 10, -1, "", io.ErrUnexpectedEOF},
		{"ten", 10, 1, "", io.ErrUnexpectedEOF},
		{"ten", 11, 0, "", io.ErrUnexpectedEOF},
		{"ten", -1, 1, "", io.ErrUnexpectedEOF},
		{"empty", 0, -1, "", nil},
		{"empty", 0, 0, "", nil},
		{"empty", 0, 1, "", io.ErrUnexpectedEOF},
		{"empty", 1, -1, "", io.ErrUnexpectedEOF},
		{"missing", 0, 0, "", storage.ErrNotFound},
	} {
		name := fmt.Sprintf("%s [%d+%d]", c.key, c.offset, c.length)
		r, info, err := s.Bucket.Open(s.ctx, s.prefix+c.key, "", c.offset, c.length)
		if c.err != nil || err != nil {
			s.wantError(name, err, c.err)
			continue
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || string(got) != c.want {
			s.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
		if want := int64(map[string]int{"ten": 10}[c.key]); info.Size != want {
			s.Errorf("%s: size of the whole is %d, want %d", name, info.Size, want)
		}
	}
}

func (s *suite) missing() {
	version := s.put(s.prefix+"there", "x")
	if version == "" {
		version = "v1"
	}
	for _, c := range []struct{ key, version string }{
		{s.prefix + "missing", ""},
		{s.prefix + "missing", version},
		{s.prefix + "ther", ""},
		{s.prefix + "there/below", ""},
		{strings.TrimSuffix(s.prefix, "/"), ""},
	} {
		_, err := s.Bucket.Stat(s.ctx, c.key, c.version)
		s.wantError("stat "+c.key, err, storage.ErrNotFound)
		_, _, err = s.Bucket.Open(s.ctx, c.key, c.version, 0, -1)
		s.wantError("open "+c.key, err, storage.ErrNotFound)
		if found, err := s.Bucket.Versions(s.ctx, c.key); err != nil || len(found) != 0 {
			s.Errorf("versions of %s: %v, %v", c.key, found, err)
		}
	}
	for info, err := range s.Bucket.List(s.ctx, s.prefix+"missing", "") {
		s.Errorf("listed %v, %v", info, err)
	}
}

func (s *suite) keys() {
	for _, key := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/..", "./a", "a\x00b", "a\xffb", strings.Repeat("a", 1025)} {
		if _, err := s.Bucket.Create(s.ctx, key, strings.NewReader("x"), Options([]byte("x"))); err == nil {
			s.Errorf("key %q was taken", key)
		}
	}
	for _, key := range []string{"a b", "a+b", "a%2Fb", "ä/ü", "a=b&c?d#e", "..a", "a..", "audit.example.com/prod-eu1/x", "~'\"()*!$,:;@"} {
		version := s.put(s.prefix+key, key)
		if got := s.get(s.prefix+key, version); got != key {
			s.Errorf("key %q holds %q", key, got)
		}
		if found, err := s.Bucket.Versions(s.ctx, s.prefix+key); err != nil || len(found) != 1 || found[0].Key != s.prefix+key {
			s.Errorf("versions of key %q: %v, %v", key, found, err)
		}
	}
}
