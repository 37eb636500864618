package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/host"
	"github.com/auditchain/auditchain/test/servers"
)

// aggregator is a Fluent Bit with the plugin and a forward input, as it runs on a log aggregation server.
type aggregator struct {
	fluentbit.Pipeline
	forward string // address of the forward input
	process *fluentbit.Process
}

// newAggregator prepares one that writes to the outputs, with more inputs perhaps.
func newAggregator(t *testing.T, outputs []fluentbit.Section, inputs ...fluentbit.Section) *aggregator {
	t.Helper()
	port := freePort(t)
	return &aggregator{
		forward: "127.0.0.1:" + strconv.Itoa(port),
		Pipeline: fluentbit.Pipeline{
			Plugin: host.Plugin(t), Dir: t.TempDir(), HTTPPort: freePort(t), Outputs: outputs,
			Parsers: []fluentbit.Section{{"name": "json", "format": "json"}},
			Inputs: append([]fluentbit.Section{{
				"name": "forward", "listen": "127.0.0.1", "port": strconv.Itoa(port), "storage.type": "filesystem",
				"buffer_max_size": "16M", "buffer_chunk_size": "1M",
			}}, inputs...),
		},
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

// start starts Fluent Bit, without waiting for anything.
func (a *aggregator) start(t *testing.T) {
	t.Helper()
	p, err := fluentbit.Start(fluentbit.Config{Dir: a.Dir, YAML: a.YAML(), HTTPPort: a.HTTPPort})
	if err != nil {
		t.Fatal(err)
	}
	a.process = p
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("the log of Fluent Bit, process %d:\n%s", p.Pid(), p.Log())
		}
	})
}

// run starts Fluent Bit and waits until it is ready.
func (a *aggregator) run(t *testing.T) {
	t.Helper()
	a.start(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := a.process.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

// stop ends Fluent Bit as systemd does.
func (a *aggregator) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if code, err := a.process.Stop(ctx); code != 0 || err != nil {
		t.Fatalf("Fluent Bit ended with exit code %d, %v", code, err)
	}
}

// reload has Fluent Bit read its configuration again, and waits until it has.
func (a *aggregator) reload(t *testing.T) {
	t.Helper()
	before, err := a.process.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a.Dir, "fluent-bit.yaml"), []byte(a.YAML()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Fluent Bit has reloaded", func() error {
		now, err := a.process.Metrics(t.Context())
		if err != nil {
			return err
		}
		if n := sum(now, "fluentbit_hot_reloaded_times"); n != sum(before, "fluentbit_hot_reloaded_times")+1 {
			return fmt.Errorf("it has %v times", n)
		}
		return nil
	})
}

// sum adds up what a metric says with whatever labels.
func sum(metrics map[string]float64, name string) float64 {
	total := 0.0
	for key, value := range metrics {
		if key == name || len(key) > len(name) && key[:len(name)+1] == name+"{" {
			total += value
		}
	}
	return total
}

// checkMetrics waits until the metrics of an output say the same as the log that it writes, which it has written all of
// in this run of Fluent Bit.
func (a *aggregator) checkMetrics(t *testing.T, output string, c *contents) {
	t.Helper()
	segments, quarantined := 0, len(c.events(chain.EventQuarantine))
	for _, m := range c.manifests {
		if m.Segment != nil {
			segments++
		}
	}
	want := map[string]float64{
		"auditchain_records_total":            float64(c.counts.Records),
		"auditchain_events_total":             float64(c.counts.Events),
		"auditchain_raw_bytes_total":          float64(c.rawBytes),
		"auditchain_segments_total":           float64(segments),
		"auditchain_heartbeats_total":         float64(len(c.manifests) - 1 - segments),
		"auditchain_incomplete_records_total": float64(c.counts.Incomplete),
		"auditchain_source_events_total":      float64(c.counts.SourceEvents),
		"auditchain_redeliveries_total":       float64(c.counts.Redelivered),
		"auditchain_conflicts_total":          float64(c.counts.Conflicts),
		"auditchain_quarantined_total":        float64(quarantined),
		"auditchain_upload_failures_total":    0,
		"auditchain_duplicate_chunks_total":   0,
		"auditchain_head_sequence":            float64(len(c.entries)),
		"auditchain_journal_bytes":            0,
		"auditchain_unsealed_age_seconds":     0,
		"output_errors_total":                 0,
		"output_dropped_records_total":        0,
		"output_retries_failed_total":         0,
	}
	eventually(t, "the metrics of "+output+" say what is in the log", func() error {
		metrics, err := a.process.Metrics(t.Context())
		if err != nil {
			return err
		}
		for name, value := range want {
			got, ok := metrics[fmt.Sprintf("fluentbit_%s{name=%q}", name, output)]
			if !ok || got != value {
				return fmt.Errorf("%s is %v (there: %t), the log says %v", name, got, ok, value)
			}
		}
		return nil
	})
}
