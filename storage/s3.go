package storage

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// S3 is a bucket of an S3 server, of AWS or any that knows versioning, Object Lock and conditional writes.
//
// An object goes out in one PUT with a length, "If-None-Match: *", its SHA-256 both as the signed x-amz-content-sha256
// and as x-amz-checksum-sha256, its Content-MD5 and its lock: servers apply the condition, and the checksum of the
// whole, to single PUTs only, and some (versitygw) misread checksums that trail the body. That limits an object to 5 GiB.
//
// The least rights of a writer: on the objects s3:PutObject, s3:PutObjectRetention, s3:GetObject, s3:GetObjectVersion and
// s3:GetObjectRetention (without it some servers leave the lock out of their answers and Stat shows none);
// on the bucket s3:ListBucketVersions, s3:GetBucketVersioning and s3:GetBucketObjectLockConfiguration. A reader needs all of these but the two Puts.
type S3 struct {
	cfg      Config
	endpoint *url.URL
	creds    *credentials.Credentials
	write    minio.Core    // asks once: whether to repeat is the caller's decision; also for Check, which tells the truth of now
	read     *minio.Client // asks again a few times, within Timeout
	clock    *clockReader
	pageSize int // of List, at most 1000
}

var _ Bucket = (*S3)(nil)

const (
	readAttempts = 3
	// maxPage is how many versions one answer of a server lists at most.
	maxPage = 1000
)

// NewS3 prepares for the bucket of cfg. Nothing is sent; the errors are those of cfg.
func NewS3(cfg Config) (*S3, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &S3{cfg: cfg, pageSize: maxPage}
	if s.endpoint, err = cfg.endpoint(); err != nil {
		return nil, err
	}
	transport, err := cfg.transport()
	if err != nil {
		return nil, err
	}
	s.clock = &clockReader{next: transport}
	s.creds = cfg.credentials(s.endpoint, transport)
	options := minio.Options{
		Creds:        s.creds,
		Secure:       s.endpoint.Scheme == "https",
		Transport:    s.clock,
		Region:       cfg.Region,
		BucketLookup: minio.BucketLookupPath,
		MaxRetries:   1,
	}
	if s3utils.IsAmazonEndpoint(*s.endpoint) {
		options.BucketLookup = minio.BucketLookupAuto
	}
	write, err := minio.New(s.endpoint.Host, &options)
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", s.endpoint, err)
	}
	s.write = minio.Core{Client: write}
	options.MaxRetries = readAttempts
	if s.read, err = minio.New(s.endpoint.Host, &options); err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", s.endpoint, err)
	}
	return s, nil
}

// signIn fetches credentials where those that there are have run out: the client itself does that without heeding ctx.
func (s *S3) signIn(ctx context.Context) error {
	cc := s.read.CredContext()
	cc.Context = ctx
	if _, err := s.creds.GetWithContext(cc); err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	return nil
}

// Create implements [Bucket].
func (s *S3) Create(ctx context.Context, key string, body io.ReadSeeker, opts CreateOptions) (Version, error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	if err := opts.check(body); err != nil {
		return "", fmt.Errorf("storing %s: %w", key, err)
	}
	put := minio.PutObjectOptions{
		ContentType:          opts.ContentType,
		Mode:                 minio.RetentionMode(opts.LockMode),
		StorageClass:         opts.StorageClass,
		DisableContentSha256: true, // no signed chunks: the whole body's hash is signed instead
		UserMetadata:         map[string]string{"x-amz-checksum-sha256": base64.StdEncoding.EncodeToString(opts.SHA256[:])},
	}
	if put.StorageClass == "" {
		put.StorageClass = s.cfg.StorageClass
	}
	if opts.LockMode != "" {
		put.RetainUntilDate = opts.RetainUntil.Truncate(time.Second)
	}
	put.SetMatchETagExcept("*")

	info, err := s.put(ctx, key, body, opts, put)
	if err == nil {
		return info.VersionID, nil
	}
	err = s.explain("storing "+key, "s3:PutObject, and s3:PutObjectRetention for the lock", err)
	if brokeOff(err) && s.holds(ctx, key) {
		err = fmt.Errorf("%w (seen after the connection broke: %v)", ErrExists, err)
	}
	return "", err
}

