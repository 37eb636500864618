package attack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest"
	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/servers"
)

// store is one kind of S3 server. All attacks share one of each; every attack has a bucket of its own there.
type store struct {
	program string
	once    sync.Once
	server  *servers.Server
	err     error
}

var (
	versitygw = &store{program: "versitygw"}
	minioS3   = &store{program: "minio"}
)

// both are the servers that an attack by the S3 API is tried on. On the disks it is tried on versitygw, which keeps an object
// as the file that it is.
var (
	both  = []*store{versitygw, minioS3}
	disks = []*store{versitygw}
)

// scratch holds the servers' data.
var scratch string

func TestMain(m *testing.M) {
	if os.Getenv(measureEnv) != "" {
		os.Exit(measure())
	}
	os.Exit(func() int {
		var err error
		if scratch, err = os.MkdirTemp("", "auditchain-attack-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(scratch)
		flag.Parse()
		flag.Set("test.parallel", "8") // they wait for disks and clocks
		defer func() {
			for _, s := range both {
				if s.server != nil {
					s.server.Kill()
				}
			}
		}()
		return m.Run()
	}())
}

func (s *store) start(t *testing.T) *servers.Server {
	t.Helper()
	servers.Tool(t, s.program) // skips, or fails, if it was not built
	s.once.Do(func() { s.server, s.err = servers.Start(s.program, servers.WithDir(filepath.Join(scratch, s.program))) })
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.server
}

const (
	chainName = "audit.example.com/prod"
	bucketTag = "vllm.audit"
	perChunk  = 10 // records, and so entries, in each of the writer's segments
)

var buckets atomic.Int64

// arena is a log in a bucket of its own, and all that an attacker may want.
type arena struct {
	*testing.T
	server  *servers.Server
	name    string        // of the bucket
	client  *minio.Client // of somebody with all rights
	keyPEM  []byte
	dir     string // for files of this attack
	forger         // holds the signing key and knows where the chain stands
	now     time.Time
	left    []*chain.Manifest // the manifests that the writer left, by their numbers
	kept    []keptHead        // that the auditor has from an earlier verification
	through func(storage.Bucket) storage.Bucket
	reader  storage.Config
}

// keptHead is one form of what an auditor keeps.
type keptHead struct {
	form string
	data []byte
}

// newArena makes a bucket and a key, and no log yet.
func newArena(t *testing.T, s *store) *arena {
	t.Helper()
	a := &arena{T: t, server: s.start(t), name: fmt.Sprintf("attack-%d", buckets.Add(1)), dir: t.TempDir()}
	a.client = a.server.Client(t)
	a.server.MakeLockedBucket(t, a.name)
	a.reader = a.config(a.name)
	bucket, err := storage.Open(a.reader)
	a.check(err)
	if s == minioS3 {
		a.reader = a.session(readerRights)
	}
	a.keyPEM, err = chain.GenerateKey()
	a.check(err)
	key, err := chain.ParseSigningKey(a.keyPEM)
	a.check(err)
	a.check(os.WriteFile(filepath.Join(a.dir, "key.pem"), a.keyPEM, 0o600))
	a.forger = newForger(t, bucket, chainName, key)
	return a
}

// check ends the test if what the arena does to be an arena fails.
func (a *arena) check(err error) {
	a.Helper()
	if err != nil {
		a.Fatal(err)
	}
}

func (a *arena) config(bucket string) storage.Config {
	return storage.Config{
		Bucket: bucket, Endpoint: a.server.Endpoint, Region: a.server.Region,
		AccessKey: a.server.AccessKey, SecretKey: a.server.SecretKey,
	}
}

// readerRights are a reader's, as the README has them.
var readerRights = []string{
	"s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention",
	"s3:ListBucketVersions", "s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration",
}

// session is the configuration of somebody who has these rights on the bucket and no others.
func (a *arena) session(rights []string) storage.Config {
	a.Helper()
	policy, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": []any{
		map[string]any{"Effect": "Allow", "Action": rights, "Resource": []string{"arn:aws:s3:::" + a.name, "arn:aws:s3:::" + a.name + "/*"}},
	}})
	a.check(err)
	role, err := credentials.NewSTSAssumeRole(a.server.Endpoint, credentials.STSAssumeRoleOptions{
		AccessKey: a.server.AccessKey, SecretKey: a.server.SecretKey, Location: a.server.Region, Policy: string(policy),
	})
	a.check(err)
	value, err := role.GetWithContext(nil)
	a.check(err)
	cfg := a.config(a.name)
	cfg.AccessKey, cfg.SecretKey, cfg.SessionToken = value.AccessKeyID, value.SecretAccessKey, value.SessionToken
	return cfg
}

