package storagetest

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/auditchain/auditchain/storage"
)

// Memory is a bucket in memory with versioning and Object Lock, that behaves as an S3 server does. It is the store itself, in which nothing
// goes wrong: a program under test reaches it by a [Client].
//
// Its methods may be called at the same time from several goroutines.
type Memory struct {
	// CreatesOverDeleteMarker: Create takes a key for free that a delete marker lies on, as AWS and MinIO do and versitygw does not.
	CreatesOverDeleteMarker bool

	mu      sync.Mutex
	objects map[string][]object // by key, the oldest first
	next    int                 // number of the version that is made next
	skew    time.Duration
}

// object is a version of an object, or a delete marker. Its body never changes.
type object struct {
	info storage.Info // but Latest
	body []byte
}

var _ storage.Bucket = (*Memory)(nil)

// maxSkew is how far a client's clock may be from the store's.
const maxSkew = 15 * time.Minute

// NewMemory returns an empty bucket.
func NewMemory() *Memory {
	return &Memory{CreatesOverDeleteMarker: true, objects: make(map[string][]object)}
}

// SetClockSkew sets how far the store's clock is ahead of ours; it counts for when objects were modified and how long they are locked.
// Beyond 15 minutes the store refuses everything with storage.ErrClockSkew.
func (m *Memory) SetClockSkew(skew time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.skew = skew
}

// now is the store's time. The caller holds mu.
func (m *Memory) now() time.Time { return time.Now().Add(m.skew).UTC() }

// refuse returns why a request is not looked at. The caller holds mu.
func (m *Memory) refuse(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.skew.Abs() > maxSkew {
		return fmt.Errorf("%w: by %s", storage.ErrClockSkew, m.skew)
	}
	return nil
}

func checkKey(key string) error {
	if len(key) == 0 || len(key) > 1024 || !utf8.ValidString(key) || strings.ContainsRune(key, 0) {
		return fmt.Errorf("key %q is not 1 to 1024 bytes of UTF-8", key)
	}
	for element := range strings.SplitSeq(key, "/") {
		if element == "" || element == "." || element == ".." {
			return fmt.Errorf("key %q has an element %q", key, element)
		}
	}
	return nil
}

// Create implements [storage.Bucket].
func (m *Memory) Create(ctx context.Context, key string, body io.ReadSeeker, opts storage.CreateOptions) (storage.Version, error) {
	version, err := m.create(ctx, key, body, opts)
	if err != nil {
		return "", fmt.Errorf("storing %s: %w", key, err)
	}
	return version, nil
}