// put sends the one request of Create.
func (s *S3) put(ctx context.Context, key string, body io.ReadSeeker, opts CreateOptions, put minio.PutObjectOptions) (minio.UploadInfo, error) {
	ctx, u, stop := startUpload(ctx, body, s.cfg.Timeout)
	defer stop()
	if err := s.signIn(ctx); err != nil {
		return minio.UploadInfo{}, err
	}
	// Core's PutObject is a single PUT whatever the size.
	info, err := s.write.PutObject(ctx, s.cfg.Bucket, key, u, opts.Size,
		base64.StdEncoding.EncodeToString(opts.MD5[:]), hex.EncodeToString(opts.SHA256[:]), put)
	if err != nil {
		err = cmp.Or(context.Cause(ctx), err)
	}
	return info, err
}

// Lock implements [Bucket].
func (s *S3) Lock(ctx context.Context, key string, version Version, mode string, until time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if err := s.signIn(ctx); err != nil {
		return s.explainSilence("locking "+key, err)
	}
	retention, until := minio.RetentionMode(mode), until.Truncate(time.Second)
	err := s.write.PutObjectRetention(ctx, s.cfg.Bucket, key, minio.PutObjectRetentionOptions{Mode: &retention, RetainUntilDate: &until, VersionID: version})
	if err != nil {
		return s.explain("locking "+key, "s3:PutObjectRetention", err)
	}
	return nil
}

// holds is true if the store says that key has an object, be it under delete markers.
func (s *S3) holds(ctx context.Context, key string) bool {
	versions, err := s.Versions(ctx, key)
	return err == nil && slices.ContainsFunc(versions, func(v Info) bool { return !v.DeleteMarker })
}

