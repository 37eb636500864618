// Package readme runs what the README tells people to run.
package readme

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/ingest"
	"github.com/auditchain/auditchain/test/servers"
)

func read(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{servers.Root()}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// blocks returns the README's code blocks.
func blocks(t *testing.T) []string {
	var all []string
	for i, part := range strings.Split(read(t, "README.md"), "```") {
		if i%2 == 1 {
			all = append(all, part)
		}
	}
	return all
}

// TestVerifyWithOtherTools runs the README's commands for cosign, zstdcat and sha256sum on the format's test vectors.
func TestVerifyWithOtherTools(t *testing.T) {
	cosign := servers.Tool(t, "cosign")
	servers.Programs(t, "bash", "zstdcat", "sha256sum")
	i := slices.IndexFunc(blocks(t), func(b string) bool { return strings.Contains(b, "cosign verify-blob-attestation") })
	if i < 0 {
		t.Fatal("the README has no block with cosign")
	}
	script := blocks(t)[i]
	run := func(segment []byte) (string, error) {
		dir := t.TempDir()
		vectors := []string{"chain", "testdata", "vectors"}
		for name, data := range map[string]string{
			"auditchain.pub.pem":         read(t, append(vectors, "pub.pem")...),
			"000000000001.sigstore.json": read(t, append(vectors, "manifests", "000000000001.sigstore.json")...),
			"000000000001.ndjson.zst":    string(segment),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("bash", "-e", "-c", script)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(cosign)+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	segment := []byte(read(t, "chain", "testdata", "vectors", "segments", "date=2026-11-23", "000000000001.ndjson.zst"))
	out, err := run(segment)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(out, "Verified OK") {
		t.Errorf("cosign said:\n%s", out)
	}
	lines := strings.Fields(strings.ReplaceAll(out[strings.Index(out, "Verified OK")+len("Verified OK"):], " -", ""))
	if len(lines) != 2 || lines[0] != lines[1] || len(lines[0]) != 64 {
		t.Errorf("the hashes are %q: they must be the same", lines)
	}
	segment[len(segment)/2] ^= 1
	if out, err := run(segment); err == nil {
		t.Errorf("a segment with one bit changed passed:\n%s", out)
	}
}

// TestEveryKeyIsInTheTable compares the README's table of keys with the keys that the plugin asks for.
func TestEveryKeyIsInTheTable(t *testing.T) {
	readme := read(t, "README.md")
	table := readme[strings.Index(readme, "| key |"):]
	table = table[:strings.Index(table, "\n\n")]
	asked := make(map[string]bool)
	ingest.ParseConfig(func(key string) string { asked[key] = true; return "" })
	for key := range asked {
		if !strings.Contains(table, "`"+key+"`") {
			t.Errorf("the key %s is not in the README's table", key)
		}
	}
	for row := range strings.Lines(table) {
		first, _, _ := strings.Cut(strings.TrimPrefix(row, "|"), "|")
		for i, name := range strings.Split(first, "`") {
			if i%2 == 1 && !asked[name] {
				t.Errorf("the plugin does not know the key %s of the README's table", name)
			}
		}
	}
}

// TestEverySettingOfTheMiddlewareIsInTheTable compares the README's table with what the middleware reads from the environment.
func TestEverySettingOfTheMiddlewareIsInTheTable(t *testing.T) {
	servers.Programs(t, "python3")
	cmd := exec.Command("python3", "-c", "from auditchain_asgi import settings; print(*sorted(settings.KNOWN))")
	cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(servers.Root(), "middleware"), "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	readme := read(t, "README.md")
	table := readme[strings.Index(readme, "| environment |"):]
	table = table[:strings.Index(table, "\n\n")]
	var rows []string
	for row := range strings.Lines(table) {
		if name, ok := strings.CutPrefix(row, "| `AUDITCHAIN_"); ok {
			name, _, _ = strings.Cut(name, "`")
			rows = append(rows, name)
		}
	}
	slices.Sort(rows)
	if known := strings.Fields(string(out)); !slices.Equal(rows, known) {
		t.Errorf("the README's table has %q, the middleware reads %q", rows, known)
	}
}
