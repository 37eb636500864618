package kill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/servers"
)

// connections send to Fluent Bit's forward input, chunks of so many records, each after such a pause: about 3 MB/s.
const (
	connections = 4
	perMessage  = 10
	pace        = 12 * time.Millisecond
)

// fluentBit is the real one, with a forward input that keeps its chunks in files, and connections to it.
type fluentBit struct {
	fluentbit.Pipeline
	process *fluentbit.Process
	cancel  context.CancelFunc // of the load
	senders sync.WaitGroup
}

func newFluentBit(t *testing.T, plugin string, rng *rand.Rand) *fluentBit {
	t.Helper()
	port := strconv.Itoa(freePort(t))
	f := &fluentBit{Pipeline: fluentbit.Pipeline{
		Plugin: plugin, Dir: t.TempDir(), HTTPPort: freePort(t), Flush: 100 * time.Millisecond, Grace: time.Second,
		Inputs: []fluentbit.Section{{
			"name": "forward", "listen": "127.0.0.1", "port": port, "storage.type": "filesystem",
			"buffer_max_size": "16M", "buffer_chunk_size": "1M",
		}},
	}}
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	for n := range connections {
		g := newGenerator(fmt.Sprint("c", n), rng)
		f.senders.Go(func() { send(ctx, t, "127.0.0.1:"+port, g) })
	}
	t.Cleanup(func() {
		f.quiet()
		if f.process != nil {
			f.process.Kill()
		}
	})
	return f
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := servers.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// quiet ends the load.
func (f *fluentBit) quiet() {
	f.cancel()
	f.senders.Wait()
}

// send sends messages until ctx ends, over one connection after the other. A message that is not acknowledged is not sent again.
func send(ctx context.Context, t *testing.T, address string, g *generator) {
	for ; ctx.Err() == nil; time.Sleep(pollInterval) {
		f, err := fluentbit.Dial(ctx, address)
		if err != nil {
			continue // Fluent Bit is not there
		}
		for err == nil && ctx.Err() == nil {
			var events []byte
			if events, err = g.events(perMessage); err != nil {
				t.Error(err)
				return
			}
			g.messages++
			err = f.Send(ctx, fluentbit.Chunk{
				// Tags have chunks of their own.
				Tag: fmt.Sprintf("kill.%s.%d", g.name, g.messages%4), Events: events, Count: perMessage, Packed: true, ID: g.last,
			})
			time.Sleep(pace)
		}
		f.Close()
	}
}

func (f *fluentBit) start(t *testing.T, keys fluentbit.Section, env []string) {
	t.Helper()
	f.Outputs = []fluentbit.Section{keys}
	// Who is sent back comes again soon.
	yaml := strings.Replace(f.YAML(), "service:\n", "service:\n  scheduler.base: 1\n  scheduler.cap: 2\n", 1)
	process, err := fluentbit.Start(fluentbit.Config{Dir: f.Dir, YAML: yaml, HTTPPort: f.HTTPPort, Env: env})
	if err != nil {
		t.Fatal(err)
	}
	f.process = process
}

func (f *fluentBit) ended() <-chan struct{} { return f.process.Done() }
func (f *fluentBit) said() string           { return f.process.Log() }

// gone fails the test if Fluent Bit, which has ended by itself, has crashed.
func (f *fluentBit) gone(t *testing.T) {
	t.Helper()
	if code, _ := f.process.Wait(t.Context()); code < 0 {
		t.Errorf("Fluent Bit crashed:\n%s", tail(f.said()))
	}
}

func (f *fluentBit) more(t *testing.T) bool {
	t.Helper()
	select {
	case <-f.ended():
		f.gone(t)
		return false
	default:
		return true
	}
}

func (f *fluentBit) kill(t *testing.T) bool {
	t.Helper()
	if !f.more(t) {
		return false
	}
	f.process.Kill()
	return true
}

func (f *fluentBit) stop(t *testing.T, after time.Duration) ending {
	t.Helper()
	if !f.more(t) {
		return gone
	}
	if err := f.process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	select {
	case <-f.ended():
		if strings.Contains(f.said(), "caught signal (SIGTERM)") { // else it had not come so far as to catch it
			f.gone(t)
		}
		return closed
	case <-time.After(after):
		f.process.Kill()
		return killed
	}
}

func (f *fluentBit) settle(t *testing.T, keys fluentbit.Section, env []string, settled func() error) {
	t.Helper()
	f.quiet()
	f.start(t, keys, env)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := f.process.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	for {
		err := f.delivered()
		if err == nil {
			err = settled()
		}
		if err == nil {
			break
		}
		select {
		case <-time.After(pollInterval):
		case <-f.ended():
			t.Fatalf("Fluent Bit ended by itself:\n%s", tail(f.said()))
		case <-ctx.Done():
			t.Fatalf("waiting until all is in the bucket: %v\n%s", err, tail(f.said()))
		}
	}
	if code, err := f.process.Stop(ctx); code != 0 || err != nil {
		t.Errorf("Fluent Bit ended with exit code %d, %v\n%s", code, err, tail(f.said()))
	}
}

// delivered is nil when Fluent Bit has no chunk left.
func (f *fluentBit) delivered() error {
	files, err := filepath.Glob(filepath.Join(f.Dir, "storage", "*", "*.flb"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		// A kill while Fluent Bit makes a chunk's file leaves zeros, which it never takes up ("format check failed").
		if len(bytes.TrimLeft(data, "\x00")) > 0 {
			return fmt.Errorf("Fluent Bit still has the chunk %s", file)
		}
	}
	return err
}
