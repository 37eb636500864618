package storage_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/storage/storagetest"
)

func TestDir(t *testing.T) {
	cfg := storage.Config{Bucket: "dir:" + t.TempDir() + "/new/bucket"}
	if err := storage.Make(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	bucket, err := storage.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	storagetest.Run(t, storagetest.Target{Bucket: bucket})
}

// TestDirFiles: what lies in the directory, and that nothing outside of it is touched.
func TestDirFiles(t *testing.T) {
	ctx, outside, dir := t.Context(), t.TempDir(), t.TempDir()
	bucket := open(t, storage.Config{Bucket: "dir:" + dir})
	if err := create(ctx, bucket); err != nil {
		t.Fatal(err)
	}
	file, err := os.Lstat(filepath.Join(dir, "new"))
	if err != nil || file.Mode() != 0o444 {
		t.Errorf("%v, %v", file, err)
	}

	opts := storagetest.Options([]byte("x"))
	for _, link := range []struct{ to, from string }{{outside, "absolute"}, {"../" + filepath.Base(outside), "relative"}} {
		if err := os.Symlink(link.to, filepath.Join(dir, link.from)); err != nil {
			t.Fatal(err)
		}
		if _, err := bucket.Create(ctx, link.from+"/k", strings.NewReader("x"), opts); err == nil {
			t.Errorf("created through an %s link", link.from)
		}
	}
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"absolute/secret", "relative/secret"} {
		if _, _, err := bucket.Open(ctx, key, "", 0, -1); err == nil {
			t.Errorf("opened %s", key)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("outside: %v, %v", left, err)
	}

	// A link is no object, and not passed over: a reader would miss what it stands for.
	listing := func() (err error) {
		for _, err = range bucket.List(ctx, "", "") {
		}
		return err
	}
	for _, link := range []string{"absolute", "relative"} {
		if _, _, err := bucket.Open(ctx, link, "", 0, -1); err == nil || errors.Is(err, storage.ErrNotFound) {
			t.Errorf("opening a link: %v", err)
		}
		if err := listing(); err == nil || !strings.Contains(err.Error(), link+" is no file") {
			t.Errorf("listing with a link: %v", err)
		}
		if err := os.Remove(filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}

	// What a crash leaves is no object, and is in nobody's way.
	if err := os.WriteFile(filepath.Join(dir, ".incoming", "left"), []byte("half"), 0o444); err != nil {
		t.Fatal(err)
	}
	for info, err := range bucket.List(ctx, "", "") {
		if err != nil || info.Key != "new" {
			t.Errorf("listed %+v, %v", info, err)
		}
	}
	for _, key := range []string{".incoming", ".incoming/left"} {
		if _, err := bucket.Create(ctx, key, strings.NewReader("x"), opts); err == nil || errors.Is(err, storage.ErrExists) {
			t.Errorf("creating %s: %v", key, err)
		}
	}
	opts.Size++
	if _, err := bucket.Create(ctx, "k", strings.NewReader("x"), opts); !errors.Is(err, storage.ErrMismatch) {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, ".incoming")); err != nil || len(left) != 1 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestDirMissing(t *testing.T) {
	cfg := storage.Config{Bucket: "dir:" + t.TempDir() + "/none"}
	wantErrors(t, cfg, all(storage.ErrNoBucket), "make the directory first")
	for _, want := range []error{nil, storage.ErrBucketExists} {
		if err := storage.Make(t.Context(), cfg); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
}
