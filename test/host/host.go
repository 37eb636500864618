// Package host runs the plugin host, a stand-in for Fluent Bit that delivers chunks to the plugin one by one and says at
// once what became of each. src/host.c describes its commands. For tests and the benchmarks.
package host

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/auditchain/auditchain/test/servers"
)

// Plugin is the path of the plugin that `make` builds. Without it the test is skipped, or fails if
// AUDITCHAIN_REQUIRE_TOOLS=1. AUDITCHAIN_PLUGIN names another one.
func Plugin(t testing.TB) string {
	t.Helper()
	path := os.Getenv("AUDITCHAIN_PLUGIN")
	if path == "" {
		path = filepath.Join(servers.Root(), "build", "out_auditchain.so")
	}
	if _, err := os.Stat(path); err != nil {
		missing(t, fmt.Sprintf("the plugin is not built at %s: run `make`", path))
	}
	return path
}

func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("AUDITCHAIN_REQUIRE_TOOLS") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// sources are the host's, in test/host/src; the last makes what a plugin looks for in Fluent Bit with dlsym.
var sources = []string{"host.c", "lent.c", "load.c", "pool.c", "symbols.c"}

var builds atomic.Uint64

// Build compiles the host into dir, unless it is there and newer than its sources, and returns its path. bare: without
// the symbols that a plugin looks for in Fluent Bit, so without metrics.
func Build(dir string, bare bool) (string, error) {
	name, sources := "plugin-host", sources
	if bare {
		name, sources = "plugin-host-bare", sources[:len(sources)-1]
	}
	path := filepath.Join(dir, name)
	fresh := fmt.Sprintf("%s.%d.%d", path, os.Getpid(), builds.Add(1)) // other tests may be doing the same, in this process too
	args := []string{"-O2", "-Wall", "-rdynamic", "-o", fresh}
	var changed time.Time
	for _, s := range append(slices.Clone(sources), "host.h") {
		s = filepath.Join(servers.Root(), "test", "host", "src", s)
		info, err := os.Stat(s)
		if err != nil {
			return "", err
		}
		if info.ModTime().After(changed) {
			changed = info.ModTime()
		}
		if filepath.Ext(s) == ".c" {
			args = append(args, s)
		}
	}
	if info, err := os.Stat(path); err == nil && info.ModTime().After(changed) {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if out, err := exec.Command("cc", append(args, "-ldl", "-lpthread")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", name, err, out)
	}
	return path, os.Rename(fresh, path)
}

func binary(t testing.TB, bare bool) string {
	t.Helper()
	if _, err := exec.LookPath("cc"); err != nil {
		missing(t, "there is no C compiler named cc")
	}
	path, err := Build(filepath.Join(servers.Root(), "build", "test"), bare)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Options choose what kind of Fluent Bit the host is. The zero value is a recent one.
type Options struct {
	Bare     bool   // no metrics, and no names of instances
	NoLog    bool   // no function for logging
	LogLevel string // error, warn, info (default), debug
	Env      []string

	// NoContext has FLBPluginInit panic, since there is nowhere to put the number of an instance.
	NoContext bool
	// Under is a program with its arguments that runs the host, the rest of its arguments, in its own process: strace -D.
	Under []string
}

// Host is a running plugin host.
type Host struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	more  chan struct{} // holds one token when there may be new answers
	done  chan struct{} // closed when the process has ended; err is set then
	err   error

	mu      sync.Mutex
	log     bytes.Buffer
	answers []Answer
}

// Answer is what the host says of one command, or one chunk.
type Answer struct {
	Op          string             `json:"op"`
	Instance    string             `json:"instance"`
	Tag         string             `json:"tag"`
	File        string             `json:"file"`
	Ret         string             `json:"ret"` // OK, RETRY or ERROR
	Tries       int                `json:"tries"`
	Micros      int64              `json:"us"`
	Records     uint64             `json:"records"`
	Values      map[string]float64 `json:"values"` // of metrics, by name{instance}
	Name        string             `json:"name"`   // of the plugin
	Description string             `json:"description"`
}

// Start starts a host with the plugin. It is killed at the end of the test, if it has not ended by then.
func Start(t testing.TB, plugin string, opts Options) *Host {
	t.Helper()
	h := start(t, plugin, opts)
	if first := h.Next(t); first.Op != "register" {
		t.Fatalf("the plugin host begins with %+v", first)
	}
	return h
}

// Run has a host carry out the commands, and waits until it has ended, by itself or because it was killed: err says how, nil if
// it ended well. It returns all answers that came, and the log.
func Run(t testing.TB, plugin string, opts Options, commands ...string) (answers []Answer, log string, err error) {
	t.Helper()
	h := start(t, plugin, opts)
	io.WriteString(h.stdin, strings.Join(commands, "\n")+"\n") // fails if it has ended before it has read all
	h.stdin.Close()
	select {
	case <-h.done:
	case <-time.After(2 * answerTimeout):
		h.Kill()
		t.Fatalf("the plugin host does not end\n%s", h.Log())
	}
	return h.answers, h.Log(), h.err
}

func start(t testing.TB, plugin string, opts Options) *Host {
	t.Helper()
	var args []string
	if opts.NoContext {
		args = append(args, "--no-context")
	}
	if opts.NoLog {
		args = append(args, "--no-log")
	}
	if opts.LogLevel != "" {
		args = append(args, "--log-level", opts.LogLevel)
	}
	h := &Host{more: make(chan struct{}, 1), done: make(chan struct{})}
	args = slices.Concat(opts.Under, []string{binary(t, opts.Bare)}, args, []string{plugin})
	h.cmd = exec.Command(args[0], args[1:]...)
	h.cmd.Env = append(os.Environ(), opts.Env...)
	h.cmd.Stderr = lockedWriter{h}
	stdout, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if h.stdin, err = h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go h.read(stdout)
	t.Cleanup(func() {
		h.Kill()
		if t.Failed() {
			t.Logf("log of the plugin host:\n%s", h.Log())
		}
	})
	return h
}

// Pid is the number of the process.
func (h *Host) Pid() int { return h.cmd.Process.Pid }

type lockedWriter struct{ h *Host }

func (w lockedWriter) Write(p []byte) (int, error) {
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	return w.h.log.Write(p)
}

func (h *Host) read(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	var bad error
	for lines.Scan() {
		var a Answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			bad = fmt.Errorf("answer %q: %w", lines.Bytes(), err) // killed while writing, if it is the last
			continue
		}
		h.mu.Lock()
		h.answers = append(h.answers, a)
		h.mu.Unlock()
		select {
		case h.more <- struct{}{}:
		default:
		}
	}
	h.err = errors.Join(bad, lines.Err(), h.cmd.Wait())
	close(h.done)
}

