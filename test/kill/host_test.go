package kill

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/host"
)

// Load of the plugin host: chunks a round, of so many records, each after a pause of milliseconds. All of a round's commands fit
// into a pipe, so that sending them does not wait for the host.
const (
	perRound = 220
	perChunk = 15
	pauseMS  = 4
	instance = "auditchain.0" // as Fluent Bit would call it

	maxForgotten = 12 // answers
)

// pluginHost delivers chunks from files, as Fluent Bit does from its own: one that it has not heard OK of is delivered again.
type pluginHost struct {
	plugin    string
	dir       string
	rng       *rand.Rand
	generator *generator
	chunks    int
	open      map[string]bool // paths of chunks without an OK

	host    *host.Host
	started bool            // the answer to init was read, and was OK
	sent    map[string]bool // paths of chunks that were delivered in this life
}

func newPluginHost(t *testing.T, plugin string, rng *rand.Rand) *pluginHost {
	t.Helper()
	return &pluginHost{plugin: plugin, dir: t.TempDir(), rng: rng, generator: newGenerator("h", rng), open: make(map[string]bool)}
}

func (p *pluginHost) start(t *testing.T, keys fluentbit.Section, env []string) {
	t.Helper()
	p.begin(t, keys, env)
	p.load(t)
}

// begin starts the host, without waiting for the plugin.
func (p *pluginHost) begin(t *testing.T, keys fluentbit.Section, env []string) {
	t.Helper()
	p.host, p.started, p.sent = host.Start(t, p.plugin, host.Options{Env: env}), false, make(map[string]bool)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		p.host.Send(t, "set "+key+" "+keys[key])
	}
	p.host.Send(t, "init "+instance, "threads "+keys["workers"], "stack 64")
}

// load delivers what is open from lives before, and new chunks. What was delivered in this life is not delivered again in it:
// the answer may be on its way.
func (p *pluginHost) load(t *testing.T) {
	t.Helper()
	var again []string
	for _, path := range slices.Sorted(maps.Keys(p.open)) {
		if !p.sent[path] && len(again) < perRound {
			again = append(again, path)
			p.flush(t, path)
		}
	}
	for n := range perRound - len(again) {
		events, err := p.generator.events(perChunk)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(p.dir, fmt.Sprint(p.chunks))
		if err := os.WriteFile(path, events, 0o600); err != nil {
			t.Fatal(err)
		}
		p.chunks++
		p.open[path] = true
		p.flush(t, path)
		if n%3 == 0 {
			p.host.Send(t, fmt.Sprint("sleep ", 3*pauseMS))
		}
	}
}

func (p *pluginHost) flush(t *testing.T, path string) {
	t.Helper()
	p.sent[path] = true
	p.host.Send(t, "flush "+instance+" kill "+path)
}

// heard takes answers in. False: the plugin has refused to start.
func (p *pluginHost) heard(t *testing.T, answers ...host.Answer) bool {
	t.Helper()
	for _, a := range answers {
		switch {
		case a.Op == "flush" && a.Ret == "OK":
			if !p.open[a.File] {
				t.Errorf("chunk %s was answered twice", a.File)
			}
			delete(p.open, a.File)
			if err := os.Remove(a.File); err != nil {
				t.Error(err)
			}
		case a.Op == "flush" && a.Ret == "RETRY", a.Op == "init" && a.Ret == "OK", a.Op == "exit":
		case a.Op == "init":
			return false
		default:
			t.Errorf("%+v", a)
		}
	}
	return true
}

// startedWell waits until the plugin has started. False: it has refused to.
func (p *pluginHost) startedWell(t *testing.T) bool {
	t.Helper()
	if !p.started {
		p.started = p.heard(t, p.host.Next(t))
		if !p.started {
			p.host.Kill()
		}
	}
	return p.started
}

func (p *pluginHost) more(t *testing.T) bool {
	t.Helper()
	if !p.startedWell(t) {
		return false
	}
	p.load(t)
	return true
}

// ended is nil: a host whose plugin refuses to start is told from another when it is killed.
func (p *pluginHost) ended() <-chan struct{} { return nil }

func (p *pluginHost) said() string { return p.host.Log() }

// kill forgets some of the last answers, which Fluent Bit would have heard and not noted yet.
func (p *pluginHost) kill(t *testing.T) bool {
	t.Helper()
	answers := p.host.Kill()
	noted := max(1, len(answers)-p.rng.IntN(maxForgotten+1)) // the first is init's
	return p.heard(t, answers[:min(noted, len(answers))]...)
}

func (p *pluginHost) stop(t *testing.T, after time.Duration) ending {
	t.Helper()
	if !p.startedWell(t) {
		return gone
	}
	p.host.Send(t, "exit "+instance)
	time.Sleep(after)
	answers := p.host.Kill()
	p.heard(t, answers...)
	if slices.ContainsFunc(answers, func(a host.Answer) bool { return a.Op == "exit" }) {
		return closed
	}
	return killed
}

func (p *pluginHost) settle(t *testing.T, keys fluentbit.Section, env []string, settled func() error) {
	t.Helper()
	p.begin(t, keys, env)
	if !p.startedWell(t) {
		t.Fatalf("it does not start:\n%s", tail(p.said()))
	}
	deadline := time.Now().Add(patience)
	for {
		for path := range maps.Clone(p.open) {
			p.flush(t, path)
			p.heard(t, p.host.Next(t))
		}
		err := settled()
		if err == nil && len(p.open) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("waiting until all is in the bucket: %d chunks are open, %v\n%s", len(p.open), err, tail(p.said()))
		}
		time.Sleep(pollInterval)
	}
	p.heard(t, p.host.End(t)...)
}
