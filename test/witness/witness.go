// Package witness keeps copies of the chunks that the plugin has acknowledged. Its shared object, src/witness.c, stands between
// the plugin and whoever runs it, so that a test knows what the plugin said FLB_OK to though the process was killed before
// anybody heard it.
package witness

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/auditchain/auditchain/test/servers"
)

// What a flush returns.
const (
	Error = 0
	OK    = 1
	Retry = 2
)

// Path builds the witness, if it has to be, and returns its path. Without a C compiler the test is skipped, or fails if
// AUDITCHAIN_REQUIRE_TOOLS=1.
func Path(t testing.TB) string {
	t.Helper()
	if _, err := exec.LookPath("cc"); err != nil {
		if os.Getenv("AUDITCHAIN_REQUIRE_TOOLS") == "1" {
			t.Fatal("there is no C compiler named cc")
		}
		t.Skip("there is no C compiler named cc")
	}
	path, err := build(filepath.Join(servers.Root(), "build", "test"))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func build(dir string) (string, error) {
	source := filepath.Join(servers.Root(), "test", "witness", "src", "witness.c")
	path := filepath.Join(dir, "witness.so")
	from, err := os.Stat(source)
	if err != nil {
		return "", err
	}
	if to, err := os.Stat(path); err == nil && to.ModTime().After(from.ModTime()) {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid()) // other tests may be doing the same
	if out, err := exec.Command("cc", "-O2", "-Wall", "-fPIC", "-shared", "-o", fresh, source, "-ldl").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the witness: %w\n%s", err, out)
	}
	return path, os.Rename(fresh, path)
}

// Env is what a process that loads the witness needs in its environment, as NAME=value: the plugin to pass calls on to, and
// the file for the copies.
func Env(plugin, file string) []string {
	return []string{"AUDITCHAIN_WITNESS_PLUGIN=" + plugin, "AUDITCHAIN_WITNESS=" + file}
}

// Flush is one call of the plugin.
type Flush struct {
	Ret    int    // OK, Retry or Error
	Tag    string // of the chunk
	Chunk  []byte // its bytes, if Ret is OK
	Offset int64  // of the chunk in the file
}

const (
	begins = "{witness"
	ends   = "witness}"
	header = len(begins) + 4 + 4 + 8
)

// Read reads a file of the witness's. A frame that was cut by the end of the process says nothing; cut is how many bytes there
// are of such. Chunks alias one buffer. A file that is not there holds nothing: the process ended before it loaded the witness.
func Read(path string) (all []Flush, cut int, err error) {
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, 0, nil
	}
	for at := 0; at < len(data); {
		f, size := parse(data[at:])
		if size > 0 {
			f.Offset += int64(at)
			all = append(all, f)
			at += size
			continue
		}
		// One thread's last frame; those of other threads may follow.
		next := bytes.Index(data[at+1:], []byte(begins))
		if next < 0 {
			return all, cut + len(data) - at, err
		}
		cut += next + 1
		at += next + 1
	}
	return all, cut, err
}

// parse reads the frame that data begins with; its size is 0 if it is not whole.
func parse(data []byte) (f Flush, size int) {
	if len(data) < header || string(data[:len(begins)]) != begins {
		return f, 0
	}
	tag := uint64(binary.NativeEndian.Uint32(data[12:]))
	chunk := binary.NativeEndian.Uint64(data[16:])
	if rest := uint64(len(data) - header); chunk > rest || tag > rest || tag+chunk+uint64(len(ends)) > rest {
		return f, 0
	}
	from := header + int(tag)
	to := from + int(chunk)
	if string(data[to:to+len(ends)]) != ends {
		return f, 0
	}
	f = Flush{Ret: int(int32(binary.NativeEndian.Uint32(data[8:]))), Tag: string(data[header:from]), Chunk: data[from:to:to], Offset: int64(from)}
	return f, to + len(ends)
}