func (m *Memory) create(ctx context.Context, key string, body io.ReadSeeker, opts storage.CreateOptions) (storage.Version, error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	data, err := io.ReadAll(body)
	switch {
	case err != nil:
		return "", err
	case int64(len(data)) != opts.Size:
		return "", fmt.Errorf("%w: it has %d bytes, not %d", storage.ErrMismatch, len(data), opts.Size)
	case sha256.Sum256(data) != opts.SHA256:
		return "", fmt.Errorf("%w: its SHA-256 is %x, not %x", storage.ErrMismatch, sha256.Sum256(data), opts.SHA256)
	case opts.MD5 != [16]byte{} && md5.Sum(data) != opts.MD5:
		return "", fmt.Errorf("%w: its MD5 is %x, not %x", storage.ErrMismatch, md5.Sum(data), opts.MD5)
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refuse(ctx); err != nil {
		return "", err
	}
	info := storage.Info{SHA256: opts.SHA256}
	switch opts.LockMode {
	case "":
	case storage.Compliance, storage.Governance:
		info.LockMode, info.RetainUntil = opts.LockMode, opts.RetainUntil.UTC().Truncate(time.Second)
		if !info.RetainUntil.After(m.now()) {
			return "", fmt.Errorf("a lock until %s is over", info.RetainUntil.Format(time.RFC3339))
		}
	default:
		return "", fmt.Errorf("no lock mode: %q", opts.LockMode)
	}
	if found := m.objects[key]; len(found) > 0 && (!found[len(found)-1].info.DeleteMarker || !m.CreatesOverDeleteMarker) {
		return "", storage.ErrExists
	}
	return m.lay(key, info, data), nil
}

// lay puts a version over those that are there. The caller holds mu.
func (m *Memory) lay(key string, info storage.Info, body []byte) storage.Version {
	info.Key, info.Version, info.Size = key, "v"+strconv.Itoa(m.next), int64(len(body))
	info.LastModified = m.now().Truncate(time.Millisecond)
	m.next++
	m.objects[key] = append(m.objects[key], object{info, body})
	return info.Version
}

// Overwrite puts other bytes at key without any condition or lock, as whoever may write can.
func (m *Memory) Overwrite(ctx context.Context, key string, body []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refuse(ctx); err != nil {
		return err
	}
	m.lay(key, storage.Info{SHA256: sha256.Sum256(body)}, bytes.Clone(body))
	return nil
}

// Delete lays a delete marker over key, as whoever may delete can.
func (m *Memory) Delete(ctx context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refuse(ctx); err != nil {
		return err
	}
	m.lay(key, storage.Info{DeleteMarker: true}, nil)
	return nil
}

// DeleteVersion deletes one version, also one under a governance lock, as whoever has every right can. storage.ErrDenied if a compliance
// lock is on it. That there is no such version is no error.
func (m *Memory) DeleteVersion(ctx context.Context, key, version string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refuse(ctx); err != nil {
		return err
	}
	for i, o := range m.objects[key] {
		if o.info.Version != version {
			continue
		}
		if o.info.LockMode == storage.Compliance && o.info.RetainUntil.After(m.now()) {
			return fmt.Errorf("deleting %s of %s: %w: locked until %s", version, key, storage.ErrDenied, o.info.RetainUntil.Format(time.RFC3339))
		}
		m.objects[key] = slices.Concat(m.objects[key][:i], m.objects[key][i+1:])
		break
	}
	return nil
}

// Lock implements [storage.Bucket].
func (m *Memory) Lock(ctx context.Context, key string, version storage.Version, mode string, until time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, err := m.find(ctx, key, version)
	if err != nil {
		return fmt.Errorf("locking %s: %w", key, err)
	}
	until = until.Truncate(time.Second)
	if o.info.LockMode == storage.Compliance && (mode != storage.Compliance || until.Before(o.info.RetainUntil)) {
		return fmt.Errorf("locking %s: %w: locked until %s", key, storage.ErrDenied, o.info.RetainUntil.Format(time.RFC3339))
	}
	for i := range m.objects[key] {
		if info := &m.objects[key][i].info; info.Version == o.info.Version {
			info.LockMode, info.RetainUntil = mode, until
		}
	}
	return nil
}

// find returns a version, the current one for "". The caller holds mu.
func (m *Memory) find(ctx context.Context, key string, version storage.Version) (object, error) {
	if err := checkKey(key); err != nil {
		return object{}, err
	}
	if err := m.refuse(ctx); err != nil {
		return object{}, err
	}
	for i, o := range slices.Backward(m.objects[key]) {
		if (o.info.Version == version || version == "" && i == len(m.objects[key])-1) && !o.info.DeleteMarker {
			return o, nil
		}
	}
	return object{}, storage.ErrNotFound
}

// Open implements [storage.Bucket].
func (m *Memory) Open(ctx context.Context, key string, version storage.Version, offset, length int64) (io.ReadCloser, storage.Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, err := m.find(ctx, key, version)
	size := o.info.Size
	if err == nil && (offset < 0 || offset > size || offset == size && size > 0 && length != 0 || length > 0 && size == 0) {
		err = fmt.Errorf("%w: offset %d of %d", io.ErrUnexpectedEOF, offset, size)
	}
	if err != nil {
		return nil, storage.Info{}, fmt.Errorf("reading %s: %w", key, err)
	}
	if length < 0 || length > size-offset {
		length = size - offset
	}
	return &memoryBody{ctx: ctx, r: bytes.NewReader(o.body[offset : offset+length])}, withoutLock(o.info), nil
}

// memoryBody is a body that can be read as long as its context lasts, and until it is closed.
type memoryBody struct {
	ctx    context.Context
	r      *bytes.Reader
	closed bool
}

func (b *memoryBody) Read(p []byte) (int, error) {
	if b.closed {
		return 0, errors.New("reading a body that is closed")
	}
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	return b.r.Read(p)
}

func (b *memoryBody) Close() error {
	b.closed = true
	return nil
}

// withoutLock leaves out of info what only Stat tells.
func withoutLock(info storage.Info) storage.Info {
	info.LockMode, info.RetainUntil, info.SHA256 = "", time.Time{}, [32]byte{}
	return info
}

// Stat implements [storage.Bucket].
func (m *Memory) Stat(ctx context.Context, key string, version storage.Version) (storage.Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, err := m.find(ctx, key, version)
	if err != nil {
		return storage.Info{}, fmt.Errorf("asking for %s: %w", key, err)
	}
	return o.info, nil
}

// infos describes the versions of key, the oldest first. The caller holds mu.
func (m *Memory) infos(key string) []storage.Info {
	var out []storage.Info
	for i, o := range m.objects[key] {
		info := withoutLock(o.info)
		info.Latest = i == len(m.objects[key])-1
		out = append(out, info)
	}
	return out
}

// Versions implements [storage.Bucket].
func (m *Memory) Versions(ctx context.Context, key string) ([]storage.Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refuse(ctx); err != nil {
		return nil, fmt.Errorf("listing %s: %w", key, err)
	}
	return m.infos(key), nil
}

// List implements [storage.Bucket]. It gives what is there when it begins.
func (m *Memory) List(ctx context.Context, prefix, startAfter string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		found, err := m.list(ctx, prefix, startAfter)
		for _, info := range found {
			if err = ctx.Err(); err != nil {
				break
			}
			if !yield(info, nil) {
				return
			}
		}
		if err != nil {
			yield(storage.Info{}, fmt.Errorf("listing %s: %w", prefix, err))
		}
	}
}

func (m *Memory) list(ctx context.Context, prefix, startAfter string) ([]storage.Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refuse(ctx); err != nil {
		return nil, err
	}
	var out []storage.Info
	for _, key := range slices.Sorted(maps.Keys(m.objects)) {
		if strings.HasPrefix(key, prefix) && key > startAfter {
			out = append(out, m.infos(key)...)
		}
	}
	return out, nil
}

// Check implements [storage.Bucket].
func (m *Memory) Check(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refuse(ctx); err != nil {
		return fmt.Errorf("checking %s: %w", m, err)
	}
	return nil
}

// ClockSkew implements [storage.Bucket].
func (m *Memory) ClockSkew() (time.Duration, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.skew, true
}

// Locks implements [storage.Bucket].
func (m *Memory) Locks() bool { return true }

// String implements [storage.Bucket].
func (m *Memory) String() string { return "memory" }
