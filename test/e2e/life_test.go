package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/host"
	"github.com/auditchain/auditchain/test/servers"
)

// footprint is what a process holds.
type footprint struct {
	files, threads int
	memory         int64 // resident, bytes
}

// footprintOf reads it. Where the system does not say the test is skipped.
func footprintOf(t *testing.T, pid int) footprint {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	files, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		t.Skipf("what a process holds cannot be read here: %v", err)
	}
	threads, err := os.ReadDir(filepath.Join(dir, "task"))
	if err != nil {
		t.Fatal(err)
	}
	statm, err := os.ReadFile(filepath.Join(dir, "statm"))
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		t.Fatal(err)
	}
	return footprint{len(files), len(threads), resident * int64(os.Getpagesize())}
}

// checkFlat sees to it that a process has not grown with the number of reloads.
func checkFlat(t *testing.T, before, after footprint, reloads int) {
	t.Helper()
	t.Logf("%d reloads: %d files, %d threads, %d KiB; then %d files, %d threads, %d KiB",
		reloads, before.files, before.threads, before.memory>>10, after.files, after.threads, after.memory>>10)
	// Less than one of each for three reloads: Go's runtime starts a thread now and then.
	if after.files-before.files > 3 || after.threads-before.threads > 3+reloads/10 {
		t.Errorf("over %d reloads it went from %d to %d open files and from %d to %d threads",
			reloads, before.files, after.files, before.threads, after.threads)
	}
	if grown := after.memory - before.memory; grown > 8<<20+int64(reloads)<<17 {
		t.Errorf("over %d reloads its memory grew by %d KiB", reloads, grown>>10)
	}
}

// testReloadedHost: an instance is ended and begun again in the same process, 50 times, while four threads have chunks for it.
func testReloadedHost(t *testing.T) {
	const warmup, reloads = 10, 40
	t.Parallel()
	l := newLog(t, gatewayHTTP.open(t))
	h := startHost(t, l.section())
	h.Send(t, "threads 4")
	const perLife = 8
	chunks := chunkFiles(t, "h", perLife*(warmup+reloads))
	var before footprint
	for life := range warmup + reloads {
		if life == warmup {
			before = footprintOf(t, h.Pid())
		}
		for _, c := range chunks[perLife*life : perLife*(life+1)] {
			flush(t, h, c.path)
		}
		h.Send(t, "exit "+instance+" hot", "init "+instance)
		for range perLife {
			if a := h.Next(t); a.Op != "flush" || a.Ret != "OK" {
				t.Fatalf("life %d: %+v", life, a)
			}
		}
		for _, op := range []string{"exit", "init"} {
			if a := h.Next(t); a.Op != op || a.Ret != "OK" {
				t.Fatalf("life %d: %+v", life, a)
			}
		}
	}
	checkFlat(t, before, footprintOf(t, h.Pid()), reloads)
	h.End(t)
	if said := ourErrors(h.Log()); len(said) > 0 {
		t.Errorf("it said %q", said)
	}
	c := l.load(t)
	c.checkRecords(t, recordsOf(chunks))
	c.checkCounts(t)
	c.checkWhole(t, chunks)
	l.verify(t)
}

// testNotOpen: Fluent Bit calls back for an instance that is not, or not any more.
func testNotOpen(t *testing.T) {
	t.Parallel()
	l := newLog(t, gatewayHTTP.open(t))
	chunks := chunkFiles(t, "n", 2)
	h := startHost(t, l.section()) // context 1
	flush := func(context, path, want string) {
		t.Helper()
		if a := h.Do(t, "flush "+context+" host "+path); a.Ret != want {
			t.Errorf("flush to %s: %+v, want %s", context, a, want)
		}
	}
	exit := func(context string) {
		t.Helper()
		if a := h.Do(t, "exit "+context); a.Op != "exit" {
			t.Errorf("exit %s: %+v", context, a)
		}
	}
	for _, context := range []string{"-", "@0", "@2", "@0x7fffffffffffffff", "@0xffffffffffffffff"} {
		flush(context, chunks[0].path, "RETRY")
		exit(context)
	}
	flush(instance, chunks[0].path, "OK")
	exit(instance)
	for range 2 {
		exit("@1") // again
		flush("@1", chunks[1].path, "RETRY")
	}
	if a := h.Do(t, "init "+instance); a.Ret != "OK" {
		t.Fatalf("%+v", a)
	}
	flush("@1", chunks[1].path, "RETRY") // it has another number now
	flush(instance, chunks[1].path, "OK")
	h.End(t)
	l.load(t).checkRecords(t, recordsOf(chunks))
	l.verify(t)
}

