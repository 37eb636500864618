package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/tinylib/msgp/msgp"
	"github.com/ugorji/go/codec"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest"
	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/servers"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"auditchain": main})
}

// TestScripts runs the transcripts in testdata/script. Besides testscript's own commands they have:
//
//	exits CODE PROGRAM ARGS...      like exec, but the program must end with this exit code
//	records FROM TO KEY=VALUE...    append the records req-FROM to req-TO to a log, as the plugin does with these keys
//	lines FILE KEY=VALUE...         append the records in the file, a JSON object a line, each at its timestamp
//	flip GLOB                       change a byte in the middle of the file
//	edit FILE OLD NEW               put NEW in the place of the first OLD in the file
//	setfrom NAME FILE PATTERN       set NAME to what the pattern's group finds in the file
//	fingerprint FILE                set FINGERPRINT to that of the public key in the file
//	vkey FILE CHAIN                 set VKEY to the checkpoint key that goes with the signing key in the file
//	server PROGRAM [tls]            start an S3 server, or use the one that runs, and set ENDPOINT, CA and the
//	                                credentials of its administrator in the environment
//	make-bucket NAME                make a bucket without Object Lock there
//	delete KEY, overwrite KEY       lay a delete marker, or another version, over bucket/key there
//
// and the condition [server:PROGRAM], which holds if the program was built.
func TestScripts(t *testing.T) {
	s := scripts{t: t, running: make(map[string]*servers.Server)}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir) // where AWS clients look for files
			env.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			return nil
		},
		Condition: s.condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "records": records, "lines": lines, "flip": flip, "edit": edit, "setfrom": setFrom, "fingerprint": fingerprint, "vkey": vkey,
			"server": s.server, "make-bucket": s.makeBucket, "delete": s.remove, "overwrite": s.overwrite,
		},
	})
}

// scripts holds the servers that all scripts share.
type scripts struct {
	t       *testing.T
	mu      sync.Mutex
	running map[string]*servers.Server
}

func (s *scripts) condition(cond string) (bool, error) {
	program, ok := strings.CutPrefix(cond, "server:")
	if !ok {
		return false, fmt.Errorf("unknown condition %q", cond)
	}
	_, err := servers.Find(program)
	if errors.Is(err, servers.ErrNotBuilt) && os.Getenv("AUDITCHAIN_REQUIRE_TOOLS") != "1" {
		return false, nil
	}
	return err == nil, err
}

func (s *scripts) server(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: server PROGRAM [tls]")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.Join(args, " ")
	running := s.running[name]
	if running == nil {
		opts := []servers.Option{servers.WithDir(filepath.Join(s.t.TempDir(), name))}
		if len(args) == 2 {
			opts = append(opts, servers.WithTLS())
		}
		var err error
		running, err = servers.Start(args[0], opts...)
		ts.Check(err)
		s.t.Cleanup(running.Kill)
		s.running[name] = running
	}
	ts.Setenv("ENDPOINT", running.Endpoint)
	ts.Setenv("CA", running.CAFile)
	ts.Setenv("AWS_ACCESS_KEY_ID", running.AccessKey)
	ts.Setenv("AWS_SECRET_ACCESS_KEY", running.SecretKey)
}

// client is the administrator's, of the server that the script uses.
func client(ts *testscript.TestScript) *minio.Client {
	scheme, host, _ := strings.Cut(ts.Getenv("ENDPOINT"), "://")
	transport, err := minio.DefaultTransport(true)
	ts.Check(err)
	if scheme == "https" {
		transport.TLSClientConfig.RootCAs, err = servers.Pool(ts.Getenv("CA"))
		ts.Check(err)
	}
	c, err := minio.New(host, &minio.Options{
		Creds:  credentials.NewStaticV4(ts.Getenv("AWS_ACCESS_KEY_ID"), ts.Getenv("AWS_SECRET_ACCESS_KEY"), ""),
		Secure: scheme == "https", Region: "us-east-1", Transport: transport, BucketLookup: minio.BucketLookupPath,
	})
	ts.Check(err)
	return c
}

func (s *scripts) makeBucket(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(client(ts).MakeBucket(s.t.Context(), args[0], minio.MakeBucketOptions{}))
}

func (s *scripts) remove(ts *testscript.TestScript, _ bool, args []string) {
	bucket, key, _ := strings.Cut(args[0], "/")
	ts.Check(client(ts).RemoveObject(s.t.Context(), bucket, key, minio.RemoveObjectOptions{}))
}

