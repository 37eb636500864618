package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/host"
	"github.com/auditchain/auditchain/test/servers"
)

// hostFeed is the plugin host. It delivers chunk by chunk by the clock, and says at once what became of each.
type hostFeed struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	files   []string
	load    *load
	answers chan host.Answer // all but those of the load
	exited  chan struct{}
	err     error // how it ended, once exited is closed
}

// hostName is what the host calls the instance.
const hostName = "soak"

// startHost starts the host with one instance of the plugin. What it says goes to log.
func startHost(plugin, dir string, output fluentbit.Section, log *os.File) (*hostFeed, error) {
	program, err := host.Build(filepath.Join(servers.Root(), "build", "test"), false)
	if err != nil {
		return nil, err
	}
	h := &hostFeed{load: newLoad(), answers: make(chan host.Answer, 16), exited: make(chan struct{})}
	if h.files, err = writeChunks(dir); err != nil {
		return nil, err
	}
	h.cmd = exec.Command(program, plugin)
	h.cmd.Env = append(os.Environ(), traces)
	h.cmd.Stderr = log // a file, not a pipe: nobody has to read it for the plugin to go on
	h.cmd.SysProcAttr = servers.DieWithParent()
	stdout, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if h.stdin, err = h.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := h.cmd.Start(); err != nil {
		return nil, err
	}
	go h.read(stdout)
	var script strings.Builder
	for _, key := range slices.Sorted(maps.Keys(output)) {
		if key != "name" && key != "match" && key != "workers" && key != "retry_limit" { // Fluent Bit's own
			fmt.Fprintf(&script, "set %s %s\n", key, output[key])
		}
	}
	// Coroutines, workers and retries as Fluent Bit has them.
	fmt.Fprintf(&script, "stack 64\nthreads %s\nretries 1000000 1000\ninit %s", output["workers"], hostName)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	a, err := h.do(ctx, script.String(), "init")
	if err == nil && a.Ret != "OK" {
		err = errors.New("the plugin does not start: " + log.Name() + " says why")
	}
	if err != nil {
		h.kill()
		return nil, err
	}
	return h, nil
}

func (h *hostFeed) read(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var a host.Answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			h.load.fail(fmt.Errorf("the plugin host says %q: %w", lines.Bytes(), err))
			break
		}
		switch a.Op {
		case "flush":
			if a.Ret != "OK" {
				h.load.fail(fmt.Errorf("the plugin answered %s to a chunk, after %d tries", a.Ret, a.Tries))
			} else {
				h.load.acknowledge(chunkRecords, float64(a.Micros)/1e6)
			}
			if a.Tries > 1 {
				h.load.mu.Lock()
				h.load.retried++
				h.load.mu.Unlock()
			}
		case "load":
			h.load.mu.Lock()
			h.load.delivered = a.Records
			h.load.mu.Unlock()
			close(h.load.done)
		case "register":
		default:
			h.answers <- a
		}
	}
	h.err = errors.Join(lines.Err(), h.cmd.Wait())
	close(h.exited)
}

// do sends a command and waits for its answer. After an error the host is of no more use.
func (h *hostFeed) do(ctx context.Context, command, op string) (host.Answer, error) {
	if _, err := io.WriteString(h.stdin, command+"\n"); err != nil {
		return host.Answer{}, fmt.Errorf("the plugin host does not take %q: %w", op, err)
	}
	select {
	case a := <-h.answers:
		if a.Op != op {
			return a, fmt.Errorf("the plugin host answers %q with %q", op, a.Op)
		}
		return a, nil
	case <-h.exited:
		return host.Answer{}, fmt.Errorf("the plugin host ended: %w", h.err)
	case <-ctx.Done():
		return host.Answer{}, fmt.Errorf("the plugin host does not answer %q: %w", op, ctx.Err())
	}
}

func (h *hostFeed) pid() int               { return h.cmd.Process.Pid }
func (h *hostFeed) ended() <-chan struct{} { return h.exited }

func (h *hostFeed) start(rate int, duration time.Duration) *load {
	_, err := fmt.Fprintf(h.stdin, "load %s %s %d %g %s\n", hostName, tag, rate, duration.Seconds(), strings.Join(h.files, " "))
	if err != nil {
		h.load.fail(err)
	}
	return h.load
}

func (h *hostFeed) settle(ctx context.Context) error {
	_, err := h.do(ctx, "wait", "wait")
	return err
}

func (h *hostFeed) metrics(ctx context.Context) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	a, err := h.do(ctx, "metrics", "metrics")
	return pluginMetrics(a.Values), err
}

func (h *hostFeed) stop(ctx context.Context) error {
	if _, err := h.do(ctx, "exit "+hostName, "exit"); err != nil {
		return err
	}
	h.stdin.Close()
	select {
	case <-h.exited:
		return h.err
	case <-ctx.Done():
		return fmt.Errorf("the plugin host does not end: %w", ctx.Err())
	}
}

func (h *hostFeed) kill() {
	h.cmd.Process.Kill() // fails only if it has ended
	<-h.exited
}
