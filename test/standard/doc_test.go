// Package standard verifies logs, as the writer writes them and forged, with programs that are not ours: it runs every command of
// docs/VERIFYING.md, and docs/verify.py, and compares their verdicts with those of package chain.
package standard

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/test/servers"
)

// block is a code block of docs/VERIFYING.md that can be run as it stands: one whose fence says sh.
type block struct {
	name   string // the section's first words and the block's number in it, from 1
	kind   string // what stands behind sh: "p256" goes for such keys only, "aws" wants a bucket, "evidence" a directory of evidence
	script string
	before string // the block before it in the section
}

// doc returns the blocks of docs/VERIFYING.md. The first, with the names that all others use, is begin.
func doc(t testing.TB) (begin string, blocks []block) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(servers.Root(), "docs", "VERIFYING.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := regexp.MustCompile(`(?m)^## `).Split(string(data), -1)
	fence := regexp.MustCompile("(?ms)^```sh *(\\w*)\n(.*?)^```$")
	for i, section := range sections {
		title, _, _ := strings.Cut(section, "\n")
		before := ""
		for n, match := range fence.FindAllStringSubmatch(section, -1) {
			if i == 0 {
				begin += match[2]
				continue
			}
			b := block{name: fmt.Sprintf("%s %d", title, n+1), kind: match[1], script: match[2], before: before}
			blocks = append(blocks, b)
			before = b.script
		}
	}
	if begin == "" || len(blocks) < 10 {
		t.Fatalf("docs/VERIFYING.md has %d blocks to run", len(blocks))
	}
	return begin, blocks
}

// programs that the commands need, besides cosign, which the repository builds.
var programs = []string{"bash", "base64", "jq", "openssl", "python3", "sha256sum", "zstd", "zstdcat"}

// environment is that of the commands, with cosign in it. The test is skipped where a program is missing, see servers.Programs.
func environment(t testing.TB) []string {
	t.Helper()
	servers.Programs(t, programs...)
	if out, err := exec.Command("openssl", "version").Output(); err != nil || strings.HasPrefix(string(out), "OpenSSL 1.") {
		t.Skipf("OpenSSL 3 is needed; this is %s", out)
	}
	cosign := servers.Tool(t, "cosign")
	return append(os.Environ(), "PATH="+filepath.Dir(cosign)+":"+os.Getenv("PATH"), "LC_ALL=C", "HOME="+t.TempDir())
}

// run runs a script in dir as a reader does who stops at the first error.
func run(env []string, dir, script string) (string, error) {
	cmd := exec.Command("bash", "-e", "-o", "pipefail", "-c", script)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// errDiffer: two lines that were to be the same are not.
var errDiffer = errors.New("it printed two hashes that differ")

// run runs the block in dir, which holds a copy of a log. Where the page says that two hashes are the same, they have to be.
func (b *block) run(env []string, begin, dir string) (string, error) {
	script := b.script
	if b.kind == "p256" {
		script = b.before + script
	}
	out, err := run(env, dir, begin+script)
	if err == nil && (strings.Contains(b.script, "# the same hash") || strings.Contains(b.script, "genesis.manifest_key")) {
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if n := len(lines); n < 2 || lines[n-1] != lines[n-2] {
			err = errDiffer
		}
	}
	return out, err
}
