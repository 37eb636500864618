package disk_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/auditchain/auditchain/ingest/disk"
)

// TestNotAFile: what is no file is refused at once, whoever put it there. Opening a pipe would wait for its other end.
func TestNotAFile(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	device := filepath.Join(t.TempDir(), "device")
	if err := os.Symlink("/dev/zero", device); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, device} {
		for name, open := range map[string]func() error{
			"read":   func() error { _, err := disk.ReadFile(disk.OS{}, path, 100); return err },
			"write":  func() error { _, err := disk.OS{}.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600); return err },
			"append": func() error { _, err := disk.OS{}.OpenFile(path, os.O_RDWR|os.O_APPEND, 0o600); return err },
			"lock":   func() error { _, err := disk.OS{}.Lock(path); return err },
		} {
			result := make(chan error, 1)
			go func() { result <- open() }()
			select {
			case err := <-result:
				if err == nil || !strings.Contains(err.Error(), path) {
					t.Errorf("%s %s: %v", name, filepath.Base(path), err)
				}
			case <-time.After(10 * time.Second):
				t.Errorf("%s %s: hangs", name, filepath.Base(path))
			}
		}
	}
}
