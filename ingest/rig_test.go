package ingest

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tinylib/msgp/msgp"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest/disk"
	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/storage"
)

// rig is a log's surroundings, which outlive it: a bucket, a store directory, a key.
type rig struct {
	t        testing.TB
	cfg      Config
	bucket   storage.Bucket
	fs       disk.FS
	backoff  func(int) time.Duration
	log      *testLogger
	trusted  chain.PublicKey // of the chain's first key: what an auditor knows
	untidy   bool            // objects may be left that no manifest names: a draft was damaged whose segment was in the bucket, and is made anew behind a rotation
	leftover string          // key of an object that no manifest names
	reader   storage.Bucket  // what an auditor reads; nil: the bucket without the faults that a test puts before it
}

func newRig(t testing.TB) *rig {
	t.Helper()
	dir := t.TempDir()
	key := newKey(t)
	bucket := filepath.Join(dir, "bucket")
	if err := os.Mkdir(bucket, 0o755); err != nil {
		t.Fatal(err)
	}
	values := map[string]string{
		"chain": "audit.example.com/test", "signing_key": key, "bucket": "dir:" + bucket, "retention": "1d",
		"store_dir": filepath.Join(dir, "store"),
	}
	cfg, err := ParseConfig(func(key string) string { return values[key] })
	if err != nil {
		t.Fatal(err)
	}
	cfg.UploadTimeout = time.Hour // tests rotate by size or by closing
	r := &rig{t: t, cfg: cfg, fs: disk.OS{}, backoff: func(int) time.Duration { return time.Millisecond }, log: &testLogger{t: t}}
	if r.bucket, err = storage.Open(cfg.Storage); err != nil {
		t.Fatal(err)
	}
	r.trusted = publicKey(t, key)
	return r
}

// newKey makes a signing key and returns the path of its file.
func newKey(t testing.TB) string {
	t.Helper()
	text, err := chain.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func publicKey(t testing.TB, path string) chain.PublicKey {
	t.Helper()
	key, err := readSigningKey(path)
	if err != nil {
		t.Fatal(err)
	}
	return key.Public()
}

// dir is the chain's directory in the store directory.
func (r *rig) dir() string {
	return filepath.Join(r.cfg.StoreDir, strings.ReplaceAll(r.cfg.Chain, "/", "~"))
}

func (r *rig) open() (*Log, error) {
	return open(context.Background(), r.cfg, Options{Logger: r.log, Version: "test"}, world{r.bucket, r.fs, r.backoff})
}

func (r *rig) mustOpen() *Log {
	r.t.Helper()
	l, err := r.open()
	if err != nil {
		r.t.Fatal(err)
	}
	return l
}

func (r *rig) mustClose(l *Log) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		r.t.Fatal(err)
	}
}

// crash ends l as if its process had died: nothing is sealed, and the lock is gone.
func crash(l *Log) {
	l.cancel()
	<-l.done
	l.lock.Close()
}

// verify walks the bucket and returns the n of every record {"n":n} in the order of the log, and the events.
func (r *rig) verify() (numbers []int, events []string) {
	r.t.Helper()
	reader := &query.Log{Bucket: r.plainBucket(), Layout: chain.Layout{Chain: r.cfg.Chain}, Key: r.trusted}
	report, err := reader.Verify(context.Background(), query.VerifyOptions{Now: time.Now()})
	if err != nil {
		r.t.Fatal(err)
	}
	if report.Verdict != "intact" {
		r.t.Fatalf("the log is %s: %+v", report.Verdict, report.Findings)
	}
	for _, f := range report.Findings {
		if f.Severity != query.Notice && f.Code != "journal-lost" || f.Code == "uncommitted" && f.Object != r.leftover && !r.untidy {
			r.t.Errorf("finding: %+v", f)
		}
	}
	err = reader.Walk(context.Background(), func(e *chain.Entry, line []byte) error {
		if e.Event != "" {
			events = append(events, e.Event)
			return nil
		}
		var n int
		if _, err := fmt.Sscanf(string(e.Record), `{"n":%d`, &n); err != nil {
			return fmt.Errorf("%s: %w", e.Record, err)
		}
		numbers = append(numbers, n)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return numbers, events
}

// plainBucket is the bucket without the faults that a test puts before it.
func (r *rig) plainBucket() storage.Bucket {
	if r.reader != nil {
		return r.reader
	}
	b, err := storage.Open(r.cfg.Storage)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

// wantNumbers fails unless got is exactly 0 to n-1, in any order of chunks but each once.
func (r *rig) wantNumbers(got []int, n int) {
	r.t.Helper()
	seen := make(map[int]int)
	for _, v := range got {
		seen[v]++
	}
	for i := range n {
		if seen[i] != 1 {
			r.t.Errorf("record %d is in the log %d times", i, seen[i])
		}
	}
	if len(got) != n {
		r.t.Errorf("%d records in the log, want %d", len(got), n)
	}
}

// testLogger collects messages.
type testLogger struct {
	t     testing.TB
	mu    sync.Mutex
	lines []string
}

func (l *testLogger) add(level, msg string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, level+" "+msg)
}
func (l *testLogger) Error(msg string) { l.add("error", msg) }
func (l *testLogger) Warn(msg string)  { l.add("warn", msg) }
func (l *testLogger) Info(msg string)  { l.add("info", msg) }
func (l *testLogger) Debug(msg string) { l.add("debug", msg) }

func (l *testLogger) has(part string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, part) {
			return true
		}
	}
	return false
}

// testChunk is a chunk of records {"n":i,"pad":"..."} for i from first on.
func testChunk(first, count, pad int) []byte {
	var b []byte
	for i := range count {
		b = append(b, 0x92, 0x92, 0xd7, 0, 0x6b, 3, 0xf7, 0xf6, 0, 0, 0, byte(i), 0x80, 0x82)
		b = msgp.AppendInt(msgp.AppendString(b, "n"), first+i)
		b = msgp.AppendString(msgp.AppendString(b, "pad"), strings.Repeat("x", pad))
	}
	return b
}

func mustAppend(t testing.TB, l *Log, chunk []byte) {
	t.Helper()
	if err := l.Append([]byte("tag"), chunk); err != nil {
		t.Fatal(err)
	}
}

// unreachable is a bucket that nobody reaches.
type unreachable struct{ storage.Bucket }

func (unreachable) Check(context.Context) error {
	return fmt.Errorf("injected: %w", storage.ErrUnreachable)
}

func (unreachable) Create(context.Context, string, io.ReadSeeker, storage.CreateOptions) (storage.Version, error) {
	return "", fmt.Errorf("injected: %w", storage.ErrUnreachable)
}

// failing is a bucket into which objects with some suffix do not go.
type failing struct {
	storage.Bucket
	suffix string
	failed chan struct{}
	once   sync.Once
}

func (b *failing) Create(ctx context.Context, key string, body io.ReadSeeker, opts storage.CreateOptions) (storage.Version, error) {
	b.once.Do(func() { b.failed = make(chan struct{}, 1) })
	if strings.HasSuffix(key, b.suffix) {
		signal(b.failed)
		return "", fmt.Errorf("injected: %w", storage.ErrUnreachable)
	}
	return b.Bucket.Create(ctx, key, body, opts)
}

// wait waits until something has failed.
func (b *failing) wait(t *testing.T) {
	t.Helper()
	b.once.Do(func() { b.failed = make(chan struct{}, 1) })
	select {
	case <-b.failed:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing failed")
	}
}
