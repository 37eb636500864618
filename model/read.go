package model

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// maxReaders is how many files are read at a time: more than one, so that a disk is kept busy while a processor hashes.
const maxReaders = 4

// bufferSize is how much is read at a time, in bytes.
const bufferSize = 1 << 20

// Read reads the model at path, a directory or a single file, and returns its manifest. If progress is not nil it is called, from
// several goroutines, with the bytes that were read and those that there are.
//
// Links are followed. It is an error if something cannot be read, leads back into itself, is neither a file nor a directory, or changes
// meanwhile; if a name cannot stand in a manifest; and if there is no file.
func Read(ctx context.Context, path string, progress func(done, total int64)) (Manifest, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	// Paths are put together as they are: cleaned ones may lead elsewhere where there are links.
	slash := strings.LastIndexByte(path, '/') + 1
	dir, name := path[:slash], path[slash:]
	var m Manifest
	switch {
	case info.IsDir():
		dir = strings.TrimSuffix(path, "/") + "/"
		m, err = list(dir)
	case info.Mode().IsRegular():
		m, err = Manifest{{Path: name, Size: info.Size()}}, checkName(name)
	default:
		err = fmt.Errorf("%s is neither a file nor a directory", path)
	}
	if err != nil {
		return nil, err
	}
	if err := m.sum(ctx, dir, progress); err != nil {
		return nil, err
	}
	return m, nil
}

// sum reads the files and puts in their sums. It returns the first error.
func (m Manifest) sum(ctx context.Context, dir string, progress func(done, total int64)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var done atomic.Int64
	total := m.Size()
	count := func(n int) {
		if d := done.Add(int64(n)); progress != nil {
			progress(d, total)
		}
	}
	next := make(chan *File)
	var readers sync.WaitGroup
	for range min(maxReaders, runtime.GOMAXPROCS(0)) {
		readers.Go(func() {
			h, buffer := sha256.New(), make([]byte, bufferSize)
			for f := range next {
				if err := f.sum(ctx, dir, h, buffer, count); err != nil {
					cancel(err)
				}
			}
		})
	}
feeding:
	for i := range m {
		select {
		case next <- &m[i]:
		case <-ctx.Done():
			break feeding
		}
	}
	close(next)
	readers.Wait()
	return context.Cause(ctx)
}

// sum reads one file.
func (f *File) sum(ctx context.Context, dir string, h hash.Hash, buffer []byte, count func(int)) error {
	path := dir + f.Path
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	before, err := file.Stat()
	if err != nil {
		return err
	}
	h.Reset()
	var size int64
	for err != io.EOF {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var n int
		if n, err = file.Read(buffer); err != nil && err != io.EOF {
			return err
		}
		h.Write(buffer[:n])
		size += int64(n)
		count(n)
	}
	after, err := os.Stat(path)
	if err != nil {
		return err
	}
	if size != f.Size || size != after.Size() || !before.ModTime().Equal(after.ModTime()) || !os.SameFile(before, after) {
		return fmt.Errorf("%s changed while it was read", path)
	}
	h.Sum(f.Sum[:0])
	return nil
}
