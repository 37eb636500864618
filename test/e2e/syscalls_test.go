package e2e

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/test/host"
)

// steps are the system calls by which a program changes or reads a disk.
const steps = "openat,read,write,fdatasync,fsync,ftruncate,fallocate,renameat,renameat2,linkat,unlinkat,mkdirat,getdents64,flock,close"

// step is a system call on a file below the store directory.
type step struct {
	thread, call string
	path         string // from the store directory, or anywhere
	line         string // as strace writes it
}

// fault is what happens to some steps.
type fault struct {
	call  string
	path  string // from the store directory; anywhere: whatever the path
	error string // errno; "": the process is killed before the call
	when  string // at which calls of that name on that path by one thread: "2", or "2+" for that and all later ones
}

// anywhere is any path: also of the bucket, which is a directory.
const anywhere = "*"

func (f fault) String() string {
	return fmt.Sprintf("%s %s of %s, %s", f.call, f.when, cmp.Or(f.path, "store_dir"), cmp.Or(f.error, "killed"))
}

// kills reports whether one of the faults is that the process is killed.
func kills(faults []fault) bool {
	return slices.ContainsFunc(faults, func(f fault) bool { return f.error == "" })
}

// strace is a program that runs another one and can have its system calls fail. Where it cannot be used the test is skipped.
func strace(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("strace", "-D", "-f", "--seccomp-bpf", "-qq", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "true").CombinedOutput(); err != nil {
		t.Skipf("strace cannot be used here: %v\n%s", err, out)
	}
}

// traced returns options under which the host's steps on the faults' paths (without faults: all) are written to a file, and the
// faults come.
func traced(t *testing.T, store string, faults ...fault) (_ host.Options, trace string) {
	t.Helper()
	trace = filepath.Join(t.TempDir(), "trace")
	args := []string{"strace", "-D", "-f", "-qq", "-y", "-s", "0", "-e", "signal=none", "-o", trace, "-e", "trace=" + steps}
	if !kills(faults) {
		args = append(args, "--seccomp-bpf") // several times as fast, but loses the signals that strace sends
	}
	paths := make(map[string]bool)
	for _, f := range faults {
		what := "signal=SIGKILL"
		if f.error != "" {
			what = "error=" + f.error
		}
		args = append(args, "-e", fmt.Sprintf("inject=%s:%s:when=%s", f.call, what, f.when))
		if path := filepath.Join(store, f.path); f.path != anywhere && !paths[path] {
			paths[path] = true
			args = append(args, "-P", path)
		}
	}
	// Calls are counted by thread: one that may run at a time keeps the numbers meaningful.
	return host.Options{Under: args, Env: []string{"GOMAXPROCS=1"}}, trace
}

var (
	callInTrace = regexp.MustCompile(`^(\d+) +(\w+)\(`)
	pathInTrace = regexp.MustCompile(`["<](/[^">]*)[">]`)
)

// readTrace returns the steps in a trace.
func readTrace(t *testing.T, store, trace string) []step {
	t.Helper()
	data, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	var all []step
	for line := range bytes.Lines(data) {
		call := callInTrace.FindSubmatch(line)
		if call == nil {
			continue
		}
		for _, m := range pathInTrace.FindAllSubmatch(line, -1) {
			path, err := filepath.Rel(store, string(m[1]))
			if err != nil || strings.HasPrefix(path, "..") {
				path = anywhere
			}
			all = append(all, step{string(call[1]), string(call[2]), path, strings.TrimSpace(string(line))})
		}
	}
	return all
}

// injected returns the steps at which the fault came.
func injected(all []step) []step {
	return slices.DeleteFunc(slices.Clone(all), func(s step) bool { return !strings.Contains(s.line, "INJECTED") })
}

// scene is where faults are tried: a log as an earlier life left it, and what is delivered to it.
type scene struct {
	name    string
	log     *fileLog
	chunks  []chunkFile
	left    []chunkFile // those of them that are still to be delivered
	threads int         // that deliver them
}

// commands deliver what is left.
func (s *scene) commands() []string {
	return append([]string{fmt.Sprint("threads ", s.threads), "retries 4 10"}, deliver(s.left)...)
}

// scenes returns a log that is not begun yet, and one that was killed while it had journals.
func scenes(t *testing.T) []scene {
	t.Helper()
	chunks := paddedChunkFiles(t, "x", 14, 8000) // of 170 KB; segments have 1 MB
	fresh := newFileLog(t)
	killed := newFileLog(t)
	lived := killed.live(t, killed.section(), host.Options{}, append(deliver(chunks[:9]), "kill")...)
	if left := lived.refused(chunks); len(left) != 5 {
		t.Fatalf("%d chunks were not taken", len(left))
	}
	return []scene{
		{"first start", fresh, chunks, chunks, 0},
		{"start after a kill", killed, chunks, chunks[9:], 0},
		{"four threads", fresh, chunks, chunks, 4},
	}
}

