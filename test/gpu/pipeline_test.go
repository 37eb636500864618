package gpu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/host"
	"github.com/auditchain/auditchain/test/servers"
)

const (
	chainName  = "audit.example.com/gpu"
	bucketName = "audit"
)

// pipeline is everything from the model server to the bucket, with the configurations that we ship.
type pipeline struct {
	*rig
	node       *fluentBit
	aggregator *fluentBit
	store      *servers.Server
	storeDir   string // of the chain's journals
	nodeDir    string // of what the node's Fluent Bit keeps
	log        query.Log

	mu    sync.Mutex
	lines Records // that the middleware has written, as far as they were seen before they were deleted
	seen  map[Source]bool
}

// fluentBit is one of the two, that comes back with the same configuration.
type fluentBit struct {
	fluentbit.Config
	process *fluentbit.Process
}

func (f *fluentBit) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	process, err := fluentbit.Start(f.Config)
	if err != nil {
		t.Fatal(err)
	}
	f.process = process
	if err := process.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

func (f *fluentBit) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if code, err := f.process.Stop(ctx); code != 0 || err != nil {
		t.Errorf("Fluent Bit ended with %d, %v", code, err)
	}
}

// newFluentBit starts a Fluent Bit with a configuration that we ship: its files are below dir, its ports others.
func newFluentBit(t *testing.T, name, dir, plugin string, ports map[string]int, env ...string) *fluentBit {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(servers.Root(), "conf", name, "fluent-bit.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	replaced := []string{"0.0.0.0", "127.0.0.1"}
	httpPort := 0
	for port, other := range ports {
		if !bytes.Contains(text, []byte("port: "+port)) {
			t.Fatalf("conf/%s has no port %s", name, port)
		}
		if port != forwardPort {
			httpPort = other
		}
		replaced = append(replaced, "port: "+port, "port: "+strconv.Itoa(other))
	}
	// Sealed often, so that kills come into it.
	replaced = append(replaced, "      store_dir:", "      upload_timeout: 2s\n      store_dir:")
	yaml := fluentbit.Relocate(strings.NewReplacer(replaced...).Replace(string(text)), dir, plugin)
	f := &fluentBit{Config: fluentbit.Config{Dir: dir, YAML: yaml, HTTPPort: httpPort, Env: env}}
	t.Cleanup(func() {
		if f.process == nil {
			return
		}
		f.process.Kill()
		if t.Failed() {
			t.Logf("the end of the log of Fluent Bit, %s:\n%s", name, tail(f.process.Log()))
		}
	})
	f.start(t)
	return f
}

// Ports of the configurations that we ship.
const (
	forwardPort        = "24224"
	aggregatorHTTPPort = "2020"
	nodeHTTPPort       = "2021"
)

func freePort(t *testing.T) int {
	t.Helper()
	port, err := servers.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// newPipeline starts all of it.
func newPipeline(t *testing.T, o Options, env ...string) *pipeline {
	t.Helper()
	need(t)
	if _, err := fluentbit.Find(); err != nil {
		t.Skip(err)
	}
	plugin := host.Plugin(t)
	p := &pipeline{store: servers.Versitygw(t), seen: make(map[Source]bool)}
	p.store.MakeLockedBucket(t, bucketName)

	aggregator, node := t.TempDir(), t.TempDir()
	for _, dir := range []string{"etc/tls", "etc/keys", "var"} {
		for _, host := range []string{aggregator, node} {
			if err := os.MkdirAll(filepath.Join(host, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	ca, err := servers.NewCA(filepath.Join(aggregator, "etc", "tls"))
	if err != nil {
		t.Fatal(err)
	}
	for host, name := range map[string]string{aggregator: "localhost", node: "gpu-01.example.com"} {
		base := filepath.Join(host, "etc", "tls", "tls")
		if err := ca.Issue(base+".crt", base+".key", name); err != nil {
			t.Fatal(err)
		}
	}
	certificate, err := os.ReadFile(ca.File)
	if err != nil {
		t.Fatal(err)
	}
	text, err := chain.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string][]byte{
		filepath.Join(node, "etc", "tls", "ca.crt"):                certificate,
		filepath.Join(aggregator, "etc", "keys", "auditchain.pem"): text,
	} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key, err := chain.ParseSigningKey(text)
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := storage.Open(storage.Config{
		Bucket: bucketName, Endpoint: p.store.Endpoint, Region: p.store.Region, AccessKey: p.store.AccessKey, SecretKey: p.store.SecretKey,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.log = query.Log{Bucket: bucket, Layout: chain.Layout{Chain: chainName}, Key: key.Public()}

	port := freePort(t)
	p.nodeDir = filepath.Join(node, "var", "gpu")
	p.storeDir = filepath.Join(aggregator, "var", "chains", strings.ReplaceAll(chainName, "/", "~"))
	p.aggregator = newFluentBit(t, "aggregator", aggregator, plugin, map[string]int{forwardPort: port, aggregatorHTTPPort: freePort(t)},
		"AUDITCHAIN_CHAIN="+chainName, "AUDITCHAIN_BUCKET="+bucketName, "AUDITCHAIN_RETENTION=1d",
		"AUDITCHAIN_ENDPOINT="+p.store.Endpoint, "AUDITCHAIN_REGION="+p.store.Region,
		"AWS_ACCESS_KEY_ID="+p.store.AccessKey, "AWS_SECRET_ACCESS_KEY="+p.store.SecretKey)
	p.rig = newRig(t, o, env...)
	p.node = newFluentBit(t, "gpu-node", node, plugin, map[string]int{forwardPort: port, nodeHTTPPort: freePort(t)},
		"AUDITCHAIN_AGGREGATOR=localhost", "AUDITCHAIN_DIR="+p.dir)
	return p
}

// written returns what the middleware has written so far.
func (p *pipeline) written(t *testing.T) *Records {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	now, err := ReadRecords(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range now.Requests {
		if !p.seen[r.Source] {
			p.seen[r.Source] = true
			p.lines.Requests = append(p.lines.Requests, r)
		}
	}
	for _, e := range now.Events {
		if !p.seen[e.Source] {
			p.seen[e.Source] = true
			p.lines.Events = append(p.lines.Events, e)
		}
	}
	return &Records{Requests: slices.Clone(p.lines.Requests), Events: slices.Clone(p.lines.Events)}
}

// tidy deletes files whose records have arrived, as the timer that we ship does, but all the time, and at once. What it returns
// ends that, and says how many files it has deleted.
func (p *pipeline) tidy(t *testing.T) func() int {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	deleted := 0
	group.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			p.written(t) // before it is gone
			cmd := exec.Command(Python(), "-m", "auditchain_asgi.shipped", "--dir", p.dir,
				"--db", filepath.Join(p.nodeDir, "tail.db"), "--storage", filepath.Join(p.nodeDir, "buffer"), "--older-than", "0s", "--wait", "2s")
			cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(servers.Root(), "middleware"), "PYTHONDONTWRITEBYTECODE=1")
			out, err := cmd.Output()
			deleted += strings.Count(string(out), "deleted ")
			// 1: not all could be deleted, while Fluent Bit is away or behind.
			if exit := new(exec.ExitError); err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
				t.Errorf("deleting what has arrived: %v\n%s", err, exit.Stderr)
				return
			}
		}
	})
	end := func() int { cancel(); group.Wait(); return deleted }
	t.Cleanup(func() { end() })
	return end
}

// arrival is a record in the log, or on its way into it.
type arrival struct {
	Record
	received    time.Time
	redelivered bool
}

// arrived is what the aggregator has taken: what is in the bucket and in the journals. With the bucket away it is the journals alone.
type arrived struct {
	requests []arrival
	events   []Event
	entries  map[uint64]bool // by number: a journal may be read that is in the bucket already
}

func (a *arrived) add(e *chain.Entry) error {
	if a.entries[e.Seq] || e.Event != "" {
		if e.Event == chain.EventQuarantine || e.Event == chain.EventJournalLost {
			return fmt.Errorf("entry %d is a %s: %s", e.Seq, e.Event, e.Detail)
		}
		return nil
	}
	a.entries[e.Seq] = true
	var one Records
	if err := one.Add(e.Record); err != nil {
		return fmt.Errorf("entry %d: %w", e.Seq, err)
	}
	for _, r := range one.Requests {
		a.requests = append(a.requests, arrival{r, e.Received, e.Redelivered})
	}
	a.events = append(a.events, one.Events...)
	return nil
}

// committed reads the bucket.
func (p *pipeline) committed(ctx context.Context, a *arrived) error {
	return p.log.Walk(ctx, func(e *chain.Entry, _ []byte) error { return a.add(e) })
}

// taken reads the journals and then the bucket, so that nothing is missed that goes from one to the other meanwhile.
func (p *pipeline) taken(ctx context.Context) (*arrived, error) {
	a := &arrived{entries: make(map[uint64]bool)}
	journals, err := filepath.Glob(filepath.Join(p.storeDir, "journal-*.ndjson"))
	if err != nil {
		return nil, err
	}
	for _, path := range journals {
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue // it is in the bucket
		}
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(text) {
			line, whole := bytes.CutSuffix(line, []byte("\n"))
			if !whole {
				break // it is being written
			}
			e, err := chain.ParseEntry(line)
			if err != nil {
				continue // a journal has lines of its own
			}
			if err := a.add(&e); err != nil {
				return nil, err
			}
		}
	}
	return a, p.committed(ctx, a)
}
