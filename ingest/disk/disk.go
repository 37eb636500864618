// Package disk is the part of a file system that the log's journal and state need, and how a file is made durable with it.
// The seam is there so that tests can fail every single step, and cut the power after it: see package disktest.
package disk

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// FS is a file system. Its methods and errors are those of package os, except where it is said otherwise. What a method
// changed survives a crash of the process when it returns, and a crash of the machine only after the sync that is named there.
// An error leaves it open whether the change was made.
//
// Methods may be called at the same time from several goroutines.
type FS interface {
	// OpenFile opens a file; flag is one of os's O_RDONLY, O_WRONLY, O_RDWR, with O_CREATE, O_EXCL, O_TRUNC, O_APPEND. The name
	// of a file that was created is durable after SyncDir.
	OpenFile(path string, flag int, perm fs.FileMode) (File, error)
	// ReadDir returns the names in a directory, ascending.
	ReadDir(path string) ([]string, error)
	// Rename gives a file another name, in place of a file that has it. Durable after SyncDir.
	Rename(from, to string) error
	// Remove takes a file's name away. Durable after SyncDir.
	Remove(path string) error
	// MkdirAll makes a directory, mode 0700, and those that it lies in. Durable after SyncDir of each that one was made in.
	MkdirAll(path string) error
	// SyncDir makes the names in a directory durable.
	SyncDir(path string) error
	// Lock creates the file if it is not there and takes an advisory lock on it, until it is closed or the process ends.
	// ErrLocked if somebody else holds it.
	Lock(path string) (io.Closer, error)
}

// File is an open file of an FS, for one goroutine at a time.
type File interface {
	io.Reader
	io.Writer
	io.Seeker // of what is read
	io.Closer
	Name() string
	// Sync makes what was written, and the size, durable. After an error it is not known what is, and another Sync
	// that succeeds says nothing about it: the system may have dropped what it could not write.
	Sync() error
	// Truncate sets the size. Durable after Sync.
	Truncate(size int64) error
	// Allocate takes the room for size bytes of the file, and sets its size.
	Allocate(size int64) error
}

// ErrLocked says that somebody else holds the lock.
var ErrLocked = errors.New("locked by another process")

// temporary begins the names of files that a crash may leave half written. They mean nothing after a start.
const temporary = ".tmp-"

// Write makes the file path whole or not at all: temporary file, sync, rename, sync of the directory. After an error there is the old
// file or the new one. Of calls for one path only one may be under way.
func Write(fsys FS, path string, write func(w io.Writer) error) error {
	name := filepath.Join(filepath.Dir(path), temporary+filepath.Base(path))
	f, err := fsys.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 256<<10)
	err = write(w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = fsys.Rename(name, path)
	}
	if err != nil {
		fsys.Remove(name) // what is left of it is removed at the next start
		return err
	}
	return fsys.SyncDir(filepath.Dir(path))
}

// WriteFile is Write of data.
func WriteFile(fsys FS, path string, data []byte) error {
	return Write(fsys, path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// Remove removes the files of one directory that are there, in this order, and makes that durable.
func Remove(fsys FS, paths ...string) error {
	for _, path := range paths {
		if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fsys.SyncDir(filepath.Dir(paths[0]))
}

// RemoveTemporary removes what a crash left of calls of Write in the directory.
func RemoveTemporary(fsys FS, dir string) error {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if len(name) > len(temporary) && name[:len(temporary)] == temporary {
			if err := fsys.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// MakeDir makes a directory, and those that it lies in, durable as far as they may be opened.
func MakeDir(fsys FS, path string) error {
	if err := fsys.MkdirAll(path); err != nil {
		return err
	}
	for parent := path; parent != filepath.Dir(parent); {
		parent = filepath.Dir(parent)
		err := fsys.SyncDir(parent)
		if errors.Is(err, fs.ErrPermission) {
			return nil // then it is not we who made what lies in it
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ReadFile reads a file of at most limit bytes.
func ReadFile(fsys FS, path string, limit int64) ([]byte, error) {
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is longer than %d bytes", path, limit)
	}
	return data, err
}
