// Middleware measures what the middleware costs a model server: latency that it adds to requests at a steady rate, processor
// time that it takes for each, and for each part of a stream. The same server without it and with it are measured in turn, in
// short blocks, and a second one without it too: what two that are the same differ by is noise. `make bench` runs it.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/auditchain/auditchain/test/gpu"
	"github.com/auditchain/auditchain/test/servers"
)

var (
	rate   = flag.Int("rate", 500, "requests per second")
	length = flag.Duration("block", 2*time.Second, "length of a block")
	rounds = flag.Int("rounds", 10, "blocks of each server")
	loops  = flag.String("loops", "uvloop,asyncio", "event loops of the server")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	if err := gpu.CanRun(); err != nil {
		fmt.Println("skipped:", err)
		return nil
	}
	for _, loop := range list(*loops) {
		if err := requests(loop); err != nil {
			return err
		}
	}
	return parts()
}

// server is one of those that are compared.
type server struct {
	name  string
	audit bool
	stub  *gpu.Stub
	sums  []summary // one for each block
}

// requests compares servers with this event loop.
func requests(loop string) error {
	dir, err := os.MkdirTemp("", "auditchain-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	all := []*server{{name: "without"}, {name: "without again"}, {name: "with", audit: true}}
	for _, s := range all {
		own := filepath.Join(dir, s.name)
		if err := os.MkdirAll(filepath.Join(own, "records"), 0o700); err != nil {
			return err
		}
		s.stub, err = gpu.Start(gpu.Options{Dir: own, Audit: s.audit, Loop: loop, Env: []string{
			"AUDITCHAIN_DIR=" + filepath.Join(own, "records"), "AUDITCHAIN_HMAC_KEY=0123456789abcdef",
		}})
		if err != nil {
			return err
		}
		defer s.stub.Kill()
		if _, err := block(s.stub, time.Second); err != nil { // warms up
			return err
		}
	}
	for range *rounds {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, s := range all {
			sum, err := block(s.stub, *length)
			if err != nil {
				return err
			}
			s.sums = append(s.sums, sum)
		}
	}
	slices.SortFunc(all, func(a, b *server) int { return len(a.name) - len(b.name) }) // with, without, without again
	with, without, again := all[0], all[1], all[2]
	fmt.Printf("%s, one process, %d requests/s, latency from the intended start, medians over %d blocks of %s\n", loop, *rate, *rounds, *length)
	fmt.Printf("%-38s %10s %10s %12s %14s\n", "", "without", "with", "added", "same twice")
	for _, row := range []struct {
		name string
		of   func(summary) float64
	}{
		{"median latency, ms", func(s summary) float64 { return s.median }},
		{"99th percentile of latency, ms", func(s summary) float64 { return s.p99 }},
		{"processor time per request, ms", func(s summary) float64 { return s.cpu }},
	} {
		// Paired: what the machine does meanwhile is in both blocks of a round.
		difference := func(a, b *server) float64 {
			var d []float64
			for i := range a.sums {
				d = append(d, row.of(a.sums[i])-row.of(b.sums[i]))
			}
			return median(d)
		}
		fmt.Printf("%-38s %10.3f %10.3f %+12.3f %+14.3f\n", row.name, each(without, row.of), each(with, row.of),
			(difference(with, without)+difference(with, again))/2, difference(again, without))
	}
	return nil
}

func each(s *server, of func(summary) float64) float64 {
	var values []float64
	for _, sum := range s.sums {
		values = append(values, of(sum))
	}
	return median(values)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// parts has Python measure what the middleware does with the parts of a stream, in one process, without a server.
func parts() error {
	fmt.Println("a stream, in one process, without a server")
	for _, hash := range []string{"body", "content"} {
		cmd := exec.Command(gpu.Python(), filepath.Join(servers.Root(), "test", "bench", "middleware", "parts.py"), hash)
		cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(servers.Root(), "middleware"), "PYTHONDONTWRITEBYTECODE=1")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return err
		}
	}
	return nil
}
