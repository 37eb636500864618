package model

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// tree makes a directory. Names are paths; content that begins with "-> " is a link's target, "fifo" a pipe.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		target, isLink := strings.CutPrefix(content, "-> ")
		switch {
		case err != nil:
		case isLink:
			err = os.Symlink(target, path)
		case content == "fifo":
			err = syscall.Mkfifo(path, 0o644)
		default:
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRead(t *testing.T) {
	dir := tree(t, map[string]string{
		"model-00001.safetensors": "weights", "config.json": "{}", "a-b": "", "a/b": "-> ../config.json",
		"README.md": "#", "License": "free", "notice.txt": "n", "a/diagram.PNG": "p", ".cache/x": "x", "a/.hidden": "h", "gone.pdf": "fifo",
	})
	const empty, braces, weights = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
		"9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
	for path, want := range map[string][]string{
		dir:                  {empty + "  a-b", braces + "  a/b", braces + "  config.json", weights + "  model-00001.safetensors"},
		dir + "/":            {empty + "  a-b", braces + "  a/b", braces + "  config.json", weights + "  model-00001.safetensors"},
		dir + "/a":           {braces + "  b"},
		dir + "/config.json": {braces + "  config.json"},
		dir + "/a/b":         {braces + "  b"},
		dir + "/a/.hidden":   {"aaa9402664f1a41f40ebbc52c9993eb66aeb366602958fdfaa283b71e64db123  .hidden"},
	} {
		m, err := Read(t.Context(), path, nil)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if got, want := string(m.Text()), strings.Join(want, "\n")+"\n"; got != want {
			t.Errorf("%s:\n%s\nwant\n%s", path, got, want)
		}
	}
	m, err := Read(t.Context(), dir+"/config.json", nil)
	if err != nil || m.Checksum() != "sha256:f0c39c917b58f5653c97df32cdd5ccd76fea1db8b14bff451fa1efa7b73b2553" || m.Size() != 2 {
		t.Errorf("%s, %d bytes: %v", m.Checksum(), m.Size(), err)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		path  string
		want  string
	}{
		"nothing":         {nil, "", " has no file of a model"},
		"documents only":  {map[string]string{"README.md": "#", ".git/config": "x"}, "", " has no file of a model"},
		"no such":         {nil, "/x", "stat "},
		"no directory":    {map[string]string{"f": "x"}, "/f/", "not a directory"},
		"newline":         {map[string]string{"a\nb": "x"}, "", `the name "a\nb" has a newline`},
		"return":          {map[string]string{"d\r/b": "x"}, "", `the name "d\r/b" has a newline`},
		"backslash":       {map[string]string{`a\b`: "x"}, "", `the name "a\\b" has a newline`},
		"backslash, file": {map[string]string{`a\b`: "x"}, `/a\b`, `the name "a\\b" has a newline`},
		"minus":           {map[string]string{"-": "x"}, "", `a file is named "-"`},
		"pipe":            {map[string]string{"a/p": "fifo"}, "", "/a/p is neither a file nor a directory"},
		"pipe, file":      {map[string]string{"p": "fifo"}, "/p", "/p is neither a file nor a directory"},
		"dangling":        {map[string]string{"f": "x", "l": "-> gone"}, "", "/l: no such file or directory"},
		"to itself":       {map[string]string{"f": "x", "l": "-> l"}, "", "/l: too many levels of symbolic links"},
		"to above":        {map[string]string{"f": "x", "a/l": "-> .."}, "", "/a/l/ is a link to a directory that it lies in"},
		"to each other":   {map[string]string{"a/x": "-> ../b", "b/y": "-> ../a"}, "", "/a/x/y/ is a link to a directory that it lies in"},
	} {
		m, err := Read(t.Context(), tree(t, c.files)+c.path, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %s, %v; want %s", name, m.Text(), err, c.want)
		}
	}
}

func TestUnreadable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads everything")
	}
	dir := tree(t, map[string]string{"f": "x", "g": "x"})
	if err := os.Chmod(dir+"/f", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(t.Context(), dir, nil); !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
}

// Links to directories, each with two to the next, make 2^20 paths of 20 directories.
func TestManyNames(t *testing.T) {
	files := map[string]string{"u/f": "x"}
	for i := range 20 {
		next := "-> ../" + string(rune('a'+i+1))
		files[string(rune('a'+i))+"/x"], files[string(rune('a'+i))+"/y"] = next, next
	}
	if _, err := Read(t.Context(), tree(t, files), nil); err == nil || !strings.Contains(err.Error(), "more than 100000 names") {
		t.Error(err)
	}
}

// Every change that a file makes while it is read is an error.
func TestChanges(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"grows":    func(path string) error { return appendTo(path, "x") },
		"shrinks":  func(path string) error { return os.Truncate(path, 1) },
		"vanishes": os.Remove,
		"touched":  func(path string) error { return os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour)) },
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+"2", make([]byte, 3*bufferSize), 0o644), os.Rename(path+"2", path))
		},
	} {
		dir := t.TempDir()
		path := dir + "/f"
		if err := os.WriteFile(path, make([]byte, 3*bufferSize), 0o644); err != nil {
			t.Fatal(err)
		}
		var once sync.Once
		if m, err := Read(t.Context(), dir, func(done, total int64) {
			once.Do(func() {
				if err := change(path); err != nil {
					t.Error(err)
				}
			})
		}); err == nil {
			t.Errorf("%s: %s", name, m.Text())
		}
	}
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func TestProgressAndCancel(t *testing.T) {
	files := make(map[string]string)
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		files[name] = strings.Repeat(name, bufferSize+1)
	}
	dir := tree(t, files)
	var mu sync.Mutex
	var seen []int64
	if _, err := Read(t.Context(), dir, func(done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, done)
		if total != 6*(bufferSize+1) {
			t.Errorf("%d bytes in all", total)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if slices.Max(seen) != 6*(bufferSize+1) {
		t.Errorf("read %d bytes", slices.Max(seen))
	}
	ctx, cancel := context.WithCancel(t.Context())
	if m, err := Read(ctx, dir, func(done, total int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("%s, %v", m.Text(), err)
	}
}
