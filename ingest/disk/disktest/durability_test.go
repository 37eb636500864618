package disktest_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/auditchain/auditchain/ingest/disk"
	"github.com/auditchain/auditchain/ingest/disk/disktest"
	"github.com/auditchain/auditchain/storage/storagetest"
)

// newStore is a disk with a durable directory /store, and a script of a process there.
func newStore(t *testing.T) (*disktest.FS, *script) {
	t.Helper()
	machine := disktest.New()
	s := newScript(machine.Process(), "/store")
	if err := errors.Join(s.fs.MkdirAll("/store"), s.fs.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	return machine, s
}

// state is what a disk's files hold, as "a=content b=..", with a dot for a zero byte.
func state(t *testing.T, machine *disktest.FS) string {
	t.Helper()
	var out []string
	for _, path := range machine.Files() {
		data, err := machine.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.TrimPrefix(path, "/store/")+"="+strings.ReplaceAll(string(data), "\x00", "."))
	}
	return strings.Join(out, " ")
}

// durably makes files that hold text, and makes them durable.
func (s *script) durably(text string, names ...string) {
	for _, name := range names {
		s.file(name, text)
		s.open("new", name, os.O_WRONLY)
		s.sync("new")
	}
	s.syncDir(".")
}

// failSync lets the next Sync fail.
func failSync(machine *disktest.FS, fault storagetest.Fault) {
	failed := false
	machine.Faults.Inject(func(op storagetest.Op) storagetest.Fault {
		if op.Kind != disktest.OpSync || failed {
			return storagetest.Fault{}
		}
		failed = true
		return fault
	})
}

// rewrite is a file of "ab" to which "cd" is appended, whose sync then ends with the fault.
func rewrite(machine *disktest.FS, s *script, fault storagetest.Fault) {
	s.durably("ab", "f")
	s.open("f", "f", os.O_WRONLY|os.O_APPEND)
	s.write("f", "cd")
	failSync(machine, fault)
	s.sync("f")
}

var eio = storagetest.Fail(syscall.EIO)

