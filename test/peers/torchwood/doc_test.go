package torchwood

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
)

// TestProgram builds the Go program of docs/VERIFYING.md and lets it verify a checkpoint and a proof, and forged ones.
func TestProgram(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "VERIFYING.md"))
	if err != nil {
		t.Fatal(err)
	}
	source := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindSubmatch(text)
	if source == nil {
		t.Fatal("docs/VERIFYING.md has no Go program")
	}
	dir := t.TempDir()
	write := func(name, data string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	program := filepath.Join(dir, "check")
	if out, err := exec.Command("go", "build", "-o", program, write("main.go", string(source[1]))).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	l := &log{key: newKey(t)}
	if l.vkey, err = l.key.CheckpointKey(name); err != nil {
		t.Fatal(err)
	}
	head := chain.Head{Chain: name, Key: l.key.Public(), NextN: 1}
	end := head
	var lines []string
	for i := range 9 {
		middle := chain.AppendMiddle(nil, time.Unix(1_800_000_000, 0), []byte("tag"))
		line := chain.AppendEntry(nil, end.NextSeq, end.Entry, middle, nil, false, false, fmt.Appendf(nil, `"time":"2027-01-15T08:00:00.000000000Z","record":{"request_id":"req-%d"}}`, i))
		lines = append(lines, string(line))
		l.entries = append(l.entries, chain.Sum(line))
		end.Append(chain.Sum(line))
	}
	m, err := head.Next(chain.KindSegment, &end, l.key)
	if err != nil {
		t.Fatal(err)
	}
	l.manifests = []*chain.Manifest{m}
	hashes, _ := l.ask(t, m, func(s *chain.Subtrees) ([]chain.Hash, error) { return s.Inclusion(4, m.NextSeq) })
	proof := write("proof", chain.InclusionProof{Index: 4, Hashes: hashes, Checkpoint: m.Checkpoint}.String())
	checkpoint := write("checkpoint", m.Checkpoint)

	for _, c := range []struct {
		what string
		args []string
		want string // "": it must fail
	}{
		{"a checkpoint", []string{l.vkey, checkpoint}, name + " had 9 entries"},
		{"a proof", []string{l.vkey, checkpoint, write("entry", lines[4]), proof}, "the entry is in the log"},
		{"another entry", []string{l.vkey, checkpoint, write("other", lines[5]), proof}, ""},
		{"an edited entry", []string{l.vkey, checkpoint, write("edited", strings.Replace(lines[4], "req-4", "req-5", 1)), proof}, ""},
		{"a forged checkpoint", []string{l.vkey, write("forged", strings.Replace(m.Checkpoint, "\n9\n", "\n8\n", 1))}, ""},
		{"another log's key", []string{otherKey(t), checkpoint}, ""},
	} {
		out, err := exec.Command(program, c.args...).CombinedOutput()
		if c.want == "" && err == nil || c.want != "" && (err != nil || !strings.Contains(string(out), c.want)) {
			t.Errorf("%s: %v\n%s", c.what, err, out)
		}
	}
}

func newKey(t testing.TB) *chain.SigningKey {
	t.Helper()
	text, err := chain.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := chain.ParseSigningKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func otherKey(t testing.TB) string {
	t.Helper()
	vkey, err := newKey(t).CheckpointKey(name)
	if err != nil {
		t.Fatal(err)
	}
	return vkey
}
