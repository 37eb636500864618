package disktest_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/ingest/disk"
	"github.com/auditchain/auditchain/ingest/disk/disktest"
)

// script does things in a directory and notes what came of them.
type script struct {
	fs    disk.FS
	dir   string
	notes []string
	files map[string]disk.File
	locks map[string]io.Closer
}

func newScript(fsys disk.FS, dir string) *script {
	return &script{fs: fsys, dir: dir, files: make(map[string]disk.File), locks: make(map[string]io.Closer)}
}

func (s *script) note(format string, args ...any) {
	s.notes = append(s.notes, strings.ReplaceAll(fmt.Sprintf(format, args...), s.dir, "DIR"))
}

func (s *script) path(name string) string { return filepath.Join(s.dir, name) }

const (
	newFile  = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	readFile = os.O_RDONLY
)

// open opens a file, and goes on calling it handle.
func (s *script) open(handle, name string, flag int) {
	f, err := s.fs.OpenFile(s.path(name), flag, 0o600)
	s.note("open %s %#x: %v", name, flag, err)
	if err == nil {
		s.note("its name is %s", f.Name())
		s.files[handle] = f
	}
}

func (s *script) write(handle, text string) {
	n, err := s.files[handle].Write([]byte(text))
	s.note("write %s: %d, %v", handle, n, err)
}

func (s *script) read(handle string, size int) {
	b := make([]byte, size)
	n, err := s.files[handle].Read(b)
	s.note("read %s: %q, %v", handle, b[:n], err)
}

func (s *script) truncate(handle string, size int64) {
	s.note("truncate %s to %d: %v", handle, size, s.files[handle].Truncate(size))
}

func (s *script) allocate(handle string, size int64) {
	s.note("allocate %s to %d: %v", handle, size, s.files[handle].Allocate(size))
}

func (s *script) seek(handle string, offset int64, whence int) {
	at, err := s.files[handle].Seek(offset, whence)
	s.note("seek %s to %d of %d: %d, %v", handle, offset, whence, at, err)
}

func (s *script) sync(handle string)  { s.note("sync %s: %v", handle, s.files[handle].Sync()) }
func (s *script) close(handle string) { s.note("close %s: %v", handle, s.files[handle].Close()) }

func (s *script) rename(from, to string) {
	s.note("rename %s to %s: %v", from, to, s.fs.Rename(s.path(from), s.path(to)))
}

func (s *script) remove(name string) { s.note("remove %s: %v", name, s.fs.Remove(s.path(name))) }

func (s *script) mkdir(name string) { s.note("mkdir %s: %v", name, s.fs.MkdirAll(s.path(name))) }

func (s *script) readDir(name string) {
	names, err := s.fs.ReadDir(s.path(name))
	s.note("names in %s: %q, %v", name, names, err)
}

func (s *script) syncDir(name string) {
	s.note("sync directory %s: %v", name, s.fs.SyncDir(s.path(name)))
}

func (s *script) lock(handle, name string) {
	l, err := s.fs.Lock(s.path(name))
	s.note("lock %s: %v", name, err)
	if err == nil {
		s.locks[handle] = l
	}
}

func (s *script) unlock(handle string) { s.note("unlock %s: %v", handle, s.locks[handle].Close()) }

func (s *script) content(name string) {
	data, err := disk.ReadFile(s.fs, s.path(name), 1<<20)
	s.note("%s holds %q, %v", name, data, err)
}

// file makes a file that holds text.
func (s *script) file(name, text string) {
	s.open("new", name, newFile)
	s.write("new", text)
	s.close("new")
}

// end closes what a script left open.
func (s *script) end() {
	for _, f := range s.files {
		f.Close()
	}
	for _, l := range s.locks {
		l.Close()
	}
}

