package fluentbit

import (
	"context"
	"errors"
	"maps"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/auditchain/auditchain/test/servers"
)

// started runs Fluent Bit with a forward input that it prints what comes to, and returns the input's address.
func started(t *testing.T, dir string) (*Process, string) {
	t.Helper()
	if _, err := Find(); err != nil {
		t.Skip(err)
	}
	httpPort, port := freePort(t), freePort(t)
	pipeline := Pipeline{
		Dir: dir, HTTPPort: httpPort,
		Inputs:  []Section{{"name": "forward", "listen": "127.0.0.1", "port": strconv.Itoa(port)}},
		Outputs: []Section{{"name": "stdout", "match": "*", "format": "json_lines"}},
	}
	p, err := Start(Config{Dir: dir, YAML: pipeline.YAML(), HTTPPort: httpPort})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p, "127.0.0.1:" + strconv.Itoa(port)
}

func TestProcess(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	dir := t.TempDir()
	p, address := started(t, dir)
	if err := p.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	f, err := Dial(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, packed := range []bool{false, true} {
		for name, appendEvent := range map[string]func([]byte, Event) ([]byte, error){"v1": AppendV1, "v2": AppendV2} {
			if !packed {
				name += " in an array"
			}
			events, err := appendEvent(nil, Event{Time: time.Unix(1700000000, 5), Meta: map[string]any{"m": 1}, Record: map[string]any{"said": name}})
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Send(ctx, Chunk{Tag: "a b", Events: events, Count: 1, Packed: packed, ID: name}); err != nil {
				t.Fatal(err)
			}
			if err := p.WaitLog(ctx, `"said":"`+name+`"`); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := os.Stat(dir + "/fluent-bit.log"); err != nil {
		t.Error(err)
	}
	records := func() float64 {
		metrics, err := p.Metrics(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return metrics[`fluentbit_input_records_total{name="forward.0"}`]
	}
	for records() != 4 {
		select {
		case <-ctx.Done():
			t.Fatalf("the metrics say %v records", records())
		case <-time.After(pollInterval):
		}
	}
	if err := p.Signal(syscall.SIGCONT); err != nil {
		t.Error(err)
	}
	if code, err := p.Stop(ctx); code != 0 || err != nil {
		t.Errorf("stopped with exit code %d, %v", code, err)
	}
	if err := p.WaitLog(ctx, "never said"); err == nil || !strings.Contains(err.Error(), "exit code 0") {
		t.Errorf("waiting for what was never said: %v", err)
	}
	if code, err := p.Stop(ctx); code != 0 || err != nil {
		t.Errorf("stopped again: %d, %v", code, err)
	}
}

func TestKill(t *testing.T) {
	p, _ := started(t, t.TempDir())
	p.Kill()
	if code, err := p.Wait(t.Context()); code != -1 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if err := p.WaitReady(t.Context()); err == nil {
		t.Error("ready though killed")
	}
}

func TestFind(t *testing.T) {
	t.Setenv(programEnv, "")
	t.Setenv("PATH", t.TempDir())
	if _, err := Find(); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "set FLUENT_BIT") {
		t.Error(err)
	}
	t.Setenv(programEnv, "/bin/sh")
	if path, err := Find(); path != "/bin/sh" {
		t.Error(path, err)
	}
}

func TestParseMetrics(t *testing.T) {
	text := "# HELP a b\na 1\nb{x=\"y z\"} 2.5 1700000000\n\nc{x=\"}\"} +Inf\n"
	got, err := parseMetrics(strings.NewReader(text))
	if len(got) != 3 || got["a"] != 1 || got[`b{x="y z"}`] != 2.5 || got[`c{x="}"}`] < 1e300 || err != nil {
		t.Errorf("%v, %v", maps.All(got), err)
	}
	for _, bad := range []string{"a", "a b", `a{x="y"}`} {
		if got, err := parseMetrics(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := servers.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}
