package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/servers"
)

// retention of all logs; nobody can delete them before, but the servers' directories go with the tests.
const retention = "40d"

// auditLog is one chain: where the plugin writes it, and how it is read back.
type auditLog struct {
	server     *servers.Server
	bucket     string
	chain      string
	storeDir   string
	signingKey string // file
	publicKey  string // file
	key        chain.PublicKey
}

// newLog prepares a chain in a bucket of its own.
func newLog(t *testing.T, s *servers.Server) *auditLog {
	t.Helper()
	dir := t.TempDir()
	l := &auditLog{
		server: s, bucket: newBucket(t, s), chain: "audit.example.com/e2e", storeDir: filepath.Join(dir, "store"),
		signingKey: filepath.Join(dir, "audit.pem"), publicKey: filepath.Join(dir, "audit.pub.pem"),
	}
	text, err := chain.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := chain.ParseSigningKey(text)
	if err != nil {
		t.Fatal(err)
	}
	l.key = key.Public()
	for path, text := range map[string][]byte{l.signingKey: text, l.publicKey: l.key.PEM()} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// another returns a second chain with the same key, bucket and store_dir.
func (l *auditLog) another(name string) *auditLog {
	other := *l
	other.chain = name
	return &other
}

// section is the log's output section.
func (l *auditLog) section() fluentbit.Section {
	return fluentbit.Section{
		"name": "auditchain", "match": "*", "workers": "1", "retry_limit": "no_limits",
		"chain": l.chain, "signing_key": l.signingKey, "retention": retention, "store_dir": l.storeDir,
		"bucket": l.bucket, "endpoint": l.server.Endpoint, "region": l.server.Region, "upload_timeout": "1s",
		"access_key": l.server.AccessKey, "secret_key": l.server.SecretKey, "tls_ca_file": l.server.CAFile,
	}
}

func (l *auditLog) layout() chain.Layout { return chain.Layout{Chain: l.chain} }

// object is one object of the log as the store describes it.
type object struct {
	key, version string
	lockMode     string
	retainUntil  time.Time
}

// objects lists all that lies below the chain's name. Anything but one version of each object is an error.
func (l *auditLog) objects(ctx context.Context, client *minio.Client, prefix string) ([]object, error) {
	var all []object
	for o := range client.ListObjectsIter(ctx, l.bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true, WithVersions: true}) {
		switch {
		case o.Err != nil:
			return nil, o.Err
		case o.IsDeleteMarker:
			return nil, fmt.Errorf("there is a delete marker on %s", o.Key)
		case len(all) > 0 && all[len(all)-1].key == o.Key:
			return nil, fmt.Errorf("%s has several versions", o.Key)
		}
		all = append(all, object{key: o.Key, version: o.VersionID})
	}
	return all, nil
}

// read returns an object's bytes and what the store says of its lock.
func (l *auditLog) read(ctx context.Context, client *minio.Client, o *object) ([]byte, error) {
	r, err := client.GetObject(ctx, l.bucket, o.key, minio.GetObjectOptions{VersionID: o.version})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return nil, err
	}
	// The headers, since minio-go does not read versitygw's answer to GetObjectRetention.
	o.lockMode = info.Metadata.Get("X-Amz-Object-Lock-Mode")
	if o.retainUntil, err = time.Parse(time.RFC3339, info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date")); err != nil {
		return nil, fmt.Errorf("%s: %w", o.key, err)
	}
	return io.ReadAll(r)
}

// contents is what a log holds.
type contents struct {
	manifests []*chain.Manifest
	entries   []chain.Entry // with memory of their own
	counts    chain.Counts  // the manifests' together
	rawBytes  int64         // the manifests' together
}

// events returns the entries that are the writer's own with this name.
func (c *contents) events(name string) []chain.Entry {
	return slices.DeleteFunc(slices.Clone(c.entries), func(e chain.Entry) bool { return e.Event != name })
}

