package disktest

import (
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"github.com/auditchain/auditchain/ingest/disk"
	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/storage/storagetest"
)

// Process is a process on a machine: the disk as it sees it. After it was killed all of it is ErrCrashed and changes nothing.
type Process struct {
	fs    *FS
	steps *storagetest.Process
}

var _ disk.FS = (*Process)(nil)

// Bucket returns the process's way to a bucket, with the same Faults, and with the same end.
func (p *Process) Bucket(b storage.Bucket) *storagetest.Client {
	return storagetest.NewClient(p.steps, b)
}

// Kill ends this process alone.
func (p *Process) Kill() {
	p.fs.mu.Lock()
	defer p.fs.mu.Unlock()
	p.steps.Kill()
	p.fs.processes = slices.DeleteFunc(p.fs.processes, func(q *Process) bool { return q == p })
}

func (p *Process) dead() bool { return p.steps.Err() != nil }

// step takes a step, of which do does the part that fault leaves. It returns the error of do only if the fault has none.
func (p *Process) step(kind, path string, bytes int, do func(fault storagetest.Fault) error) error {
	fault, err := p.steps.Step(kind, path, bytes)
	if err != nil {
		return err
	}
	p.fs.mu.Lock()
	defer p.fs.mu.Unlock()
	if p.dead() { // meanwhile
		return ErrCrashed
	}
	if fault.Err == nil || fault.Done || fault.N > 0 {
		err = do(fault)
	}
	if fault.Err != nil {
		return fault.Err
	}
	return err
}

// whole is a step that is done whole or not at all.
func (p *Process) whole(kind, path string, bytes int, do func() error) error {
	return p.step(kind, path, bytes, func(fault storagetest.Fault) error {
		if fault.Err != nil && !fault.Done {
			return nil
		}
		return do()
	})
}

// open opens a file, and makes or empties it. The caller holds mu.
func (p *Process) open(path string, flag int) (*node, syscall.Errno) {
	writes := flag&(os.O_WRONLY|os.O_RDWR|os.O_TRUNC) != 0
	n, errno := p.fs.lookup(path)
	switch {
	case errno == syscall.ENOENT && flag&os.O_CREATE != 0 && path != "":
		dir, name, errno := p.fs.parent(path)
		switch {
		case errno != 0:
			return nil, errno
		case p.fs.readOnly:
			return nil, syscall.EROFS
		}
		n = new(node)
		dir.set(name, n)
		return n, 0
	case errno != 0:
		return nil, errno
	case flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0:
		return nil, syscall.EEXIST
	case n.names != nil && (writes || flag&os.O_CREATE != 0):
		return nil, syscall.EISDIR
	case p.fs.readOnly && writes:
		return nil, syscall.EROFS
	}
	if flag&os.O_TRUNC != 0 && len(n.seen) > 0 {
		n.change(change{kind: truncate})
	}
	return n, 0
}

// OpenFile implements [disk.FS].
func (p *Process) OpenFile(path string, flag int, _ fs.FileMode) (disk.File, error) {
	kind := OpOpen
	if flag&(os.O_CREATE|os.O_TRUNC) != 0 {
		kind = OpCreate
	}
	var n *node
	err := p.whole(kind, path, 0, func() error {
		var errno syscall.Errno
		n, errno = p.open(path, flag)
		return pathError("open", path, errno)
	})
	if err != nil {
		return nil, err
	}
	return &file{p: p, node: n, name: path, flag: flag}, nil
}

