package storagetest

import (
	"bytes"
	"context"
	"io"
	"iter"
	"sync/atomic"
	"time"

	"github.com/auditchain/auditchain/storage"
)

// Client is one process's way to a bucket of any kind. Every operation is a step, with which something may go wrong, and none has an
// effect on the bucket after the process was killed.
type Client struct {
	process  *Process
	bucket   storage.Bucket
	answered atomic.Bool
}

var _ storage.Bucket = (*Client)(nil)

// NewClient returns the way of process to bucket.
func NewClient(process *Process, bucket storage.Bucket) *Client {
	return &Client{process: process, bucket: bucket}
}

// try takes a step that is done by do, as a whole or not at all. What do returned is lost with its answer.
func try[T any](c *Client, kind, path string, do func() (T, error)) (answer T, err error) {
	fault, err := c.process.Step(kind, path, 0)
	if err != nil {
		return answer, err
	}
	if fault.Err != nil && !fault.Done {
		return answer, fault.Err
	}
	told, err := do()
	if fault.Err != nil {
		return answer, fault.Err
	}
	if err := c.process.Err(); err != nil {
		return answer, err
	}
	c.answered.Store(true)
	return told, err
}

// Create implements [storage.Bucket].
func (c *Client) Create(ctx context.Context, key string, body io.ReadSeeker, opts storage.CreateOptions) (storage.Version, error) {
	fault, err := c.process.Step(OpCreate, key, int(opts.Size))
	if err != nil {
		return "", err
	}
	if fault.Err != nil && !fault.Done {
		return "", fault.Err
	}
	// Reading the body may take steps on a disk.
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return "", err
	}
	if fault.Change != nil {
		fault.Change(data)
	}
	var version storage.Version
	var created error
	if err := c.process.Do(func() { version, created = c.bucket.Create(ctx, key, bytes.NewReader(data), opts) }); err != nil {
		return "", err
	}
	if fault.Err != nil {
		return "", fault.Err
	}
	c.answered.Store(true)
	return version, created
}

// Lock implements [storage.Bucket].
func (c *Client) Lock(ctx context.Context, key string, version storage.Version, mode string, until time.Time) error {
	_, err := try(c, OpLock, key, func() (struct{}, error) { return struct{}{}, c.bucket.Lock(ctx, key, version, mode, until) })
	return err
}

// Open implements [storage.Bucket].
func (c *Client) Open(ctx context.Context, key string, version storage.Version, offset, length int64) (io.ReadCloser, storage.Info, error) {
	var body io.ReadCloser // nil unless it is open
	info, err := try(c, OpOpen, key, func() (info storage.Info, err error) {
		body, info, err = c.bucket.Open(ctx, key, version, offset, length)
		return info, err
	})
	if err != nil {
		if body != nil {
			body.Close()
		}
		return nil, storage.Info{}, err
	}
	return &clientBody{c: c, key: key, ReadCloser: body}, info, nil
}

// clientBody is a body whose reads are steps. Once it broke it stays broken.
type clientBody struct {
	c   *Client
	key string
	io.ReadCloser
	broken error
}

func (b *clientBody) Read(p []byte) (int, error) {
	if b.broken != nil {
		return 0, b.broken
	}
	fault, err := b.c.process.Step(OpBody, b.key, len(p))
	if err != nil {
		return 0, err
	}
	if b.broken = fault.Err; b.broken != nil && !fault.Done {
		p = p[:min(fault.N, len(p))]
	}
	n, err := b.ReadCloser.Read(p)
	switch {
	case fault.Done:
		return 0, b.broken
	case b.broken != nil:
		return n, b.broken
	case fault.Change != nil:
		fault.Change(p[:n])
	}
	return n, err
}

// Stat implements [storage.Bucket].
func (c *Client) Stat(ctx context.Context, key string, version storage.Version) (storage.Info, error) {
	return try(c, OpStat, key, func() (storage.Info, error) { return c.bucket.Stat(ctx, key, version) })
}

// Versions implements [storage.Bucket].
func (c *Client) Versions(ctx context.Context, key string) ([]storage.Info, error) {
	return try(c, OpVersions, key, func() ([]storage.Info, error) { return c.bucket.Versions(ctx, key) })
}

// List implements [storage.Bucket]. All of it is one step, when it begins.
func (c *Client) List(ctx context.Context, prefix, startAfter string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		fault, err := c.process.Step(OpList, prefix, 0)
		if err != nil {
			yield(storage.Info{}, err)
			return
		}
		if fault.Err != nil && !fault.Done && fault.N == 0 {
			yield(storage.Info{}, fault.Err)
			return
		}
		listed := 0
		for info, err := range c.bucket.List(ctx, prefix, startAfter) {
			if dead := c.process.Err(); dead != nil {
				yield(storage.Info{}, dead)
				return
			}
			if fault.Err != nil && !fault.Done && listed == fault.N {
				break
			}
			if c.answered.Store(true); !yield(info, err) || err != nil {
				return
			}
			listed++
		}
		if fault.Err != nil {
			yield(storage.Info{}, fault.Err)
			return
		}
		c.answered.Store(true)
	}
}

// Check implements [storage.Bucket].
func (c *Client) Check(ctx context.Context) error {
	_, err := try(c, OpCheck, "", func() (struct{}, error) { return struct{}{}, c.bucket.Check(ctx) })
	return err
}

// ClockSkew implements [storage.Bucket]. It is not known before an answer came.
func (c *Client) ClockSkew() (time.Duration, bool) {
	if !c.answered.Load() {
		return 0, false
	}
	return c.bucket.ClockSkew()
}

// Locks implements [storage.Bucket].
func (c *Client) Locks() bool { return c.bucket.Locks() }

// String implements [storage.Bucket].
func (c *Client) String() string { return c.bucket.String() }
