package disktest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/auditchain/auditchain/ingest/disk"
	"github.com/auditchain/auditchain/ingest/disk/disktest"
	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/storage/storagetest"
)

// steps are all steps on a disk. Each is taken in a directory with the file f of "ab" (durable), open as "f" for reading and appending,
// "cd" appended to that, and the lock l held as "l".
var steps = []struct {
	kind  string
	path  string
	bytes int
	take  func(s *script) error
	done  string // the files that are seen then
	cut   string // and what is durable of them
}{
	{disktest.OpCreate, "g", 0, func(s *script) error { return s.try("g", newFile) }, "f=abcd g= l=", "f=ab"},
	{disktest.OpCreate, "f", 0, func(s *script) error { return s.try("f", os.O_WRONLY|os.O_TRUNC) }, "f= l=", "f=ab"},
	{disktest.OpOpen, "f", 0, func(s *script) error { return s.try("f", readFile) }, "", ""},
	{disktest.OpRead, "f", 7, func(s *script) error { _, err := s.files["f"].Read(make([]byte, 7)); return err }, "", ""},
	{disktest.OpWrite, "f", 2, func(s *script) error { _, err := s.files["f"].Write([]byte("ef")); return err }, "f=abcdef l=", "f=ab"},
	{disktest.OpSync, "f", 0, func(s *script) error { return s.files["f"].Sync() }, "f=abcd l=", "f=abcd"},
	{disktest.OpTruncate, "f", 1, func(s *script) error { return s.files["f"].Truncate(1) }, "f=a l=", "f=ab"},
	{disktest.OpAllocate, "f", 5, func(s *script) error { return s.files["f"].Allocate(5) }, "f=abcd. l=", "f=ab"},
	{disktest.OpClose, "f", 0, func(s *script) error { return s.files["f"].Close() }, "", ""},
	{disktest.OpRename, "g", 0, func(s *script) error { return s.fs.Rename(s.path("f"), s.path("g")) }, "g=abcd l=", "f=ab"},
	{disktest.OpRemove, "f", 0, func(s *script) error { return s.fs.Remove(s.path("f")) }, "l=", "f=ab"},
	{disktest.OpMkdirAll, "d", 0, func(s *script) error { return s.fs.MkdirAll(s.path("d")) }, "", ""},
	{disktest.OpSyncDir, ".", 0, func(s *script) error { return s.fs.SyncDir(s.path(".")) }, "f=abcd l=", "f=ab l="},
	{disktest.OpReadDir, ".", 0, func(s *script) error { _, err := s.fs.ReadDir(s.path(".")); return err }, "", ""},
	{disktest.OpLock, "m", 0, func(s *script) error { _, err := s.fs.Lock(s.path("m")); return err }, "f=abcd l= m=", "f=ab"},
	{disktest.OpUnlock, "l", 0, func(s *script) error { return s.locks["l"].Close() }, "", ""},
}

// try opens a file and closes it.
func (s *script) try(name string, flag int) error {
	f, err := s.fs.OpenFile(s.path(name), flag, 0o600)
	if err == nil {
		err = f.Close()
	}
	return err
}

// readyStore is a directory as the steps want it.
func readyStore(t *testing.T) (*disktest.FS, *script) {
	machine, s := newStore(t)
	s.durably("ab", "f")
	s.lock("l", "l")
	s.open("f", "f", os.O_RDWR|os.O_APPEND)
	s.open("other", "f", os.O_WRONLY|os.O_APPEND)
	s.write("other", "cd")
	return machine, s
}

const (
	readySeen = "f=abcd l="
	readyCut  = "f=ab"
)

func TestSteps(t *testing.T) {
	for _, c := range steps {
		for _, fault := range []struct {
			name string
			storagetest.Fault
			want error
			done bool
		}{
			{"none", storagetest.Fault{}, nil, true},
			{"Fail", storagetest.Fail(syscall.EIO), syscall.EIO, false},
			{"FailDone", storagetest.FailDone(syscall.EIO), syscall.EIO, true},
			{"Short", storagetest.Short(0, syscall.EIO), syscall.EIO, false},
		} {
			t.Run(c.kind+" "+c.path+" "+fault.name, func(t *testing.T) {
				machine, s := readyStore(t)
				var ops []storagetest.Op
				first := machine.Faults.Count()
				machine.Faults.Inject(func(op storagetest.Op) storagetest.Fault {
					if ops = append(ops, op); len(ops) > 1 {
						return storagetest.Fault{}
					}
					return fault.Fault
				})
				err := c.take(s)
				if err != fault.want {
					t.Errorf("error %v, want %v", err, fault.want)
				}
				if want := (storagetest.Op{N: first, Kind: c.kind, Path: s.path(c.path), Bytes: c.bytes}); len(ops) == 0 || ops[0] != want {
					t.Errorf("steps %+v, want %+v", ops, want)
				}
				if machine.Faults.Count() != first+len(ops) {
					t.Errorf("%d steps are counted, %d were seen", machine.Faults.Count()-first, len(ops))
				}
				machine.Kill()
				seen, cut := readySeen, readyCut
				if fault.done && c.done != "" {
					seen, cut = c.done, c.cut
				}
				if got := state(t, machine); got != seen {
					t.Errorf("seen: %q, want %q", got, seen)
				}
				if machine.PowerCut(nil); state(t, machine) != cut {
					t.Errorf("left: %q, want %q", state(t, machine), cut)
				}
			})
		}
	}
}