// silent is a log's logger for those who do not want to hear it.
type silent struct{}

func (silent) Error(string) {}
func (silent) Warn(string)  {}
func (silent) Info(string)  {}
func (silent) Debug(string) {}

// write has the real writer start, take a chunk of records req-from and so on, and end, which seals them into a segment.
func (a *arena) write(from int, keys ...string) {
	a.Helper()
	var chunk []map[string]any
	for i := range perChunk {
		chunk = append(chunk, recordOf(from+i))
	}
	a.deliver(keys, chunk)
}

// deliver has the real writer start, take chunks of records, and end.
func (a *arena) deliver(keys []string, chunks ...[]map[string]any) {
	a.Helper()
	set := map[string]string{
		"chain": chainName, "signing_key": filepath.Join(a.dir, "key.pem"), "store_dir": filepath.Join(a.dir, "store"),
		"bucket": a.name, "endpoint": a.server.Endpoint, "access_key": a.server.AccessKey, "secret_key": a.server.SecretKey,
		"retention": "30d",
	}
	for _, key := range keys {
		name, value, _ := strings.Cut(key, "=")
		set[name] = value
	}
	cfg, err := ingest.ParseConfig(func(key string) string { return set[key] })
	a.check(err)
	log, err := ingest.Open(a.Context(), cfg, ingest.Options{Logger: silent{}, Version: "test"})
	a.check(err)
	for _, chunk := range chunks {
		var events []byte
		for _, record := range chunk {
			events, err = fluentbit.AppendV1(events, fluentbit.Event{Time: time.Now(), Record: record})
			a.check(err)
		}
		a.check(log.Append([]byte(bucketTag), events))
	}
	a.check(log.Close(a.Context()))
}

// recordOf is a record of an inference.
func recordOf(n int) map[string]any {
	return map[string]any{
		"request_id": fmt.Sprintf("req-%d", n), "model_id": "llama-3.1-8b", "status": 200, "output_tokens": 100 + n,
		"source": map[string]any{"id": "gpu-1", "seq": n},
	}
}

// writer is the log that most attacks are on: the real writer's, a genesis and three segments of ten entries.
func writer(a *arena) {
	a.Helper()
	for i := range 3 {
		a.write(perChunk * i)
	}
	a.load()
}

// governed is the same in a chain of governance mode.
func governed(a *arena) {
	a.Helper()
	for i := range 3 {
		a.write(perChunk*i, "lock_mode=governance")
	}
	a.load()
}

// load takes in the manifests that are in the bucket.
func (a *arena) load() {
	a.Helper()
	a.left = nil
	a.standAt(1 << 32)
}

// standAt moves the head to before manifest n, or behind the last one.
func (a *arena) standAt(n uint64) {
	a.Helper()
	a.head = chain.Head{Key: a.trusted}
	for a.head.NextN < n {
		key := a.layout.Manifest(a.head.NextN)
		versions, err := a.bucket.Versions(a.Context(), key)
		a.check(err)
		if len(versions) == 0 {
			return
		}
		m, err := a.head.Follow(a.get(key, versions[0].Version))
		a.check(err)
		if uint64(len(a.left)) == m.N {
			a.left = append(a.left, m)
		}
	}
}

