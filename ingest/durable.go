package ingest

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// writeDurably makes the file path whole or not at all: temporary file, sync, rename, sync of the directory.
func writeDurably(path string, write func(w io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), temporaryPrefix+"*")
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
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

// temporaryPrefix begins the names of files that a crash may leave half written; they mean nothing after a start.
const temporaryPrefix = ".tmp-"

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// removeDurably removes the files that are there, and makes that durable.
func removeDurably(paths ...string) error {
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return syncDir(filepath.Dir(paths[0]))
}
