package record

import (
	"os"
	"path/filepath"
	"testing"
)

// chunks returns the chunks that a real Fluent Bit delivered.
func chunks(t testing.TB) map[string][]byte {
	paths, err := filepath.Glob("testdata/*.msgpack")
	if err != nil || len(paths) == 0 {
		t.Fatal("no chunks in testdata", err)
	}
	all := make(map[string][]byte)
	for _, path := range paths {
		if all[path], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// FuzzDecode decodes arbitrary bytes.
func FuzzDecode(f *testing.F) {
	for _, chunk := range chunks(f) {
		f.Add(chunk)
		f.Add(chunk[:len(chunk)-3])
	}
	for _, c := range cases {
		f.Add(c.chunk())
	}
	var b Batch // used again and again: nothing of one chunk may be seen in the next
	f.Fuzz(func(t *testing.T, chunk []byte) { check(t, &b, chunk) })
}