// ReadDir implements [disk.FS].
func (p *Process) ReadDir(path string) ([]string, error) {
	var names []string
	err := p.whole(OpReadDir, path, 0, func() error {
		n, errno := p.fs.lookup(path)
		switch {
		case errno != 0:
			return pathError("open", path, errno)
		case n.names == nil:
			return pathError("readdirent", path, syscall.ENOTDIR)
		}
		names = sorted(n.names)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return names, nil
}

// Rename implements [disk.FS].
func (p *Process) Rename(from, to string) error {
	return p.whole(OpRename, to, 0, func() error {
		if errno := p.rename(from, to); errno != 0 {
			return &os.LinkError{Op: "rename", Old: from, New: to, Err: errno}
		}
		return nil
	})
}

func (p *Process) rename(from, to string) syscall.Errno {
	source, sourceErrno := p.fs.lookup(from)
	target, targetErrno := p.fs.lookup(to)
	fromDir, fromName, fromErrno := p.fs.parent(from)
	toDir, toName, toErrno := p.fs.parent(to)
	switch {
	case sourceErrno != 0:
		return sourceErrno
	case targetErrno == 0 && target.names != nil:
		return syscall.EEXIST // as package os has it
	case fromErrno != 0:
		return fromErrno
	case toErrno != 0:
		return toErrno
	case p.fs.readOnly:
		return syscall.EROFS
	case fromDir != toDir:
		return syscall.EXDEV
	case source == target:
		return 0
	case source.names != nil && target != nil:
		return syscall.ENOTDIR
	}
	fromDir.rename(rename{remove: fromName, set: toName, node: source})
	return 0
}

// Remove implements [disk.FS].
func (p *Process) Remove(path string) error {
	return p.whole(OpRemove, path, 0, func() error {
		n, errno := p.fs.lookup(path)
		switch {
		case errno != 0:
		case p.fs.readOnly:
			errno = syscall.EROFS
		case len(n.names) > 0:
			errno = syscall.ENOTEMPTY
		default:
			var dir *node
			var name string
			if dir, name, errno = p.fs.parent(path); errno == 0 {
				dir.rename(rename{remove: name})
			}
		}
		return pathError("remove", path, errno)
	})
}

// MkdirAll implements [disk.FS].
func (p *Process) MkdirAll(path string) error {
	return p.whole(OpMkdirAll, path, 0, func() error {
		n, at := p.fs.root, ""
		for _, name := range elements(path) {
			next := n.names[name]
			at += "/" + name
			switch {
			case next == nil && p.fs.readOnly:
				return pathError("mkdir", at, syscall.EROFS)
			case next == nil:
				next = newDir()
				n.set(name, next)
			case next.names == nil:
				return pathError("mkdir", at, syscall.ENOTDIR)
			}
			n = next
		}
		return nil
	})
}

// SyncDir implements [disk.FS].
func (p *Process) SyncDir(path string) error {
	return p.whole(OpSyncDir, path, 0, func() error {
		n, errno := p.fs.lookup(path)
		switch {
		case errno != 0:
			return pathError("open", path, errno)
		case n.names == nil:
			return pathError("sync", path, syscall.ENOTDIR)
		case p.fs.readOnly && len(n.renames) > 0:
			return pathError("sync", path, syscall.EROFS)
		}
		n.commit()
		return nil
	})
}

// Lock implements [disk.FS].
func (p *Process) Lock(path string) (io.Closer, error) {
	var n *node
	err := p.step(OpLock, path, 0, func(fault storagetest.Fault) error {
		if fault.Err != nil && !fault.Done {
			return nil
		}
		var errno syscall.Errno
		if n, errno = p.open(path, os.O_RDWR|os.O_CREATE); errno != 0 {
			return pathError("open", path, errno)
		}
		if n.lock != nil && !n.lock.dead() {
			return disk.ErrLocked
		}
		if fault.Err == nil {
			n.lock = p
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &lock{p: p, node: n, name: path}, nil
}

// lock is a lock that a process has or had.
type lock struct {
	p      *Process
	node   *node
	name   string
	closed bool
}

func (l *lock) Close() error {
	return l.p.closing(OpUnlock, l.name, &l.closed, func() { l.node.lock = nil })
}

// closing is a step that is done whatever goes wrong with it.
func (p *Process) closing(kind, path string, closed *bool, do func()) error {
	fault, err := p.steps.Step(kind, path, 0)
	if err != nil {
		return err
	}
	p.fs.mu.Lock()
	defer p.fs.mu.Unlock()
	switch {
	case p.dead():
		return ErrCrashed
	case *closed:
		return &fs.PathError{Op: "close", Path: path, Err: fs.ErrClosed}
	}
	*closed = true
	do()
	return fault.Err
}

// pathError is nil for 0.
func pathError(op, path string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: errno}
}
