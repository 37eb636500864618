// Package storage is where a log's objects go: a bucket in which an object, once written, stays as it was.
//
// [Bucket] is the interface and the promises. [S3] keeps them with an S3 bucket that has versioning and Object Lock;
// [Dir] is a directory for tests and for trying things out, which locks nothing. The package storagetest holds
// one suite that every backend runs.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
	"unicode/utf8"
)

// Bucket holds objects that are written once.
//
// All methods may be called at the same time from several goroutines. None of them repeats a write: where an
// error leaves it open whether an object was stored, the caller calls Create again with the same bytes. Methods that
// talk to a server stop when ctx ends, and give up by themselves when nothing is heard for [Config].Timeout.
//
// A key is 1 to 1024 bytes of UTF-8, elements separated by single slashes; "." and ".." are no elements.
//
// Errors carry at most one of the package's Err values for [errors.Is]; every other error may go away when
// the same call is made again.
type Bucket interface {
	// Create stores the opts.Size bytes of body, read from its start, at key, if there is no object at key. When
	// it returns nil the object is durable, and locked as opts says if the backend locks at all. The version is the
	// one that was written; "" where the backend has none. Of calls that race for one key exactly one returns nil.
	//
	// ErrExists: there is an object already. It may be one's own, from an earlier call whose answer was lost: compare.
	// It is durable too. (If a delete marker lies on top, some servers store a second version instead, as MinIO does:
	// readers go by version, never by what is current.)
	// ErrMismatch: body is not what opts says; nothing was stored.
	// ErrNoObjectLock: opts wants a lock and the bucket has none to give. Some servers (versitygw) have stored the object then,
	// without a lock.
	// Any other error: the object may or may not have been stored. Call again.
	Create(ctx context.Context, key string, body io.ReadSeeker, opts CreateOptions) (Version, error)

	// Lock locks one version of an object that is there, in the mode and until then, if it is not locked for as long. It is for an
	// object that a server stored and then could not lock. A backend that locks nothing does nothing.
	//
	// ErrNotFound: there is no such version. ErrNoObjectLock as for Create. After any other error it may be locked or not.
	Lock(ctx context.Context, key string, version Version, mode string, until time.Time) error

	// Open reads length bytes from offset on of one version of an object ("" is the current one), fewer where the
	// object ends before, and with length < 0 all up to its end. The caller closes it. The Info is that of the whole object, without its lock.
	//
	// ErrNotFound: there is no such object or version, or it is a delete marker. io.ErrUnexpectedEOF: offset
	// or range lies outside of the object. A connection that breaks shows as an error of Read, never as an early io.EOF.
	Open(ctx context.Context, key string, version Version, offset, length int64) (io.ReadCloser, Info, error)

	// Stat describes one version of an object ("" is the current one), its lock included. ErrNotFound as for Open.
	// ErrDenied with an Info whose Key is set: all but the lock, for which this user may not ask.
	Stat(ctx context.Context, key string, version Version) (Info, error)

	// Versions lists every version and delete marker of one key, the oldest first; none is no error.
	// The order is the store's own, except that some servers (versitygw) put delete markers after versions.
	Versions(ctx context.Context, key string) ([]Info, error)

	// List gives every version and delete marker of every key that begins with prefix and is greater than
	// startAfter: keys ascending by their bytes, and of one key as Versions does. It ends at the first error.
	// Lock and checksum are not filled in.
	List(ctx context.Context, prefix, startAfter string) iter.Seq2[Info, error]

	// Check asks whether the bucket is fit for a log: ErrUnreachable, ErrCertificate, ErrDenied, ErrClockSkew,
	// ErrNoBucket, ErrNoVersioning or ErrNoObjectLock say what is wrong, and the text what to do.
	Check(ctx context.Context) error

	// ClockSkew is the store's clock minus ours as of its last answer, good to about a second. False: not known.
	ClockSkew() (time.Duration, bool)

	// Locks is false where Create cannot lock an object and ignores what is asked of it.
	Locks() bool

	// String names the bucket for messages, as "s3://audit at https://s3.example.com" or "dir:/srv/audit".
	String() string
}

// Version names one version of an object, as the store chose it. "" stands for the current one.
type Version = string

// Lock modes of S3 Object Lock.
const (
	// Compliance: nobody, not even the account's root, can delete the version or shorten its retention.
	Compliance = "COMPLIANCE"
	// Governance: who has s3:BypassGovernanceRetention can.
	Governance = "GOVERNANCE"
)

// CreateOptions says what an object is and how it is kept.
type CreateOptions struct {
	Size        int64     // bytes in the body, always given
	SHA256      [32]byte  // of the body, always given; the store refuses other bytes
	MD5         [16]byte  // of the body; zero: Create reads the body once more to find it
	ContentType string    // default application/octet-stream
	LockMode    string    // Compliance, Governance or "" for no lock
	RetainUntil time.Time // cut to seconds
	// StorageClass is an S3 storage class; "" is the Config's.
	StorageClass string
}

// Info describes one version of an object, or one delete marker.
type Info struct {
	Key          string
	Version      Version
	Size         int64 // bytes
	DeleteMarker bool  // not an object but its deletion, laid over the versions before it
	Latest       bool  // what a reader who names no version gets; from Versions and List
	LastModified time.Time
	LockMode     string    // Compliance, Governance or ""; from Stat
	RetainUntil  time.Time // from Stat
	SHA256       [32]byte  // from Stat, if the store says; else zero
}

// The errors a caller decides by.
var (
	ErrExists       = errors.New("object exists already")
	ErrNotFound     = errors.New("no such object")
	ErrMismatch     = errors.New("body does not match its checksum or size")
	ErrNoBucket     = errors.New("no such bucket")
	ErrBucketExists = errors.New("bucket exists already")
	ErrNoVersioning = errors.New("bucket has no versioning")
	ErrNoObjectLock = errors.New("bucket has no Object Lock")
	// ErrDenied: the store knows us not, or does not allow it, or there are no credentials to be found.
	ErrDenied = errors.New("access denied")
	// ErrUnreachable: no answer came, or one that asks to come again later (429, 5xx).
	ErrUnreachable = errors.New("store cannot be reached")
	// ErrCertificate: the server's certificate is not one to trust.
	ErrCertificate = errors.New("certificate not trusted")
	// ErrClockSkew: the store's clock and ours differ too much (15 minutes for S3).
	ErrClockSkew = errors.New("clock differs too much from the store's")
)

// maxKey is the length of a key that S3 takes, in bytes.
const maxKey = 1024

func checkKey(key string) error {
	if len(key) == 0 || len(key) > maxKey || !utf8.ValidString(key) || strings.ContainsRune(key, 0) {
		return fmt.Errorf("key %q is not 1 to %d bytes of UTF-8", key, maxKey)
	}
	for element := range strings.SplitSeq(key, "/") {
		if element == "" || element == "." || element == ".." {
			return fmt.Errorf("key %q has an element %q", key, element)
		}
	}
	return nil
}
