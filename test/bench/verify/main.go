// Verify compares `auditchain verify` on a log in a directory with what nobody can do without: decompressing the same
// segments and hashing them once, by `zstd -dc` and `sha256sum`. It prints processor time per core, what more processors
// bring, and what memory it takes for logs of two sizes. `make bench` runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest"
	"github.com/auditchain/auditchain/record/recordtest"
	"github.com/auditchain/auditchain/test/servers"
)

var (
	megabytes = flag.Int("mb", 600, "megabytes of entry lines in the log")
	text      = flag.String("text", "0,400,12000", "bytes of prompt and response in a record; several by commas")
	pairs     = flag.Int("pairs", 3, "how often each is run")
	level     = flag.String("level", "fastest", "compression_level of the segments")
)

const chainName = "audit.example.com/bench"

func main() {
	flag.Parse()
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	for _, tool := range []string{"zstd", "sha256sum", "bash"} {
		if _, err := exec.LookPath(tool); err != nil {
			fmt.Println("skipped:", err)
			return nil
		}
	}
	for s := range strings.SplitSeq(*text, ",") {
		var n int
		if _, err := fmt.Sscan(s, &n); err != nil {
			return err
		}
		if err := compare(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// usage is what a process and its children cost.
type usage struct {
	cpu, wall float64 // seconds
	peak      float64 // megabytes
}

func compare(ctx context.Context, text int) error {
	dir, err := os.MkdirTemp("", "auditchain-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	raw, entries, err := write(ctx, dir, text, int64(*megabytes)*1_000_000)
	if err != nil {
		return err
	}
	fmt.Printf("%d MB of lines of %d bytes\n", raw/1_000_000, raw/int64(entries))
	verify := func(procs string) (usage, error) {
		cmd := exec.CommandContext(ctx, filepath.Join(servers.Root(), "build", "auditchain"), "verify",
			"--bucket", "dir:"+filepath.Join(dir, "bucket"), "--chain", chainName, "--key", filepath.Join(dir, "pub.pem"))
		cmd.Env = append(os.Environ(), "GOMAXPROCS="+procs)
		return measure(cmd)
	}
	peer := func() (usage, error) {
		return measure(exec.CommandContext(ctx, "bash", "-c", `set -o pipefail; for f in "$0"/segments/*/*.zst; do zstd -dcq "$f" | sha256sum || exit 1; done`,
			filepath.Join(dir, "bucket", filepath.FromSlash(chainName))))
	}
	var one, two, floor []usage
	for range *pairs {
		a, errA := verify("1")
		b, errB := peer()
		c, errC := verify("2")
		if err := errors.Join(errA, errB, errC); err != nil {
			return err
		}
		one, floor, two = append(one, a), append(floor, b), append(two, c)
	}
	cpu := func(u usage) float64 { return u.cpu }
	wall := func(u usage) float64 { return u.wall }
	peak := func(u usage) float64 { return u.peak }
	mb := float64(raw) / 1e6
	fmt.Printf("  processor time: auditchain verify %.2f s (%.0f MB/s), zstd -dc | sha256sum %.2f s (%.0f MB/s); throughput per core %.2f\n",
		median(one, cpu), mb/median(one, cpu), median(floor, cpu), mb/median(floor, cpu), median(floor, cpu)/median(one, cpu))
	fmt.Printf("  two processors instead of one: %.2f times as fast\n", median(one, wall)/median(two, wall))
	fmt.Printf("  peak memory %.0f MB\n", median(two, peak))
	return nil
}

func median(all []usage, of func(usage) float64) float64 {
	var values []float64
	for _, u := range all {
		values = append(values, of(u))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func measure(cmd *exec.Cmd) (usage, error) {
	start := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return usage{}, fmt.Errorf("%s: %w\n%s", cmd.Path, err, out)
	}
	rusage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return usage{
		cpu:  (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(),
		wall: time.Since(start).Seconds(), peak: float64(rusage.Maxrss) / 1000,
	}, nil
}

// write makes a log of at least that many bytes of lines.
func write(ctx context.Context, dir string, text int, size int64) (raw int64, entries uint64, err error) {
	pem, err := chain.GenerateKey()
	if err != nil {
		return 0, 0, err
	}
	key, err := chain.ParseSigningKey(pem)
	if err != nil {
		return 0, 0, err
	}
	for path, data := range map[string][]byte{"key.pem": pem, "pub.pem": key.Public().PEM()} {
		if err := os.WriteFile(filepath.Join(dir, path), data, 0o600); err != nil {
			return 0, 0, err
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "bucket"), 0o755); err != nil {
		return 0, 0, err
	}
	settings := map[string]string{
		"chain": chainName, "bucket": "dir:" + filepath.Join(dir, "bucket"), "signing_key": filepath.Join(dir, "key.pem"), "retention": "1d",
		"store_dir": filepath.Join(dir, "store"), "total_file_size": "16M", "store_dir_limit_size": "0", "compression_level": *level,
	}
	cfg, err := ingest.ParseConfig(func(name string) string { return settings[name] })
	if err != nil {
		return 0, 0, err
	}
	log, err := ingest.Open(ctx, cfg, ingest.Options{Logger: quiet{}, Version: "bench"})
	if err != nil {
		return 0, 0, err
	}
	g := recordtest.New(recordtest.Config{Seed: 1, Text: text})
	for log.Stats().Bytes < uint64(size) {
		if err := log.Append([]byte("vllm.audit"), g.Chunk(1_000_000/(700+text))); err != nil {
			return 0, 0, err
		}
	}
	if err := log.Close(ctx); err != nil {
		return 0, 0, err
	}
	stats := log.Stats()
	return int64(stats.Bytes), uint64(stats.Records), nil
}

// quiet is a logger for what nobody needs to hear.
type quiet struct{}

func (quiet) Error(msg string) { fmt.Fprintln(os.Stderr, msg) }
func (quiet) Warn(msg string)  { fmt.Fprintln(os.Stderr, msg) }
func (quiet) Info(string)      {}
func (quiet) Debug(string)     {}
