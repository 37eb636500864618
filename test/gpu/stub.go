// Package gpu tests what runs on the GPU server: the middleware in a model server that behaves as vLLM does (the stub, a
// FastAPI application), and the way of its records from there into the log.
package gpu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/auditchain/auditchain/test/servers"
)

// Python is the system's interpreter, for which FastAPI and uvicorn are installed as packages of the distribution.
// AUDITCHAIN_PYTHON names another one.
func Python() string {
	if path := os.Getenv("AUDITCHAIN_PYTHON"); path != "" {
		return path
	}
	return "/usr/bin/python3"
}

// ErrNoFastAPI: the interpreter lacks what the stub is made of.
var ErrNoFastAPI = errors.New("FastAPI and uvicorn are not installed")

// CanRun is nil if the stub can run here.
func CanRun() error {
	if out, err := exec.Command(Python(), "-c", "import fastapi, uvicorn").CombinedOutput(); err != nil {
		return fmt.Errorf("%w for %s (Debian: python3-fastapi, python3-uvicorn): %v %s", ErrNoFastAPI, Python(), err, out)
	}
	return nil
}

// Model is the name of the model that the stub serves.
const Model = "stub-7b"

// Middleware is what AUDITCHAIN users give to vllm serve as --middleware.
const Middleware = "auditchain_asgi.AuditMiddleware"

// Options of a stub.
type Options struct {
	Dir     string   // of its log and counts; what AUDITCHAIN_DIR names is the caller's
	Workers int      // processes; 0: one
	Audit   bool     // with the middleware
	APIKeys []string // accepted ones; none: all are
	Loop    string   // uvloop or asyncio; "": uvicorn chooses
	Env     []string // NAME=value, added to this process's
}

// Stub is a running model server.
type Stub struct {
	URL string

	cmd     *exec.Cmd
	log     string
	workers int
	exited  chan struct{}
}

const (
	startTimeout = 60 * time.Second
	pollInterval = 20 * time.Millisecond
)

// Start starts a stub and returns when all its workers take requests.
func Start(o Options) (*Stub, error) {
	o.Workers = max(o.Workers, 1)
	port, err := servers.FreePort()
	if err != nil {
		return nil, err
	}
	args := []string{
		filepath.Join(servers.Root(), "test", "gpu", "stub", "serve.py"),
		"--port", strconv.Itoa(port), "--workers", strconv.Itoa(o.Workers), "--served-model-name", Model,
		"--requests", filepath.Join(o.Dir, "requests"),
	}
	for _, key := range o.APIKeys {
		args = append(args, "--api-key", key)
	}
	if o.Loop != "" {
		args = append(args, "--loop", o.Loop)
	}
	if o.Audit {
		args = append(args, "--middleware", Middleware)
	}
	s := &Stub{
		URL: "http://127.0.0.1:" + strconv.Itoa(port), cmd: exec.Command(Python(), args...),
		log: filepath.Join(o.Dir, "stub.log"), workers: o.Workers, exited: make(chan struct{}),
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	info, err := log.Stat()
	if err != nil {
		return nil, err
	}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "AUDITCHAIN_") { // those are settings of tests, and would be taken for the middleware's
			s.cmd.Env = append(s.cmd.Env, variable)
		}
	}
	s.cmd.Env = append(s.cmd.Env, "PYTHONPATH="+filepath.Join(servers.Root(), "middleware"), "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1")
	s.cmd.Env = append(s.cmd.Env, o.Env...)
	s.cmd.SysProcAttr = servers.DieWithParent()
	s.cmd.SysProcAttr.Setpgid = true
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the stub: %w", err)
	}
	go func() { s.cmd.Wait(); close(s.exited) }()
	for deadline := time.Now().Add(startTimeout); ; {
		if strings.Count(s.Log()[info.Size():], "Application startup complete") >= o.Workers && s.answers() {
			return s, nil
		}
		select {
		case <-s.exited:
			return nil, fmt.Errorf("the stub ended while starting:\n%s", s.Log())
		case <-time.After(pollInterval):
		}
		if time.Now().After(deadline) {
			s.Kill()
			return nil, fmt.Errorf("the stub does not start in %s:\n%s", startTimeout, s.Log())
		}
	}
}

func (s *Stub) answers() bool {
	answer, err := http.Get(s.URL + "/health")
	if err != nil {
		return false
	}
	io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// Log is what it has printed so far, in this run and those before in the same directory.
func (s *Stub) Log() string {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Done is closed when the stub's first process has ended.
func (s *Stub) Done() <-chan struct{} { return s.exited }

// Pids are those of the processes that serve.
func (s *Stub) Pids() ([]int, error) {
	pid := s.cmd.Process.Pid
	if s.workers == 1 {
		return []int{pid}, nil
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, field := range strings.Fields(string(text)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		// Python has another child, that tracks the resources its children share.
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child)); err == nil && strings.Contains(string(line), "spawn_main") {
			pids = append(pids, child)
		}
	}
	return pids, nil
}

// Stop asks the stub to end, as systemd and Kubernetes do, and waits until it has. When ctx ends before, it is killed.
func (s *Stub) Stop(ctx context.Context) error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.exited:
		return nil
	case <-ctx.Done():
		s.Kill()
		return fmt.Errorf("the stub does not end: %w\n%s", ctx.Err(), s.Log())
	}
}

// Kill ends all of its processes at once, as a power cut does.
func (s *Stub) Kill() {
	syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // fails only if they have ended
	<-s.exited
}