var scripts = []struct {
	name string
	run  func(s *script)
}{
	{"create", func(s *script) {
		s.open("f", "f", os.O_WRONLY)
		s.open("f", "f", os.O_WRONLY|os.O_CREATE)
		s.write("f", "one")
		s.open("g", "f", os.O_WRONLY|os.O_CREATE) // begins at the start
		s.write("g", "T")
		s.content("f")
		s.open("h", "f", newFile)
		s.open("h", "none/f", newFile)
		s.open("h", "f/f", newFile)
		s.open("h", "none/f", readFile)
		s.open("h", "f/f", readFile)
	}},
	{"append", func(s *script) {
		s.open("a", "f", newFile|os.O_APPEND)
		s.open("b", "f", os.O_WRONLY|os.O_APPEND)
		s.write("a", "1")
		s.write("b", "22")
		s.write("a", "333")
		s.content("f")
		s.truncate("b", 2)
		s.write("a", "4")
		s.content("f")
	}},
	{"empty", func(s *script) {
		s.file("f", "content")
		s.open("r", "f", readFile)
		s.read("r", 3)
		s.open("f", "f", os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
		s.read("r", 3)
		s.write("f", "new and longer")
		s.read("r", 3)
		s.content("f")
		s.open("f", "other", os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
		s.content("other")
	}},
	{"size", func(s *script) {
		s.open("f", "f", os.O_RDWR|os.O_CREATE)
		s.write("f", "0123456789")
		s.truncate("f", 4)
		s.content("f")
		s.write("f", "x") // after a hole
		s.content("f")
		s.truncate("f", 13)
		s.content("f")
		s.allocate("f", 15)
		s.allocate("f", 2)
		s.content("f")
		s.truncate("f", 0)
		s.allocate("f", 3) // what was there does not come back
		s.content("f")
		s.truncate("f", -1)
		s.allocate("f", 0)
		s.allocate("f", -1)
		s.open("a", "f", os.O_WRONLY|os.O_APPEND)
		s.write("a", "behind")
		s.content("f")
	}},
	{"read", func(s *script) {
		s.file("f", "0123456789")
		s.open("f", "f", os.O_RDWR)
		s.read("f", 4)
		s.write("f", "ab")
		s.read("f", 100)
		s.read("f", 1)
		s.read("f", 0)
		s.write("f", "c")
		s.content("f")
	}},
	{"seek", func(s *script) {
		s.file("f", "0123456789")
		s.open("f", "f", os.O_RDWR)
		s.seek("f", 4, io.SeekStart)
		s.read("f", 2)
		s.seek("f", -3, io.SeekCurrent)
		s.read("f", 2)
		s.seek("f", -1, io.SeekEnd)
		s.read("f", 2)
		s.seek("f", -1, io.SeekStart)
		s.seek("f", 0, -1)
		s.seek("f", 2, io.SeekEnd)
		s.read("f", 2)
		s.write("f", "x") // after a hole
		s.content("f")
		s.open("a", "f", os.O_RDWR|os.O_APPEND)
		s.seek("a", 1, io.SeekStart)
		s.read("a", 2)
		s.seek("a", 1, io.SeekStart)
		s.write("a", "y")
		s.content("f")
		s.close("a")
		s.seek("a", 0, io.SeekStart)
	}},
	{"modes", func(s *script) {
		s.file("f", "x")
		s.open("r", "f", readFile)
		s.write("r", "y")
		s.truncate("r", 0)
		s.allocate("r", 5)
		s.sync("r")
		s.open("w", "f", os.O_WRONLY)
		s.read("w", 1)
		s.sync("w")
		s.content("f")
	}},
	{"closed", func(s *script) {
		s.open("f", "f", os.O_RDWR|os.O_CREATE)
		s.close("f")
		s.read("f", 1)
		s.write("f", "x")
		s.truncate("f", 0)
		s.allocate("f", 1)
		s.sync("f")
		s.close("f")
	}},
	{"directory", func(s *script) {
		s.mkdir("a/b")
		s.mkdir("a/b")
		s.mkdir("a/c")
		s.file("a/f", "x")
		s.file("a/.hidden", "x")
		s.mkdir("a/f")
		s.mkdir("a/f/g")
		s.readDir("a")
		s.readDir("a/b")
		s.readDir("none")
		s.readDir("none/none")
		s.open("d", "a", os.O_WRONLY)
		s.open("d", "a", os.O_WRONLY|os.O_CREATE)
		s.open("d", "a", newFile)
		s.open("d", "a", readFile)
		s.read("d", 1)
		s.syncDir("a")
		s.syncDir("none")
		s.remove("a")
		s.remove("a/b")
		s.remove("a/b")
		s.readDir("a")
	}},
	{"rename", func(s *script) {
		s.file("a", "content of a")
		s.file("b", "content of b")
		s.open("a", "a", os.O_RDWR)
		s.open("b", "b", readFile)
		s.rename("a", "b")
		s.readDir(".")
		s.content("b")
		s.read("b", 100) // still the old one
		s.write("a", "CONTENT")
		s.content("b")
		s.rename("a", "c")
		s.rename("b", "c")
		s.rename("c", "c")
		s.file("b", "again")
		s.readDir(".")
		s.mkdir("d")
		s.mkdir("e")
		s.rename("b", "d")
		s.rename("d", "b")
		s.rename("d", "e")
		s.rename("d", "d")
		s.rename("none", "d")
		s.rename("d", "f")
		s.rename("b", "none/b")
		s.rename("b", "c/b")
		s.rename("c/b", "b")
		s.readDir(".")
	}},
	{"remove", func(s *script) {
		s.file("f", "content")
		s.open("r", "f", readFile)
		s.open("w", "f", os.O_WRONLY|os.O_APPEND)
		s.remove("f")
		s.remove("f")
		s.remove("none/f")
		s.readDir(".")
		s.write("w", " and more")
		s.read("r", 100)
		s.file("f", "another")
		s.remove("f/g")
		s.sync("w")
		s.close("w")
		s.content("f")
	}},
	{"lock", func(s *script) {
		s.lock("a", "l")
		s.lock("b", "l")
		s.readDir(".")
		s.lock("c", "other")
		s.unlock("a")
		s.lock("b", "l")
		s.remove("l")
		s.lock("d", "l") // another file
		s.lock("e", "none/l")
	}},
	{"helpers", func(s *script) {
		s.note("write: %v", disk.WriteFile(s.fs, s.path("f"), []byte("first")))
		s.note("write: %v", disk.WriteFile(s.fs, s.path("f"), []byte("second")))
		s.note("write: %v", disk.WriteFile(s.fs, s.path("none/f"), nil))
		s.content("f")
		s.file(".tmp-f", "half")
		s.note("remove temporary: %v", disk.RemoveTemporary(s.fs, s.dir))
		s.readDir(".")
		s.note("remove: %v", disk.Remove(s.fs, s.path("f"), s.path("g")))
		s.readDir(".")
	}},
}

// both runs a script on the machine's file system and on a disk in memory, and wants the same of both.
func both(t *testing.T, run func(s *script)) {
	t.Helper()
	real := newScript(disk.OS{}, t.TempDir())
	double := newScript(disktest.New().Process(), "/store")
	if err := double.fs.MkdirAll("/store"); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*script{real, double} {
		run(s)
		s.end()
	}
	for i := range max(len(real.notes), len(double.notes)) {
		at := func(notes []string) string {
			if i < len(notes) {
				return notes[i]
			}
			return "nothing"
		}
		if at(real.notes) != at(double.notes) {
			t.Fatalf("after\n\t%s\nthe file system notes\n\t%s\nand the double\n\t%s",
				strings.Join(real.notes[max(0, i-10):i], "\n\t"), at(real.notes), at(double.notes))
		}
	}
}

func TestConformance(t *testing.T) {
	for _, c := range scripts {
		t.Run(c.name, func(t *testing.T) { both(t, c.run) })
	}
}

// TestConformanceRandom does anything in any order.
func TestConformanceRandom(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			both(t, func(s *script) {
				rng := rand.New(rand.NewPCG(seed, 1))
				for range 150 {
					anything(rng, s)
				}
				for _, name := range names {
					s.content(name)
				}
			})
		})
	}
}

