package storage_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/storage/storagetest"
	"github.com/auditchain/auditchain/test/servers"
)

// calls are the ways to talk to a bucket, each with a key that does not exist.
var calls = map[string]func(context.Context, storage.Bucket) error{
	"check":  func(ctx context.Context, b storage.Bucket) error { return b.Check(ctx) },
	"create": create,
	"stat":   func(ctx context.Context, b storage.Bucket) error { _, err := b.Stat(ctx, "missing", ""); return err },
	"open": func(ctx context.Context, b storage.Bucket) error {
		_, _, err := b.Open(ctx, "missing", "", 0, -1)
		return err
	},
	"versions": func(ctx context.Context, b storage.Bucket) error { _, err := b.Versions(ctx, "missing"); return err },
}

func create(ctx context.Context, b storage.Bucket) error {
	_, err := b.Create(ctx, "new", strings.NewReader("x"), storagetest.Options([]byte("x")))
	return err
}

// wantErrors makes each call on the bucket of cfg. hint has to stand in the error of check.
func wantErrors(t *testing.T, cfg storage.Config, want map[string]error, hint string) {
	t.Helper()
	bucket := open(t, cfg)
	for name, call := range calls {
		err := call(t.Context(), bucket)
		if w, ok := want[name]; ok && !errors.Is(err, w) {
			t.Errorf("%s: %v, want %v", name, err, w)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: more than a line: %q", name, err)
		}
		if name == "check" && (err == nil || !strings.Contains(err.Error(), hint)) {
			t.Errorf("check: %v: does not say %q", err, hint)
		}
	}
}

// all is the same error for every call.
func all(err error) map[string]error {
	want := map[string]error{}
	for name := range calls {
		want[name] = err
	}
	return want
}

func open(t *testing.T, cfg storage.Config) storage.Bucket {
	t.Helper()
	bucket, err := storage.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return bucket
}

// serverErrors: what a wrong configuration looks like.
func serverErrors(t *testing.T, server *servers.Server, good storage.Config) {
	ctx := t.Context()
	client := server.Client(t)
	with := func(change func(*storage.Config)) storage.Config { cfg := good; change(&cfg); return cfg }

	if err := storage.Make(ctx, good); !errors.Is(err, storage.ErrBucketExists) {
		t.Errorf("making the bucket again: %v", err)
	}
	missing := with(func(c *storage.Config) { c.Bucket = "missing" })
	wantErrors(t, missing, map[string]error{"check": storage.ErrNoBucket, "versions": storage.ErrNoBucket}, "s3://missing at "+server.Endpoint)

	for name, versioning := range map[string]bool{"plain": false, "versioned": true} {
		if err := client.MakeBucket(ctx, name, minio.MakeBucketOptions{}); err != nil {
			t.Fatal(err)
		}
		want := map[string]error{"check": storage.ErrNoVersioning, "create": storage.ErrNoObjectLock, "stat": storage.ErrNotFound, "open": storage.ErrNotFound}
		if versioning {
			if err := client.EnableVersioning(ctx, name); err != nil {
				t.Fatal(err)
			}
			want["check"] = storage.ErrNoObjectLock
		}
		wantErrors(t, with(func(c *storage.Config) { c.Bucket = name }), want, "")
	}

	wantErrors(t, with(func(c *storage.Config) { c.SecretKey += "x" }), all(storage.ErrDenied), "check the credentials")
	wantErrors(t, with(func(c *storage.Config) { c.AccessKey += "x" }), all(storage.ErrDenied), "check the credentials")
	wantErrors(t, with(func(c *storage.Config) { c.Endpoint = "http://127.0.0.1:1" }), all(storage.ErrUnreachable), "refused")

	if server.CAFile == "" {
		wantErrors(t, with(func(c *storage.Config) { c.Endpoint = strings.Replace(c.Endpoint, "http:", "https:", 1) }), all(storage.ErrCertificate), "does not speak TLS")
		return
	}
	other, err := servers.NewCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"the system's CAs": "", "another CA": other.File} {
		t.Log(name)
		wantErrors(t, with(func(c *storage.Config) { c.CAFile = file }), all(storage.ErrCertificate), "tls_ca_file")
	}
	if err := open(t, with(func(c *storage.Config) { c.CAFile, c.InsecureSkipVerify = "", true })).Check(ctx); err != nil {
		t.Errorf("without verification: %v", err)
	}
	if err := open(t, with(func(c *storage.Config) { c.Endpoint = strings.Replace(c.Endpoint, "https:", "http:", 1) })).Check(ctx); err == nil {
		t.Error("plain HTTP to a TLS port passed")
	}
}

// serverSilence: a server that hangs or dies is noticed, and what it held is there when it is back.
func serverSilence(t *testing.T, server *servers.Server, cfg storage.Config) {
	ctx := t.Context()
	cfg.Timeout = 500 * time.Millisecond
	bucket := open(t, cfg)
	body := bytes.Repeat([]byte("0123456789abcdef"), 2<<20)
	version, err := bucket.Create(ctx, "large", bytes.NewReader(body), storagetest.Options(body))
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := bucket.Open(ctx, "large", version, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	server.Pause()
	began := time.Now()
	if n, err := io.Copy(io.Discard, r); !errors.Is(err, storage.ErrUnreachable) {
		t.Errorf("reading from a server that hangs: %d bytes, %v", n, err)
	}
	wantErrors(t, cfg, all(storage.ErrUnreachable), "")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("%v to notice that the server hangs", took)
	}
	server.Resume()

	server.Kill()
	wantErrors(t, cfg, all(storage.ErrUnreachable), "refused")
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	info, err := bucket.Stat(ctx, "large", version)
	if err != nil || info.Size != int64(len(body)) || info.LockMode != storage.Compliance {
		t.Errorf("after a crash: %+v, %v", info, err)
	}
}
