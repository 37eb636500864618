package storage_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/storage/storagetest"
)

func TestMemory(t *testing.T) {
	for _, c := range []struct {
		name  string
		minio bool
	}{{"as-MinIO", true}, {"as-versitygw", false}} {
		t.Run(c.name, func(t *testing.T) {
			memory := storagetest.NewMemory()
			memory.CreatesOverDeleteMarker = c.minio
			for name, bucket := range map[string]storage.Bucket{
				"Memory": memory,
				"Client": storagetest.NewClient(storagetest.NewProcess(new(storagetest.Faults)), memory),
			} {
				t.Run(name, func(t *testing.T) {
					storagetest.Run(t, storagetest.Target{
						Bucket: bucket, Overwrite: memory.Overwrite, Delete: memory.Delete, DeleteVersion: memory.DeleteVersion,
						CreatesOverDeleteMarker: c.minio,
					})
				})
			}
		})
	}
}

// TestMemoryClock: the store's clock says how long a lock lasts, and refuses who is too far from it.
func TestMemoryClock(t *testing.T) {
	ctx, memory, body := t.Context(), storagetest.NewMemory(), []byte("x")
	create := func(key string, until time.Duration) (storage.Version, error) {
		opts := storagetest.Options(body)
		opts.RetainUntil = time.Now().Add(until)
		return memory.Create(ctx, key, strings.NewReader("x"), opts)
	}
	version, err := create("k", 5*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := memory.DeleteVersion(ctx, "k", version); !errors.Is(err, storage.ErrDenied) {
		t.Errorf("deleting what is locked: %v", err)
	}
	memory.SetClockSkew(10 * time.Minute)
	if _, err := create("late", 5*time.Minute); err == nil {
		t.Error("created with a lock that is over")
	}
	if err := memory.DeleteVersion(ctx, "k", version); err != nil {
		t.Errorf("deleting what is locked no more: %v", err)
	}
	if skew, known := memory.ClockSkew(); skew != 10*time.Minute || !known {
		t.Error(skew, known)
	}

	if _, err := create("k", time.Hour); err != nil {
		t.Fatal(err)
	}
	memory.SetClockSkew(-16 * time.Minute)
	for name, try := range map[string]func() error{
		"Create":        func() error { _, err := create("new", time.Hour); return err },
		"Open":          func() error { _, _, err := memory.Open(ctx, "k", "", 0, -1); return err },
		"Stat":          func() error { _, err := memory.Stat(ctx, "k", ""); return err },
		"Versions":      func() error { _, err := memory.Versions(ctx, "k"); return err },
		"List":          func() error { return listError(ctx, memory) },
		"Check":         func() error { return memory.Check(ctx) },
		"Overwrite":     func() error { return memory.Overwrite(ctx, "k", nil) },
		"Delete":        func() error { return memory.Delete(ctx, "k") },
		"DeleteVersion": func() error { return memory.DeleteVersion(ctx, "k", "v1") },
	} {
		if err := try(); !errors.Is(err, storage.ErrClockSkew) {
			t.Errorf("%s: %v", name, err)
		}
	}
	memory.SetClockSkew(0)
	if found, err := memory.Versions(ctx, "k"); err != nil || len(found) != 1 {
		t.Errorf("%v, %v", found, err)
	}
}

func listError(ctx context.Context, bucket storage.Bucket) error {
	for _, err := range bucket.List(ctx, "", "") {
		if err != nil {
			return err
		}
	}
	return nil
}
