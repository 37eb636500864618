package ingest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest/disk/disktest"
	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/storage/storagetest"
)

// machine is an aggregation server whose disk and bucket fail as a test wants, with a Fluent Bit that delivers chunks until each
// was acknowledged, and again what it had not heard of when it was killed.
type machine struct {
	*rig
	disk   *disktest.FS
	memory *storagetest.Memory
	log    *Log // nil: not running

	chunks []int // to be delivered, by their number
	acked  []int
	mu     sync.Mutex
	dead   bool   // the process was killed, which nobody has taken notice of yet
	death  func() // called when it is; nil: nobody waits

	starts   int // of the log
	restarts int // of them because it took nothing any more
}

const (
	stepChunks  = 5
	stepRecords = 3 // in a chunk
)

func newMachine(t testing.TB) *machine {
	m := &machine{rig: newRig(t), disk: disktest.New(), memory: storagetest.NewMemory()}
	m.cfg.TotalFileSize = 2000 // two chunks
	m.cfg.StoreDir = "/var/lib/auditchain"
	m.disk.WriteFile("/var/lib/there", nil)
	for i := range stepChunks {
		m.chunks = append(m.chunks, i)
	}
	return m
}

// compressors are shared by all machines: making one takes longer than a machine's life.
type compressors struct{ pool sync.Pool }

func (c *compressors) AppendFrame(dst, src []byte) ([]byte, error) {
	z := c.pool.Get().(chain.Compressor)
	defer c.pool.Put(z)
	return z.AppendFrame(dst, src)
}

var shared = compressors{sync.Pool{New: func() any {
	z, err := chain.NewCompressor(chain.LevelFastest)
	if err != nil {
		panic(err)
	}
	return z
}}}

func sharedCompressor(chain.Level) (chain.Compressor, error) { return &shared, nil }

// start runs the log until it opens; a supervisor would.
func (m *machine) start() {
	m.t.Helper()
	for m.log == nil {
		if m.starts++; m.starts > 30 {
			m.t.Fatalf("it does not start any more; log: %q", m.rig.log.lines)
		}
		p := m.disk.Process()
		l, err := open(context.Background(), m.cfg, Options{Logger: m.rig.log, Version: "test", Compressor: sharedCompressor}, world{p.Bucket(m.memory), p, m.backoff})
		if err == nil {
			m.log = l
			return
		}
		if errors.Is(err, ErrForked) {
			m.t.Fatalf("it does not know its own chain any more: %v", err)
		}
		p.Kill() // the process ends
	}
}

// die ends the process, if it was not killed before.
func (m *machine) die() {
	m.disk.Kill()
	if m.log != nil {
		crash(m.log)
		m.log = nil
	}
}

// inject has strike decide at each step what happens there. It is called for one step at a time.
func (m *machine) inject(strike func(op storagetest.Op) (fault storagetest.Fault, dead bool)) {
	m.disk.Faults.Inject(func(op storagetest.Op) storagetest.Fault {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.dead {
			return storagetest.Fault{}
		}
		var fault storagetest.Fault
		if fault, m.dead = strike(op); m.dead && m.death != nil {
			m.death()
		}
		return fault
	})
}

// died reports whether the process was killed since it was last asked.
func (m *machine) died() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.dead
	m.dead = false
	return was
}

// deliver has Fluent Bit deliver all chunks, by several workers at a time, until each was acknowledged.
func (m *machine) deliver(workers int) {
	m.t.Helper()
	for tries := 0; len(m.chunks) > 0; tries++ {
		m.start()
		if tries > 5000 {
			m.t.Fatalf("chunks %v are never taken; log: %q", m.chunks, m.rig.log.lines)
		}
		errs := make([]error, min(workers, len(m.chunks)))
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = m.log.Append([]byte("tag"), testChunk(m.chunks[i]*stepRecords, stepRecords, 200)) })
		}
		wg.Wait()
		var left []int
		for i, err := range errs {
			if err == nil {
				m.acked = append(m.acked, m.chunks[i])
			} else {
				left = append(left, m.chunks[i])
			}
		}
		m.chunks = append(left, m.chunks[len(errs):]...)
		if len(left) > 0 {
			time.Sleep(100 * time.Microsecond) // as Fluent Bit waits before it tries again
		}
		switch {
		case m.died():
			m.die()
			m.forget()
		case m.log.failure() != nil: // what an operator does then
			m.restarts++
			m.die()
		}
	}
}

// forget has Fluent Bit be killed with the log, before it had noted the last acknowledgements: it delivers those chunks again.
func (m *machine) forget() {
	n := max(0, len(m.acked)-3)
	m.chunks = append(slices.Clone(m.acked[n:]), m.chunks...)
	m.acked = m.acked[:n]
}