// check finds what is wrong before anything is sent, and fills in MD5.
func (o *CreateOptions) check(body io.ReadSeeker) error {
	size, err := body.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if size != o.Size {
		return fmt.Errorf("%w: it has %d bytes, not %d", ErrMismatch, size, o.Size)
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if o.MD5 != [16]byte{} {
		return nil
	}
	sum := md5.New()
	if _, err := io.Copy(sum, body); err != nil {
		return err
	}
	sum.Sum(o.MD5[:0])
	_, err = body.Seek(0, io.SeekStart)
	return err
}

// Open implements [Bucket].
func (s *S3) Open(ctx context.Context, key string, version Version, offset, length int64) (io.ReadCloser, Info, error) {
	if length == 0 { // HTTP has no empty range
		info, err := s.Stat(ctx, key, version)
		if err == nil && (offset < 0 || offset > info.Size) {
			err = fmt.Errorf("reading %s: %w: offset %d of %d", key, io.ErrUnexpectedEOF, offset, info.Size)
		}
		return io.NopCloser(bytes.NewReader(nil)), info, err
	}
	if offset < 0 {
		return nil, Info{}, fmt.Errorf("reading %s: %w: offset %d", key, io.ErrUnexpectedEOF, offset)
	}
	get := minio.GetObjectOptions{VersionID: version}
	if offset != 0 || length > 0 {
		to := ""
		if length > 0 {
			to = strconv.FormatInt(offset+length-1, 10)
		}
		get.Set("Range", fmt.Sprintf("bytes=%d-%s", offset, to))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stalled := time.AfterFunc(s.cfg.Timeout, func() { cancel(context.DeadlineExceeded) })
	body, object, header, err := s.get(ctx, key, get)
	stalled.Stop()
	if err != nil {
		err = cmp.Or(context.Cause(ctx), err)
		cancel(nil)
		return nil, Info{}, s.explain("reading "+key, "s3:GetObject and s3:GetObjectVersion", err)
	}
	info := infoOf(object)
	if _, whole, ok := strings.Cut(header.Get("Content-Range"), "/"); ok {
		if info.Size, err = strconv.ParseInt(whole, 10, 64); err != nil {
			body.Close()
			cancel(nil)
			return nil, Info{}, fmt.Errorf("reading %s: answer has Content-Range %q", key, header.Get("Content-Range"))
		}
	}
	return &download{s: s, ctx: ctx, cancel: cancel, stalled: stalled, body: body, key: key}, info, nil
}

// get sends the request of Open.
func (s *S3) get(ctx context.Context, key string, get minio.GetObjectOptions) (io.ReadCloser, minio.ObjectInfo, http.Header, error) {
	if err := s.signIn(ctx); err != nil {
		return nil, minio.ObjectInfo{}, nil, err
	}
	return minio.Core{Client: s.read}.GetObject(ctx, s.cfg.Bucket, key, get)
}

// download is a body that fails when the network is silent for too long. Time that its reader takes does not count.
type download struct {
	s       *S3
	ctx     context.Context
	cancel  context.CancelCauseFunc
	stalled *time.Timer
	body    io.ReadCloser
	key     string
}

func (d *download) Read(p []byte) (int, error) {
	d.stalled.Reset(d.s.cfg.Timeout)
	n, err := d.body.Read(p)
	d.stalled.Stop()
	if err != nil && err != io.EOF {
		err = d.s.explainSilence("reading "+d.key, cmp.Or(context.Cause(d.ctx), err))
	}
	return n, err
}

func (d *download) Close() error {
	d.cancel(nil) // first: what was not read is not wanted
	return d.body.Close()
}

// Stat implements [Bucket].
func (s *S3) Stat(ctx context.Context, key string, version Version) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if err := s.signIn(ctx); err != nil {
		return Info{}, s.explainSilence("asking for "+key, err)
	}
	object, err := s.read.StatObject(ctx, s.cfg.Bucket, key, minio.StatObjectOptions{VersionID: version, Checksum: true})
	if err != nil {
		return Info{}, s.explain("asking for "+key, "s3:GetObject and s3:GetObjectVersion", err)
	}
	info := infoOf(object)
	if info.LockMode == "" {
		if info.LockMode, info.RetainUntil, err = s.retention(ctx, key, version); err != nil {
			return info, s.explain("asking for the retention of "+key, "s3:GetObjectRetention", err)
		}
	}
	return info, nil
}

func infoOf(o minio.ObjectInfo) Info {
	info := Info{
		Key: o.Key, Version: o.VersionID, Size: o.Size, DeleteMarker: o.IsDeleteMarker, Latest: o.IsLatest, LastModified: o.LastModified,
		LockMode: o.Headers.Get("X-Amz-Object-Lock-Mode"),
	}
	info.RetainUntil, _ = time.Parse(time.RFC3339, o.Headers.Get("X-Amz-Object-Lock-Retain-Until-Date"))
	if sum, err := base64.StdEncoding.DecodeString(o.ChecksumSHA256); err == nil && len(sum) == len(info.SHA256) {
		info.SHA256 = [32]byte(sum)
	}
	return info
}

// Versions implements [Bucket].
func (s *S3) Versions(ctx context.Context, key string) ([]Info, error) {
	var found []Info
	for info, err := range s.List(ctx, key, "") {
		if err != nil {
			return nil, err
		}
		if info.Key != key { // key is the least of all that begin with it
			break
		}
		found = append(found, info)
	}
	return found, nil
}

// List implements [Bucket].
//
// Servers answer in pages. AWS and MinIO keep the order of keys throughout; versitygw gives in each page first all delete
// markers, then all versions, repeats the last version of a page at the start of the next, and takes a start key inclusively.
// So what arrives is held back until it is certain that nothing can come before it.
func (s *S3) List(ctx context.Context, prefix, startAfter string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if !strings.HasPrefix(startAfter, prefix) { // which some servers (MinIO) refuse
			if startAfter > prefix {
				return // it is greater than all keys that begin with prefix
			}
			startAfter = ""
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		stalled := time.AfterFunc(s.cfg.Timeout, func() { cancel(context.DeadlineExceeded) })
		defer stalled.Stop()

		if err := s.signIn(ctx); err != nil {
			yield(Info{}, s.explainSilence("listing "+prefix, err))
			return
		}
		var held []Info // in order of arrival
		limit := 2 * s.pageSize
		for object := range s.read.ListObjectsIter(ctx, s.cfg.Bucket, minio.ListObjectsOptions{
			Prefix: prefix, StartAfter: startAfter, WithVersions: true, Recursive: true, MaxKeys: s.pageSize,
		}) {
			stalled.Stop()
			if object.Err != nil {
				yield(Info{}, s.explain("listing "+prefix, "s3:ListBucketVersions", cmp.Or(context.Cause(ctx), object.Err)))
				return
			}
			if object.Key > startAfter {
				held = append(held, infoOf(object))
			}
			if len(held) >= limit {
				// What came more than a page ago is of an earlier page than what comes next, whose keys are not less.
				bound := slices.MaxFunc(held[:len(held)-s.pageSize], func(a, b Info) int { return strings.Compare(a.Key, b.Key) }).Key
				var ok bool
				if held, ok = yieldOrdered(held, func(key string) bool { return key < bound }, yield); !ok {
					return
				}
				limit = len(held) + s.pageSize
			}
			stalled.Reset(s.cfg.Timeout)
		}
		if err := context.Cause(ctx); err != nil { // the client ends its sequence without a word
			yield(Info{}, s.explainSilence("listing "+prefix, err))
			return
		}
		yieldOrdered(held, func(string) bool { return true }, yield)
	}
}

// yieldOrdered gives out, in the order that [Bucket].List promises, those of held whose keys are ready, and returns the others.
// In held the versions of one key stand in the server's order, the newest first.
func yieldOrdered(held []Info, ready func(key string) bool, yield func(Info, error) bool) (rest []Info, ok bool) {
	var out []Info
	for _, info := range held {
		if ready(info.Key) {
			out = append(out, info)
		} else {
			rest = append(rest, info)
		}
	}
	slices.Reverse(out)
	slices.SortStableFunc(out, func(a, b Info) int { return strings.Compare(a.Key, b.Key) })
	seen := map[Version]bool{}
	for i, info := range out {
		if i > 0 && out[i-1].Key != info.Key {
			clear(seen)
		}
		if seen[info.Version] {
			continue
		}
		seen[info.Version] = true
		if !yield(info, nil) {
			return nil, false
		}
	}
	return rest, true
}

// Check implements [Bucket].
func (s *S3) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if err := s.signIn(ctx); err != nil {
		return s.explainSilence("checking "+s.String(), err)
	}
	versioning, err := s.write.GetBucketVersioning(ctx, s.cfg.Bucket)
	if err != nil {
		return s.explain("checking "+s.String(), "s3:GetBucketVersioning", err)
	}
	lock, _, _, _, err := s.write.GetObjectLockConfig(ctx, s.cfg.Bucket)
	if err != nil {
		err = s.explain("checking "+s.String(), "s3:GetBucketObjectLockConfiguration", err)
	}
	switch {
	case !versioning.Enabled():
		return fmt.Errorf("checking %s: %w, which Object Lock needs: use a bucket that was made with Object Lock", s, ErrNoVersioning)
	case err != nil:
		return err
	case lock != "Enabled":
		return fmt.Errorf("checking %s: %w: use a bucket that was made with Object Lock", s, ErrNoObjectLock)
	}
	return nil
}

func (s *S3) makeBucket(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if err := s.signIn(ctx); err != nil {
		return s.explainSilence("making "+s.String(), err)
	}
	err := s.write.MakeBucket(ctx, s.cfg.Bucket, minio.MakeBucketOptions{Region: s.cfg.Region, ObjectLocking: true})
	if err != nil {
		return s.explain("making "+s.String(), "s3:CreateBucket and s3:PutBucketObjectLockConfiguration", err)
	}
	return nil
}

// ClockSkew implements [Bucket].
func (s *S3) ClockSkew() (time.Duration, bool) { return s.clock.skew() }

// Locks implements [Bucket].
func (s *S3) Locks() bool { return true }

// String implements [Bucket].
func (s *S3) String() string {
	if s.cfg.Endpoint == "" {
		return "s3://" + s.cfg.Bucket + " in " + s.cfg.Region
	}
	return "s3://" + s.cfg.Bucket + " at " + s.endpoint.String()
}