var (
	names   = []string{"a", "b", "c"}
	handles = []string{"1", "2", "3", "4"}
	flags   = []int{
		readFile, os.O_RDWR, newFile, newFile | os.O_APPEND, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_CREATE,
		os.O_WRONLY | os.O_CREATE | os.O_TRUNC, os.O_RDWR | os.O_CREATE | os.O_APPEND,
	}
)

func anything(rng *rand.Rand, s *script) {
	name, handle := names[rng.IntN(len(names))], handles[rng.IntN(len(handles))]
	size := rng.IntN(20)
	switch what := rng.IntN(17); {
	case s.files[handle] == nil, what == 0:
		if f := s.files[handle]; f != nil {
			f.Close()
			delete(s.files, handle)
		}
		s.open(handle, name, flags[rng.IntN(len(flags))])
	case what <= 5:
		s.write(handle, string(bytes.Repeat([]byte{byte('A' + rng.IntN(26))}, size)))
	case what <= 8:
		s.read(handle, size)
	case what == 9:
		s.truncate(handle, int64(size))
	case what == 10:
		s.allocate(handle, int64(size))
	case what == 11:
		s.rename(name, names[rng.IntN(len(names))])
	case what == 12:
		s.remove(name)
	case what == 13:
		s.content(name)
	case what == 14:
		s.close(handle)
		if size < 15 { // sometimes what is closed is used
			delete(s.files, handle)
		}
	case what == 15:
		s.seek(handle, int64(size-5), rng.IntN(3))
	default:
		s.readDir(".")
	}
}

// TestScriptsNote: every script says something of every file that it makes, so that there is something to compare.
func TestScriptsNote(t *testing.T) {
	for _, c := range scripts {
		s := newScript(disktest.New().Process(), "/")
		c.run(s)
		if len(s.notes) < 8 || !slices.ContainsFunc(s.notes, func(n string) bool { return strings.HasSuffix(n, "<nil>") }) {
			t.Errorf("%s: %q", c.name, s.notes)
		}
	}
}
