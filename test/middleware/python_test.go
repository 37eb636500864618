package middleware

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/test/servers"
)

// TestPython runs the middleware's own tests. Those that need fastapi and uvicorn are skipped, and listed, where no python3 on PATH has them.
func TestPython(t *testing.T) {
	servers.Programs(t, "python3")
	dir := filepath.Join(servers.Root(), "middleware")
	for _, pattern := range []string{"auditchain_asgi/*.py", "tests/*.py"} { // so that a change of them outdates what go test remembers of this test
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(names) == 0 {
			t.Fatal(pattern, err)
		}
		for _, name := range names {
			if _, err := os.Stat(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd := exec.Command(python(), "-B", "-m", "unittest", "discover", "-v", "-s", filepath.Join(dir, "tests"), "-t", filepath.Join(dir, "tests"))
	cmd.Env = append(os.Environ(), "PYTHONPATH="+dir)
	out, err := cmd.CombinedOutput()
	for _, line := range strings.Split(string(out), "\n") {
		if strings.Contains(line, "... skipped") {
			t.Log(line)
		}
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// python is the first python3 on PATH that has the servers that the middleware is for, or else the first.
func python() string {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		name := filepath.Join(dir, "python3")
		if exec.Command(name, "-c", "import fastapi, uvicorn").Run() == nil {
			return name
		}
	}
	return "python3"
}