// testPanicWhileStarting: what FLBPluginInit does after the log was opened fails in a way that nobody thought of. Fluent
// Bit hears that the instance cannot start; in the same process and in the next one it can.
func testPanicWhileStarting(t *testing.T) {
	t.Parallel()
	l := newFileLog(t)
	chunks := chunkFiles(t, "p", 3)
	answers, log, err := host.Run(t, host.Plugin(t), host.Options{NoContext: true}, append(begin(l.section()), "exit -", "init "+instance)...)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	for _, a := range answers {
		if a.Op == "init" && a.Ret != "ERROR" {
			t.Errorf("%+v", a)
		}
	}
	said := ourErrors(log)
	if len(said) != 2 || said[0] != said[1] || !strings.HasPrefix(said[0], "panic while starting: ") || !strings.Contains(said[0], "FLBPluginInit (main.go:") {
		t.Errorf("it said %q", said)
	}
	l.settle(t, chunks, chunks)
}

// testManyReloads is testReloadedHost in Fluent Bit, with a connection that delivers all the time. Without workers: see
// testHotReload.
func testManyReloads(t *testing.T) {
	warmup, reloads := 1, 3
	if long() {
		warmup, reloads = 10, 50
	}
	t.Parallel()
	l := newLog(t, gatewayHTTP.open(t))
	a := newAggregator(t, []fluentbit.Section{l.section().With("workers", "0")})
	a.HotReload = true
	a.run(t)
	p := produce(t, a.forward, "r", 1, 0)
	var before footprint
	for life := range warmup + reloads {
		if life == warmup {
			before = footprintOf(t, a.process.Pid())
		}
		p.mu.Lock()
		acked := p.acked
		p.mu.Unlock()
		p.waitAcked(t, acked+100)
		a.reload(t)
	}
	after := footprintOf(t, a.process.Pid())
	all := p.stop()
	a.stop(t)
	checkFlat(t, before, after, reloads)
	l.settle(t, a, all)
}

// closing is what the plugin may take to close an output, on top of Fluent Bit's grace period.
const closing = 4 * time.Second

// testTermWhileHanging: the store takes connections and answers nothing while Fluent Bit is asked to end. It ends after its grace
// period and some seconds for each output, and nothing is lost.
func testTermWhileHanging(t *testing.T) {
	t.Parallel()
	server := servers.Versitygw(t)
	first := newLog(t, server)
	logs := []*auditLog{first, first.another("audit.example.com/second")}
	a := newAggregator(t, []fluentbit.Section{logs[0].section().With("workers", "2"), logs[1].section()})
	a.Grace = 2 * time.Second
	a.run(t)
	p := produce(t, a.forward, "h", 2, 0)
	p.waitAcked(t, 500)
	server.Pause()
	p.waitAcked(t, 1000)
	time.Sleep(1500 * time.Millisecond) // upload_timeout has passed: an upload is under way
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	code, err := a.process.Stop(ctx)
	took, most := time.Since(start), a.Grace+time.Duration(len(logs))*closing
	t.Logf("Fluent Bit took %s to end", took.Round(time.Millisecond))
	if code != 0 || err != nil || took > most+2*time.Second {
		t.Errorf("Fluent Bit ended with exit code %d, %v, after %s, want 0 within %s", code, err, took, most)
	}
	all := p.stop()
	server.Resume()
	for _, l := range logs {
		l.settle(t, a, all)
	}
}

// testSecondOutputRefused: of two outputs the second has a mistake. Fluent Bit ends and says so in one line; the chain of the
// first is as it was, and both go on when the mistake is mended.
func testSecondOutputRefused(t *testing.T) {
	t.Parallel()
	first := newLog(t, gatewayHTTP.open(t))
	second := first.another("audit.example.com/second")
	mistakes := []struct{ key, value, want string }{
		{"signing_key", "/nowhere/audit.pem", "signing_key: open /nowhere/audit.pem: no such file or directory; `auditchain keygen` makes one"},
		{"bucket", "nobodys", noBucket},
	}
	a := newAggregator(t, []fluentbit.Section{first.section(), second.section()})
	a.run(t)
	all := produce(t, a.forward, "a", 1, 8).complete(t)
	first.waitFor(t, len(all))
	a.stop(t)
	for i, m := range mistakes {
		client := first.server.Client(t)
		stood, err := first.committed(t.Context(), client)
		if err != nil {
			t.Fatal(err)
		}
		a.Outputs[1] = second.section().With(m.key, m.value)
		a.refuses(t, refusal{want: m.want})
		if now, err := first.committed(t.Context(), client); err != nil || now != stood {
			t.Errorf("the first chain has %d entries in the bucket, %v; it had %d", now, err, stood)
		}
		a.Outputs[1] = second.section()
		a.run(t)
		all = append(all, produce(t, a.forward, fmt.Sprint("b", i), 1, 4).complete(t)...)
		a.stop(t)
	}
	for _, l := range []*auditLog{first, second} {
		l.settle(t, a, all)
	}
}