// get reads one version of an object, as the server serves it.
func (a *arena) get(key, version string) []byte {
	a.Helper()
	r, _, err := a.bucket.Open(a.Context(), key, version, 0, -1)
	a.check(err)
	defer r.Close()
	var data bytes.Buffer
	_, err = data.ReadFrom(r)
	a.check(err)
	return data.Bytes()
}

// object is the key and version of what a row of the table calls "manifest 2" or "segment 2".
func (a *arena) object(what string) (key, version string) {
	a.Helper()
	kind, number, _ := strings.Cut(what, " ")
	var n int
	if _, err := fmt.Sscan(number, &n); err != nil {
		a.Fatalf("%q is no object", what)
	}
	switch kind {
	case "manifest":
		key = a.layout.Manifest(uint64(n))
		versions, err := a.bucket.Versions(a.Context(), key)
		a.check(err)
		if len(versions) > 0 {
			version = versions[0].Version
		}
	case "segment":
		s := a.left[n].Segment
		key, version = a.layout.Root()+s.Key, s.VersionID
	default:
		a.Fatalf("%q is no object", what)
	}
	return key, version
}

// lines are the lines of a segment as the writer wrote them, each with its newline.
func (a *arena) lines(n int) [][]byte {
	a.Helper()
	key, version := a.object(fmt.Sprint("segment ", n))
	return a.linesOf(a.left[n], a.get(key, version))
}

func (a *arena) linesOf(m *chain.Manifest, object []byte) (lines [][]byte) {
	a.Helper()
	a.check(chain.VerifySegment(m, bytes.NewReader(object), func(_ *chain.Entry, line []byte) error {
		lines = append(lines, append(bytes.Clone(line), '\n'))
		return nil
	}))
	return lines
}

// log is the log as the auditor reads it.
func (a *arena) log() *query.Log {
	a.Helper()
	bucket, err := storage.Open(a.reader)
	a.check(err)
	if a.through != nil {
		bucket = a.through(bucket)
	}
	return &query.Log{Bucket: bucket, Layout: a.layout, Key: a.trusted}
}

// verify is what the auditor does.
func (a *arena) verify(opts query.VerifyOptions) *query.Report {
	a.Helper()
	if opts.Now = a.now; opts.Now.IsZero() {
		opts.Now = time.Now()
	}
	report, err := a.log().Verify(context.WithoutCancel(a.Context()), opts)
	a.check(err)
	return report
}

// keep has the auditor verify the log as it is now, and keep its head in every form that there is.
func (a *arena) keep() {
	a.Helper()
	report := a.verify(query.VerifyOptions{})
	if report.Verdict != "intact" || report.Proven == nil {
		a.Fatalf("before the attack: %+v", report)
	}
	head, err := report.Proven.MarshalJSON()
	a.check(err)
	last := a.layout.Manifest(report.Proven.NextN - 1)
	a.kept = []keptHead{
		{"head", head},
		{"manifest", a.get(last, "")},
		{"checkpoint", []byte(report.Checkpoint)},
	}
}

// put lays a version over whatever lies at key, as anybody who may write can; locked as the log's own objects are.
func (a *arena) put(key string, data []byte) (version string) {
	a.Helper()
	info, err := a.client.PutObject(a.Context(), a.name, key, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{
		DisableMultipart: true, SendContentMd5: true, DisableContentSha256: true,
		Mode: minio.Compliance, RetainUntilDate: time.Now().AddDate(0, 0, 31),
	})
	a.check(err)
	return info.VersionID
}

// createOptions are those of an object with this lock.
func createOptions(data []byte, lock chain.Lock) storage.CreateOptions {
	opts := storage.CreateOptions{Size: int64(len(data)), SHA256: sha256.Sum256(data), LockMode: lock.Mode, RetainUntil: lock.RetainUntil.Time}
	if lock.Mode == "NONE" {
		opts.LockMode, opts.RetainUntil = "", time.Time{}
	}
	return opts
}

func (a *arena) listen() net.Listener {
	a.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	a.check(err)
	return l
}