// rehearse has a scene without a fault, and returns what faults there can be.
func (s *scene) rehearse(t *testing.T) []fault {
	t.Helper()
	l := s.log.clone(t)
	opts, trace := traced(t, l.store())
	lived := l.live(t, l.section(), opts, s.commands()...)
	if lived.init != "OK" || len(lived.refused(s.left)) > 0 || lived.err != nil {
		t.Fatalf("without a fault it fails: %+v", lived)
	}
	l.settle(t, s.chunks, nil)
	times := make(map[[2]string]int) // the most that one thread does: strace counts by thread
	threads := make(map[[3]string]int)
	count := func(step step, path string) {
		key := [3]string{step.thread, step.call, path}
		threads[key]++
		times[[2]string(key[1:])] = max(times[[2]string(key[1:])], threads[key])
	}
	for _, step := range readTrace(t, l.store(), trace) {
		if s.threads > 0 && !inJournal(step.path) {
			continue // by the same goroutine as ever
		}
		if step.path != anywhere && !strings.Contains(step.path, "/.tmp-") || strings.Contains(step.path, "/.tmp-pending") {
			count(step, step.path)
		}
		if slices.Contains(everywhere, step.call) {
			count(step, anywhere)
		}
	}
	var all []fault
	for key, n := range times {
		call, path := key[0], key[1]
		numbers := slices.Compact([]int{1, min(2, n), n})
		if path == anywhere {
			numbers = nil
			for k := 1; k <= n && k <= 15; k++ {
				numbers = append(numbers, k)
			}
		}
		for _, errno := range errnos[call] {
			for _, when := range numbers {
				all = append(all, fault{call, path, errno, strconv.Itoa(when)})
			}
			if errno != "" && errno != "ENOSPC" && path != anywhere {
				all = append(all, fault{call, path, errno, "1+"})
			}
		}
	}
	slices.SortFunc(all, func(a, b fault) int {
		return cmp.Or(strings.Compare(a.call, b.call), strings.Compare(a.path, b.path), strings.Compare(a.error, b.error), strings.Compare(a.when, b.when))
	})
	return slices.Compact(all)
}

// errnos are the errors that are tried with a call; "" is a kill.
var errnos = map[string][]string{
	"openat": {"", "EIO"}, "read": {"EIO"}, "write": {"", "ENOSPC", "EIO"}, "fdatasync": {"", "EIO", "ENOSPC"}, "fsync": {"", "EIO"},
	"ftruncate": {"", "EIO"}, "fallocate": {"", "ENOSPC"}, "renameat": {"", "EIO"}, "renameat2": {"", "EIO"}, "linkat": {"", "EIO"},
	"unlinkat": {"", "EIO"}, "mkdirat": {"", "EROFS"}, "getdents64": {"EIO"}, "flock": {"ENOLCK"}, "close": {"EIO"},
}

// everywhere are the calls that are tried by their number too, whatever they are about.
var everywhere = []string{"fdatasync", "fsync", "renameat", "unlinkat", "linkat"}

// try has the scene with faults, and then goes on without. It reports whether the faults came.
func (s *scene) try(t *testing.T, crash bool, faults ...fault) (came bool) {
	t.Helper()
	l := s.log.clone(t)
	opts, trace := traced(t, l.store(), faults...)
	commands := s.commands()
	if crash && !kills(faults) { // what the fault left is there at the next start, not sealed
		commands = append(commands, "wait", "kill")
	}
	lived := l.live(t, l.section(), opts, commands...)
	steps := readTrace(t, l.store(), trace)
	came = len(injected(steps)) > 0 || kills(faults) && lived.err != nil
	said := ourErrors(lived.log)
	retried := slices.Contains(slices.Collect(maps.Values(lived.ret)), "RETRY")
	switch {
	case lived.init == "ERROR" && len(said) != 1:
		t.Errorf("it did not start, and said %q", said)
	case retried && len(said) == 0:
		t.Error("it took a chunk not, and did not say why")
	case lived.init == "" && !kills(faults):
		t.Errorf("it ended while it was starting: %v", lived.err)
	}
	checkSyncedOnce(t, steps)
	left := lived.refused(s.left)
	c := l.settle(t, s.chunks, left)
	if !retried && s.threads == 0 { // else a chunk may have been delivered again after the one that followed it
		c.checkOrder(t, s.chunks)
	}
	return came
}

// checkSyncedOnce sees to it that no file is synced again after that has failed: the second sync may say that all is well
// though the system has dropped what it could not write.
func checkSyncedOnce(t *testing.T, steps []step) {
	t.Helper()
	failed := make(map[string]bool)
	for _, s := range steps {
		switch {
		case s.call == "openat" && strings.Contains(s.line, "O_CREAT"), s.call == "unlinkat":
			failed[s.path] = false // another file
		case s.call == "fdatasync" && failed[s.path]:
			t.Errorf("it syncs %s again after a failure", s.path)
		case s.call == "fdatasync" && strings.Contains(s.line, "INJECTED"):
			failed[s.path] = true
		}
	}
}

