package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/auditchain/auditchain/ingest/disk"
)

// output writes what the user asked for to path, and returns where to say what was done: standard error where "-" or /dev/stdout was
// named, which is then nobody else's.
func output(cmd *cobra.Command, path string, data []byte) (io.Writer, error) {
	if path == "-" || path == "/dev/stdout" {
		_, err := cmd.OutOrStdout().Write(data)
		return cmd.ErrOrStderr(), err
	}
	return cmd.OutOrStdout(), writeOutput(path, data)
}

// writeOutput writes a file that the user named, whole or not at all: beside it first, under a name that nobody can have prepared,
// readable by its owner only. What is there already is replaced, a link's target and not the link; what is no file is written to.
func writeOutput(path string, data []byte) (err error) {
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		target, err := filepath.EvalSymlinks(path)
		if err != nil {
			return fmt.Errorf("%s is a link, and what it leads to cannot be found: %w", path, err)
		}
		path = target
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s is a directory", path)
	case !info.Mode().IsRegular():
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		return errors.Join(err, f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".auditchain-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// readFile reads a file of at most limit bytes.
func readFile(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // a pipe would be waited for
		return nil, fmt.Errorf("%s is no file", name)
	}
	return disk.ReadFile(disk.OS{}, name, limit)
}

// conclude ends a verb that looked at several chains, and failed at some of them: a definite no of one is more than that.
func conclude(cmd *cobra.Command, code int, failed error) error {
	if failed != nil && code != exitNo {
		return failed
	}
	if failed != nil {
		printError(cmd.ErrOrStderr(), failed)
	}
	if code != exitYes {
		return verdict(code)
	}
	return nil
}
