package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest"
	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/storage"
)

// TestEveryEntranceRecovers: a panic that leaves a callback or a goroutine takes all of Fluent Bit down. So each has a deferred
// function that recovers.
func TestEveryEntranceRecovers(t *testing.T) {
	entrances := 0
	for _, dir := range []string{".", "../ingest", "../ingest/disk", "../storage", "../record", "../chain"} {
		paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		files := token.NewFileSet()
		var parsed []*ast.File
		functions := make(map[string]*ast.BlockStmt)
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(files, path, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			parsed = append(parsed, f)
			for _, d := range f.Decls {
				if d, ok := d.(*ast.FuncDecl); ok {
					functions[d.Name.Name] = d.Body
				}
			}
		}
		check := func(node ast.Node, body *ast.BlockStmt) {
			entrances++
			if !recovers(body, functions) {
				t.Errorf("%s: nothing recovers from a panic here", files.Position(node.Pos()))
			}
		}
		for _, f := range parsed {
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					if strings.Contains(exportOf(n), "//export") {
						check(n, n.Body)
					}
				case *ast.GoStmt:
					check(n, bodyOf(n.Call.Fun, functions))
				case *ast.CallExpr: // of sync.WaitGroup
					if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Go" && len(n.Args) == 1 {
						check(n, bodyOf(n.Args[0], functions))
					}
				}
				return true
			})
		}
	}
	if entrances < 8 {
		t.Errorf("there are only %d entrances", entrances)
	}
}

// exportOf is the comment that exports a function to C.
func exportOf(f *ast.FuncDecl) string {
	if f.Doc == nil || len(f.Doc.List) == 0 {
		return ""
	}
	return f.Doc.List[len(f.Doc.List)-1].Text
}

// bodyOf is the body of a function literal, or of a function of the package.
func bodyOf(f ast.Expr, functions map[string]*ast.BlockStmt) *ast.BlockStmt {
	switch f := f.(type) {
	case *ast.FuncLit:
		return f.Body
	case *ast.SelectorExpr:
		return functions[f.Sel.Name]
	case *ast.Ident:
		return functions[f.Name]
	}
	return nil
}

// recovers reports whether the body defers what recovers, or is nothing but the call of a function that does.
func recovers(body *ast.BlockStmt, functions map[string]*ast.BlockStmt) bool {
	if body == nil {
		return false
	}
	if call, ok := body.List[0].(*ast.ExprStmt); ok && len(body.List) == 1 {
		if call, ok := call.X.(*ast.CallExpr); ok {
			return recovers(bodyOf(call.Fun, functions), functions)
		}
	}
	for _, s := range body.List {
		d, ok := s.(*ast.DeferStmt)
		if !ok {
			continue
		}
		found := false
		ast.Inspect(d, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && (id.Name == "recover" || id.Name == "onPanic") {
				found = true
			}
			return true
		})
		if found {
			return true
		}
	}
	return false
}

// callFlush and callExit call what is exported, whose types only C has names for.
func callFlush[ID, Size ~uint64 | ~uint32 | ~uintptr, Char ~int8 | ~uint8, Ret ~int32](f func(ID, unsafe.Pointer, Size, *Char) Ret, id uintptr, tag string, data []byte) int {
	c := append([]byte(tag), 0)
	return int(f(ID(id), unsafe.Pointer(unsafe.SliceData(data)), Size(len(data)), (*Char)(unsafe.Pointer(&c[0]))))
}

func callExit[ID ~uint64 | ~uint32 | ~uintptr, Ret ~int32](f func(ID) Ret, id uintptr) int {
	return int(f(ID(id)))
}

// What the callbacks return.
const (
	retError = 0
	retOK    = 1
	retRetry = 2
)

// panicky is a log, a printer and what has metrics, each of which panics as long as it is told to.
type panicky struct {
	on    string // which of its methods
	log   eventLog
	lines recorder
	mu    sync.Mutex
}

func (p *panicky) panics(method string) {
	if p.on == method {
		panic("no " + method)
	}
}

func (p *panicky) Append(tag, chunk []byte) error {
	p.panics("append")
	return p.log.Append(tag, chunk)
}

func (p *panicky) Stats() ingest.Stats {
	p.panics("stats")
	return p.log.Stats()
}

func (p *panicky) Close(ctx context.Context) error {
	p.panics("close")
	return p.log.Close(ctx)
}

func (p *panicky) enabled(l level) bool {
	p.panics("enabled")
	return l <= levelInfo
}

func (p *panicky) print(l level, line string) bool {
	p.panics("print")
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lines.print(l, line)
}

// said waits until one of the lines has all parts.
func (p *panicky) said(t *testing.T, parts ...string) {
	t.Helper()
	var all []string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		p.mu.Lock()
		all = slices.Clone(p.lines.lines)
		p.mu.Unlock()
		if slices.ContainsFunc(all, func(line string) bool {
			return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) })
		}) {
			return
		}
	}
	t.Fatalf("it said %q, want a line with %q", all, parts)
}

