package model

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// maxNames is how many names are looked at under one directory. Links to directories can lead to any number.
const maxNames = 100_000

// Beginnings and ends of the names, in lower case, of files that document a model and change nothing in it.
var (
	documentPrefixes = []string{"readme", "license", "notice"}
	documentSuffixes = []string{".md", ".pdf", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp"}
)

// list returns the files of the model under a directory, without their sums, in the manifest's order. dir ends with a slash.
func list(dir string) (Manifest, error) {
	l := lister{dir: dir}
	if err := l.walk("", nil); err != nil {
		return nil, err
	}
	if len(l.files) == 0 {
		return nil, fmt.Errorf("%s has no file of a model", dir)
	}
	slices.SortFunc(l.files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return l.files, nil
}

type lister struct {
	dir   string
	files Manifest
	names int
}

// walk adds what lies under the directory rel, which is "" or ends with a slash; above are the directories that it lies in.
func (l *lister) walk(rel string, above []fs.FileInfo) error {
	path := l.dir + rel
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(above, func(a fs.FileInfo) bool { return os.SameFile(a, info) }) {
		return fmt.Errorf("%s is a link to a directory that it lies in", path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	if l.names += len(entries); l.names > maxNames {
		return fmt.Errorf("%s has more than %d names below it", l.dir, maxNames)
	}
	above = append(above, info)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if err := l.add(rel, e.Name(), above); err != nil {
			return err
		}
	}
	return nil
}

func (l *lister) add(dir, name string, above []fs.FileInfo) error {
	rel := dir + name
	path := l.dir + rel
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return l.walk(rel+"/", above)
	case isDocument(name):
		return nil
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is neither a file nor a directory", path)
	}
	if err := checkName(rel); err != nil {
		return err
	}
	l.files = append(l.files, File{Path: rel, Size: info.Size()})
	return nil
}

// isDocument tells it from the name as find -iname does in the C locale: only A to Z have another case.
func isDocument(name string) bool {
	lower := []byte(name)
	for i, c := range lower {
		if 'A' <= c && c <= 'Z' {
			lower[i] = c + ('a' - 'A')
		}
	}
	s := string(lower)
	return slices.ContainsFunc(documentPrefixes, func(p string) bool { return strings.HasPrefix(s, p) }) ||
		slices.ContainsFunc(documentSuffixes, func(p string) bool { return strings.HasSuffix(s, p) })
}

// checkName refuses paths that sha256sum does not write or read as they are.
func checkName(rel string) error {
	if strings.ContainsAny(rel, "\n\r\\") {
		return fmt.Errorf("the name %q has a newline, a carriage return or a backslash", rel)
	}
	if rel == "-" {
		return errors.New(`a file is named "-", which sha256sum takes for its standard input`)
	}
	return nil
}
