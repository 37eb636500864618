package storage

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Dir is a bucket in a directory of a file system with hard links. It is for tests and for trying things out: it writes
// an object once and never again, but whoever may write to the directory can change or delete it. It has no versions and no locks.
//
// An object is a file of mode 0444 at root/key. A crash leaves at most a file in root/.incoming, which is no object,
// which nothing reads and which may be deleted.
type Dir struct {
	root string // absolute
}

var _ Bucket = (*Dir)(nil)

// incoming is where objects are written before they get their name. No key begins with it.
const incoming = ".incoming"

// NewDir prepares for the directory at path, which has to be absolute. It need not exist yet: see [Make].
func NewDir(path string) (*Dir, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("bucket %q: the directory is not an absolute path", dirScheme+path)
	}
	return &Dir{root: filepath.Clean(path)}, nil
}

func makeDir(path string) error {
	d, err := NewDir(path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(d.root), 0o755); err != nil {
		return err
	}
	err = os.Mkdir(d.root, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", d, ErrBucketExists)
	}
	return err
}

// open gives access to the directory and to nothing outside of it, also not by symbolic links.
func (d *Dir) open() (*os.Root, error) {
	root, err := os.OpenRoot(d.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: make the directory first", d, ErrNoBucket)
	}
	return root, d.explain(err)
}

func (d *Dir) checkKey(key string) error {
	if first, _, _ := strings.Cut(key, "/"); first == incoming {
		return fmt.Errorf("key %q begins with %q, which the directory keeps for itself", key, incoming)
	}
	return checkKey(key)
}

// Create implements [Bucket].
func (d *Dir) Create(ctx context.Context, key string, body io.ReadSeeker, opts CreateOptions) (Version, error) {
	if err := d.checkKey(key); err != nil {
		return "", err
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	root, err := d.open()
	if err != nil {
		return "", err
	}
	defer root.Close()

	temporary := path.Join(incoming, rand.Text())
	if err := root.MkdirAll(incoming, 0o755); err != nil {
		return "", d.explain(err)
	}
	defer root.Remove(temporary)
	if err := writeFile(ctx, root, temporary, body, opts); err != nil {
		return "", fmt.Errorf("storing %s: %w", key, d.explain(err))
	}
	if err := root.MkdirAll(path.Dir(key), 0o755); err != nil {
		return "", fmt.Errorf("storing %s: %w", key, d.explain(err))
	}
	// The bytes are durable. The link gives them their name, if nobody had it before; a crash before the directories
	// are synced may take the name away again, so that the next Create stores it anew.
	linked := root.Link(temporary, key)
	if linked != nil && !errors.Is(linked, fs.ErrExist) {
		return "", fmt.Errorf("storing %s: %w", key, d.explain(linked))
	}
	// ErrExists says durable too, and whoever linked that object may not have come as far as this.
	if err := syncParents(root, key); err != nil {
		return "", fmt.Errorf("storing %s: %w", key, d.explain(err))
	}
	if linked != nil {
		return "", fmt.Errorf("storing %s: %w", key, ErrExists)
	}
	return "", nil
}

// writeFile makes a durable file of body, or none if body is not as opts says.
func writeFile(ctx context.Context, root *os.Root, name string, body io.Reader, opts CreateOptions) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(f, sum), body)
	switch {
	case err != nil:
		return err
	case size != opts.Size:
		return fmt.Errorf("%w: it has %d bytes, not %d", ErrMismatch, size, opts.Size)
	case [32]byte(sum.Sum(nil)) != opts.SHA256:
		return fmt.Errorf("%w: its SHA-256 is %x, not %x", ErrMismatch, sum.Sum(nil), opts.SHA256)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return cmp.Or(f.Sync(), f.Close())
}

