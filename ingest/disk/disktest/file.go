package disktest

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"github.com/auditchain/auditchain/storage/storagetest"
)

// file is a file that a process has open. It stays the same file when another gets its name.
type file struct {
	p      *Process
	node   *node
	name   string
	flag   int
	at     int64
	closed bool
}

func (f *file) Name() string { return f.name }

func (f *file) writable() bool { return f.flag&(os.O_WRONLY|os.O_RDWR) != 0 }

// fails returns why op cannot be done; wrong is the error of a file that was not opened for it. The caller holds mu.
func (f *file) fails(op string, fit bool, wrong syscall.Errno) error {
	switch {
	case f.closed:
		return &fs.PathError{Op: op, Path: f.name, Err: fs.ErrClosed}
	case !fit:
		return &fs.PathError{Op: op, Path: f.name, Err: wrong}
	}
	return nil
}

// Read implements [disk.File].
func (f *file) Read(b []byte) (n int, err error) {
	err = f.p.step(OpRead, f.name, len(b), func(fault storagetest.Fault) error {
		if err := f.fails("read", f.flag&os.O_WRONLY == 0 || len(b) == 0, syscall.EBADF); err != nil || len(b) == 0 {
			return err
		}
		if f.node.names != nil {
			return pathError("read", f.name, syscall.EISDIR)
		}
		if fault.Err != nil && !fault.Done {
			b = b[:min(fault.N, len(b))]
		}
		if f.at < int64(len(f.node.seen)) {
			n = copy(b, f.node.seen[f.at:])
		}
		f.at += int64(n)
		if n == 0 {
			return io.EOF
		}
		if fault.Change != nil {
			fault.Change(b[:n])
		}
		if fault.Done {
			n = 0
		}
		return nil
	})
	return n, err
}

// Seek implements [disk.File]. It is no step, as it does nothing to the disk.
func (f *file) Seek(offset int64, whence int) (int64, error) {
	f.p.fs.mu.Lock()
	defer f.p.fs.mu.Unlock()
	if f.p.dead() {
		return 0, ErrCrashed
	}
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += int64(len(f.node.seen))
	}
	if err := f.fails("seek", offset >= 0 && whence >= io.SeekStart && whence <= io.SeekEnd, syscall.EINVAL); err != nil {
		return 0, err
	}
	f.at = offset
	return offset, nil
}

// Write implements [disk.File].
func (f *file) Write(b []byte) (n int, err error) {
	err = f.p.step(OpWrite, f.name, len(b), func(fault storagetest.Fault) error {
		if err := f.fails("write", f.writable(), syscall.EBADF); err != nil {
			return err
		}
		if f.p.fs.readOnly {
			return pathError("write", f.name, syscall.EROFS)
		}
		if fault.Err != nil && !fault.Done {
			b = b[:min(fault.N, len(b))]
		}
		if f.flag&os.O_APPEND != 0 && len(b) > 0 {
			f.at = int64(len(f.node.seen))
		}
		size := int64(len(f.node.seen))
		var full error
		if room := f.p.fs.room(); f.at+int64(len(b))-size > room && !f.p.fs.delayed {
			// What lies within the file has its room.
			b = b[:max(0, size+room-f.at)]
			full = pathError("write", f.name, syscall.ENOSPC)
		}
		if len(b) > 0 {
			data := slices.Clone(b)
			if fault.Change != nil {
				fault.Change(data)
			}
			f.node.change(change{write, f.at, data})
			f.at += int64(len(b))
		}
		if !fault.Done {
			n = len(b)
		}
		return full
	})
	return n, err
}

// Sync implements [disk.File].
func (f *file) Sync() error {
	fault, err := f.p.steps.Step(OpSync, f.name, 0)
	if err != nil {
		return err
	}
	s := f.p.fs
	s.mu.Lock()
	defer s.mu.Unlock()
	n := f.node
	switch {
	case f.p.dead():
		return ErrCrashed
	case f.closed:
		return errors.Join(fault.Err, os.NewSyscallError("fdatasync", syscall.EBADF))
	case fault.Err != nil && !fault.Done:
		n.lose()
		return fault.Err
	case len(n.pending) > 0 && s.readOnly:
		return errors.Join(fault.Err, os.NewSyscallError("fdatasync", syscall.EROFS))
	case len(n.pending) > 0 && s.delayed && s.capacity >= 0 && s.root.total() > s.capacity:
		n.lose()
		return errors.Join(fault.Err, os.NewSyscallError("fdatasync", syscall.ENOSPC))
	}
	n.sync()
	return fault.Err
}

// Truncate implements [disk.File].
func (f *file) Truncate(size int64) error {
	return f.p.whole(OpTruncate, f.name, int(size), func() error {
		if err := f.fails("truncate", f.writable() && size >= 0, syscall.EINVAL); err != nil {
			return err
		}
		if f.p.fs.readOnly {
			return pathError("truncate", f.name, syscall.EROFS)
		}
		if size != int64(len(f.node.seen)) {
			f.node.change(change{kind: truncate, at: size})
		}
		return nil
	})
}

// Allocate implements [disk.File].
func (f *file) Allocate(size int64) error {
	return f.p.whole(OpAllocate, f.name, int(size), func() error {
		s := f.p.fs
		var errno syscall.Errno
		switch {
		case f.closed:
			errno = syscall.EBADF
		case size <= 0:
			errno = syscall.EINVAL
		case !f.writable():
			errno = syscall.EBADF
		case s.readOnly:
			errno = syscall.EROFS
		default:
			now := int64(len(f.node.seen))
			if room := s.room(); size-now > room {
				size, errno = now+room, syscall.ENOSPC
			}
			if size > now {
				f.node.change(change{kind: grow, at: size})
			}
		}
		if errno != 0 {
			return os.NewSyscallError("fallocate", errno)
		}
		return nil
	})
}

// Close implements [disk.File].
func (f *file) Close() error { return f.p.closing(OpClose, f.name, &f.closed, func() {}) }