// TestKilledInStep: a process that is killed before a step does not take it, nor any other; its successor finds the rest.
func TestKilledInStep(t *testing.T) {
	for _, end := range []struct {
		name string
		end  func(*disktest.FS)
		left string
	}{
		{"Kill", (*disktest.FS).Kill, readySeen},
		{"PowerCut", func(machine *disktest.FS) { machine.PowerCut(nil) }, readyCut},
	} {
		for _, c := range steps {
			t.Run(end.name+" "+c.kind+" "+c.path, func(t *testing.T) {
				machine, s := readyStore(t)
				machine.Faults.Inject(func(op storagetest.Op) storagetest.Fault {
					end.end(machine)
					return storagetest.Fault{}
				})
				if err := c.take(s); err != disktest.ErrCrashed {
					t.Errorf("killed: %v", err)
				}
				machine.Faults.Inject(nil)
				count := machine.Faults.Count()
				for _, c := range steps {
					if err := c.take(s); err != disktest.ErrCrashed {
						t.Errorf("%s after it was killed: %v", c.kind, err)
					}
				}
				if _, err := s.files["f"].Seek(0, io.SeekStart); err != disktest.ErrCrashed {
					t.Errorf("seeking after it was killed: %v", err)
				}
				if machine.Faults.Count() != count {
					t.Error("the steps of a dead process are counted")
				}
				if got := state(t, machine); got != end.left {
					t.Errorf("left: %q, want %q", got, end.left)
				}
				next := machine.Process()
				if got, err := disk.ReadFile(next, "/store/f", 100); err != nil || "f="+string(got) != strings.TrimSuffix(end.left, " l=") {
					t.Errorf("the successor reads %q, %v", got, err)
				}
				if _, err := next.Lock("/store/l"); err != nil {
					t.Errorf("the successor locks: %v", err)
				}
			})
		}
	}
}

func TestLock(t *testing.T) {
	machine := disktest.New()
	a, b := machine.Process(), machine.Process()
	lock, err := a.Lock("l")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*disktest.Process{a, b} {
		if _, err := p.Lock("l"); err != disk.ErrLocked {
			t.Errorf("locked twice: %v", err)
		}
	}
	fail := true
	machine.Faults.Inject(func(storagetest.Op) storagetest.Fault {
		if fail {
			fail = false
			return eio
		}
		return storagetest.Fault{}
	})
	if err := lock.Close(); err != syscall.EIO {
		t.Error(err)
	}
	if _, err := b.Lock("l"); err != nil {
		t.Errorf("after it was given back, with an error: %v", err)
	}
	machine.Faults.Inject(func(storagetest.Op) storagetest.Fault { return storagetest.FailDone(syscall.EIO) })
	if _, err := a.Lock("m"); err != syscall.EIO {
		t.Error(err)
	}
	machine.Faults.Inject(nil)
	if _, err := b.Lock("m"); err != nil {
		t.Errorf("after locking it failed: %v", err)
	}
	b.Kill()
	if _, err := b.ReadDir("/"); err != disktest.ErrCrashed {
		t.Errorf("killed alone: %v", err)
	}
	if _, err := a.Lock("l"); err != nil {
		t.Errorf("after its holder died: %v", err)
	}
}