func (s *scripts) overwrite(ts *testscript.TestScript, _ bool, args []string) {
	bucket, key, _ := strings.Cut(args[0], "/")
	_, err := client(ts).PutObject(s.t.Context(), bucket, key, strings.NewReader("forged"), 6, minio.PutObjectOptions{SendContentMd5: true})
	ts.Check(err)
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("%s ended with exit code %d, want %s", args[1], code, args[0])
	}
}

// silent is a log's logger for those who do not want to hear it.
type silent struct{}

func (silent) Error(string) {}
func (silent) Warn(string)  {}
func (silent) Info(string)  {}
func (silent) Debug(string) {}

func records(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: records FROM TO KEY=VALUE...")
	}
	from, err := strconv.Atoi(args[0])
	ts.Check(err)
	to, err := strconv.Atoi(args[1])
	ts.Check(err)
	var events []byte
	for i := from; i <= to; i++ {
		events, err = fluentbit.AppendV1(events, fluentbit.Event{
			Time:   time.Date(2026, 11, 23, 7, 25, i, 0, time.UTC),
			Record: map[string]any{"request_id": fmt.Sprint("req-", i), "model_id": "llama-3.1-8b", "status": 200},
		})
		ts.Check(err)
	}
	appendEvents(ts, events, args[2:])
}

func lines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: lines FILE KEY=VALUE...")
	}
	var msgpack codec.MsgpackHandle
	msgpack.Canonical, msgpack.WriteExt = true, true // members in one order: the same line is the same record
	var events []byte
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		var record map[string]any
		ts.Check(json.Unmarshal([]byte(line), &record))
		at, err := time.Parse(time.RFC3339, fmt.Sprint(record["timestamp"]))
		ts.Check(err)
		var packed []byte
		ts.Check(codec.NewEncoderBytes(&packed, &msgpack).Encode(whole(record)))
		events, err = fluentbit.AppendV1(events, fluentbit.Event{Time: at, Record: msgp.Raw(packed)})
		ts.Check(err)
	}
	appendEvents(ts, events, args[1:])
}

// whole makes integers of numbers without a fraction, as Fluent Bit reads JSON.
func whole(v any) any {
	switch v := v.(type) {
	case float64:
		if n := int64(v); float64(n) == v {
			return n
		}
	case map[string]any:
		for key, member := range v {
			v[key] = whole(member)
		}
	case []any:
		for i, element := range v {
			v[i] = whole(element)
		}
	}
	return v
}

// appendEvents appends events to a log, as the plugin does with these keys.
func appendEvents(ts *testscript.TestScript, events []byte, args []string) {
	keys := map[string]string{
		"chain": "audit.example.com/prod", "signing_key": ts.MkAbs("audit.pem"), "store_dir": ts.MkAbs("store"), "retention": "30d",
		"endpoint": ts.Getenv("ENDPOINT"), "tls_ca_file": ts.Getenv("CA"),
		"access_key": ts.Getenv("AWS_ACCESS_KEY_ID"), "secret_key": ts.Getenv("AWS_SECRET_ACCESS_KEY"),
	}
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		keys[key] = value
	}
	cfg, err := ingest.ParseConfig(func(key string) string { return keys[key] })
	ts.Check(err)
	log, err := ingest.Open(context.Background(), cfg, ingest.Options{Logger: silent{}, Version: "test"})
	ts.Check(err)
	ts.Check(log.Append([]byte("vllm.audit"), events))
	ts.Check(log.Close(context.Background()))
}

func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: flip GLOB")
	}
	paths, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(paths) != 1 {
		ts.Fatalf("%s is %d files, want 1", args[0], len(paths))
	}
	data, err := os.ReadFile(paths[0])
	ts.Check(err)
	data[len(data)/2] ^= 1
	ts.Check(os.Chmod(paths[0], 0o644))
	ts.Check(os.WriteFile(paths[0], data, 0o644))
}

func fingerprint(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: fingerprint FILE")
	}
	key, err := chain.ParsePublicKey([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	ts.Setenv("FINGERPRINT", key.Fingerprint().String())
}

func edit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: edit FILE OLD NEW")
	}
	before := ts.ReadFile(args[0])
	after := strings.Replace(before, args[1], args[2], 1)
	if after == before {
		ts.Fatalf("%s does not have %s", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(after), 0o644))
}

func vkey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: vkey FILE CHAIN")
	}
	key, err := chain.ParseSigningKey([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	text, err := key.CheckpointKey(args[1])
	ts.Check(err)
	ts.Setenv("VKEY", text)
}

func setFrom(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: setfrom NAME FILE PATTERN")
	}
	match := regexp.MustCompile(args[2]).FindStringSubmatch(ts.ReadFile(args[1]))
	if len(match) != 2 {
		ts.Fatalf("%s is not in %s", args[2], args[1])
	}
	ts.Setenv(args[0], match[1])
}
