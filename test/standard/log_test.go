package standard

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest"
	"github.com/auditchain/auditchain/record/recordtest"
	"github.com/auditchain/auditchain/test/servers"
)

// chainName is the name of all logs here.
const chainName = "audit.example.com/standard"

// silent is a logger that nobody hears.
type silent struct{}

func (silent) Error(string) {}
func (silent) Warn(string)  {}
func (silent) Info(string)  {}
func (silent) Debug(string) {}

// writer writes a log as the plugin does, in as many lives as it is asked to.
type writer struct {
	t         testing.TB
	dir       string // of keys, journals and, if there is no server, the bucket
	keys      map[string]string
	generator *recordtest.Generator
}

func newWriter(t testing.TB, keys map[string]string) *writer {
	w := &writer{t: t, dir: t.TempDir(), generator: recordtest.New(recordtest.Config{Text: 500, Incomplete: 7})}
	w.keys = map[string]string{"chain": chainName, "store_dir": filepath.Join(w.dir, "store"), "retention": "30d", "total_file_size": "8M",
		"bucket": "dir:" + filepath.Join(w.dir, "bucket")}
	if err := os.Mkdir(filepath.Join(w.dir, "bucket"), 0o755); err != nil {
		t.Fatal(err)
	}
	for key, value := range keys {
		w.keys[key] = value
	}
	return w
}

// ed25519 makes an Ed25519 key, as auditchain keygen does, and signs with it from here on.
func (w *writer) ed25519(name string) {
	text, err := chain.GenerateKey()
	if err != nil {
		w.t.Fatal(err)
	}
	w.use(name, text)
}

// p256 makes a P-256 key, as openssl does, and signs with it from here on.
func (w *writer) p256(name string) {
	text, err := exec.Command("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout").Output()
	if err != nil {
		w.t.Fatal(err)
	}
	w.use(name, text)
}

func (w *writer) use(name string, text []byte) {
	file := filepath.Join(w.dir, name)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if old := w.keys["signing_key"]; old != "" {
		w.keys["previous_signing_key"] = old
	}
	w.keys["signing_key"] = file
}

func (w *writer) public(name string) []byte { return public(w.t, filepath.Join(w.dir, name)) }

func public(t testing.TB, file string) []byte { return signingKey(t, file).Public().PEM() }

func signingKey(t testing.TB, file string) *chain.SigningKey {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	k, err := chain.ParseSigningKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// live runs the writer from a start to a stop, with a segment of so many records, and then for as long as it takes to write
// heartbeats.
func (w *writer) live(records, heartbeats int) {
	w.t.Helper()
	ctx := w.t.Context()
	w.keys["heartbeat_interval"] = "1h" // on a slow machine there must be none that was not asked for
	if heartbeats > 0 {
		w.keys["heartbeat_interval"] = "1s"
	}
	cfg, err := ingest.ParseConfig(func(key string) string { return w.keys[key] })
	if err != nil {
		w.t.Fatal(err)
	}
	log, err := ingest.Open(ctx, cfg, ingest.Options{Logger: silent{}, Version: "test"})
	if err != nil {
		w.t.Fatal(err)
	}
	if records > 0 {
		if err := log.Append([]byte("vllm.audit"), w.generator.Chunk(records)); err != nil {
			w.t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); heartbeats > 0 && log.Stats().Heartbeats < uint64(heartbeats); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatal("there is no heartbeat after 20 s")
		}
	}
	if err := log.Close(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// life is what all logs here have seen: a segment of several frames, small ones, and heartbeats.
func (w *writer) life() {
	w.live(1500, 0)
	w.live(3, 0)
	w.live(40, 1)
	w.live(0, 1)
}

// copyDir copies the log from the writer's directory.
func (w *writer) copyDir(dir string) {
	w.t.Helper()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(w.dir, "bucket", filepath.FromSlash(chainName)))); err != nil {
		w.t.Fatal(err)
	}
}

// copyVersions copies the log from a server: each manifest in its oldest version, each segment in the version that its manifest
// names.
func (w *writer) copyVersions(server *servers.Server, bucket, dir string) {
	w.t.Helper()
	ctx, client := w.t.Context(), server.Client(w.t)
	get := func(key, version string) []byte {
		object, err := client.GetObject(ctx, bucket, chainName+"/"+key, minio.GetObjectOptions{VersionID: version})
		if err != nil {
			w.t.Fatal(err)
		}
		defer object.Close()
		data, err := io.ReadAll(object)
		if err != nil {
			w.t.Fatalf("%s: %v", key, err)
		}
		file := filepath.Join(dir, filepath.FromSlash(key))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			w.t.Fatal(err)
		}
		return data
	}
	oldest := make(map[string]minio.ObjectInfo)
	for o := range client.ListObjectsIter(ctx, bucket, minio.ListObjectsOptions{Prefix: chainName + "/manifests/", WithVersions: true, Recursive: true}) {
		if o.Err != nil {
			w.t.Fatal(o.Err)
		}
		if !o.IsDeleteMarker {
			oldest[o.Key] = o // those of a key come with the newest first
		}
	}
	for key, o := range oldest {
		m, err := chain.PeekManifest(get(strings.TrimPrefix(key, chainName+"/"), o.VersionID))
		if err != nil {
			w.t.Fatal(err)
		}
		if m.Segment != nil {
			if m.Segment.VersionID == "" {
				w.t.Errorf("manifest %d names no version of its segment", m.N)
			}
			get(m.Segment.Key, m.Segment.VersionID)
		}
	}
}

// given puts what an auditor was given beside a copy: the key, the kept head, and our verifier.
func given(t testing.TB, dir string, key []byte) {
	t.Helper()
	verifier, err := os.ReadFile(filepath.Join(servers.Root(), "docs", "verify.py"))
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := chain.ParsePublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	head, err := follow(dir, trusted)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := json.Marshal(&head)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"audit.pub.pem": key, "kept.head": kept, "kept.checkpoint": []byte(head.Checkpoint), "verify.py": verifier} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// follow is our verification of a copy: all manifests and all segments.
func follow(dir string, key chain.PublicKey) (chain.Head, error) {
	head := chain.Head{Key: key}
	paths, err := filepath.Glob(filepath.Join(dir, "manifests", "*.sigstore.json"))
	if err != nil {
		return head, err
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return head, err
		}
		n := head.NextN
		m, err := head.Follow(data)
		if err != nil {
			return head, err
		}
		if filepath.Base(path) != filepath.Base(manifestName(n)) {
			return head, os.ErrInvalid
		}
		if m.Segment == nil {
			continue
		}
		f, err := os.Open(filepath.Join(dir, filepath.FromSlash(m.Segment.Key)))
		if err != nil {
			return head, err
		}
		err = chain.VerifySegment(m, f, nil)
		f.Close()
		if err != nil {
			return head, err
		}
	}
	return head, nil
}
