package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/host"
)

// long says that sweeps are to be run whole, which takes minutes, and not only a part of each.
func long() bool { return os.Getenv("AUDITCHAIN_LONG") == "1" }

// fileLog is a chain in a bucket that is a directory, for tests that need hundreds of lives. Nothing in it is locked.
type fileLog struct {
	dir string // holds the store directory, the bucket and the key
	key chain.PublicKey
}

// newFileLog prepares a chain.
func newFileLog(t *testing.T) *fileLog {
	t.Helper()
	l := &fileLog{dir: t.TempDir()}
	text, err := chain.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := chain.ParseSigningKey(text)
	if err != nil {
		t.Fatal(err)
	}
	l.key = key.Public()
	if err := os.WriteFile(filepath.Join(l.dir, "audit.pem"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(l.bucket(), 0o700); err != nil {
		t.Fatal(err)
	}
	return l
}

// clone returns a chain that stands where l does, in a directory of its own.
func (l *fileLog) clone(t *testing.T) *fileLog {
	t.Helper()
	other := &fileLog{dir: t.TempDir(), key: l.key}
	if err := os.CopyFS(other.dir, os.DirFS(l.dir)); err != nil {
		t.Fatal(err)
	}
	return other
}

func (l *fileLog) bucket() string       { return filepath.Join(l.dir, "bucket") }
func (l *fileLog) store() string        { return filepath.Join(l.dir, "store") }
func (l *fileLog) layout() chain.Layout { return chain.Layout{Chain: "files"} }

// state is the chain's own directory in the store directory.
func (l *fileLog) state() string {
	return filepath.Join(l.store(), l.layout().Chain)
}

// section is the log's output section.
func (l *fileLog) section() fluentbit.Section {
	return fluentbit.Section{
		"chain": l.layout().Chain, "signing_key": filepath.Join(l.dir, "audit.pem"), "retention": retention,
		"bucket": "dir:" + l.bucket(), "store_dir": l.store(), "total_file_size": "1M",
	}
}

// life is what a plugin host that ran to its end, or was killed, had to say.
type life struct {
	init string            // what FLBPluginInit returned; "": nothing
	ret  map[string]string // OK or RETRY, by file of the chunk
	log  string
	err  error // how the process ended
}

// begin are the commands that make the one instance of a plugin host.
func begin(section fluentbit.Section) []string {
	var commands []string
	for _, key := range slices.Sorted(maps.Keys(section)) {
		commands = append(commands, "set "+key+" "+section[key])
	}
	return append(commands, "init "+instance)
}

// live runs a plugin host with one instance, which carries out the commands.
func (l *fileLog) live(t *testing.T, section fluentbit.Section, opts host.Options, commands ...string) life {
	t.Helper()
	answers, log, err := host.Run(t, host.Plugin(t), opts, append(begin(section), commands...)...)
	lived := life{ret: make(map[string]string), log: log, err: err}
	for _, a := range answers {
		switch a.Op {
		case "init":
			lived.init = a.Ret
		case "flush":
			lived.ret[a.File] = a.Ret
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("a life of the plugin host: %v; its log:\n%s", err, log)
		}
	})
	for _, bad := range []string{"panic", "SIGSEGV", "fatal error"} {
		if strings.Contains(log, bad) {
			t.Errorf("the log has a %q:\n%s", bad, log)
		}
	}
	return lived
}

// deliver are the commands that deliver the chunks, one after the other.
func deliver(chunks []chunkFile) []string {
	var commands []string
	for _, c := range chunks {
		commands = append(commands, "flush "+instance+" host "+c.path)
	}
	return commands
}

// refused returns the chunks that were not acknowledged.
func (l life) refused(chunks []chunkFile) []chunkFile {
	return slices.DeleteFunc(slices.Clone(chunks), func(c chunkFile) bool { return l.ret[c.path] == "OK" })
}

// settle delivers the chunks that are left, in a life in which nothing goes wrong, and checks the whole log, which has all chunks
// then.
func (l *fileLog) settle(t *testing.T, all, left []chunkFile) *contents {
	t.Helper()
	last := l.live(t, l.section(), host.Options{}, deliver(left)...)
	if still := last.refused(left); last.init != "OK" || len(still) > 0 || last.err != nil {
		t.Fatalf("it does not go on: init %q, %d chunks not taken, %v", last.init, len(still), last.err)
	}
	c := l.check(t, recordsOf(all))
	c.checkWhole(t, all)
	if left, err := filepath.Glob(filepath.Join(l.state(), "journal-*.ndjson")); err != nil || len(left) > 0 {
		t.Errorf("when all was sealed there were left %q, %v", left, err)
	}
	return c
}

// check sees to it that the log is whole and has these records.
func (l *fileLog) check(t *testing.T, all []sent) *contents {
	t.Helper()
	c := l.load(t)
	c.checkRecords(t, all)
	c.checkCounts(t)
	if lost := c.events(chain.EventJournalLost); len(lost) > 0 {
		t.Errorf("the chain says %d times that a journal was lost", len(lost))
	}
	l.verify(t)
	return c
}

// recordsOf are the records in the chunks.
func recordsOf(chunks []chunkFile) []sent {
	var all []sent
	for _, c := range chunks {
		all = append(all, c.records...)
	}
	return all
}

// checkWhole sees to it that the records of each chunk stand one after the other, in their order.
func (c *contents) checkWhole(t *testing.T, chunks []chunkFile) {
	t.Helper()
	seq := c.positions()
	for _, chunk := range chunks {
		for i, s := range chunk.records {
			if first := seq[chunk.records[0].id]; seq[s.id] != first+uint64(i) {
				t.Errorf("record %d of chunk %s is entry %d, the first is %d", i, filepath.Base(chunk.path), seq[s.id], first)
			}
		}
	}
}

// checkOrder sees to it that the chunks stand in the order in which they are given.
func (c *contents) checkOrder(t *testing.T, chunks []chunkFile) {
	t.Helper()
	seq := c.positions()
	for i := 1; i < len(chunks); i++ {
		if a, b := seq[chunks[i-1].records[0].id], seq[chunks[i].records[0].id]; a > b {
			t.Errorf("chunk %d begins at entry %d, the chunk after it at %d", i-1, a, b)
		}
	}
}

// positions are the numbers of the records, by their id.
func (c *contents) positions() map[string]uint64 {
	seq := make(map[string]uint64)
	for i := range c.entries {
		seq[idOf(&c.entries[i])] = c.entries[i].Seq
	}
	return seq
}

// load reads the whole log and checks that it is one unbroken chain.
func (l *fileLog) load(t *testing.T) *contents {
	t.Helper()
	c := new(contents)
	root := filepath.Join(l.bucket(), l.layout().Root())
	named := make(map[string]bool)
	var head chain.Head
	for n := uint64(0); ; n++ {
		path := filepath.Join(l.bucket(), l.layout().Manifest(n))
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		m, payload, err := chain.OpenManifest(data, l.key)
		if err == nil {
			err = head.Advance(m, payload)
		}
		if err != nil {
			t.Fatalf("manifest %d: %v", n, err)
		}
		named[path] = true
		c.manifests = append(c.manifests, m)
		if m.Segment == nil {
			continue
		}
		path = filepath.Join(root, m.Segment.Key)
		named[path] = true
		if data, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		err = chain.VerifySegment(m, bytes.NewReader(data), func(_ *chain.Entry, line []byte) error {
			e, err := chain.ParseEntry(bytes.Clone(line))
			c.entries = append(c.entries, e)
			return err
		})
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		c.counts.Add(m.Counts)
		c.rawBytes += m.Segment.RawSize
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !named[path] {
			err = fmt.Errorf("no manifest names %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return c
}

// verify has the log verified by package query.
func (l *fileLog) verify(t *testing.T) {
	t.Helper()
	bucket, err := storage.Open(storage.Config{Bucket: "dir:" + l.bucket()})
	if err != nil {
		t.Fatal(err)
	}
	report, err := (&query.Log{Bucket: bucket, Layout: l.layout(), Key: l.key}).Verify(t.Context(), query.VerifyOptions{Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		if f.Severity != query.Notice {
			t.Errorf("the log is %s: %+v", report.Verdict, f)
		}
	}
	if report.Verdict != "intact" {
		t.Errorf("the log is %s", report.Verdict)
	}
}
