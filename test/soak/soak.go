package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/servers"
)

const (
	bucketName = "audit"
	chainName  = "audit.example.com/soak"

	// drainTimeout is how long the last records may take to be in the bucket; upload_timeout, 60 s, is part of it.
	drainTimeout = 3 * time.Minute

	// settleTimeout is how long the plugin may take to acknowledge what is on its way to it, and the process to end.
	settleTimeout = 2 * time.Minute
)

// soak runs the plugin and returns what was seen. The error says what failed, or what is not in the bucket.
func soak(ctx context.Context, o *options, out io.Writer) (samples []sample, err error) {
	dir, err := os.MkdirTemp("", "auditchain-soak-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := checkRoom(dir, o); err != nil {
		return nil, err
	}
	server, err := servers.Start(o.server, servers.WithDir(filepath.Join(dir, "s3")))
	if err != nil {
		return nil, err
	}
	defer server.Kill()
	target := storage.Config{
		Bucket: bucketName, Endpoint: server.Endpoint, Region: server.Region, AccessKey: server.AccessKey, SecretKey: server.SecretKey,
	}
	if err := storage.Make(ctx, target); err != nil {
		return nil, err
	}
	bucket, err := storage.Open(target)
	if err != nil {
		return nil, err
	}
	key, keyFile, err := newKey(dir)
	if err != nil {
		return nil, err
	}
	storeDir := filepath.Join(dir, "store")
	f, log, err := startFeed(ctx, o, dir, fluentbit.Section{
		"name": "auditchain", "match": "*", "workers": "2", "retry_limit": "no_limits",
		"chain": chainName, "signing_key": keyFile, "retention": "1d", "store_dir": storeDir,
		"bucket": bucketName, "endpoint": server.Endpoint, "region": server.Region, "access_key": server.AccessKey, "secret_key": server.SecretKey,
	})
	if err != nil {
		return nil, err
	}
	defer f.kill()
	defer log.Close()

	fmt.Fprintf(out, "%s, %d records/s, %s taken away every %s for %s; %s has the plugin's log\n",
		o.duration, o.rate, o.server, o.outageEvery, o.outage, log.Name())
	w := &watch{feed: f, storeDir: storeDir, traces: newTraceReader(log), begin: time.Now()}
	w.load = f.start(o.rate, o.duration)
	gone, stop := context.WithCancel(ctx)
	var taking sync.WaitGroup
	var outageErr error
	taking.Go(func() { outageErr = w.takeAway(gone, server, o) })
	samples, err = w.sample(ctx)
	stop()
	taking.Wait()
	if err := errors.Join(err, outageErr); err != nil {
		return samples, err
	}

	wrong := drain(ctx, f, w.load) // look at what there is anyway
	patience, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if err := f.stop(patience); err != nil {
		return samples, errors.Join(wrong, err)
	}
	return samples, errors.Join(wrong, check(ctx, out, w.load, o, reader{bucket, chain.Layout{Chain: chainName}, key}, size(filepath.Join(dir, "s3"))))
}

// startFeed starts the process with the plugin. The log is open for reading.
func startFeed(ctx context.Context, o *options, dir string, output fluentbit.Section) (feed, *os.File, error) {
	plugin := os.Getenv("AUDITCHAIN_PLUGIN")
	if plugin == "" {
		plugin = filepath.Join(servers.Root(), "build", "out_auditchain.so")
	}
	if _, err := os.Stat(plugin); err != nil {
		return nil, nil, fmt.Errorf("the plugin is not built: run `make`: %w", err)
	}
	path := filepath.Join(o.out, "plugin.log")
	if o.fluentBit {
		path = filepath.Join(o.out, "fluent-bit.log")
		os.Remove(path) // it is appended to
		f, err := startFluentBit(ctx, plugin, dir, o.out, output)
		if err != nil {
			return nil, nil, err
		}
		log, err := os.Open(path)
		if err != nil {
			f.kill()
			return nil, nil, err
		}
		return f, log, nil
	}
	written, err := os.Create(path)
	if err != nil {
		return nil, nil, err
	}
	defer written.Close() // the host has its own
	log, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	f, err := startHost(plugin, dir, output, written)
	if err != nil {
		log.Close()
		return nil, nil, err
	}
	return f, log, nil
}

