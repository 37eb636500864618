package host

import (
	"fmt"
	"os"
	"testing"
)

// RSS is the resident memory of the process now, bytes.
func (h *Host) RSS(t testing.TB) int64 {
	t.Helper()
	path := fmt.Sprintf("/proc/%d/statm", h.cmd.Process.Pid)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		t.Fatalf("%s is %q: %v", path, text, err)
	}
	return resident * int64(os.Getpagesize())
}
