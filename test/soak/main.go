// Soak runs the plugin for a long time at a steady rate of records, against a real S3 server that is taken away again and
// again, and looks at its process once a second. It fails if what the process holds (memory, threads, open files, journals
// that are not in the bucket) grows, or if a record that was acknowledged is not in the bucket exactly once.
//
// `make soak` runs it. It prints a table and writes the samples as CSV, a picture of them and the plugin's log to -out.
// With -from it prints and draws again what samples of an earlier run say.
//
// What the process holds is what Linux says of it. Go's own numbers are not among the plugin's metrics: the live heap and
// the number of goroutines come from the traces that GODEBUG has the runtime write to the log, the heap at each garbage
// collection and the goroutines every 10 s, the runtime's own among them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/auditchain/auditchain/test/servers"
)

// options are the flags.
type options struct {
	duration    time.Duration
	rate        int // records per second
	outageEvery time.Duration
	outage      time.Duration
	server      string
	fluentBit   bool
	out         string
	from        string
}

func main() {
	var o options
	flag.DurationVar(&o.duration, "duration", 30*time.Minute, "how long records come; in less than 3 minutes memory has not settled yet")
	flag.IntVar(&o.rate, "rate", 20_000, "records per second, of about 500 bytes each")
	flag.DurationVar(&o.outageEvery, "outage-every", 5*time.Minute, "how often the S3 server is taken away, by turns killed and made to hang")
	flag.DurationVar(&o.outage, "outage", 45*time.Second, "for how long")
	flag.StringVar(&o.server, "server", "minio", "the S3 server: minio or versitygw")
	flag.BoolVar(&o.fluentBit, "fluent-bit", false, "run the plugin in Fluent Bit, by its forward input, instead of the plugin host")
	flag.StringVar(&o.out, "out", filepath.Join(servers.Root(), "build", "soak"), "directory for samples.csv, soak.svg and plugin.log")
	flag.StringVar(&o.from, "from", "", "samples.csv of an earlier run to judge and draw, instead of a run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// run is all of it. The error says all that is wrong, one thing per line.
func run(ctx context.Context, o *options, out io.Writer) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	var samples []sample
	var failed error
	if o.from != "" {
		f, err := os.Open(o.from)
		if err != nil {
			return err
		}
		defer f.Close()
		if samples, err = readCSV(f); err != nil {
			return fmt.Errorf("%s: %w", o.from, err)
		}
	} else {
		samples, failed = soak(ctx, o, out)
		// What was seen before it failed may say why.
		if err := writeFile(filepath.Join(o.out, "samples.csv"), func(w io.Writer) error { return writeCSV(w, samples) }); err != nil {
			return errors.Join(failed, err)
		}
	}
	if len(samples) < 2 {
		return errors.Join(failed, errors.New("there are no samples"))
	}
	outages := findOutages(samples)
	picture := filepath.Join(o.out, "soak.svg")
	if err := writeFile(picture, func(w io.Writer) error { return draw(w, samples, outages) }); err != nil {
		return errors.Join(failed, err)
	}
	printTable(out, samples, outages, o.outageEvery.Seconds())
	trends := findTrends(samples, outages)
	printTrends(out, trends)
	fmt.Fprintf(out, "\n%s shows it.\n", picture)
	if ctx.Err() != nil {
		return failed // a part of a run is not to be judged
	}
	return errors.Join(failed, judge(trends, outages))
}

// judge says what is not flat.
func judge(trends []trend, outages []outage) error {
	var all []error
	for _, t := range trends {
		if !t.flat {
			all = append(all, fmt.Errorf("%s is not flat", t.name))
		}
	}
	for _, o := range outages {
		if !o.caughtUp {
			all = append(all, fmt.Errorf("what piled up in the outage at %.0f s was not in the bucket before the next one, or the end", o.from))
		}
	}
	return errors.Join(all...)
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