// instance opens an instance that p is all parts of.
func (p *panicky) instance() (id uintptr, i *instance, stderr *bytes.Buffer) {
	l, stderr := newTestLogger(nil)
	l.printer = p
	i = &instance{log: p, logger: l}
	return instances.add(i), i, stderr
}

func TestPanicsWhileTakingAChunk(t *testing.T) {
	p := &panicky{log: &fakeLog{}}
	id, _, _ := p.instance()
	flush := func(want int) {
		t.Helper()
		if got := callFlush(FLBPluginFlushCtx, id, "tag", []byte("chunk")); got != want {
			t.Errorf("with a panic in %q: flush returned %d, want %d", p.on, got, want)
		}
	}
	flush(retOK)
	p.on = "append"
	flush(retRetry)
	flush(retRetry)
	p.said(t, "error ", "panic while taking a chunk: no append at ", "panic_test.go:")
	p.on = ""
	flush(retOK) // nothing is locked for good
	if got := callFlush(FLBPluginFlushCtx, id, "tag", nil); got != retOK {
		t.Errorf("a chunk of nothing: %d", got)
	}
	callExit(FLBPluginExitCtx, id)
	if got := callFlush(FLBPluginFlushCtx, id, "tag", []byte("chunk")); got != retRetry {
		t.Errorf("flush after exit: %d", got)
	}
}

// TestPanicsOfTheLog: what writes the log cannot be told of its own panic. Then the line goes to stderr.
func TestPanicsOfTheLog(t *testing.T) {
	for _, method := range []string{"enabled", "print"} {
		p := &panicky{log: &fakeLog{err: errors.New("full")}, on: method}
		id, _, stderr := p.instance()
		func() {
			defer func() {
				if r := recover(); r != nil {
					t.Errorf("a panic of %s leaves FLBPluginFlushCtx: %v", method, r)
				}
			}()
			if got := callFlush(FLBPluginFlushCtx, id, "tag", []byte("chunk")); got != retRetry {
				t.Errorf("flush returned %d", got)
			}
			if !strings.Contains(stderr.String(), "chunk not taken") {
				t.Errorf("stderr has %q", stderr)
			}
		}()
		p.on = ""
		callExit(FLBPluginExitCtx, id)
	}
}

func TestPanicsWhileClosing(t *testing.T) {
	p := &panicky{log: &fakeLog{}, on: "close"}
	id, i, _ := p.instance()
	callExit(FLBPluginExitCtx, id)
	p.said(t, "panic while closing: no close at ", "panic_test.go:")
	if i.logger.printer != nil {
		t.Error("the logger goes on to use an instance that Fluent Bit frees")
	}
	callExit(FLBPluginExitCtx, id) // there is nothing any more
}

func TestPanicsOfMetrics(t *testing.T) {
	p := &panicky{log: &fakeLog{}}
	id, i, _ := p.instance()
	i.metrics = &metrics{stats: p.Stats, quit: make(chan struct{})}
	p.on = "stats"
	i.metrics.done.Go(func() { i.metrics.run(i.logger) })
	p.said(t, "panic while updating metrics: no stats at ", "panic_test.go:")
	if got := callFlush(FLBPluginFlushCtx, id, "tag", []byte("chunk")); got != retOK {
		t.Errorf("flush without metrics: %d", got)
	}
	callExit(FLBPluginExitCtx, id)
	p.said(t, "panic while closing: no stats at ")
	if i.logger.printer != nil {
		t.Error("the logger goes on to use an instance that Fluent Bit frees")
	}
}

// logRig is what a real log needs.
type logRig struct {
	dir    string
	values map[string]string
	cfg    ingest.Config
	key    chain.PublicKey
}

func newLogRig(t *testing.T) *logRig {
	t.Helper()
	dir := t.TempDir()
	text, err := chain.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := chain.ParseSigningKey(text)
	if err != nil {
		t.Fatal(err)
	}
	file, bucket := filepath.Join(dir, "key.pem"), filepath.Join(dir, "bucket")
	if err := errors.Join(os.WriteFile(file, text, 0o600), os.Mkdir(bucket, 0o700)); err != nil {
		t.Fatal(err)
	}
	r := &logRig{dir: dir, key: key.Public(), values: map[string]string{
		"chain": "panics", "signing_key": file, "bucket": "dir:" + bucket, "retention": "1d", "store_dir": filepath.Join(dir, "store"),
		"total_file_size": "1M", "upload_timeout": "1h",
	}}
	if r.cfg, err = ingest.ParseConfig(r.get); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *logRig) get(key string) string { return r.values[key] }

