package ingest

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/storage/storagetest"
)

// TestPromises: what the chain promised in its genesis, the configuration may exceed, and not fall short of.
func TestPromises(t *testing.T) {
	promised := func(c *Config) {
		c.Retention, c.LockMode, c.Heartbeat = chain.Retention{Years: 1}, "COMPLIANCE", time.Minute
	}
	for _, test := range []struct {
		name   string
		change func(c *Config)
		want   string // in the error; "": it goes on
		warned string // in the log
	}{
		{"the same", func(c *Config) {}, "", ""},
		{"as long in days", func(c *Config) { c.Retention = chain.Retention{Days: 366} }, "", ""},
		{"longer", func(c *Config) { c.Retention = chain.Retention{Years: 2} }, "", ""},
		{"shorter", func(c *Config) { c.Retention = chain.Retention{Days: 30} },
			"retention: 30d is shorter than the 1y that the chain promised when it began: it can only be made longer", ""},
		{"weaker lock", func(c *Config) { c.LockMode = "GOVERNANCE" },
			"lock_mode: governance is weaker than the compliance that the chain promised when it began", ""},
		{"more heartbeats", func(c *Config) { c.Heartbeat = time.Second }, "", ""},
		{"fewer heartbeats", func(c *Config) { c.Heartbeat = time.Hour }, "", "heartbeat_interval: 1h0m0s is longer than the 1m0s"},
	} {
		for _, rotated := range []bool{false, true} {
			t.Run(test.name, func(t *testing.T) {
				r := newRig(t)
				memory := storagetest.NewMemory()
				r.bucket, r.reader = memory, memory
				promised(&r.cfg)
				n := 0
				sealed(1)(r, &n)
				if rotated { // it binds whoever holds the key
					r.rotate()
					sealed(1)(r, &n)
					r.cfg.PreviousKey = ""
				}
				kept := r.cfg
				test.change(&r.cfg)
				l, err := r.open()
				if err == nil {
					mustAppend(t, l, testChunk(n, 1, 1))
					n++
					r.mustClose(l)
				}
				if (err == nil) != (test.want == "") || err != nil && err.Error() != test.want {
					t.Errorf("opened: %v", err)
				}
				if r.log.has("warn ") != (test.warned != "") || !r.log.has(test.warned) {
					t.Errorf("log %q", r.log.lines)
				}

				// With the store away it is not known at once. Chunks are taken, and go into the bucket by a better configuration.
				r.bucket = &coming{Bucket: memory}
				l = r.mustOpen()
				mustAppend(t, l, testChunk(n, 1, 1))
				n++
				ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
				defer cancel()
				if err := l.Close(ctx); (err == nil) != (test.want == "") || !r.log.has(test.want) {
					t.Errorf("closed with %v; log %q", err, r.log.lines)
				}
				r.bucket, r.cfg = memory, kept
				r.mustClose(r.mustOpen())
				r.wantRotated(n)
			})
		}
	}
}

// coming is a bucket that nobody reaches at first.
type coming struct {
	storage.Bucket
	n atomic.Int64
}

func (b *coming) Check(ctx context.Context) error {
	if b.n.Add(1) <= 2 {
		return unreachable{}.Check(ctx)
	}
	return b.Bucket.Check(ctx)
}

// TestWeakLockOfADirectory: a directory locks nothing, and never promised to.
func TestWeakLockOfADirectory(t *testing.T) {
	r := newRig(t)
	n := 0
	sealed(1)(r, &n)
	r.cfg.LockMode = "GOVERNANCE"
	sealed(1)(r, &n)
	r.wantRotated(n)
}

// TestLockedChainInADirectory: a directory locks nothing, and the chain that was copied into it promised to.
func TestLockedChainInADirectory(t *testing.T) {
	for _, promised := range []string{"COMPLIANCE", "GOVERNANCE"} {
		for _, lost := range []bool{false, true} {
			r := newRig(t)
			directory, memory := r.bucket, storagetest.NewMemory()
			r.bucket = memory
			r.cfg.LockMode = promised
			n := 0
			sealed(2)(r, &n)
			copyObjects(t, memory, directory)
			before, _ := r.follow()
			if lost {
				if err := os.RemoveAll(r.cfg.StoreDir); err != nil {
					t.Fatal(err)
				}
			}
			r.bucket = directory
			l, err := r.open()
			if err == nil {
				crash(l)
			}
			if want := "cannot lock objects, and the chain promised lock_mode " + strings.ToLower(promised) + " when it began"; err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("opened: %v", err)
			}
			if all, _ := r.follow(); len(all) != len(before) {
				t.Errorf("%d manifests, there were %d", len(all), len(before))
			}
		}
	}
}

// copyObjects copies all objects, as a tool does that knows nothing of versions and locks.
func copyObjects(t *testing.T, from, to storage.Bucket) {
	t.Helper()
	ctx := context.Background()
	for info, err := range from.List(ctx, "", "") {
		if err != nil {
			t.Fatal(err)
		}
		r, _, err := from.Open(ctx, info.Key, info.Version, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		_, err = to.Create(ctx, info.Key, bytes.NewReader(data), storage.CreateOptions{Size: int64(len(data)), SHA256: chain.Sum(data)})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestPromisesThatAreGone: of a chain whose begin is past its retention nothing is left to compare with.
func TestPromisesThatAreGone(t *testing.T) {
	r := newRig(t)
	r.cfg.Retention = chain.Retention{Years: 1}
	n := 0
	sealed(1)(r, &n)
	r.rotate()
	sealed(1)(r, &n)
	r.cfg.Retention = chain.Retention{Days: 1}
	layout := chain.Layout{Chain: r.cfg.Chain}
	object := func(n uint64) string {
		return filepath.Join(strings.TrimPrefix(r.cfg.Storage.Bucket, "dir:"), layout.Manifest(n))
	}
	rotation, err := os.ReadFile(object(2))
	if err != nil {
		t.Fatal(err)
	}
	// Somebody else's genesis promises nothing.
	other := newRig(t)
	sealed(1)(other, new(int))
	theirs, err := os.ReadFile(filepath.Join(strings.TrimPrefix(other.cfg.Storage.Bucket, "dir:"), layout.Manifest(0)))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		genesis, rotation []byte
		want              string
	}{
		{theirs, rotation, "signature"},
		{theirs, theirs, "manifest 2 in"},
		{nil, rotation, ""},
		{nil, nil, ""},
	} {
		for n, data := range map[uint64][]byte{0: step.genesis, 2: step.rotation} {
			os.Remove(object(n))
			if data != nil {
				if err := os.WriteFile(object(n), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		l, err := r.open()
		if err == nil {
			r.mustClose(l)
		}
		if (err == nil) != (step.want == "") || err != nil && !strings.Contains(err.Error(), step.want) {
			t.Errorf("opened: %v, want %q", err, step.want)
		}
	}
}
