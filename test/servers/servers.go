// Package servers starts real S3 servers with Object Lock, MinIO and versitygw, for tests and for the demo. They
// are built from test/tools; each listens on 127.0.0.1, keeps its data in one directory and lives as long as the test.
package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Server is a running server, or one that was stopped and can be started again with the same data at the same place.
type Server struct {
	Program   string // "minio" or "versitygw"
	Endpoint  string // URL without a path
	AccessKey string // of its administrator
	SecretKey string
	Region    string
	CAFile    string // PEM, with TLS
	Dir       string // data, logs and certificates

	path   string // of the program
	port   int
	chosen bool // port was asked for
	cmd    *exec.Cmd
	exited chan struct{}
}

// Option changes how a server is started.
type Option func(*Server, *options)

type options struct{ tls bool }

// WithTLS serves HTTPS with a certificate of a CA of its own, which is CAFile.
func WithTLS() Option { return func(_ *Server, o *options) { o.tls = true } }

// WithDir keeps the data in dir, which outlives the server, instead of a directory of the test's.
func WithDir(dir string) Option { return func(s *Server, _ *options) { s.Dir = dir } }

// WithPort listens on that port of 127.0.0.1 instead of a free one.
func WithPort(port int) Option { return func(s *Server, _ *options) { s.port, s.chosen = port, true } }

// MinIO starts a MinIO server with one drive and stops it when the test ends. A test is skipped if it was not built.
func MinIO(t testing.TB, opts ...Option) *Server { t.Helper(); return start(t, "minio", opts) }

// Versitygw starts a versitygw server over POSIX files and stops it when the test ends. A test is skipped if it was not built.
func Versitygw(t testing.TB, opts ...Option) *Server { t.Helper(); return start(t, "versitygw", opts) }

func start(t testing.TB, program string, opts []Option) *Server {
	t.Helper()
	Tool(t, program)
	s, err := Start(program, append([]Option{WithDir(t.TempDir())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("the end of %s's log:\n%s", program, s.logTail())
		}
	})
	return s
}

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 20 * time.Second
	pollInterval = 20 * time.Millisecond
	region       = "us-east-1"

	// The servers listen on this machine only, and what was kept with WithDir is to be readable again.
	accessKey = "auditadmin"
	secretKey = "auditadmin-secret"
)

// Start starts "minio" or "versitygw" and returns when it answers. For callers that are no tests: they
// give WithDir and call Stop or Kill. ErrNotBuilt if there is no such program.
func Start(program string, opts ...Option) (*Server, error) {
	s := &Server{Program: program, Region: region, AccessKey: accessKey, SecretKey: secretKey}
	var o options
	for _, opt := range opts {
		opt(s, &o)
	}
	var err error
	if s.path, err = Find(program); err != nil {
		return nil, err
	}
	if s.Dir == "" {
		return nil, errors.New("no directory given")
	}
	if s.Dir, err = filepath.Abs(s.Dir); err != nil {
		return nil, err
	}
	for _, name := range []string{"data", "versions", "iam", "certs"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, name), 0o755); err != nil {
			return nil, err
		}
	}
	if o.tls {
		ca, err := NewCA(filepath.Join(s.Dir, "certs"))
		if err != nil {
			return nil, err
		}
		if err := ca.Issue(s.certificate(), s.key(), "127.0.0.1", "localhost"); err != nil {
			return nil, err
		}
		s.CAFile = ca.File
	}
	// Between finding a free port and listening on it somebody else may take it.
	for range 3 {
		if !s.chosen {
			if s.port, err = FreePort(); err != nil {
				return nil, err
			}
		}
		s.Endpoint = s.scheme() + "://" + s.address()
		if err = s.Restart(); err == nil {
			return s, nil
		}
		if s.chosen {
			break
		}
	}
	return nil, err
}

func (s *Server) certificate() string { return filepath.Join(s.Dir, "certs", "public.crt") } // MinIO's names
func (s *Server) key() string         { return filepath.Join(s.Dir, "certs", "private.key") }
func (s *Server) address() string     { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }
func (s *Server) logFile() string     { return filepath.Join(s.Dir, "server.log") }

func (s *Server) scheme() string {
	if s.CAFile != "" {
		return "https"
	}
	return "http"
}