// TestPartial: the parts of reads and writes.
func TestPartial(t *testing.T) {
	flip := storagetest.Corrupt(func(p []byte) { p[0] ^= 1 })
	b := []byte("cd")
	for _, c := range []struct {
		name  string
		fault storagetest.Fault
		n     int // of a Read or Write of two bytes
		err   error
		read  string // of "abcd"
		wrote string // "cd" to "ab"
		then  string // the next two bytes that are read
	}{
		{"none", storagetest.Fault{}, 2, nil, "ab", "f=abcd", "cd"},
		{"Short 0", storagetest.Short(0, syscall.EIO), 0, syscall.EIO, "", "f=ab", "ab"},
		{"Short 1", storagetest.Short(1, syscall.EIO), 1, syscall.EIO, "a", "f=abc", "bc"},
		{"Short 9", storagetest.Short(9, syscall.EIO), 2, syscall.EIO, "ab", "f=abcd", "cd"},
		{"FailDone", storagetest.FailDone(syscall.EIO), 0, syscall.EIO, "", "f=abcd", "cd"},
		{"Corrupt", flip, 2, nil, "`b", "f=abbd", "cd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			machine, s := newStore(t)
			s.durably("ab", "f")
			s.durably("abcd", "g")
			s.open("f", "f", os.O_WRONLY|os.O_APPEND)
			s.open("g", "g", readFile)
			machine.Faults.Inject(func(storagetest.Op) storagetest.Fault { return c.fault })
			got := make([]byte, 2)
			if n, err := s.files["g"].Read(got); n != c.n || err != c.err || string(got[:n]) != c.read {
				t.Errorf("read %q, %v", got[:n], err)
			}
			if n, err := s.files["f"].Write(b); n != c.n || err != c.err || string(b) != "cd" {
				t.Errorf("wrote %d, %v of %q", n, err, b)
			}
			machine.Faults.Inject(nil)
			if n, err := s.files["g"].Read(got); n != 2 || err != nil || string(got) != c.then {
				t.Errorf("then read %q, %v", got[:n], err)
			}
			s.remove("g")
			if got := state(t, machine); got != c.wrote {
				t.Errorf("wrote %q, want %q", got, c.wrote)
			}
		})
	}
}

