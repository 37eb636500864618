package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/host"
	"github.com/auditchain/auditchain/test/servers"
)

// sendByFluentBit sends chunks to Fluent Bit's forward input and appends count lines to a file that it tails.
func (d *demo) sendByFluentBit(chunks []fluentbit.Chunk, lines []byte, count int) error {
	http, err := servers.FreePort()
	if err != nil {
		return err
	}
	forward, err := servers.FreePort()
	if err != nil {
		return err
	}
	file := filepath.Join(d.dir, "inference.jsonl")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	p := fluentbit.Pipeline{
		Plugin: d.plugin, Dir: d.dir, HTTPPort: http,
		Parsers: []fluentbit.Section{{"name": "json", "format": "json"}},
		Inputs: []fluentbit.Section{
			{"name": "forward", "listen": "127.0.0.1", "port": fmt.Sprint(forward), "storage.type": "filesystem", "buffer_max_size": "16M"},
			{"name": "tail", "path": file, "tag": "vllm.gpu-2", "parser": "json", "read_from_head": "on", "db": filepath.Join(d.dir, "tail.db"), "storage.type": "filesystem"},
		},
		Outputs: []fluentbit.Section{d.output()},
	}
	process, err := fluentbit.Start(fluentbit.Config{Dir: d.dir, YAML: p.YAML(), HTTPPort: http, Env: d.credentials()})
	if err != nil {
		return err
	}
	defer process.Kill()
	ctx, cancel := context.WithTimeout(d.ctx, time.Minute)
	defer cancel()
	if err := process.WaitReady(ctx); err != nil {
		return err
	}
	say("Fluent Bit runs with the plugin; it takes records by the forward protocol and from a file.")
	client, err := fluentbit.Dial(ctx, fmt.Sprintf("127.0.0.1:%d", forward))
	if err != nil {
		return err
	}
	defer client.Close()
	for _, c := range chunks {
		if err := client.Send(ctx, c); err != nil {
			return err
		}
	}
	say("%d records sent by the forward protocol, each chunk acknowledged", forwarded)
	if _, err := waitForRecords(ctx, process, forwarded); err != nil { // so that they are a segment of their own
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	if _, err := f.Write(lines); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	say("%d records appended to the file, and what the two GPU servers say of how many they served", tailed)
	metrics, err := waitForRecords(ctx, process, float64(forwarded+count))
	if err != nil {
		return err
	}
	say("From Fluent Bit's Prometheus endpoint:")
	for _, name := range []string{"records_total", "incomplete_records_total", "segments_total", "head_sequence", "journal_bytes", "upload_failures_total"} {
		say("  fluentbit_auditchain_%-26s %.0f", name, metrics["fluentbit_auditchain_"+name])
	}
	if code, err := process.Stop(ctx); err != nil || code != 0 {
		return fmt.Errorf("fluent-bit ended with exit code %d: %w\n%s", code, err, process.Log())
	}
	say("Fluent Bit is stopped; what it said of the plugin:")
	for line := range strings.Lines(process.Log()) {
		if strings.Contains(line, "[output:auditchain") && !strings.Contains(line, "worker") {
			fmt.Print("  ", strings.ReplaceAll(line, d.dir+"/", ""))
		}
	}
	return nil
}

// waitForRecords returns when Fluent Bit's own metrics say that so many records are in the chain and in the bucket, with
// the plugin's metrics.
func waitForRecords(ctx context.Context, process *fluentbit.Process, records float64) (map[string]float64, error) {
	for {
		metrics, err := process.Metrics(ctx)
		if err != nil {
			return nil, err
		}
		ours := make(map[string]float64)
		for name, value := range metrics {
			if short, _, _ := strings.Cut(name, "{"); strings.HasPrefix(short, "fluentbit_auditchain_") {
				ours[short] = value
			}
		}
		if ours["fluentbit_auditchain_records_total"] >= records && ours["fluentbit_auditchain_journal_bytes"] == 0 {
			return ours, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the records: %w\n%s", ctx.Err(), process.Log())
		case <-process.Done():
			return nil, fmt.Errorf("fluent-bit ended:\n%s", process.Log())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// sendByHost has the plugin host deliver the chunks.
func (d *demo) sendByHost(chunks []fluentbit.Chunk, tail []byte) error {
	program, err := host.Build(filepath.Join(servers.Root(), "build", "test"), false)
	if err != nil {
		return err
	}
	var script strings.Builder
	for key, value := range d.output() {
		if key != "name" && key != "match" && key != "workers" && key != "retry_limit" {
			fmt.Fprintf(&script, "set %s %s\n", key, value)
		}
	}
	script.WriteString("init demo\nthreads 2\nretries 10\n")
	deliver := func(name, tag string, events []byte) error {
		path := filepath.Join(d.dir, name+".msgpack")
		fmt.Fprintf(&script, "flush demo %s %s\n", tag, path)
		return os.WriteFile(path, events, 0o600)
	}
	for _, c := range chunks[:len(chunks)/2] {
		if err := deliver(c.ID, c.Tag, c.Events); err != nil {
			return err
		}
	}
	script.WriteString("wait\nsleep 1500\n") // longer than upload_timeout: a second segment
	for _, c := range chunks[len(chunks)/2:] {
		if err := deliver(c.ID, c.Tag, c.Events); err != nil {
			return err
		}
	}
	if err := deliver("tail", "vllm.gpu-2", tail); err != nil {
		return err
	}
	script.WriteString("wait\nexit demo\n")
	cmd := exec.CommandContext(d.ctx, program, d.plugin)
	cmd.Env = append(os.Environ(), d.credentials()...)
	cmd.Stdin = strings.NewReader(script.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("the plugin host: %w\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		fmt.Print("  ", strings.ReplaceAll(line, d.dir+"/", ""))
	}
	return nil
}