func (s *Server) command() *exec.Cmd {
	data := filepath.Join(s.Dir, "data")
	switch s.Program {
	case "minio":
		args := []string{"server", "--quiet", "--address", s.address()}
		if s.CAFile != "" {
			args = append(args, "--certs-dir", filepath.Join(s.Dir, "certs"))
		}
		cmd := exec.Command(s.path, append(args, data)...)
		cmd.Env = []string{"MINIO_ROOT_USER=" + s.AccessKey, "MINIO_ROOT_PASSWORD=" + s.SecretKey, "MINIO_BROWSER=off", "MINIO_UPDATE=off"}
		return cmd
	default:
		args := []string{"--access", s.AccessKey, "--secret", s.SecretKey, "--region", s.Region, "--port", s.address(), "--health", "/health", "--quiet", "--iam-dir", filepath.Join(s.Dir, "iam")}
		if s.CAFile != "" {
			args = append(args, "--cert", s.certificate(), "--key", s.key())
		}
		return exec.Command(s.path, append(args, "posix", "--versioning-dir", filepath.Join(s.Dir, "versions"), data)...)
	}
}

// Restart starts a stopped or killed server again, with the same data at the same address, and returns when it answers.
func (s *Server) Restart() error {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = s.command()
	s.cmd.Env = append(s.cmd.Env, "HOME="+s.Dir, "PATH="+os.Getenv("PATH"))
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.Dir, log, log
	s.cmd.SysProcAttr = DieWithParent()
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", s.Program, err)
	}
	exited := make(chan struct{})
	s.exited = exited
	go func() { s.cmd.Wait(); close(exited) }()

	deadline := time.Now().Add(startTimeout)
	for {
		err := s.answers()
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("%s ended while starting: %s", s.Program, s.logTail())
		case <-time.After(pollInterval):
		}
		if time.Now().After(deadline) {
			s.Kill()
			return fmt.Errorf("%s does not answer at %s: %w\n%s", s.Program, s.Endpoint, err, s.logTail())
		}
	}
}

// answers is nil when the server says that it lives and takes requests.
func (s *Server) answers() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	client, err := s.client()
	if err != nil {
		return err
	}
	health := map[string]string{"minio": "/minio/health/live", "versitygw": "/health"}[s.Program]
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+health, nil)
	if err != nil {
		return err
	}
	transport, err := s.transport()
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	_, err = client.ListBuckets(ctx) // MinIO lives before it is initialized
	return err
}

// Stop asks the server to end and waits for it.
func (s *Server) Stop() {
	s.Resume() // who is paused does not hear
	s.end(syscall.SIGTERM)
}

// Kill ends the server at once, as a crash does.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Pause makes the server hang: connections are taken, nothing is answered.
func (s *Server) Pause() { s.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() { s.cmd.Process.Signal(syscall.SIGCONT) }

func (s *Server) end(signal os.Signal) {
	s.cmd.Process.Signal(signal)
	select {
	case <-s.exited:
	case <-time.After(stopTimeout):
		s.cmd.Process.Kill()
		<-s.exited
	}
}

// logTail is the last 4 KiB of what the server printed.
func (s *Server) logTail() string {
	f, err := os.Open(s.logFile())
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 4096 {
		f.Seek(-4096, io.SeekEnd)
	}
	tail, _ := io.ReadAll(f)
	return string(tail)
}

// Client is the administrator's.
func (s *Server) Client(t testing.TB) *minio.Client {
	t.Helper()
	client, err := s.client()
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func (s *Server) client() (*minio.Client, error) {
	transport, err := s.transport()
	if err != nil {
		return nil, err
	}
	return minio.New(s.address(), &minio.Options{
		Creds: credentials.NewStaticV4(s.AccessKey, s.SecretKey, ""), Secure: s.CAFile != "",
		Region: s.Region, Transport: transport, BucketLookup: minio.BucketLookupPath, MaxRetries: 1,
	})
}

func (s *Server) transport() (*http.Transport, error) {
	transport, err := minio.DefaultTransport(true)
	if err == nil && s.CAFile != "" {
		transport.TLSClientConfig.RootCAs, err = Pool(s.CAFile)
	}
	return transport, err
}

// MakeLockedBucket makes a bucket with versioning and Object Lock.
func (s *Server) MakeLockedBucket(t testing.TB, name string) {
	t.Helper()
	if err := s.Client(t).MakeBucket(context.Background(), name, minio.MakeBucketOptions{Region: s.Region, ObjectLocking: true}); err != nil {
		t.Fatalf("making bucket %s: %v", name, err)
	}
}

// FreePort returns a port of 127.0.0.1 that nobody listens on now.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