// testFailingSteps: one step after the other fails, or is the last of its process. What was acknowledged before is in
// the chain, what is delivered again after it is there once.
func testFailingSteps(t *testing.T) {
	strace(t)
	for _, s := range scenes(t) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			all := s.rehearse(t)
			few := all
			if !long() {
				few = s.few(all)
			}
			came := 0
			for i, f := range few {
				t.Run(f.String(), func(t *testing.T) {
					if s.try(t, inJournal(f.path) && i%2 == 0, f) {
						came++
					} else {
						t.Log("it did not come to that")
					}
				})
			}
			t.Logf("%d of %d faults were tried, %d came", len(few), len(all), came)
			if came < len(few)/2 {
				t.Errorf("only %d of %d faults came", came, len(few))
			}
			first := slices.IndexFunc(all, func(f fault) bool { return f.call == "write" && inJournal(f.path) })
			if first < 0 {
				t.Fatal("no journal is written")
			}
			for _, both := range failingUndo(all[first].path) {
				t.Run(fmt.Sprint(both), func(t *testing.T) {
					for _, crash := range []bool{true, false} {
						if !crash && s.threads > 0 && !long() {
							continue
						}
						if !s.try(t, crash, both...) && s.threads == 0 {
							t.Error("it did not come to that")
						}
					}
				})
			}
		})
	}
}

func inJournal(path string) bool { return strings.Contains(path, "journal-0") }

// few returns some of the faults: of each call some, most of the journal's.
func (s *scene) few(all []fault) []fault {
	var some []fault
	for _, call := range slices.Sorted(maps.Keys(errnos)) {
		var journal, others []fault
		for _, f := range all {
			switch {
			case f.call != call:
			case inJournal(f.path):
				journal = append(journal, f)
			case !strings.HasSuffix(f.when, "+"): // at the end some seconds go by for what cannot be sealed at all
				others = append(others, f)
			}
		}
		n := 1
		if call == "renameat" { // by which most steps of committing are done
			n = 4
		}
		some = slices.Concat(some, spread(journal, 2), spread(others, n))
	}
	return some
}

// failingUndo are failures to write a journal, and to take back what was written.
func failingUndo(journal string) [][]fault {
	kept := fault{"ftruncate", journal, "EIO", "1+"}
	stays := fault{"unlinkat", journal, "EIO", "1"}
	return [][]fault{
		{{"write", journal, "ENOSPC", "2"}, kept},
		{{"write", journal, "EIO", "1"}, kept, stays},
		{{"fdatasync", journal, "EIO", "2"}, kept},
		{{"fdatasync", journal, "ENOSPC", "1"}, kept},
		{{"fdatasync", journal, "EIO", "1"}, kept, stays},
	}
}

// testFailingStepsWithStore is testFailingSteps with a real store and some faults.
func testFailingStepsWithStore(t *testing.T) {
	strace(t)
	journal, signed := "journal-00000000000000000000.ndjson", "pending-000000000001.sigstore.json"
	for _, f := range []fault{
		{"fdatasync", journal, "EIO", "2"},
		{"write", journal, "ENOSPC", "3"},
		{"renameat", signed, "", "1"}, // when its segment is in the bucket
		{"renameat", signed, "", "2"}, // when it is in the bucket itself
		{"unlinkat", journal, "", "1"},
	} {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			l := newLog(t, gatewayHTTP.open(t))
			f.path = filepath.Join(strings.ReplaceAll(l.chain, "/", "~"), f.path)
			section := l.section().With("total_file_size", "1M")
			chunks := paddedChunkFiles(t, "x", 14, 8000)
			opts, trace := traced(t, l.storeDir, f)
			answers, log, err := host.Run(t, host.Plugin(t), opts, slices.Concat(begin(section), []string{"retries 4 10"}, deliver(chunks))...)
			if steps := readTrace(t, l.storeDir, trace); len(injected(steps)) == 0 && (err == nil || f.error != "") {
				if f.call == "renameat" && f.when != "1" { // strace counts by thread, and a goroutine has none of its own
					t.Logf("it did not come to that: %v", err)
				} else {
					t.Errorf("it did not come to that: %v\n%s", err, log)
				}
			}
			left := make(map[string]chunkFile)
			for _, c := range chunks {
				left[c.path] = c
			}
			for _, a := range answers {
				if a.Op == "flush" && a.Ret == "OK" {
					delete(left, a.File)
				}
			}
			rest := slices.DeleteFunc(slices.Clone(chunks), func(c chunkFile) bool { return left[c.path].path == "" })
			answers, log, err = host.Run(t, host.Plugin(t), host.Options{}, append(begin(section), deliver(rest)...)...)
			if err != nil || slices.ContainsFunc(answers, func(a host.Answer) bool { return a.Ret != "OK" && a.Ret != "" }) {
				t.Fatalf("it does not go on: %v\n%s", err, log)
			}
			c := l.load(t)
			c.checkRecords(t, recordsOf(chunks))
			c.checkCounts(t)
			c.checkWhole(t, chunks)
			l.verify(t)
		})
	}
}

// spread returns n of all, or all if they are fewer.
func spread[E any](all []E, n int) []E {
	if len(all) <= n {
		return all
	}
	some := make([]E, n)
	for i := range some {
		some[i] = all[i*len(all)/n]
	}
	return some
}
