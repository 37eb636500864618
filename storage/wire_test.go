package storage_test

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/auditchain/auditchain/storage"
)

// fake is an S3 server that notes what it is asked and answers as it is told.
type fake struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
	bodies   []string
}

func newFake(t *testing.T, answer http.HandlerFunc) (*fake, storage.Bucket) {
	f := &fake{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		f.mu.Lock()
		f.requests, f.bodies = append(f.requests, r), append(f.bodies, string(body))
		f.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(f.Close)
	return f, open(t, storage.Config{Bucket: "audit", Endpoint: f.URL, AccessKey: "a", SecretKey: "s", StorageClass: "STANDARD_IA", Timeout: 10 * time.Second})
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.requests)
}

// refuse answers as S3 does; a HEAD's answer has no body.
func refuse(status int, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>Because.</Message></Error>", code)
	}
}

// TestCreateOnTheWire: one request, the headers that bind it to its key, its bytes and its lock, and the bytes as they are.
func TestCreateOnTheWire(t *testing.T) {
	f, bucket := newFake(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Amz-Version-Id", "v7") })
	body := "the body"
	sha, sum := sha256.Sum256([]byte(body)), md5.Sum([]byte(body))
	version, err := bucket.Create(t.Context(), "p/k", strings.NewReader(body), storage.CreateOptions{
		Size: int64(len(body)), SHA256: sha, MD5: sum, ContentType: "text/plain",
		LockMode: storage.Compliance, RetainUntil: time.Date(2033, 11, 23, 7, 25, 1, 999_999_999, time.FixedZone("", 3600)),
	})
	if err != nil || version != "v7" || f.count() != 1 {
		t.Fatalf("version %q, %v, %d requests", version, err, f.count())
	}
	r := f.requests[0]
	if r.Method != http.MethodPut || r.RequestURI != "/audit/p/k" || r.ContentLength != int64(len(body)) || len(r.TransferEncoding)+len(r.Trailer) > 0 || f.bodies[0] != body {
		t.Errorf("%s %s of %d bytes, transfer %q, trailer %v, body %q", r.Method, r.RequestURI, r.ContentLength, r.TransferEncoding, r.Trailer, f.bodies[0])
	}
	for name, want := range map[string]string{
		"If-None-Match":                       "*",
		"Content-Type":                        "text/plain",
		"Content-Md5":                         base64.StdEncoding.EncodeToString(sum[:]),
		"X-Amz-Content-Sha256":                hex.EncodeToString(sha[:]),
		"X-Amz-Checksum-Sha256":               base64.StdEncoding.EncodeToString(sha[:]),
		"X-Amz-Object-Lock-Mode":              "COMPLIANCE",
		"X-Amz-Object-Lock-Retain-Until-Date": "2033-11-23T06:25:01Z",
		"X-Amz-Storage-Class":                 "STANDARD_IA",
		"Content-Encoding":                    "",
		"X-Amz-Trailer":                       "",
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	// What is signed cannot be changed on the way.
	for _, name := range []string{"if-none-match", "x-amz-checksum-sha256", "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"} {
		if !strings.Contains(r.Header.Get("Authorization"), name) {
			t.Errorf("%s is not signed: %s", name, r.Header.Get("Authorization"))
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		status   int
		code     string
		call     string
		want     error
		requests int
	}{
		{412, "PreconditionFailed", "create", storage.ErrExists, 1},
		{409, "ConditionalRequestConflict", "create", nil, 1}, // AWS, while another is writing
		{503, "SlowDown", "create", storage.ErrUnreachable, 1},
		{500, "InternalError", "create", storage.ErrUnreachable, 1},
		{501, "NotImplemented", "create", nil, 1},
		{400, "BadDigest", "create", storage.ErrMismatch, 1},
		{400, "XAmzContentChecksumMismatch", "create", storage.ErrMismatch, 1},
		{400, "InvalidArgument", "create", nil, 1},
		{403, "RequestTimeTooSkewed", "create", storage.ErrClockSkew, 1},
		{403, "AccessDenied", "create", storage.ErrDenied, 1},
		{400, "ExpiredToken", "check", storage.ErrDenied, 1},
		{404, "NoSuchBucket", "create", storage.ErrNoBucket, 1},
		{503, "SlowDown", "open", storage.ErrUnreachable, 3},
		{503, "", "stat", storage.ErrUnreachable, 3},
		{429, "TooManyRequests", "versions", storage.ErrUnreachable, 3},
		{404, "NoSuchVersion", "open", storage.ErrNotFound, 1},
		{405, "MethodNotAllowed", "stat", storage.ErrNotFound, 1},
		{416, "InvalidRange", "open", io.ErrUnexpectedEOF, 1},
	} {
		f, bucket := newFake(t, refuse(c.status, c.code))
		err := calls[c.call](t.Context(), bucket)
		if err == nil || c.want != nil && !errors.Is(err, c.want) || f.count() != c.requests {
			t.Errorf("%s, %d %s: %v after %d requests, want %v after %d", c.call, c.status, c.code, err, f.count(), c.want, c.requests)
		}
		if c.want != nil {
			continue
		}
		for _, sentinel := range []error{storage.ErrExists, storage.ErrNotFound, storage.ErrMismatch, storage.ErrDenied, storage.ErrUnreachable, storage.ErrNoObjectLock} {
			if errors.Is(err, sentinel) {
				t.Errorf("%s, %d %s: %v is %v", c.call, c.status, c.code, err, sentinel)
			}
		}
	}
}

// TestLostAnswer: the connection ends after the body was sent. What the store holds then decides.
func TestLostAnswer(t *testing.T) {
	for _, stored := range []bool{true, false} {
		f, bucket := newFake(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				panic(http.ErrAbortHandler)
			}
			version := ""
			if stored {
				version = "<Version><Key>new</Key><VersionId>v1</VersionId><IsLatest>true</IsLatest><LastModified>2026-11-23T07:25:01Z</LastModified><Size>1</Size></Version>"
			}
			fmt.Fprintf(w, "<ListVersionsResult><Name>audit</Name><IsTruncated>false</IsTruncated>%s</ListVersionsResult>", version)
		})
		want := storage.ErrUnreachable
		if stored {
			want = storage.ErrExists
		}
		if err := create(t.Context(), bucket); !errors.Is(err, want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("stored %v: %v", stored, err)
		}
		if f.count() != 2 {
			t.Errorf("stored %v: %d requests", stored, f.count())
		}
	}
}

func TestClockSkew(t *testing.T) {
	const off = -20 * time.Minute
	_, bucket := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusForbidden)
	})
	if skew, known := bucket.ClockSkew(); known {
		t.Errorf("skew %v before any answer", skew)
	}
	// The answer to a HEAD cannot say why.
	if _, err := bucket.Stat(t.Context(), "k", ""); !errors.Is(err, storage.ErrClockSkew) || !strings.Contains(err.Error(), "-1200 s") && !strings.Contains(err.Error(), "-1201 s") {
		t.Error(err)
	}
	if skew, known := bucket.ClockSkew(); !known || (skew-off).Abs() > 2*time.Second {
		t.Errorf("skew %v, %v, want %v", skew, known, off)
	}
}

// TestTruncatedDownload: a body that ends before its length is no end of file.
func TestTruncatedDownload(t *testing.T) {
	_, bucket := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "four")
	})
	r, _, err := bucket.Open(t.Context(), "k", "", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err == nil || string(got) != "four" {
		t.Errorf("%q, %v", got, err)
	}
}
