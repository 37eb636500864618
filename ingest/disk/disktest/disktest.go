// Package disktest is a disk in memory that knows what of it is durable, can be cut off from its power, and fails as it is told.
//
// An [FS] is the disk of one machine. A program under test gets a [Process], which is a disk.FS, and by it a way to a bucket too; the
// test itself looks at the disk, and changes it, by the FS's own methods, which are no steps and never fail by injection:
//
//	machine := disktest.New()
//	machine.Faults.Inject(func(op storagetest.Op) storagetest.Fault {
//		if op.N == 12 {
//			machine.PowerCut(nil) // before the step
//		}
//		if op.Kind == disktest.OpSync {
//			return storagetest.Fail(syscall.EIO)
//		}
//		return storagetest.Fault{}
//	})
//	p := machine.Process()
//	run(p, p.Bucket(bucket))
//	machine.Kill()          // as kill -9: p can do nothing more, what it wrote is there
//	next := machine.Process()
//
// # What is durable
//
// A file's content and size are durable as of its last Sync, a directory's names as of its last SyncDir. The name of a new directory is
// one of the directory it lies in. [FS.Kill] leaves everything as processes saw it, [FS.PowerCut] what is durable and a choice of the rest.
//
// A Sync that fails (Fail of OpSync, or ENOSPC) leaves what was written before it in sight, but it is taken for clean, as Linux does
// after an I/O error: a later Sync that succeeds makes it as little durable as a restart of the process does. Only the size grows to where
// it ended, with zero bytes where nothing else was durable. Written again, it is as new. FailDone makes all durable and says it was not.
// A SyncDir that fails leaves the names as they were, and another may succeed.
//
// # Faults
//
// Every call of a method of the FS or of a file of it, but Name and Seek, is a step, whether or not it would succeed: see storagetest.Faults, and below for
// their kinds. Closing is always done. FailDone of an OpCreate, OpOpen or OpLock does what it does to the disk, and nothing is open or locked.
// A Write that FailDone strikes reports that nothing was written. A capacity and a disk that is read-only are kept by the FS: see
// [FS.SetCapacity], [FS.SetReadOnly].
//
// # What is left out
//
// Permissions, links and times. A rename into another directory is EXDEV.
package disktest

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/auditchain/auditchain/storage/storagetest"
)

// The steps on a disk.
const (
	OpCreate   = "disk.Create" // OpenFile with O_CREATE or O_TRUNC
	OpOpen     = "disk.Open"   // OpenFile without
	OpRead     = "disk.Read"
	OpWrite    = "disk.Write"
	OpSync     = "disk.Sync"
	OpTruncate = "disk.Truncate" // Bytes is the size
	OpAllocate = "disk.Allocate" // Bytes is the size
	OpClose    = "disk.Close"
	OpRename   = "disk.Rename" // Path is the new name
	OpRemove   = "disk.Remove"
	OpMkdirAll = "disk.MkdirAll"
	OpSyncDir  = "disk.SyncDir"
	OpReadDir  = "disk.ReadDir"
	OpLock     = "disk.Lock"
	OpUnlock   = "disk.Unlock" // Close of a lock
)

// ErrCrashed is what a process gets for everything that it tries after Kill or PowerCut.
var ErrCrashed = storagetest.ErrCrashed

// FS is the disk of one machine. Its methods may be called at any time, from a fault's hook too. Paths are taken from the root,
// with a slash before them or not.
type FS struct {
	// Faults counts the steps of all processes and says what goes wrong with them. It may be exchanged, so that several machines have one
	// counter, before the first Process.
	Faults *storagetest.Faults
	// Reorder has PowerCut also leave out any of the pages, of 4096 bytes each, that were not synced, as the system writes them in any order.
	// To be set before the first Process.
	Reorder bool

	mu        sync.Mutex
	root      *node
	processes []*Process // that are not dead
	capacity  int64      // bytes; -1 is no limit
	delayed   bool
	readOnly  bool
}

// New returns an empty disk.
func New() *FS {
	return &FS{Faults: new(storagetest.Faults), root: newDir(), capacity: -1}
}

// Process begins a process on the machine. There may be several at a time.
func (s *FS) Process() *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &Process{fs: s, steps: storagetest.NewProcess(s.Faults)}
	s.processes = append(s.processes, p)
	return p
}