// finish closes the log, and opens and closes it until all is in the bucket.
func (m *machine) finish() {
	m.t.Helper()
	for {
		m.start()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		m.mu.Lock()
		if m.death = cancel; m.dead {
			cancel()
		}
		m.mu.Unlock()
		err := m.log.Close(ctx)
		cancel()
		if m.died() {
			m.die()
			m.forget()
			m.deliver(1)
			continue
		}
		left := m.log.durable.seq - m.log.committed.NextSeq
		m.die()
		if err == nil && left == 0 {
			return
		}
	}
}

// check verifies what an auditor finds in the bucket, and compares it with what was acknowledged.
func (m *machine) check() {
	m.t.Helper()
	m.rig.reader = m.memory
	numbers, events := m.verify()
	m.wantNumbers(numbers, stepChunks*stepRecords)
	for i, n := range numbers {
		if i%stepRecords != n%stepRecords {
			m.t.Errorf("the records of a chunk are not in their order: %v", numbers)
			break
		}
	}
	if len(events) > 0 {
		m.t.Errorf("events %v", events)
	}
}

// faultKinds are the ways in which a step fails.
var faultKinds = []struct {
	name string
	// strike does at a step what is to happen there; dead says that the process does not live on.
	strike func(m *machine, op storagetest.Op, seed uint64) (fault storagetest.Fault, dead bool)
}{
	{"not done", func(m *machine, op storagetest.Op, _ uint64) (storagetest.Fault, bool) {
		return storagetest.Fail(injected(op)), false
	}},
	{"done, reported as failed", func(m *machine, op storagetest.Op, _ uint64) (storagetest.Fault, bool) {
		return storagetest.FailDone(injected(op)), false
	}},
	{"half done", func(m *machine, op storagetest.Op, _ uint64) (storagetest.Fault, bool) {
		return storagetest.Short(op.Bytes/2, injected(op)), false
	}},
	{"disk full", func(m *machine, op storagetest.Op, _ uint64) (storagetest.Fault, bool) {
		if strings.HasPrefix(op.Kind, "bucket.") {
			return storagetest.Fault{}, false
		}
		return storagetest.Short(op.Bytes/3, fmt.Errorf("injected: %w", syscall.ENOSPC)), false
	}},
	{"bits flipped", func(m *machine, op storagetest.Op, _ uint64) (storagetest.Fault, bool) {
		if op.Kind == disktest.OpWrite { // those are bits flipped at rest
			return storagetest.Fault{}, false
		}
		return storagetest.Corrupt(func(p []byte) {
			if len(p) > 0 {
				p[len(p)/2] ^= 4
			}
		}), false
	}},
	{"killed before", func(m *machine, _ storagetest.Op, _ uint64) (storagetest.Fault, bool) {
		m.disk.Kill()
		return storagetest.Fault{}, true
	}},
	{"power cut before, only what is durable left", func(m *machine, _ storagetest.Op, _ uint64) (storagetest.Fault, bool) {
		m.disk.PowerCut(nil)
		return storagetest.Fault{}, true
	}},
	{"power cut before, some of the rest left", func(m *machine, _ storagetest.Op, seed uint64) (storagetest.Fault, bool) {
		m.disk.PowerCut(rand.New(rand.NewPCG(seed, 1)))
		return storagetest.Fault{}, true
	}},
	{"power cut before, written out of order", func(m *machine, _ storagetest.Op, seed uint64) (storagetest.Fault, bool) {
		m.disk.Reorder = true
		m.disk.PowerCut(rand.New(rand.NewPCG(seed, 2)))
		return storagetest.Fault{}, true
	}},
}

func injected(op storagetest.Op) error {
	if strings.HasPrefix(op.Kind, "bucket.") {
		return fmt.Errorf("injected at %s: %w", op.Kind, storage.ErrUnreachable)
	}
	return fmt.Errorf("injected at %s: %w", op.Kind, syscall.EIO)
}

// raced says that the race detector runs, under which everything takes many times as long: then fewer steps fail.
var raced bool

// everyKind picks, for each kind of fault, the steps of a life that it strikes where there is not time for all: of each kind of step one, and not
// always the first, if this is one of the kinds of fault that are its, every part-th.
func everyKind(steps []string, part int) (picked []map[int]bool) {
	places := make(map[string][]int)
	for k, step := range steps {
		places[step] = append(places[step], k)
	}
	for i := range faultKinds {
		picked = append(picked, make(map[int]bool))
		for s, step := range slices.Sorted(maps.Keys(places)) {
			if at := places[step]; (s+i)%part == 0 {
				picked[i][at[(s+i)/part%len(at)]] = true
			}
		}
	}
	return picked
}

