package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/servers"
)

// fluentBitFeed is Fluent Bit, which is sent chunks by the forward protocol. What it acknowledges it has in its own buffer;
// how many records the plugin has acknowledged its metrics say.
type fluentBitFeed struct {
	process *fluentbit.Process
	client  *fluentbit.Forwarder
	load    *load
	cancel  context.CancelFunc // ends the sending
}

// startFluentBit starts Fluent Bit with its buffers in dir. What it says goes to fluent-bit.log in logDir.
func startFluentBit(ctx context.Context, plugin, dir, logDir string, output fluentbit.Section) (*fluentBitFeed, error) {
	http, err := servers.FreePort()
	if err != nil {
		return nil, err
	}
	forward, err := servers.FreePort()
	if err != nil {
		return nil, err
	}
	p := fluentbit.Pipeline{
		Plugin: plugin, Dir: dir, HTTPPort: http, Flush: time.Second, Grace: time.Minute,
		Inputs:  []fluentbit.Section{{"name": "forward", "listen": "127.0.0.1", "port": fmt.Sprint(forward), "storage.type": "filesystem", "buffer_max_size": "16M"}},
		Outputs: []fluentbit.Section{output},
	}
	f := &fluentBitFeed{load: newLoad(), cancel: func() {}}
	f.process, err = fluentbit.Start(fluentbit.Config{Dir: logDir, YAML: p.YAML(), HTTPPort: http, Env: []string{traces}})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := f.process.WaitReady(ctx); err != nil {
		f.kill()
		return nil, err
	}
	if f.client, err = fluentbit.Dial(ctx, fmt.Sprintf("127.0.0.1:%d", forward)); err != nil {
		f.kill()
		return nil, err
	}
	return f, nil
}

func (f *fluentBitFeed) pid() int               { return f.process.Pid() }
func (f *fluentBitFeed) ended() <-chan struct{} { return f.process.Done() }

func (f *fluentBitFeed) start(rate int, duration time.Duration) *load {
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	go func() {
		defer close(f.load.done)
		if err := f.send(ctx, rate, duration); err != nil {
			f.load.fail(err)
		}
	}()
	return f.load
}

// send sends each chunk when it is due, and what is late at once.
func (f *fluentBitFeed) send(ctx context.Context, rate int, duration time.Duration) error {
	var contents [chunks][]byte
	for n := range contents {
		contents[n] = makeChunk(n)
	}
	begin := time.Now()
	for records := uint64(0); ; records += chunkRecords {
		due := begin.Add(time.Duration(float64(records) / float64(rate) * float64(time.Second)))
		if due.Sub(begin) >= duration || time.Since(begin) >= duration {
			f.load.mu.Lock()
			f.load.delivered = records
			f.load.mu.Unlock()
			return nil
		}
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			return ctx.Err()
		}
		n := records / chunkRecords
		chunk := contents[n%chunks]
		renumber(chunk, records)
		sent := time.Now()
		err := f.client.Send(ctx, fluentbit.Chunk{Tag: tag, Events: chunk, Count: chunkRecords, Packed: true, ID: fmt.Sprint(n)})
		if err != nil {
			return err
		}
		f.load.acknowledge(0, time.Since(sent).Seconds()) // by the input, not by the plugin
	}
}

// metrics count what the plugin has acknowledged, too.
func (f *fluentBitFeed) metrics(ctx context.Context) (map[string]float64, error) {
	all, err := f.process.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	ours := pluginMetrics(all)
	if records, ok := ours["records_total"]; ok { // Fluent Bit has moments without metrics
		f.load.mu.Lock()
		f.load.acknowledged = uint64(records)
		f.load.mu.Unlock()
	}
	return ours, nil
}

func (f *fluentBitFeed) settle(ctx context.Context) error {
	for {
		_, err := f.metrics(ctx)
		f.load.mu.Lock()
		all := f.load.acknowledged >= f.load.delivered
		f.load.mu.Unlock()
		if err == nil && all {
			return nil
		}
		select {
		case <-time.After(time.Second):
		case <-f.process.Done():
			return errors.New("fluent-bit ended: fluent-bit.log says why")
		case <-ctx.Done():
			return fmt.Errorf("waiting until the plugin has taken everything: %w", errors.Join(ctx.Err(), err))
		}
	}
}

func (f *fluentBitFeed) stop(ctx context.Context) error {
	f.client.Close()
	code, err := f.process.Stop(ctx)
	if err == nil && code != 0 {
		err = fmt.Errorf("fluent-bit ended with exit code %d: fluent-bit.log says why", code)
	}
	return err
}

func (f *fluentBitFeed) kill() {
	f.cancel()
	f.process.Kill()
}