// Kill ends all processes and leaves everything as they saw it, as kill -9 does.
func (s *FS) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
}

func (s *FS) kill() {
	for _, p := range s.processes {
		p.steps.Kill()
	}
	s.processes = nil
}

// PowerCut ends all processes and leaves what a power cut may leave. With rng nil that is the least, what is durable. Else rng
// chooses: of each file's writes and truncations since its last Sync none, all, those up to any byte, or those with zero bytes
// up to the size that it would have; of truncations each may be missing; of each directory's changes since its last SyncDir the first few.
func (s *FS) PowerCut(rng *rand.Rand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
	s.root.powerCut(rng, s.Reorder)
}

// SetCapacity limits the sum of the files' sizes, and -1 does not. What has no room is ENOSPC: a Write writes what has, and an Allocate
// takes what there is, as ext4's does.
func (s *FS) SetCapacity(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.capacity = bytes
}

// SetDelayedAllocation lets what has no room be written all the same; then the Sync fails, as on some network file systems.
func (s *FS) SetDelayedAllocation(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delayed = on
}

// SetReadOnly makes every change EROFS, also by files that are open, as after an error that the file system could not get over.
// So is a Sync or SyncDir for which there is something to do; what it is about is not lost by that.
func (s *FS) SetReadOnly(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readOnly = on
}

// room is how many bytes a file may grow by. The caller holds mu.
func (s *FS) room() int64 {
	if s.capacity < 0 {
		return 1<<63 - 1
	}
	return max(0, s.capacity-s.root.total())
}

// Files returns the paths of all files, as seen, ascending.
func (s *FS) Files() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.root.files("/")))
}

// ReadFile returns a file's content, as seen.
func (s *FS) ReadFile(path string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, errno := s.lookup(path)
	if errno == 0 && n.names != nil {
		errno = syscall.EISDIR
	}
	if errno != 0 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errno}
	}
	return slices.Clone(n.seen), nil
}

// WriteFile replaces a file's content, as seen and durably, under the hands of processes that have it open; or makes the file and
// the directories that it lies in.
func (s *FS) WriteFile(path string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.root
	names := elements(path)
	if len(names) == 0 {
		return fmt.Errorf("%q is not a path to a file", path)
	}
	for i, name := range names {
		next := n.names[name]
		if next == nil {
			if next = new(node); i < len(names)-1 {
				next = newDir()
			}
			n.set(name, next)
		}
		if n.commit(); (next.names == nil) != (i == len(names)-1) {
			return fmt.Errorf("%q is not a path to a file", path)
		}
		n = next
	}
	n.seen, n.kept, n.pending = slices.Clone(data), slices.Clone(data), nil
	return nil
}

// State is a copy of a disk.
type State struct{ root *node }

// Snapshot copies all that is on the disk, and what of it is durable.
func (s *FS) Snapshot() *State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &State{s.root.clone(make(map[*node]*node))}
}

// Restore ends all processes and puts the disk back to what it was. A State may be restored any number of times.
func (s *FS) Restore(state *State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
	s.root = state.root.clone(make(map[*node]*node))
}

// elements splits a path into names; none for the root.
func elements(path string) []string {
	path = strings.Trim(filepath.Clean("/"+path), "/")
	if path == "" {
		return nil
	}
	return strings.Split(path, "/")
}

// lookup finds what has a path. The caller holds mu.
func (s *FS) lookup(path string) (*node, syscall.Errno) {
	if path == "" {
		return nil, syscall.ENOENT
	}
	n := s.root
	for _, name := range elements(path) {
		if n.names == nil {
			return nil, syscall.ENOTDIR
		}
		if n = n.names[name]; n == nil {
			return nil, syscall.ENOENT
		}
	}
	return n, 0
}

// parent finds the directory that a path lies in, and its name there. The caller holds mu.
func (s *FS) parent(path string) (*node, string, syscall.Errno) {
	names := elements(path)
	if len(names) == 0 {
		return nil, "", syscall.EEXIST // the root
	}
	dir, errno := s.lookup("/" + strings.Join(names[:len(names)-1], "/"))
	if errno == 0 && dir.names == nil {
		errno = syscall.ENOTDIR
	}
	return dir, names[len(names)-1], errno
}

// sorted is in the order of the keys, so that a seed always gives the same.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