// verify returns how many records the log has, which must be whole.
func (r *logRig) verify(t *testing.T) uint64 {
	t.Helper()
	bucket, err := storage.Open(r.cfg.Storage)
	if err != nil {
		t.Fatal(err)
	}
	report, err := (&query.Log{Bucket: bucket, Layout: chain.Layout{Chain: r.cfg.Chain}, Key: r.key}).Verify(t.Context(), query.VerifyOptions{Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if report.Verdict != "intact" {
		t.Errorf("the log is %s: %+v", report.Verdict, report.Findings)
	}
	return report.Counts.Records
}

// fuse panics when it is called for the n-th time after it was lit.
type fuse struct{ left atomic.Int64 }

func (f *fuse) light(n int) { f.left.Store(int64(n)) }

// out reports whether it has panicked.
func (f *fuse) out() bool { return f.left.Load() <= 0 }

func (f *fuse) burn(what string) {
	if f.left.Add(-1) == 0 {
		panic(what)
	}
}

// fusedCompressor is a compressor with a fuse.
type fusedCompressor struct {
	chain.Compressor
	*fuse
}

func (c fusedCompressor) AppendFrame(dst, src []byte) ([]byte, error) {
	c.burn("no compressor")
	return c.Compressor.AppendFrame(dst, src)
}

// TestPanicsInTheLog: whatever the log was doing, in a callback or in a goroutine of its own, a panic ends it with a line that says
// where, chunks are left with Fluent Bit from then on, and the next start goes on with all that was acknowledged.
func TestPanicsInTheLog(t *testing.T) {
	for _, what := range []string{"clock", "compressor"} {
		t.Run(what, func(t *testing.T) {
			for n := 1; ; n++ {
				if !panicInTheLog(t, what, n) || t.Failed() {
					if n < 3 {
						t.Errorf("there were %d panics", n-1)
					}
					break
				}
			}
		})
	}
}

func panicInTheLog(t *testing.T, what string, n int) (came bool) {
	t.Helper()
	r := newLogRig(t)
	p, f := new(panicky), new(fuse)
	f.light(1 << 40)
	id, i, _ := p.instance()
	opts := ingest.Options{Logger: i.logger, Version: "test", Now: time.Now, Compressor: chain.NewCompressor}
	switch what {
	case "clock":
		opts.Now = func() time.Time {
			f.burn("no clock")
			return time.Now()
		}
	case "compressor":
		opts.Compressor = func(level chain.Level) (chain.Compressor, error) {
			c, err := chain.NewCompressor(level)
			return fusedCompressor{c, f}, err
		}
	}
	log, err := ingest.Open(t.Context(), r.cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	p.log = log
	f.light(n)
	const chunks, size = 9, 300_000 // three to a segment
	var left [][]byte
	for k := range chunks {
		c := chunkOf(k, size)
		if callFlush(FLBPluginFlushCtx, id, "tag", c) != retOK {
			left = append(left, c)
		}
	}
	callExit(FLBPluginExitCtx, id)
	if came = f.out(); came {
		p.said(t, "no "+what, ".go:")
	} else if len(left) > 0 {
		t.Errorf("%s %d: without a panic %d chunks were not taken", what, n, len(left))
	}
	// In the same process, as after a reload.
	again, err := ingest.Open(t.Context(), r.cfg, ingest.Options{Logger: i.logger, Version: "test"})
	if err != nil {
		t.Fatalf("%s %d: after a panic the log does not open: %v", what, n, err)
	}
	for _, c := range left {
		if err := again.Append([]byte("tag"), c); err != nil {
			t.Errorf("%s %d: %v", what, n, err)
		}
	}
	if err := again.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if records := r.verify(t); records != chunks {
		t.Errorf("%s %d: the log has %d records of %d", what, n, records, chunks)
	}
	return came
}

// TestPanicsWhileOpening: a panic that FLBPluginInit turns into a refusal leaves no lock behind.
func TestPanicsWhileOpening(t *testing.T) {
	r := newLogRig(t)
	l, _ := newTestLogger(nil)
	f := new(fuse)
	for n := 1; ; n++ {
		f.light(n)
		opened := func() (log *ingest.Log) {
			defer func() { recover() }()
			log, err := ingest.Open(t.Context(), r.cfg, ingest.Options{Logger: l, Version: "test", Now: func() time.Time {
				f.burn("no clock")
				return time.Now()
			}})
			if err != nil {
				t.Fatalf("panic %d: %v", n, err)
			}
			return log
		}()
		if opened == nil {
			continue
		}
		f.light(1 << 40)
		if err := opened.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if n < 2 {
			t.Errorf("there were %d panics", n-1)
		}
		break
	}
	r.verify(t)
}

// chunkOf is a chunk of one record.
func chunkOf(n, size int) []byte {
	b := []byte("\x92\x92\xd7\x00\x65\x00\x00\x00\x00\x00\x00\x01\x80\x81\xa1a\xdb")
	text := strings.Repeat(fmt.Sprintf("%09d ", n), size/10)
	b = append(b, byte(len(text)>>24), byte(len(text)>>16), byte(len(text)>>8), byte(len(text)))
	return append(b, text...)
}