// TestEveryStep has every step of a log's life fail, in every way, and after each lets it go on, be delivered to again, and be
// verified: from the first start to the last close, over several segments.
func TestEveryStep(t *testing.T) {
	type cell struct{ runs, restarts int }
	table := make(map[string][]cell)
	var mu sync.Mutex
	steps := nameSteps(t)
	picked := everyKind(steps, 2)
	t.Run("all", func(t *testing.T) {
		for i, kind := range faultKinds {
			for k := range steps {
				if raced && !picked[i][k] {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d", kind.name, k), func(t *testing.T) {
					t.Parallel()
					struck := ""
					m := newMachine(t)
					is := m.place(steps, k)
					m.inject(func(op storagetest.Op) (storagetest.Fault, bool) {
						if !is(op) {
							return storagetest.Fault{}, false
						}
						struck = kindOf(op)
						return kind.strike(m, op, uint64(k))
					})
					m.deliver(1)
					m.finish()
					m.disk.Faults.Inject(nil)
					m.check()
					mu.Lock()
					defer mu.Unlock()
					if table[struck] == nil {
						table[struck] = make([]cell, len(faultKinds))
					}
					table[struck][i].runs++
					table[struck][i].restarts += m.restarts
				})
			}
		}
	})
	delete(table, "")
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "step")
	for _, kind := range faultKinds {
		fmt.Fprintf(w, "\t%s", kind.name)
	}
	for _, step := range slices.Sorted(maps.Keys(table)) {
		fmt.Fprintf(w, "\n%s", step)
		for _, c := range table[step] {
			fmt.Fprintf(w, "\t%d", c.runs)
			if c.restarts > 0 {
				fmt.Fprintf(w, " (%d restarts)", c.restarts)
			}
		}
	}
	w.Flush()
	t.Logf("runs of each step with each fault:\n%s", b.String())
	if path := os.Getenv("AUDITCHAIN_STEPS"); path != "" {
		if err := os.WriteFile(path, []byte(b.String()+"\n"), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// nameSteps says of what kinds the steps of a life are in which nothing fails.
func nameSteps(t *testing.T) []string {
	m := newMachine(t)
	return m.named(func() {
		m.deliver(1)
		m.finish()
	})
}

// named says of what kinds the steps are that live takes.
func (m *machine) named(live func()) (steps []string) {
	m.inject(func(op storagetest.Op) (storagetest.Fault, bool) {
		steps = append(steps, kindOf(op))
		return storagetest.Fault{}, false
	})
	live()
	m.disk.Faults.Inject(nil)
	return steps
}

// place returns what reports of each step from here on, in its turn, whether it is in the place of the k-th of steps. Of those that are
// taken beside each other it is not always the same that comes first: if few are struck, it is the one that is the same of its kind.
func (m *machine) place(steps []string, k int) func(op storagetest.Op) bool {
	begin := m.disk.Faults.Count()
	if !raced {
		return func(op storagetest.Op) bool { return op.N == begin+k }
	}
	before := 0 // of its kind
	for _, step := range steps[:k] {
		if step == steps[k] {
			before++
		}
	}
	return func(op storagetest.Op) bool {
		if kindOf(op) != steps[k] {
			return false
		}
		before--
		return before == -1
	}
}

// kindOf says what step it is, without its numbers.
func kindOf(op storagetest.Op) string { return op.Kind + " " + role(op.Path) }

// role says what a path is, without its numbers.
func role(path string) string {
	base := path[strings.LastIndex(path, "/")+1:]
	switch {
	case strings.Contains(path, "/manifests/"):
		return "manifest"
	case strings.Contains(path, "/segments/"):
		return "segment"
	case strings.HasPrefix(base, journalPrefix):
		base = journalPrefix + "N" + strings.TrimLeft(strings.TrimPrefix(base, journalPrefix), "0123456789")
		if i := strings.Index(base, ".torn-"); i > 0 {
			base = base[:i+5]
		}
		return base
	case strings.Contains(base, pendingPrefix):
		i := strings.Index(base, pendingPrefix) + len(pendingPrefix)
		return base[:i] + "N" + strings.TrimLeft(base[i:], "0123456789")
	}
	return base
}

// TestManyFaults has steps fail at random, more than one in a life, with several workers at a time and heartbeats between.
func TestManyFaults(t *testing.T) {
	seeds := 60
	if os.Getenv("AUDITCHAIN_LONG") == "1" {
		seeds = 3000
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 3))
			m := newMachine(t)
			m.cfg.Heartbeat = 3 * time.Millisecond
			m.cfg.UploadTimeout = 5 * time.Millisecond
			m.inject(func(op storagetest.Op) (storagetest.Fault, bool) {
				if rng.IntN(60) != 0 {
					return storagetest.Fault{}, false
				}
				return faultKinds[rng.IntN(len(faultKinds))].strike(m, op, rng.Uint64())
			})
			m.starts = -200 // so many may fail
			m.deliver(4)
			m.disk.Faults.Inject(nil)
			m.die()
			m.finish()
			m.check()
		})
	}
}

