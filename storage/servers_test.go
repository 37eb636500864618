package storage_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/storage/storagetest"
	"github.com/auditchain/auditchain/test/servers"
)

// page is how many versions the servers are asked to list at a time, so that a few objects make many pages.
const page = 7

func TestMain(m *testing.M) {
	minio.DefaultRetryUnit = time.Millisecond // servers on this machine need no patience
	m.Run()
}

// configOf is how a writer reaches a server as its administrator.
func configOf(s *servers.Server, bucket string) storage.Config {
	return storage.Config{Bucket: bucket, Endpoint: s.Endpoint, Region: s.Region, AccessKey: s.AccessKey, SecretKey: s.SecretKey, CAFile: s.CAFile}
}

// longList needs a second page of the size that is used.
func longList(t *testing.T, bucket storage.Bucket) {
	const count = 1005
	key := func(i int) string { return fmt.Sprintf("long/%04d", i) }
	opts := storagetest.Options(nil)
	opts.LockMode = ""
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := worker; i < count; i += 8 {
				if _, err := bucket.Create(t.Context(), key(i), bytes.NewReader(nil), opts); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	next := 3
	for info, err := range bucket.List(t.Context(), "long/", key(next-1)) {
		if err != nil || info.Key != key(next) {
			t.Fatalf("listed %s, %v, want %s", info.Key, err, key(next))
		}
		next++
	}
	if next != count {
		t.Errorf("listed up to %d, want %d", next, count)
	}
}

func TestServers(t *testing.T) {
	for _, c := range []struct {
		name  string
		start func(testing.TB, ...servers.Option) *servers.Server
		opts  []servers.Option
		minio bool
	}{
		{"MinIO", servers.MinIO, nil, true},
		{"MinIO-TLS", servers.MinIO, []servers.Option{servers.WithTLS()}, true},
		{"versitygw", servers.Versitygw, nil, false},
		{"versitygw-TLS", servers.Versitygw, []servers.Option{servers.WithTLS()}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := c.start(t, c.opts...)
			cfg := configOf(server, "audit")
			if err := storage.Make(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			bucket, err := storage.NewS3(cfg)
			if err != nil {
				t.Fatal(err)
			}
			bucket.SetPageSize(page)
			client := server.Client(t)
			storagetest.Run(t, storagetest.Target{
				Bucket: bucket,
				Overwrite: func(ctx context.Context, key string, body []byte) error {
					_, err := client.PutObject(ctx, cfg.Bucket, key, bytes.NewReader(body), int64(len(body)), minio.PutObjectOptions{SendContentMd5: true})
					return err
				},
				Delete: func(ctx context.Context, key string) error {
					return client.RemoveObject(ctx, cfg.Bucket, key, minio.RemoveObjectOptions{})
				},
				DeleteVersion: func(ctx context.Context, key, version string) error {
					return client.RemoveObject(ctx, cfg.Bucket, key, minio.RemoveObjectOptions{VersionID: version, GovernanceBypass: true})
				},
				CreatesOverDeleteMarker: c.minio,
			})
			t.Run("LongList", func(t *testing.T) { longList(t, open(t, cfg)) })
			t.Run("Errors", func(t *testing.T) { serverErrors(t, server, cfg) })
			t.Run("Silence", func(t *testing.T) { serverSilence(t, server, cfg) })
		})
	}
}