// load reads the whole log and checks that it is one unbroken chain, every object of it locked as configured.
func (l *auditLog) load(t *testing.T) *contents {
	t.Helper()
	client := l.server.Client(t)
	objects, err := l.objects(t.Context(), client, l.layout().Root())
	if err != nil {
		t.Fatal(err)
	}
	c := new(contents)
	segments := make(map[string]object)
	head := chain.Head{Key: l.key}
	for _, o := range objects { // manifests come before segments
		n, ok := l.layout().ParseManifestKey(o.key)
		if !ok {
			segments[o.key] = o
			continue
		}
		data, err := l.read(t.Context(), client, &o)
		if err != nil {
			t.Fatal(err)
		}
		m, err := head.Follow(data)
		if err != nil {
			t.Fatalf("manifest %d: %v", n, err)
		}
		l.checkLock(t, &o, m)
		c.manifests = append(c.manifests, m)
	}
	for _, m := range c.manifests {
		if m.Segment == nil {
			continue
		}
		key := l.layout().Root() + m.Segment.Key
		o, ok := segments[key]
		if !ok || o.version != m.Segment.VersionID {
			t.Fatalf("%s is version %q, manifest %d says %q", key, o.version, m.N, m.Segment.VersionID)
		}
		delete(segments, key)
		data, err := l.read(t.Context(), client, &o)
		if err != nil {
			t.Fatal(err)
		}
		l.checkLock(t, &o, m)
		err = chain.VerifySegment(m, bytes.NewReader(data), func(_ *chain.Entry, line []byte) error {
			e, err := chain.ParseEntry(bytes.Clone(line))
			c.entries = append(c.entries, e)
			return err
		})
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		c.counts.Add(m.Counts)
		c.rawBytes += m.Segment.RawSize
	}
	for key := range segments {
		t.Errorf("no manifest names %s", key)
	}
	return c
}

// checkLock compares what the store says with what was configured and what the manifest says.
func (l *auditLog) checkLock(t *testing.T, o *object, m *chain.Manifest) {
	t.Helper()
	kept, err := chain.ParseRetention(retention)
	if err != nil {
		t.Fatal(err)
	}
	want := kept.After(m.SealedAt.Time).Truncate(time.Second)
	if o.lockMode != "COMPLIANCE" || !o.retainUntil.Equal(want) || m.Lock.Mode != "COMPLIANCE" || !m.Lock.RetainUntil.Equal(want) {
		t.Errorf("%s is locked %s until %s, its manifest says %s until %s, want COMPLIANCE until %s",
			o.key, o.lockMode, o.retainUntil, m.Lock.Mode, m.Lock.RetainUntil, want)
	}
}

var errNoManifest = errors.New("there is no manifest")

// committed returns how many entries the bucket has.
func (l *auditLog) committed(ctx context.Context, client *minio.Client) (uint64, error) {
	objects, err := l.objects(ctx, client, l.layout().Manifests())
	if err != nil || len(objects) == 0 {
		return 0, cmp.Or(err, errNoManifest)
	}
	data, err := l.read(ctx, client, &objects[len(objects)-1])
	if err != nil {
		return 0, err
	}
	m, err := chain.PeekManifest(data)
	if err != nil {
		return 0, err
	}
	return m.NextSeq, nil
}

// waitFor waits until the bucket has that many entries.
func (l *auditLog) waitFor(t *testing.T, entries int) {
	t.Helper()
	client := l.server.Client(t)
	eventually(t, fmt.Sprintf("%s has %d entries", l.chain, entries), func() error {
		n, err := l.committed(t.Context(), client)
		if err == nil && n < uint64(entries) {
			err = fmt.Errorf("it has %d", n)
		}
		return err
	})
}

// verify has the log verified by package query and by the command, which must both find it intact, with these warnings.
func (l *auditLog) verify(t *testing.T, warnings ...query.Code) {
	t.Helper()
	bucket, err := storage.Open(storage.Config{
		Bucket: l.bucket, Endpoint: l.server.Endpoint, Region: l.server.Region,
		AccessKey: l.server.AccessKey, SecretKey: l.server.SecretKey, CAFile: l.server.CAFile,
	})
	if err != nil {
		t.Fatal(err)
	}
	report, err := (&query.Log{Bucket: bucket, Layout: l.layout(), Key: l.key}).Verify(t.Context(), query.VerifyOptions{Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	var found []query.Code
	for _, f := range report.Findings {
		found = append(found, f.Code)
	}
	if report.Verdict != "intact" || !slices.Equal(found, warnings) {
		t.Errorf("the log is %s: %+v, want %q", report.Verdict, report.Findings, warnings)
	}
	out, code := l.command(t, "verify", "--key", l.publicKey)
	if code != 0 || !strings.HasPrefix(out, "INTACT") {
		t.Errorf("auditchain verify: exit code %d\n%s", code, out)
	}
}

// command runs build/auditchain on the log and returns what it printed and its exit code.
func (l *auditLog) command(t *testing.T, args ...string) (output string, exitCode int) {
	t.Helper()
	path := filepath.Join(servers.Root(), "build", "auditchain")
	args = append(args, "--bucket", l.bucket, "--endpoint", l.server.Endpoint, "--chain", l.chain, "--tls-ca-file", l.server.CAFile)
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+l.server.AccessKey, "AWS_SECRET_ACCESS_KEY="+l.server.SecretKey)
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
