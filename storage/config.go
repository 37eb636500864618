package storage

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"
)

// Config says which bucket, where it is and who we are. Keys are whole: no prefix is added to them.
type Config struct {
	// Bucket is a bucket's name, or "dir:" and an absolute path for a directory; then nothing else counts.
	Bucket string
	// Endpoint is the server's URL, http or https; empty is AWS. Other servers are spoken to in path style.
	Endpoint string
	// Region defaults to AWS_REGION, AWS_DEFAULT_REGION, then us-east-1.
	Region string

	// AccessKey and SecretKey, with SessionToken if temporary. Empty: the first that has any of the environment
	// (AWS_ACCESS_KEY_ID, ...), the shared files (~/.aws/credentials and config, profile Profile or AWS_PROFILE),
	// a web identity token, a container's and a machine's role.
	AccessKey, SecretKey, SessionToken string
	// Profile in the shared files; if set, only there.
	Profile string
	// RoleARN is a role to assume with these credentials, at STSEndpoint.
	RoleARN string
	// STSEndpoint defaults to AWS's for the region, and to Endpoint where that is not AWS.
	STSEndpoint string

	// CAFile holds the PEM certificates to trust instead of the system's.
	CAFile string
	// InsecureSkipVerify takes any certificate.
	InsecureSkipVerify bool

	// StorageClass for objects that ask for none; empty is the server's default.
	StorageClass string
	// Timeout for one answer, default 60 s. An upload has all the time it needs as long as it gets on: the limit is on how
	// long nothing of it moves.
	Timeout time.Duration
}

// dirScheme begins a bucket's name that is a directory.
const dirScheme = "dir:"

// defaultTimeout is what AWS clients and proxies commonly allow for one answer.
const defaultTimeout = 60 * time.Second

// Open prepares for the bucket of cfg without talking to it: errors are those of cfg itself. See [Bucket].Check.
func Open(cfg Config) (Bucket, error) {
	if path, ok := strings.CutPrefix(cfg.Bucket, dirScheme); ok {
		return NewDir(path)
	}
	return NewS3(cfg)
}

// Make makes the bucket of cfg, with versioning and Object Lock switched on, which S3 allows for good only when
// a bucket is made. A directory is made with its parents. ErrBucketExists: somebody's already, perhaps one's own.
func Make(ctx context.Context, cfg Config) error {
	if path, ok := strings.CutPrefix(cfg.Bucket, dirScheme); ok {
		return makeDir(path)
	}
	s, err := NewS3(cfg)
	if err != nil {
		return err
	}
	return s.makeBucket(ctx)
}

// withDefaults fills in what cfg leaves open and refuses what cannot work.
func (cfg Config) withDefaults() (Config, error) {
	if cfg.Bucket == "" {
		return cfg, errors.New("no bucket given")
	}
	if cfg.Region == "" {
		cfg.Region = firstEnv("AWS_REGION", "AWS_DEFAULT_REGION")
	}
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	if (cfg.AccessKey == "") != (cfg.SecretKey == "") {
		return cfg, errors.New("access key and secret key belong together: one of them is missing")
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	return cfg, nil
}

// endpoint is the server's URL. Where that is AWS the client puts the region into the host's name.
func (cfg Config) endpoint() (*url.URL, error) {
	if cfg.Endpoint == "" {
		return &url.URL{Scheme: "https", Host: "s3.amazonaws.com"}, nil
	}
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("endpoint %q is not a URL like https://s3.example.com:9000", cfg.Endpoint)
	}
	return u, nil
}

func firstEnv(names ...string) string {
	for _, name := range names {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	return ""
}
