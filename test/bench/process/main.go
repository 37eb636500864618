// Process compares whole processes: Fluent Bit with the auditchain output against Fluent Bit with its own C output out_s3
// and zstd, the same records through the forward input into the same S3 server, in turn. It prints processor time, peak
// memory and stored bytes per record, and their ratios. `make bench` runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/record/recordtest"
	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/servers"
)

var (
	megabytes = flag.Int("mb", 300, "megabytes of msgpack to send in each run")
	text      = flag.Int("text", 400, "bytes of prompt and response in a record")
	pairs     = flag.Int("pairs", 3, "how often each is run")
	level     = flag.String("level", "", "compression_level of auditchain; empty: its default")
)

func main() {
	flag.Parse()
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// result is what one run cost.
type result struct {
	cpu     float64 // seconds, user and system
	peak    float64 // resident memory, megabytes
	stored  float64 // bytes per record in the bucket
	seconds float64 // from the first record sent to the last one taken
}

func run(ctx context.Context) error {
	if _, err := fluentbit.Find(); err != nil {
		fmt.Println("skipped:", err)
		return nil
	}
	dir, err := os.MkdirTemp("", "auditchain-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := servers.Start("minio", servers.WithDir(filepath.Join(dir, "s3")))
	if err != nil {
		return err
	}
	defer server.Kill()
	b := &bench{ctx: ctx, dir: dir, server: server}
	b.client, err = minio.New(strings.TrimPrefix(server.Endpoint, "http://"), &minio.Options{
		Creds: credentials.NewStaticV4(server.AccessKey, server.SecretKey, ""), Region: server.Region,
	})
	if err != nil {
		return err
	}
	fmt.Printf("%d MB of msgpack in records of about %d bytes, %d pairs\n", *megabytes, 500+*text, *pairs)
	var ours, theirs []result
	for i := range *pairs {
		a, err := b.once(fmt.Sprintf("auditchain-%d", i), b.auditchain)
		if err != nil {
			return err
		}
		c, err := b.once(fmt.Sprintf("out-s3-%d", i), b.outS3)
		if err != nil {
			return err
		}
		ours, theirs = append(ours, a), append(theirs, c)
	}
	fmt.Printf("%-28s %12s %12s %10s\n", "median of", "auditchain", "out_s3", "ratio")
	for _, row := range []struct {
		name string
		of   func(result) float64
	}{
		{"cpu seconds", func(r result) float64 { return r.cpu }},
		{"peak memory, MB", func(r result) float64 { return r.peak }},
		{"stored bytes per record", func(r result) float64 { return r.stored }},
		{"seconds", func(r result) float64 { return r.seconds }},
	} {
		a, c := median(ours, row.of), median(theirs, row.of)
		fmt.Printf("%-28s %12.2f %12.2f %10.2f\n", row.name, a, c, a/c)
	}
	return nil
}

func median(all []result, of func(result) float64) float64 {
	var values []float64
	for _, r := range all {
		values = append(values, of(r))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

type bench struct {
	ctx    context.Context
	dir    string
	server *servers.Server
	client *minio.Client
}

func (b *bench) auditchain(bucket, dir string) (fluentbit.Section, error) {
	text, err := chain.GenerateKey()
	if err != nil {
		return nil, err
	}
	key := filepath.Join(dir, "key.pem")
	s := fluentbit.Section{
		"name": "auditchain", "match": "*", "workers": "1", "retry_limit": "no_limits",
		"chain": "audit.example.com/bench", "signing_key": key, "retention": "1d", "bucket": bucket, "endpoint": b.server.Endpoint,
		"store_dir": filepath.Join(dir, "store"), "upload_timeout": uploadTimeout,
	}
	return s.With("compression_level", *level), os.WriteFile(key, text, 0o600)
}

const uploadTimeout = "15s" // of both

// until returns when the metrics are as they should be. Fluent Bit has moments without metrics.
func until(ctx context.Context, process *fluentbit.Process, done func(map[string]float64) bool) error {
	for {
		metrics, err := process.Metrics(ctx)
		if err == nil && done(metrics) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w\n%s", errors.Join(ctx.Err(), err), process.Log())
		case <-process.Done():
			return fmt.Errorf("fluent-bit ended\n%s", process.Log())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// sum adds up the metrics whose names begin with prefix.
func sum(metrics map[string]float64, prefix string) (total float64) {
	for name, value := range metrics {
		if strings.HasPrefix(name, prefix) {
			total += value
		}
	}
	return total
}

// outS3 is set up as near to it as it can be: objects of the same size, each by one PUT.
func (b *bench) outS3(bucket, dir string) (fluentbit.Section, error) {
	return fluentbit.Section{
		"name": "s3", "match": "*", "workers": "1", "retry_limit": "no_limits", "bucket": bucket, "endpoint": b.server.Endpoint,
		"region": b.server.Region, "store_dir": filepath.Join(dir, "store"), "compression": "zstd", "use_put_object": "on",
		"total_file_size": "64M", "upload_timeout": uploadTimeout, "s3_key_format": "/logs/%Y/%m/%d/$UUID.zst",
	}, nil
}

// once runs Fluent Bit with the output that configure makes.
func (b *bench) once(name string, configure func(bucket, dir string) (fluentbit.Section, error)) (result, error) {
	var r result
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	if err := b.client.MakeBucket(b.ctx, name, minio.MakeBucketOptions{Region: b.server.Region, ObjectLocking: true}); err != nil {
		return r, err
	}
	output, err := configure(name, dir)
	if err != nil {
		return r, err
	}
	http, err := servers.FreePort()
	if err != nil {
		return r, err
	}
	forward, err := servers.FreePort()
	if err != nil {
		return r, err
	}
	p := fluentbit.Pipeline{
		Plugin: filepath.Join(servers.Root(), "build", "out_auditchain.so"), Dir: dir, HTTPPort: http, Flush: time.Second, Grace: 60 * time.Second,
		Inputs:  []fluentbit.Section{{"name": "forward", "listen": "127.0.0.1", "port": fmt.Sprint(forward), "storage.type": "filesystem", "buffer_max_size": "16M"}},
		Outputs: []fluentbit.Section{output},
	}
	if output["name"] == "s3" {
		p.Plugin = ""
	}
	process, err := fluentbit.Start(fluentbit.Config{Dir: dir, YAML: p.YAML(), HTTPPort: http, Env: []string{
		"AWS_ACCESS_KEY_ID=" + b.server.AccessKey, "AWS_SECRET_ACCESS_KEY=" + b.server.SecretKey}})
	if err != nil {
		return r, err
	}
	defer process.Kill()
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Minute)
	defer cancel()
	if err := process.WaitReady(ctx); err != nil {
		return r, err
	}
	client, err := fluentbit.Dial(ctx, fmt.Sprintf("127.0.0.1:%d", forward))
	if err != nil {
		return r, err
	}
	defer client.Close()
	generator := recordtest.New(recordtest.Config{Text: *text})
	records, sent, start := 0, 0, time.Now()
	for i := 0; sent < *megabytes*1_000_000; i++ {
		n := 1_000_000 / (500 + *text)
		events := generator.Chunk(n)
		if err := client.Send(ctx, fluentbit.Chunk{Tag: "vllm.audit", Events: events, Count: n, Packed: true, ID: fmt.Sprint(i)}); err != nil {
			return r, fmt.Errorf("%w\n%s", err, process.Log())
		}
		records += n
		sent += len(events)
	}
	if err := until(ctx, process, func(m map[string]float64) bool {
		return sum(m, "fluentbit_output_proc_records_total{") >= float64(records)
	}); err != nil {
		return r, err
	}
	r.seconds = time.Since(start).Seconds()
	// What is sealed by its age is waited for: a slow compression would not be done by the end of the grace period.
	if err := until(ctx, process, func(m map[string]float64) bool { return sum(m, "fluentbit_auditchain_journal_bytes{") == 0 }); err != nil {
		return r, err
	}
	if _, err := process.Stop(ctx); err != nil {
		return r, err
	}
	usage := process.Usage()
	if usage == nil {
		return r, errors.New("the system does not say what the process used")
	}
	r.cpu, r.peak = usage.CPU.Seconds(), float64(usage.PeakRSS)/1e6
	for o := range b.client.ListObjectsIter(ctx, name, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			return r, o.Err
		}
		r.stored += float64(o.Size) / float64(records)
	}
	fmt.Printf("%-14s cpu %6.2f s  peak %6.1f MB  stored %7.2f B/record  %5.1f s\n", name, r.cpu, r.peak, r.stored, r.seconds)
	return r, nil
}