func TestDurability(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(machine *disktest.FS, s *script)
		seen string   // after Kill
		cut  string   // what is left at least
		may  []string // what may be left besides
	}{
		{"synced", func(_ *disktest.FS, s *script) {
			s.durably("ab", "f")
			s.open("f", "f", os.O_WRONLY|os.O_APPEND)
			s.write("f", "cd")
			s.sync("f")
		}, "f=abcd", "f=abcd", nil},
		{"appended", func(_ *disktest.FS, s *script) {
			s.durably("ab", "f")
			s.open("f", "f", os.O_WRONLY|os.O_APPEND)
			s.write("f", "c")
			s.write("f", "d")
		}, "f=abcd", "f=ab", []string{"f=abc", "f=abcd", "f=abc.", "f=ab.."}},
		{"overwritten", func(_ *disktest.FS, s *script) {
			s.durably("ab", "f")
			s.open("f", "f", os.O_WRONLY)
			s.write("f", "XYZ")
		}, "f=XYZ", "f=ab", []string{"f=Xb", "f=XY", "f=XYZ", "f=ab.", "f=Xb.", "f=XY."}},
		{"closing is not syncing", func(_ *disktest.FS, s *script) {
			s.durably("", "f")
			s.open("f", "f", os.O_WRONLY)
			s.write("f", "a")
			s.close("f")
		}, "f=a", "f=", []string{"f=a", "f=."}},
		{"content without a name", func(_ *disktest.FS, s *script) {
			s.file("f", "ab")
			s.open("f", "f", readFile)
			s.sync("f")
		}, "f=ab", "", []string{"f=ab"}},
		{"name without content", func(_ *disktest.FS, s *script) {
			s.file("f", "ab")
			s.syncDir(".")
		}, "f=ab", "f=", []string{"f=a", "f=ab", "f=a.", "f=.."}},
		{"cut", func(_ *disktest.FS, s *script) {
			s.durably("abcd", "f")
			s.open("f", "f", os.O_WRONLY)
			s.truncate("f", 2)
		}, "f=ab", "f=abcd", []string{"f=ab"}},
		{"cut and synced", func(_ *disktest.FS, s *script) {
			s.durably("abcd", "f")
			s.open("f", "f", os.O_WRONLY)
			s.truncate("f", 2)
			s.sync("f")
			s.truncate("f", 4)
			s.sync("f")
		}, "f=ab..", "f=ab..", nil},
		{"cut and written again", func(_ *disktest.FS, s *script) {
			s.durably("abcd", "f")
			s.open("f", "f", os.O_WRONLY|os.O_APPEND)
			s.truncate("f", 1)
			s.write("f", "xy")
		}, "f=axy", "f=abcd", []string{"f=axy", "f=a", "f=ax", "f=axcd", "f=axyd", "f=a..", "f=ax."}},
		{"emptied by opening", func(_ *disktest.FS, s *script) {
			s.durably("ab", "f")
			s.open("f", "f", os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
		}, "f=", "f=ab", []string{"f="}},
		{"allocated", func(_ *disktest.FS, s *script) {
			s.durably("ab", "f")
			s.open("f", "f", os.O_WRONLY)
			s.allocate("f", 4)
		}, "f=ab..", "f=ab", []string{"f=ab.."}},
		{"names", func(_ *disktest.FS, s *script) {
			s.durably("1", "a")
			s.rename("a", "b")
			s.file("c", "")
			s.remove("b")
		}, "c=", "a=1", []string{"b=1", "b=1 c=", "c="}},
		{"names, synced", func(_ *disktest.FS, s *script) {
			s.durably("1", "a")
			s.rename("a", "b")
			s.file("c", "")
			s.remove("b")
			s.syncDir(".")
		}, "c=", "c=", nil},
		{"another file of the same name", func(_ *disktest.FS, s *script) {
			s.durably("1", "a")
			s.remove("a")
			s.file("a", "2")
			s.open("a", "a", readFile)
			s.sync("a")
		}, "a=2", "a=1", []string{"", "a=2"}},
		{"replaced", func(_ *disktest.FS, s *script) {
			s.durably("1", "a", "b")
			s.rename("b", "a")
		}, "a=1", "a=1 b=1", []string{"a=1"}},
		{"replaced by a file that was not synced", func(_ *disktest.FS, s *script) {
			s.durably("1", "a")
			s.file("b", "2")
			s.rename("b", "a")
		}, "a=2", "a=1", []string{"a=1 b=", "a=1 b=2", "a=1 b=.", "a=", "a=2", "a=."}},
		{"written as a whole", func(_ *disktest.FS, s *script) {
			disk.WriteFile(s.fs, "/store/f", []byte("1"))
			disk.WriteFile(s.fs, "/store/f", []byte("2"))
		}, "f=2", "f=2", nil},
		{"written under another name", func(_ *disktest.FS, s *script) {
			s.durably("1", "a")
			s.open("f", "a", os.O_WRONLY)
			s.rename("a", "b")
			s.write("f", "2")
			s.sync("f")
			s.syncDir(".")
		}, "b=2", "b=2", nil},
		{"removed while open", func(_ *disktest.FS, s *script) {
			s.durably("1", "a")
			s.open("f", "a", os.O_WRONLY)
			s.remove("a")
			s.write("f", "2")
			s.sync("f")
		}, "", "a=2", []string{""}},
		{"directory without a name", func(_ *disktest.FS, s *script) {
			s.mkdir("d")
			s.file("d/f", "1")
			s.open("f", "d/f", readFile)
			s.sync("f")
			s.syncDir("d")
		}, "d/f=1", "", []string{"d/f=1"}},
		{"two directories", func(_ *disktest.FS, s *script) {
			s.mkdir("d")
			s.mkdir("e")
			s.syncDir(".")
			s.file("d/f", "")
			s.file("e/f", "")
			s.syncDir("e")
		}, "d/f= e/f=", "e/f=", []string{"d/f= e/f="}},

		{"failed sync", func(machine *disktest.FS, s *script) {
			rewrite(machine, s, eio)
		}, "f=abcd", "f=ab", []string{"f=ab.."}},
		{"failed sync, synced again", func(machine *disktest.FS, s *script) {
			rewrite(machine, s, eio)
			s.sync("f")
		}, "f=abcd", "f=ab..", nil},
		{"failed sync, synced by another process", func(machine *disktest.FS, s *script) {
			rewrite(machine, s, eio)
			machine.Kill()
			s.fs = machine.Process()
			s.open("f", "f", os.O_RDWR)
			s.sync("f")
		}, "f=abcd", "f=ab..", nil},
		{"failed sync, written over", func(machine *disktest.FS, s *script) {
			rewrite(machine, s, eio)
			s.truncate("f", 2)
			s.write("f", "cd")
			s.sync("f")
		}, "f=abcd", "f=abcd", nil},
		{"failed sync, more written", func(machine *disktest.FS, s *script) {
			rewrite(machine, s, eio)
			s.write("f", "ef")
			s.sync("f")
		}, "f=abcdef", "f=ab..ef", nil},
		{"failed sync of what lay over durable bytes", func(machine *disktest.FS, s *script) {
			s.durably("abcd", "f")
			s.open("f", "f", os.O_WRONLY)
			s.write("f", "XY")
			failSync(machine, eio)
			s.sync("f")
			s.sync("f")
		}, "f=XYcd", "f=abcd", nil},
		{"failed sync of a truncation", func(machine *disktest.FS, s *script) {
			s.durably("abcd", "f")
			s.open("f", "f", os.O_WRONLY)
			s.truncate("f", 2)
			failSync(machine, eio)
			s.sync("f")
			s.sync("f")
		}, "f=ab", "f=ab", nil},
		{"sync that is done and fails", func(machine *disktest.FS, s *script) {
			rewrite(machine, s, storagetest.FailDone(syscall.EIO))
		}, "f=abcd", "f=abcd", nil},
		{"sync without room", func(machine *disktest.FS, s *script) {
			machine.SetCapacity(3)
			machine.SetDelayedAllocation(true)
			rewrite(machine, s, storagetest.Fault{})
			machine.SetCapacity(-1)
			s.sync("f")
		}, "f=abcd", "f=ab..", nil},
		{"failed sync of a directory", func(machine *disktest.FS, s *script) {
			s.durably("1", "a")
			s.rename("a", "b")
			machine.Faults.Inject(func(storagetest.Op) storagetest.Fault { return eio })
			s.syncDir(".")
		}, "b=1", "a=1", []string{"b=1"}},
		{"sync of a directory that is done and fails", func(machine *disktest.FS, s *script) {
			s.durably("1", "a")
			s.rename("a", "b")
			machine.Faults.Inject(func(storagetest.Op) storagetest.Fault { return storagetest.FailDone(syscall.EIO) })
			s.syncDir(".")
		}, "b=1", "b=1", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			machine, s := newStore(t)
			c.run(machine, s)
			machine.Kill()
			if got := state(t, machine); got != c.seen {
				t.Errorf("seen: %q, want %q", got, c.seen)
			}
			before := machine.Snapshot()
			machine.PowerCut(nil)
			if got := state(t, machine); got != c.cut {
				t.Errorf("left at least: %q, want %q", got, c.cut)
			}
			machine.PowerCut(nil) // what is left once stays
			if got := state(t, machine); got != c.cut {
				t.Errorf("left by the next cut: %q, want %q", got, c.cut)
			}
			left := make(map[string]bool)
			for seed := range uint64(400) {
				machine.Restore(before)
				machine.PowerCut(rand.New(rand.NewPCG(seed, 0)))
				got := state(t, machine)
				left[got] = true
				if machine.PowerCut(nil); state(t, machine) != got {
					t.Fatalf("%q became %q", got, state(t, machine))
				}
				machine.Restore(before)
				if machine.PowerCut(rand.New(rand.NewPCG(seed, 0))); state(t, machine) != got {
					t.Fatalf("seed %d left %q, then %q", seed, got, state(t, machine))
				}
			}
			want := append(slices.Clone(c.may), c.cut)
			slices.Sort(want)
			if got := slices.Sorted(maps.Keys(left)); !slices.Equal(got, slices.Compact(want)) {
				t.Errorf("may be left: %q\nwant %q", got, want)
			}
		})
	}
}