// syncParents makes the name durable, and those of the directories on the way to it.
func syncParents(root *os.Root, name string) error {
	for name != "." {
		name = path.Dir(name)
		dir, err := root.Open(name)
		if err != nil {
			return err
		}
		if err := cmp.Or(dir.Sync(), dir.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Lock implements [Bucket]: a directory locks nothing.
func (d *Dir) Lock(ctx context.Context, key string, version Version, _ string, _ time.Time) error {
	_, err := d.Stat(ctx, key, version)
	return err
}

// Open implements [Bucket].
func (d *Dir) Open(ctx context.Context, key string, version Version, offset, length int64) (io.ReadCloser, Info, error) {
	root, info, err := d.stat(key, version)
	if err != nil {
		return nil, Info{}, err
	}
	defer root.Close()
	if offset < 0 || offset > info.Size || offset == info.Size && info.Size > 0 && length != 0 || length > 0 && info.Size == 0 {
		return nil, Info{}, fmt.Errorf("reading %s: %w: offset %d of %d", key, io.ErrUnexpectedEOF, offset, info.Size)
	}
	f, err := root.Open(key)
	if err != nil {
		return nil, Info{}, fmt.Errorf("reading %s: %w", key, d.explain(err))
	}
	if length < 0 {
		length = info.Size - offset
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, offset, length), f}, info, nil
}

// Stat implements [Bucket].
func (d *Dir) Stat(ctx context.Context, key string, version Version) (Info, error) {
	root, info, err := d.stat(key, version)
	if err == nil {
		root.Close()
	}
	return info, err
}

func (d *Dir) stat(key string, version Version) (*os.Root, Info, error) {
	if err := d.checkKey(key); err != nil {
		return nil, Info{}, err
	}
	root, err := d.open()
	if err != nil {
		return nil, Info{}, err
	}
	file, err := root.Lstat(key)
	switch {
	case err != nil:
	case version != "", file.IsDir():
		err = fs.ErrNotExist
	case !file.Mode().IsRegular():
		err = fmt.Errorf("it is no file but %s", file.Mode().Type()) // and there: a reader must not take it for gone
	}
	if err != nil {
		root.Close()
		return nil, Info{}, fmt.Errorf("asking for %s: %w", key, d.explain(err))
	}
	return root, fileInfo(key, file), nil
}

func fileInfo(key string, file fs.FileInfo) Info {
	return Info{Key: key, Size: file.Size(), Latest: true, LastModified: file.ModTime().UTC().Truncate(time.Millisecond)}
}

// Versions implements [Bucket].
func (d *Dir) Versions(ctx context.Context, key string) ([]Info, error) {
	info, err := d.Stat(ctx, key, "")
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []Info{info}, nil
}

// List implements [Bucket].
func (d *Dir) List(ctx context.Context, prefix, startAfter string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		root, err := d.open()
		if err != nil {
			yield(Info{}, err)
			return
		}
		defer root.Close()
		if err := d.walk(ctx, root.FS(), "", prefix, startAfter, yield); err != nil && err != errStop {
			yield(Info{}, fmt.Errorf("listing %s: %w", prefix, d.explain(err)))
		}
	}
}

var errStop = errors.New("the reader has seen enough")

// walk lists what is in the directory whose keys begin with base, "" or ending in a slash.
func (d *Dir) walk(ctx context.Context, fsys fs.FS, base, prefix, startAfter string, yield func(Info, error) bool) error {
	entries, err := fs.ReadDir(fsys, path.Clean(path.Join(".", base)))
	if err != nil {
		return err
	}
	keyOf := func(e fs.DirEntry) string {
		if e.IsDir() {
			return base + e.Name() + "/" // as its keys begin: "a-b" comes before "a/b"
		}
		return base + e.Name()
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(keyOf(a), keyOf(b)) })
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		key := keyOf(e)
		switch {
		case e.IsDir() && key != incoming+"/" && (strings.HasPrefix(key, prefix) || strings.HasPrefix(prefix, key)) &&
			(key > startAfter || strings.HasPrefix(startAfter, key)):
			if err := d.walk(ctx, fsys, key, prefix, startAfter, yield); err != nil {
				return err
			}
		case !e.IsDir() && !e.Type().IsRegular() && strings.HasPrefix(key, prefix) && key > startAfter:
			return fmt.Errorf("%s is no file but %s: an object that cannot be read", key, e.Type()) // not passed over: it may be what counts
		case e.Type().IsRegular() && strings.HasPrefix(key, prefix) && key > startAfter:
			file, err := e.Info()
			if err != nil {
				return err
			}
			if !yield(fileInfo(key, file), nil) {
				return errStop
			}
		}
	}
	return nil
}

// Check implements [Bucket]. Versions and locks are not asked for: a directory has none, see [Dir.Locks].
func (d *Dir) Check(ctx context.Context) error {
	root, err := d.open()
	if err != nil {
		return err
	}
	return root.Close()
}

// explain turns an error of the file system into one of the package's.
func (d *Dir) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", ErrDenied, err)
	}
	return err
}

// ClockSkew implements [Bucket]. A directory has no clock but ours.
func (d *Dir) ClockSkew() (time.Duration, bool) { return 0, false }

// Locks implements [Bucket].
func (d *Dir) Locks() bool { return false }

// String implements [Bucket].
func (d *Dir) String() string { return dirScheme + d.root }
