package servers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Where the programs are, and whether tests may do without them.
const (
	toolsEnv   = "AUDITCHAIN_TOOLS"         // their directory; default build/tools in the repository
	requireEnv = "AUDITCHAIN_REQUIRE_TOOLS" // "1": a missing one fails a test instead of skipping it

	requireProgramsEnv = "AUDITCHAIN_REQUIRE_PROGRAMS" // "1": the same of the machine's own programs
)

// ErrNotBuilt: the program has to be built first.
var ErrNotBuilt = errors.New("not built")

// Tool is the path of a program that test/tools builds: minio, versitygw, cosign, staticcheck. Without it the test is
// skipped, or fails if AUDITCHAIN_REQUIRE_TOOLS=1.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := Find(name)
	switch {
	case err == nil:
		return path
	case os.Getenv(requireEnv) == "1":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	return ""
}

// Find is Tool for callers that are no tests. ErrNotBuilt if there is no such program.
func Find(name string) (string, error) {
	dir := os.Getenv(toolsEnv)
	if dir == "" {
		dir = filepath.Join(Root(), "build", "tools")
	}
	path := filepath.Join(dir, name)
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return "", fmt.Errorf("%s is %w at %s: run `make tools` (it takes some minutes the first time), or set %s to the directory that holds it", name, ErrNotBuilt, path, toolsEnv)
	}
	return path, nil
}

// Programs says that a test needs programs of the machine's, which no `make` builds. Where one is missing the test is skipped, or
// fails if AUDITCHAIN_REQUIRE_PROGRAMS=1.
func Programs(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		_, err := exec.LookPath(name)
		switch {
		case err == nil:
		case os.Getenv(requireProgramsEnv) == "1":
			t.Fatalf("%s is not installed", name)
		default:
			t.Skipf("%s is not installed", name)
		}
	}
}

// Root is the repository's directory: two above this file, or where paths are trimmed from the program, the
// nearest one above the working directory that holds this package.
func Root() string {
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		return filepath.Dir(filepath.Dir(filepath.Dir(file)))
	}
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "test", "servers", "tools.go")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	return "."
}
