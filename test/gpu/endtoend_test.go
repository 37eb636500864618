package gpu

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// maxAge is the goal for the 99th percentile of a record's age when the log has taken it.
const maxAge = 5 * time.Second

// readInterval is the pause between two readings of the whole log.
const readInterval = 200 * time.Millisecond

// From the clients to the bucket, everything as we ship it, with one after the other killed under load: in the end each
// answer that a client got whole has its record in the log, or the log says that its process died; and no number of any
// source is without one.
func TestEndToEnd(t *testing.T) {
	rounds, undisturbed := 1, 1000
	if os.Getenv("AUDITCHAIN_LONG") == "1" {
		rounds, undisturbed = 10, 5000
	}
	p := newPipeline(t, Options{Workers: 4}, "AUDITCHAIN_HEARTBEAT=1s", "AUDITCHAIN_FILE_SIZE=50K")
	tidied := p.tidy(t)
	tally := &tally{}

	if !t.Run("undisturbed", func(t *testing.T) {
		first := newCrowd(t, "first", p.url) // without a request there is no counter
		first.await(t, 100)
		tally.add(first.quiet())
		began, before := time.Now(), p.counters(t)
		c := newCrowd(t, "undisturbed", p.url)
		c.await(t, undisturbed)
		calls := c.quiet()
		ended, after := time.Now(), p.counters(t)
		for _, a := range calls {
			if a.Err != nil {
				t.Errorf("a call failed: %v", a.Err)
			}
		}
		tally.add(calls)
		ages := p.settle(t, tally).ages()
		p50, p90, p99, last := percentile(ages, 50), percentile(ages, 90), percentile(ages, 99), ages[len(ages)-1]
		t.Logf("age of %d records when the log has taken them: median %s, 90%% %s, 99%% %s, oldest %s", len(ages), p50, p90, p99, last)
		if p99 > maxAge {
			t.Errorf("the 99th percentile of the ages is %s", p99)
		}
		p.counted(t, began, ended, before, after)
	}) {
		return
	}
	for _, kill := range []struct {
		what string
		run  func(t *testing.T, c *crowd)
	}{
		{"model server", func(t *testing.T, c *crowd) {
			tally.held = append(tally.held, hold(t, p.URL, 5)...)
			pids, err := p.Pids()
			if err != nil {
				t.Fatal(err)
			}
			tally.killed += len(pids)
			p.Kill()
			p.start(t)
		}},
		{"worker", func(t *testing.T, c *crowd) {
			pids, err := p.Pids()
			if err != nil || len(pids) < 2 {
				t.Fatal(pids, err)
			}
			if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			tally.killed++
			c.await(t, 200)
			if len(pids) == 2 { // uvicorn starts no other one
				p.stop(t)
				p.start(t)
			}
		}},
		{"Fluent Bit on the GPU server", func(t *testing.T, c *crowd) {
			p.node.process.Kill()
			c.await(t, 200)
			p.node.start(t)
		}},
		{"Fluent Bit on the aggregator", func(t *testing.T, c *crowd) {
			p.aggregator.process.Kill()
			c.await(t, 200)
			p.aggregator.start(t)
		}},
		{"S3 server", func(t *testing.T, c *crowd) {
			p.store.Kill()
			c.await(t, 600) // longer than until something is sealed
			if err := p.store.Restart(); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		if !t.Run("kill "+kill.what, func(t *testing.T) {
			for round := range rounds {
				c := newCrowd(t, fmt.Sprintf("%s/%d/", strings.ReplaceAll(kill.what, " ", "-"), round), p.url)
				c.await(t, 200)
				kill.run(t, c)
				c.await(t, 200)
				tally.add(c.quiet())
				p.settle(t, tally)
				if t.Failed() {
					return
				}
			}
		}) {
			return // what is missing would be missing ever after
		}
	}

	p.stop(t)
	p.settle(t, tally)
	deleted := tidied()
	p.node.stop(t)
	p.aggregator.stop(t)
	written := p.written(t)
	var all *arrived
	eventuallyEvery(t, readInterval, "all is in the bucket", func() error {
		all = &arrived{entries: make(map[uint64]bool)}
		if err := p.committed(t.Context(), all); err != nil {
			return err
		}
		return missing(tally, written, all)
	})
	tally.compare(t, all)
	sameAsWritten(t, written, all)
	p.verify(t)
	p.complete(t, tally, all)
	t.Log(tally.text(all))
	if t.Logf("%d files of records were deleted meanwhile", deleted); deleted == 0 {
		t.Error("no file of records was deleted")
	}
}
