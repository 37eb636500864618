package conf

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	patience = 60 * time.Second // on a busy machine; usually all is done in a few
	poll     = 50 * time.Millisecond
)

// process is a Fluent Bit that runs.
type process struct {
	cmd    *exec.Cmd
	path   string // of its log
	exited chan struct{}
}

// start starts Fluent Bit. It is killed when the test ends, and its log shown if the test has failed.
func start(t *testing.T, name string, env []string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(fluentBit(t), args...), path: filepath.Join(t.TempDir(), name+".log"), exited: make(chan struct{})}
	log, err := os.Create(p.path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.cmd.Wait(); close(p.exited) }()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the log of %s:\n%s", name, p.log())
		}
	})
	return p
}

// stop asks it to end, and fails the test if it does not, or not well.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("%s ended with %d", p.path, code)
		}
	case <-time.After(patience):
		t.Errorf("%s does not end", p.path)
	}
}

// kill ends it at once, as a crash does.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.exited
}

func (p *process) log() string {
	text, err := os.ReadFile(p.path)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// said says whether the process has logged something.
func (p *process) said(what string) bool { return strings.Contains(p.log(), what) }

func waitFor(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !happened(); time.Sleep(poll) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in %s", what, patience)
		}
	}
}

// get fetches a page of Fluent Bit's HTTP server, "" if it does not answer with 200.
func get(port, path string) string {
	answer, err := http.Get("http://127.0.0.1:" + port + path)
	if err != nil {
		return ""
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		return ""
	}
	return string(body)
}

// metric is a counter's value, -1 if it is not there.
func metric(port, name, instance string) int {
	for line := range strings.Lines(get(port, "/api/v2/metrics/prometheus")) {
		if value, ok := strings.CutPrefix(line, fmt.Sprintf("%s{name=%q} ", name, instance)); ok {
			if n, err := strconv.Atoi(strings.TrimSpace(value)); err == nil {
				return n
			}
		}
	}
	return -1
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