// TestReorder: any of the pages may be missing, also one before another.
func TestReorder(t *testing.T) {
	for _, reorder := range []bool{false, true} {
		machine, s := newStore(t)
		machine.Reorder = reorder
		s.durably("12", "f")
		s.open("f", "f", os.O_WRONLY|os.O_APPEND)
		s.write("f", strings.Repeat("x", 3*4096-2))
		before, left := machine.Snapshot(), make(map[string]bool)
		for seed := range uint64(400) {
			machine.Restore(before)
			machine.PowerCut(rand.New(rand.NewPCG(seed, 0)))
			data, err := machine.ReadFile("/store/f")
			if err != nil || !bytes.HasPrefix(data, []byte("12")) {
				t.Fatalf("%.10q, %v", data, err)
			}
			if len(data) == 3*4096 {
				left[string([]byte{data[2], data[4096], data[2*4096]})] = true
			}
		}
		for _, pages := range []string{"\x00x\x00", "\x00xx", "x\x00x", "\x00\x00x"} {
			if left[pages] != reorder {
				t.Errorf("reorder %v: pages %q were left: %v", reorder, pages, left[pages])
			}
		}
	}
}

func TestWriteFile(t *testing.T) {
	machine := disktest.New()
	p := machine.Process()
	for _, content := range []string{"first", "second"} {
		if err := machine.WriteFile("/a/b/f", []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := disk.ReadFile(p, "/a/b/f", 100); string(got) != content || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	machine.PowerCut(nil)
	if got := state(t, machine); got != "/a/b/f=second" {
		t.Error(got)
	}
	for _, path := range []string{"/", "/a", "/a/b/f/g"} {
		if err := machine.WriteFile(path, nil); err == nil {
			t.Errorf("wrote %s", path)
		}
	}
	if _, err := machine.ReadFile("/a"); !errors.Is(err, syscall.EISDIR) {
		t.Error(err)
	}
	if _, err := machine.ReadFile("/none"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestSnapshot: a copy is apart from what it was copied from, however often it is restored.
func TestSnapshot(t *testing.T) {
	machine, s := newStore(t)
	s.durably("ab", "f")
	s.open("f", "f", os.O_WRONLY|os.O_APPEND)
	s.write("f", "cd")
	s.rename("f", "g")
	before := machine.Snapshot()
	for round := range 2 {
		s.write("f", "ef")
		s.sync("f")
		s.syncDir(".")
		machine.PowerCut(nil)
		if got, want := state(t, machine), "g=abcdef"; got != want {
			t.Errorf("round %d: %q, want %q", round, got, want)
		}
		machine.Restore(before)
		if got, want := state(t, machine), "g=abcd"; got != want {
			t.Errorf("round %d: restored %q, want %q", round, got, want)
		}
		machine.PowerCut(nil)
		if got, want := state(t, machine), "f=ab"; got != want {
			t.Errorf("round %d: restored and cut %q, want %q", round, got, want)
		}
		machine.Restore(before)
		s = newScript(machine.Process(), "/store")
		s.open("f", "g", os.O_WRONLY|os.O_APPEND)
	}
	if len(s.notes) == 0 || strings.Contains(fmt.Sprint(s.notes), "errno") {
		t.Error(s.notes)
	}
}