// newKey makes a signing key.
func newKey(dir string) (public chain.PublicKey, file string, err error) {
	text, err := chain.GenerateKey()
	if err != nil {
		return public, "", err
	}
	key, err := chain.ParseSigningKey(text)
	if err != nil {
		return public, "", err
	}
	file = filepath.Join(dir, "key.pem")
	return key.Public(), file, os.WriteFile(file, text, 0o600)
}

// checkRoom fails if the disk has not the room that the run will need.
func checkRoom(dir string, o *options) error {
	const stored, waiting = 250, 1000 // bytes per record, generously: in the bucket, and in the journals and Fluent Bit's buffer
	need := float64(o.rate) * (stored*o.duration.Seconds() + waiting*4*max(o.outage, time.Minute).Seconds())
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return err
	}
	if free := float64(disk.Bavail) * float64(disk.Bsize); free < need {
		return fmt.Errorf("%s has %.1f GB free, and this may need %.1f GB: set TMPDIR to another disk", dir, free/1e9, need/1e9)
	}
	return nil
}

// watch looks at a feed while it runs.
type watch struct {
	feed     feed
	load     *load
	storeDir string
	traces   *traceReader
	begin    time.Time

	mu     sync.Mutex
	outage string // what is done to the server now
}

func (w *watch) setOutage(kind string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outage = kind
}

// takeAway takes the server away as often as there is time for, and to recover before the end.
func (w *watch) takeAway(ctx context.Context, server *servers.Server, o *options) error {
	for n := 1; ; n++ {
		at := time.Duration(n) * o.outageEvery
		if at+o.outage+o.outageEvery/2 > o.duration {
			return nil
		}
		if !sleep(ctx, time.Until(w.begin.Add(at))) {
			return nil
		}
		if n%2 == 1 {
			w.setOutage("killed")
			server.Kill()
		} else {
			w.setOutage("hanging")
			server.Pause()
		}
		goOn := sleep(ctx, o.outage)
		if n%2 == 0 {
			server.Resume()
		} else if goOn {
			if err := server.Restart(); err != nil {
				return err
			}
		}
		w.setOutage("")
		if !goOn {
			return nil
		}
	}
}

// sleep reports whether it was not cut short.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// sample looks at everything once a second until no more records come, and once more when all are acknowledged.
func (w *watch) sample(ctx context.Context) ([]sample, error) {
	var samples []sample
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-w.load.done:
			patience, cancel := context.WithTimeout(ctx, settleTimeout)
			defer cancel()
			if err := w.feed.settle(patience); err != nil {
				return samples, err
			}
			s, err := w.look(ctx)
			return append(samples, s), err
		case <-ctx.Done():
			return samples, ctx.Err()
		case <-w.feed.ended():
			return samples, errors.New("the process with the plugin ended: its log says why")
		case <-ticker.C:
		}
		s, err := w.look(ctx)
		if err != nil {
			return samples, err
		}
		samples = append(samples, s)
	}
}

// look makes one sample.
func (w *watch) look(ctx context.Context) (sample, error) {
	var s sample
	for _, c := range columns {
		*c.of(&s) = math.NaN()
	}
	w.mu.Lock()
	s.outage = w.outage
	w.mu.Unlock()
	metrics, err := w.feed.metrics(ctx)
	if err != nil {
		return s, err
	}
	for name, to := range map[string]*float64{"journal_bytes": &s.journal, "unsealed_age_seconds": &s.unsealed, "upload_failures_total": &s.failures} {
		if v, ok := metrics[name]; ok {
			*to = v
		}
	}
	if err := w.traces.read(); err != nil {
		return s, err
	}
	s.heap, s.goroutines = w.traces.heap, w.traces.goroutines
	s.storeDir = size(w.storeDir)
	if err := look(w.feed.pid(), &s); err != nil {
		return s, err
	}
	err = w.load.take(&s)
	s.at = time.Since(w.begin).Seconds()
	return s, err
}

// drain waits until the bucket has everything.
func drain(ctx context.Context, f feed, l *load) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	for {
		metrics, err := f.metrics(ctx)
		// All of one moment: nothing is unsealed after the last record.
		if err == nil && metrics["head_sequence"] >= float64(l.acknowledged) && metrics["unsealed_age_seconds"] == 0 {
			if bytes := metrics["journal_bytes"]; bytes != 0 {
				return fmt.Errorf("all is in the bucket, but journal_bytes is %.0f", bytes)
			}
			return nil
		}
		if !sleep(ctx, time.Second) {
			return fmt.Errorf("waiting until all is in the bucket: %w", errors.Join(ctx.Err(), err))
		}
	}
}