// rotationChunks are delivered to a machine whose key is rotated, the last of them after that.
const rotationChunks = stepChunks + 1

// newRotation is a machine whose first life has ended with one segment signed and not in the bucket, one drafted and a journal
// behind it; whoever starts it now has a new key.
func newRotation(t testing.TB) *machine {
	m := newMachine(t)
	m.rig.reader = m.memory
	signed, draft := make(chan struct{}, 1), (&Log{dir: m.dir()}).pendingPath(2)
	m.inject(func(op storagetest.Op) (storagetest.Fault, bool) {
		if op.Kind != storagetest.OpCreate || strings.HasSuffix(op.Path, "/000000000000.sigstore.json") {
			return storagetest.Fault{}, false
		}
		if role(op.Path) == "manifest" {
			signal(signed)
			return storagetest.Fail(injected(op)), false
		}
		if _, err := m.disk.ReadFile(draft); err != nil { // the first segment waits for the second to be drafted
			return storagetest.Fail(injected(op)), false
		}
		return storagetest.Fault{}, false
	})
	m.deliver(1)
	select {
	case <-signed:
	case <-time.After(20 * time.Second):
		t.Fatalf("nothing is signed; log: %q", m.rig.log.lines)
	}
	m.die()
	m.disk.Faults.Inject(nil)
	m.rotate()
	m.chunks = append(m.chunks, rotationChunks-1)
	return m
}

// checkRotated verifies what an auditor finds in the bucket who knows the first key alone.
func (m *machine) checkRotated(rotations int) {
	m.t.Helper()
	m.wantRotated(rotationChunks * stepRecords)
	all, _ := m.follow()
	if got := kinds(all); strings.Count(got, "r") != rotations || strings.HasSuffix(got, "r") {
		m.t.Errorf("manifests %s", got)
	}
}

// TestEveryStepOfARotation is TestEveryStep of a life in which the key is rotated, behind what the life before it had on its way.
func TestEveryStepOfARotation(t *testing.T) {
	m := newRotation(t)
	steps := m.named(func() {
		m.deliver(1)
		m.finish()
	})
	m.checkRotated(1)
	stride := 4 // and all of them in the long run
	if os.Getenv("AUDITCHAIN_LONG") == "1" {
		stride = 1
	}
	picked := everyKind(steps, len(faultKinds))
	var mu sync.Mutex
	struck := make(map[string]int)
	t.Run("all", func(t *testing.T) {
		for i, kind := range faultKinds {
			for k := range steps {
				if raced && !picked[i][k] || !raced && (k+i)%stride != 0 {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d", kind.name, k), func(t *testing.T) {
					t.Parallel()
					m := newRotation(t)
					is := m.place(steps, k)
					m.inject(func(op storagetest.Op) (storagetest.Fault, bool) {
						if !is(op) {
							return storagetest.Fault{}, false
						}
						mu.Lock()
						struck[kindOf(op)]++
						mu.Unlock()
						return kind.strike(m, op, uint64(k))
					})
					m.untidy = kind.name == "bits flipped"
					m.deliver(1)
					m.finish()
					m.disk.Faults.Inject(nil)
					m.checkRotated(1)
				})
			}
		}
	})
	t.Logf("%d steps; struck: %v", len(steps), struck)
}

// TestManyFaultsAndRotations is TestManyFaults of a chain whose key is rotated twice.
func TestManyFaultsAndRotations(t *testing.T) {
	seeds := 30
	if raced {
		seeds = 10
	}
	if os.Getenv("AUDITCHAIN_LONG") == "1" {
		seeds = 2000
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 4))
			m := newRotation(t)
			m.cfg.Heartbeat = 3 * time.Millisecond
			m.cfg.UploadTimeout = 5 * time.Millisecond
			m.inject(func(op storagetest.Op) (storagetest.Fault, bool) {
				if rng.IntN(60) != 0 {
					return storagetest.Fault{}, false
				}
				return faultKinds[rng.IntN(len(faultKinds))].strike(m, op, rng.Uint64())
			})
			m.starts, m.untidy = -1000, true // so many starts may fail
			m.deliver(1)
			m.finish() // the second rotation needs the first
			m.rotate()
			m.finish()
			m.disk.Faults.Inject(nil)
			m.starts = 0
			m.finish()
			m.checkRotated(2)
		})
	}
}