func TestCapacity(t *testing.T) {
	machine, s := newStore(t)
	s.durably("ab", "f", "g")
	machine.SetCapacity(7)
	f, err := s.fs.OpenFile("/store/f", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := func(what string, got int, err error, wantN int, full bool) {
		t.Helper()
		if got != wantN || errors.Is(err, syscall.ENOSPC) != full || !full && err != nil {
			t.Errorf("%s: %d, %v", what, got, err)
		}
	}
	n, err := f.Write([]byte("cdefg"))
	want("writing five bytes where three have room", n, err, 3, true)
	n, err = f.Write([]byte("x"))
	want("writing to a full disk", n, err, 0, true)
	want("syncing a full disk", 0, f.Sync(), 0, false)
	g, err := s.fs.OpenFile("/store/g", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err = g.Write([]byte("AB"))
	want("writing over what has room", n, err, 2, false)
	want("allocating no more", 0, g.Allocate(2), 0, false)
	want("allocating from a full disk", 0, g.Allocate(3), 0, true)
	want("truncating", 0, f.Truncate(1), 0, false)
	want("allocating what there is", 0, g.Allocate(7), 0, true)
	if got := state(t, machine); got != "f=a g=AB...." {
		t.Errorf("%q", got)
	}
	want("truncating", 0, g.Truncate(3), 0, false)
	want("allocating", 0, g.Allocate(6), 0, false)
	s.file("h", "") // a name takes no room
	want("removing", 0, s.fs.Remove("/store/g"), 0, false)
	n, err = f.Write([]byte("bcdefgh"))
	want("writing where a file was", n, err, 6, true)
	if got := state(t, machine); got != "f=abcdefg h=" {
		t.Errorf("%q", got)
	}
	machine.SetCapacity(-1)
	n, err = f.Write([]byte("h"))
	want("writing without a limit", n, err, 1, false)

	machine.SetCapacity(8)
	machine.SetDelayedAllocation(true)
	n, err = f.Write([]byte("ijk"))
	want("writing what may have no room", n, err, 3, false)
	want("syncing it", 0, f.Sync(), 0, true)
	want("truncating", 0, f.Truncate(8), 0, false)
	want("syncing what has room", 0, f.Sync(), 0, false)
}

func TestReadOnly(t *testing.T) {
	for _, c := range steps {
		t.Run(c.kind+" "+c.path, func(t *testing.T) {
			machine, s := readyStore(t)
			machine.SetReadOnly(true)
			if err := c.take(s); c.kind != disktest.OpMkdirAll && c.done == "" && err != nil || (c.done != "" || c.kind == disktest.OpMkdirAll) && !errors.Is(err, syscall.EROFS) {
				t.Errorf("error %v", err)
			}
			if got := state(t, machine); got != readySeen {
				t.Errorf("seen: %q", got)
			}
			if err := s.try("f", os.O_RDWR); !errors.Is(err, syscall.EROFS) {
				t.Errorf("opened for writing: %v", err)
			}
			if got, err := disk.ReadFile(s.fs, "/store/f", 9); string(got) != "abcd" || err != nil {
				t.Errorf("read %q, %v", got, err)
			}
			machine.SetReadOnly(false)
			s.open("again", "f", os.O_RDWR)
			s.sync("again")
			machine.PowerCut(nil)
			if got := state(t, machine); got != "f=abcd" { // nothing was lost by it
				t.Errorf("left: %q", got)
			}
		})
	}
}

// TestOneCounter: the steps on the disk and on the bucket are counted together, and both end with the process.
func TestOneCounter(t *testing.T) {
	steps := []string{
		storagetest.OpCheck, disktest.OpOpen, disktest.OpRead, disktest.OpRead, disktest.OpClose, storagetest.OpCreate, disktest.OpRemove,
	}
	run := func(p *disktest.Process, bucket storage.Bucket) error {
		if err := bucket.Check(t.Context()); err != nil {
			return err
		}
		data, err := disk.ReadFile(p, "f", 100)
		if err != nil {
			return err
		}
		if _, err := bucket.Create(t.Context(), "k", bytes.NewReader(data), storagetest.Options(data)); err != nil {
			return err
		}
		return p.Remove("f")
	}
	for k := range len(steps) + 1 {
		machine, memory := disktest.New(), storagetest.NewMemory()
		if err := machine.WriteFile("f", []byte("body")); err != nil {
			t.Fatal(err)
		}
		var got []string
		machine.Faults.Inject(func(op storagetest.Op) storagetest.Fault {
			if got = append(got, op.Kind); op.N != len(got)-1 {
				t.Errorf("step %d is called %d", len(got)-1, op.N)
			}
			if op.N == k {
				machine.Kill()
			}
			return storagetest.Fault{}
		})
		p := machine.Process()
		if err := run(p, p.Bucket(memory)); errors.Is(err, disktest.ErrCrashed) != (k < len(steps)) {
			t.Errorf("killed before step %d: %v", k, err)
		}
		if want := steps[:min(k+1, len(steps))]; !slices.Equal(got, want) {
			t.Errorf("killed before step %d: steps %q, want %q", k, got, want)
		}
		if objects, files := len(list(t, memory)), len(machine.Files()); (objects == 1) != (k > 5) || (files == 0) != (k > 6) {
			t.Errorf("killed before step %d: %d objects, %d files", k, objects, files)
		}
	}
}

// TestKilledAtAnyTime: after Kill nothing changes any more, whatever goroutines there are.
func TestKilledAtAnyTime(t *testing.T) {
	for range 20 {
		machine, memory := disktest.New(), storagetest.NewMemory()
		p := machine.Process()
		bucket := p.Bucket(memory)
		started, wg := make(chan bool), sync.WaitGroup{}
		for worker := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					name := fmt.Sprintf("%d-%d", worker, i)
					err := disk.WriteFile(p, name, []byte(name))
					if err == nil {
						_, err = bucket.Create(context.Background(), name, strings.NewReader(name), storagetest.Options([]byte(name)))
					}
					if err == nil && worker == 0 && i == 3 {
						close(started)
					}
					if err != nil {
						if !errors.Is(err, disktest.ErrCrashed) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		<-started
		machine.Kill()
		files, objects := machine.Files(), len(list(t, memory))
		wg.Wait()
		if !slices.Equal(machine.Files(), files) || len(list(t, memory)) != objects {
			t.Error("a dead process changed something")
		}
		if objects < 4 || len(files) < objects {
			t.Errorf("%d objects of %d files", objects, len(files))
		}
	}
}

func list(t *testing.T, memory *storagetest.Memory) (keys []string) {
	for info, err := range memory.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// TestReadToTheEnd: the end of a file is not a fault.
func TestReadToTheEnd(t *testing.T) {
	machine, s := newStore(t)
	s.durably("abc", "f")
	reads := 0
	machine.Faults.Inject(func(op storagetest.Op) storagetest.Fault {
		if op.Kind == disktest.OpRead {
			if reads++; reads == 2 {
				return storagetest.Fail(syscall.EIO)
			}
		}
		return storagetest.Fault{}
	})
	f, err := s.fs.OpenFile("/store/f", os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(f); string(got) != "abc" || err != syscall.EIO {
		t.Errorf("%q, %v", got, err)
	}
	if n, err := f.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("%d, %v", n, err)
	}
}
