// Package fluentbit runs the real Fluent Bit with the plugin, for tests and for the demo, and speaks to it: its log, its
// metrics, and the forward protocol.
package fluentbit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/auditchain/auditchain/test/servers"
)

// programEnv names the program, if it is not the fluent-bit on PATH.
const programEnv = "FLUENT_BIT"

// ErrNotFound: there is no Fluent Bit on this machine.
var ErrNotFound = errors.New("fluent-bit is not installed")

// Find returns the path of the program. ErrNotFound, in words that say what to do, if there is none.
func Find() (path string, err error) {
	name, from := "fluent-bit", "on PATH"
	if named := os.Getenv(programEnv); named != "" {
		name, from = named, "as "+programEnv+" says"
	}
	path, err = exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: no program %s %s; install it, or set %s to its path", ErrNotFound, name, from, programEnv)
	}
	return path, nil
}

// Config says what to run.
type Config struct {
	Dir      string   // working directory; the configuration and the log are written there
	YAML     string   // the configuration, as Pipeline.YAML makes it
	HTTPPort int      // of the http_server in it, on 127.0.0.1; 0: there is none, and no WaitReady and Metrics
	Env      []string // NAME=value, added to this process's
}

// Process is one run of Fluent Bit.
type Process struct {
	cmd      *exec.Cmd
	httpPort int
	log      *logBuffer
	exited   chan struct{} // closed when the process has ended and all of its log is there
}

// Start starts Fluent Bit. What it says is appended to fluent-bit.log in the directory. It does not outlive the caller.
func Start(cfg Config) (*Process, error) {
	path, err := Find()
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "fluent-bit.yaml")
	if err := os.WriteFile(file, []byte(cfg.YAML), 0o600); err != nil {
		return nil, err
	}
	log, err := newLogBuffer(filepath.Join(dir, "fluent-bit.log"))
	if err != nil {
		return nil, err
	}
	p := &Process{cmd: exec.Command(path, "-c", file), httpPort: cfg.HTTPPort, log: log, exited: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = dir, append(os.Environ(), cfg.Env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = servers.DieWithParent()
	if err := p.cmd.Start(); err != nil {
		log.close()
		return nil, fmt.Errorf("starting Fluent Bit: %w", err)
	}
	go func() {
		p.cmd.Wait() // how it ended stands in cmd.ProcessState
		log.close()
		close(p.exited)
	}()
	return p, nil
}

// Pid is the process's number.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends a signal. os.ErrProcessDone if it has ended.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.exited }

// Wait waits until the process ends by itself and returns its exit code, -1 if a signal ended it.
func (p *Process) Wait(ctx context.Context) (exitCode int, err error) {
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return -1, fmt.Errorf("waiting for Fluent Bit to end: %w", ctx.Err())
	}
}

// Stop asks Fluent Bit to end, as systemd and Docker do, and waits for it. If ctx ends before that it is killed.
func (p *Process) Stop(ctx context.Context) (exitCode int, err error) {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return -1, err
	}
	exitCode, err = p.Wait(ctx)
	if err != nil {
		p.Kill()
	}
	return exitCode, err
}

// Kill ends Fluent Bit at once, as a crash does.
func (p *Process) Kill() {
	p.cmd.Process.Kill() // fails only if it has ended
	<-p.exited
}