// take removes the first answer that has not been read.
func (h *Host) take() (Answer, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.answers) == 0 {
		return Answer{}, false
	}
	a := h.answers[0]
	h.answers = h.answers[1:]
	return a, true
}

// Log is what was written to stderr so far: the log of Fluent Bit.
func (h *Host) Log() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.String()
}

// Send sends commands, without waiting for answers.
func (h *Host) Send(t testing.TB, commands ...string) {
	t.Helper()
	for _, c := range commands {
		if _, err := io.WriteString(h.stdin, c+"\n"); err != nil {
			t.Fatalf("the plugin host does not take %q: %v\n%s", c, err, h.Log())
		}
	}
}

// answerTimeout is how long an answer may take.
const answerTimeout = 60 * time.Second

// Next waits for the next answer.
func (h *Host) Next(t testing.TB) Answer {
	t.Helper()
	timeout := time.After(answerTimeout)
	for ended := false; ; {
		if a, ok := h.take(); ok {
			return a
		}
		if ended {
			t.Fatalf("the plugin host has ended: %v\n%s", h.err, h.Log())
		}
		select {
		case <-h.more:
		case <-h.done:
			ended = true
		case <-timeout:
			t.Fatalf("the plugin host does not answer\n%s", h.Log())
		}
	}
}

// Do sends one command and waits for its answer.
func (h *Host) Do(t testing.TB, command string) Answer {
	t.Helper()
	h.Send(t, command)
	return h.Next(t)
}

// End ends the script and so the process, after all instances, and returns the answers that were not read.
func (h *Host) End(t testing.TB) []Answer {
	t.Helper()
	h.stdin.Close()
	<-h.done
	if h.err != nil {
		t.Fatalf("the plugin host: %v\n%s", h.err, h.Log())
	}
	return h.answers
}

// Kill ends the process at once, as kill -9 does, and returns the answers that were not read.
func (h *Host) Kill() []Answer {
	h.cmd.Process.Kill() // fails only if it has ended
	h.stdin.Close()
	<-h.done
	return h.answers
}
