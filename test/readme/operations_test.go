package readme

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest"
	"github.com/auditchain/auditchain/record/recordtest"
	"github.com/auditchain/auditchain/test/servers"
)

// TestStrandedRecords runs the commands that docs/OPERATIONS.md has for the records in a journal that no chain will take.
func TestStrandedRecords(t *testing.T) {
	servers.Programs(t, "python3")
	text, err := os.ReadFile(filepath.Join(servers.Root(), "docs", "OPERATIONS.md"))
	if err != nil {
		t.Fatal(err)
	}
	script := regexp.MustCompile("(?s)```\n( *grep .*?)\n *```").FindSubmatch(text)
	if script == nil {
		t.Fatal("docs/OPERATIONS.md has no such commands any more")
	}
	lines := strings.Split(string(script[1]), "\n")
	indent := len(lines[0]) - len(strings.TrimLeft(lines[0], " "))
	for i := range lines {
		lines[i] = lines[i][indent:]
	}

	dir := t.TempDir()
	journal(t, dir, 7)
	command := exec.Command("bash", "-e", "-o", "pipefail", "-c", strings.Join(lines, "\n"))
	command.Dir = dir
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	records, err := os.ReadFile(filepath.Join(dir, "stranded.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(records)) {
		if n++; !json.Valid([]byte(line)) || !strings.HasPrefix(line, "{") {
			t.Errorf("line %q", line)
		}
	}
	if n != 7 {
		t.Errorf("%d records of 7", n)
	}
}

// journal copies a journal with so many records into dir.
func journal(t *testing.T, dir string, records int) {
	t.Helper()
	key, err := chain.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "key.pem"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(other, "bucket"), 0o700); err != nil {
		t.Fatal(err)
	}
	values := map[string]string{"chain": "c", "signing_key": filepath.Join(other, "key.pem"), "bucket": "dir:" + filepath.Join(other, "bucket"),
		"retention": "1d", "store_dir": filepath.Join(other, "store"), "total_file_size": "1M"}
	cfg, err := ingest.ParseConfig(func(key string) string { return values[key] })
	if err != nil {
		t.Fatal(err)
	}
	log, err := ingest.Open(t.Context(), cfg, ingest.Options{Logger: quiet{}, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Append([]byte("tag"), recordtest.New(recordtest.Config{}).Chunk(records)); err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(other, "store", "*", "journal-*.ndjson"))
	if err != nil || len(paths) != 1 {
		t.Fatal(paths, err)
	}
	data, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, filepath.Base(paths[0])), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// quiet is a logger that says nothing.
type quiet struct{}

func (quiet) Error(string) {}
func (quiet) Warn(string)  {}
func (quiet) Info(string)  {}
func (quiet) Debug(string) {}
