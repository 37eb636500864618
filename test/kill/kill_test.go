// Package kill kills Fluent Bit with the plugin, and the S3 server, at random instants under load, again and again, and then
// compares the chain with what the plugin had acknowledged: every record of every chunk that got FLB_OK is in it, once, in
// order, and the chain is intact.
//
// What was acknowledged says the witness (package witness), which stands between Fluent Bit and the plugin: Fluent Bit's own
// acknowledgements, upstream, are given for other reasons.
package kill

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/witness"
)

var (
	roundsFlag = flag.Int("rounds", 0, "rounds of each variant, all of which are run then; 0: what AUDITCHAIN_KILL_ROUNDS says, or a few of some variants")
	seedFlag   = flag.Uint64("seed", 0, "of what is killed when; 0: another one each time")
)

// fewRounds are what a test of everything has time for.
const fewRounds = 20

// warmRound is the round in which nothing is killed before a chunk was taken: so a run has something to show, however long it takes
// to begin a chain, and the kills of the rounds before come into its beginning.
const warmRound = 2

// patience is how long a test waits for what must happen. It is far longer than anything takes, on a slow machine too.
const patience = 90 * time.Second

// pollInterval is the pause between questions where nothing says when the answer changes.
const pollInterval = 20 * time.Millisecond

// variant is one way to run the loop.
type variant struct {
	name       string
	fluentBit  bool   // a real one, not the plugin host
	server     string // what the bucket is in
	storeStays bool   // the server is never killed
	part       int    // one part of so many of the rounds
	always     bool   // not only in a long run
}

// TestKillLoop is the loop, in Fluent Bit where there is one, in the plugin host otherwise; in both in a long run.
func TestKillLoop(t *testing.T) {
	rounds, long := *roundsFlag, true
	if rounds == 0 {
		rounds, _ = strconv.Atoi(os.Getenv("AUDITCHAIN_KILL_ROUNDS"))
	}
	if rounds <= 0 {
		rounds, long = fewRounds, false
	}
	_, err := fluentbit.Find()
	for _, v := range []variant{
		{name: "Fluent Bit", fluentBit: true, server: "versitygw", part: 1, always: true},
		{name: "Fluent Bit, the store stays", fluentBit: true, server: "versitygw", part: 4, storeStays: true, always: true},
		{name: "Fluent Bit, MinIO", fluentBit: true, server: "minio", part: 4},
		{name: "plugin host", server: "versitygw", part: 1, always: err != nil},
		{name: "plugin host, the store stays", server: "versitygw", part: 4, storeStays: true, always: err != nil},
	} {
		t.Run(v.name, func(t *testing.T) {
			switch {
			case !long && !v.always:
				t.Skip("only in a long run")
			case v.fluentBit && err != nil:
				t.Skip(err)
			}
			newLoop(t, v, max(rounds/v.part, warmRound+1)).run(t)
		})
	}
}

// loop is the state of one variant.
type loop struct {
	variant
	rounds     int
	rng        *rand.Rand
	log        *auditLog
	store      *store
	aggregator aggregator
	witnesses  string // directory of the witness's files, one for each life
	lives      []life
	tally      tally
}

// life is one process of the aggregator's.
type life struct {
	began  time.Time
	outage int // of the store's, how many there had been; negative: one was under way
}

// aggregator runs the plugin, one life after the other, and delivers chunks to it until it has heard that they were taken.
type aggregator interface {
	// start begins a life, with these keys of the output, these variables of the environment, and load.
	start(t *testing.T, keys fluentbit.Section, env []string)
	// more goes on with the load in the life that has begun. False: it has ended by itself.
	more(t *testing.T) bool
	// ended is closed when the life has ended by itself; it may be nil.
	ended() <-chan struct{}
	// kill ends the life at once. False: it had ended by itself.
	kill(t *testing.T) bool
	// stop asks the life to end and kills it when after is over.
	stop(t *testing.T, after time.Duration) ending
	// settle begins a last life without new load, and ends it when nothing is left to be delivered and settled has nothing to
	// complain about.
	settle(t *testing.T, keys fluentbit.Section, env []string, settled func() error)
	// said is the log of the life that has ended last.
	said() string
}

// ending is how a life ended that was asked to end.
type ending int

const (
	closed ending = iota // as it was asked to
	killed               // it took too long
	gone                 // by itself, before
)

func newLoop(t *testing.T, v variant, rounds int) *loop {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	l := &loop{variant: v, rounds: rounds, rng: rand.New(rand.NewPCG(seed, 0)), witnesses: t.TempDir()}
	l.store = startStore(t, v.server)
	l.log = newLog(t, l.store.server)
	load := rand.New(rand.NewPCG(seed, 1))
	if v.fluentBit {
		l.aggregator = newFluentBit(t, witness.Path(t), load)
	} else {
		l.aggregator = newPluginHost(t, witness.Path(t), load)
	}
	return l
}

// run is all rounds, and what is checked after them.
func (l *loop) run(t *testing.T) {
	began := time.Now()
	alive := false
	for n := range l.rounds {
		if t.Failed() {
			break
		}
		alive = l.round(t, n, alive)
	}
	if alive {
		if !l.aggregator.kill(t) {
			l.gone(t)
		}
		l.over(t)
	}
	l.tally.took = time.Since(began)
	l.store.join(t)
	keys, env := l.next(false)
	l.aggregator.settle(t, keys, env, l.log.settled)
	l.over(t)
	l.log.verify(t, true)
	l.compare(t)
	l.tally.lives = len(l.lives)
	t.Logf("%s\n%s", l.name, l.tally.table())
}

// round starts the aggregator, unless it is alive, kills what is to be killed, and returns whether it is alive after that.
func (l *loop) round(t *testing.T, n int, alive bool) bool {
	t.Helper()
	l.tally.rounds++
	if alive {
		alive = l.aggregator.more(t)
		if !alive {
			l.gone(t)
			l.over(t)
		}
	}
	if n == warmRound {
		l.store.join(t)
	}
	if !alive {
		keys, env := l.next(true)
		l.aggregator.start(t, keys, env)
	}
	verified := make(chan struct{})
	verifying := n%5 == 4 && l.log.begun()
	if verifying {
		l.store.join(t)
		l.tally.verified++
		go func() { defer close(verified); l.log.verify(t, false) }()
		defer func() { <-verified }()
	}

	switch what := l.rng.IntN(20); {
	case what < 9 || verifying && what < 17 || l.storeStays && what < 17: // Fluent Bit alone
		l.wait()
		if !l.aggregator.kill(t) {
			l.gone(t)
			break
		}
		l.tally.process++
		l.hit(t)
	case what < 12: // the store alone, and Fluent Bit lives on
		l.store.join(t)
		l.wait()
		l.store.kill(l.outage())
		l.tally.store++
		l.store.join(t)
		return true
	case what < 17: // both, the store a moment before
		l.store.join(t)
		l.wait()
		l.store.kill(l.outage())
		if l.rng.IntN(2) == 0 {
			l.sleep(l.upTo(300 * time.Millisecond))
		}
		if !l.aggregator.kill(t) {
			l.tally.store++
			l.gone(t)
			break
		}
		l.tally.both++
		l.hit(t)
	default: // Fluent Bit is asked to end, and killed if it takes long
		l.wait()
		switch l.aggregator.stop(t, l.upTo(3*time.Second)) {
		case closed:
			l.tally.closed++
		case killed:
			l.tally.closing++
			l.hit(t)
		case gone:
			l.gone(t)
		}
	}
	l.over(t)
	return false
}

// next returns what the next life is started with. loaded says that there is load in it.
func (l *loop) next(loaded bool) (fluentbit.Section, []string) {
	n := len(l.lives)
	keys := l.log.section().With("workers", []string{"0", "1", "4"}[n%3])
	if loaded && n%4 == 3 {
		keys = keys.With("store_dir_limit_size", "2M") // so that chunks are sent back while the store is away
	}
	l.lives = append(l.lives, life{time.Now(), l.store.outages()})
	return keys, witness.Env(l.log.plugin, l.witnessed(n))
}

// witnessed is the file with what the plugin acknowledged in the n-th life.
func (l *loop) witnessed(n int) string { return filepath.Join(l.witnesses, fmt.Sprint(n)) }

// wait waits for the instant at which something is killed: a random one; or one in which something is under way, and a
// moment more. It ends when the aggregator ends by itself.
func (l *loop) wait() {
	n := l.rng.IntN(14)
	warm := l.tally.rounds == warmRound+1
	if n >= 9 && !warm {
		l.sleep(l.upTo(2 * time.Second))
		return
	}
	l.sleep(l.upTo(time.Second)) // not always the first of its kind
	underWay, most := l.aim(n), 1500*time.Millisecond
	if warm {
		underWay, most = l.acknowledged(), patience
	}
	for until := time.Now().Add(most); time.Now().Before(until) && !underWay(); {
		select {
		case <-l.aggregator.ended():
			return
		case <-time.After(200 * time.Microsecond): // what comes may be gone again soon
		}
	}
	l.sleep(l.upTo(4 * time.Millisecond))
}

// aim returns what is to be under way when something is killed, by a number from 0 to 8.
func (l *loop) aim(n int) func() bool {
	switch {
	case n < len(stages): // a commit has come to one of its stages
		return func() bool { return l.log.has(stages[n]) }
	case n == len(stages): // a manifest is in the bucket, and what it was made from is not needed any more
		return changed(filepath.Join(l.log.dir, headFile))
	default:
		return l.acknowledged()
	}
}

// acknowledged: the plugin has just acknowledged a chunk, and Fluent Bit has yet to hear of it, or to note it.
func (l *loop) acknowledged() func() bool { return changed(l.witnessed(len(l.lives) - 1)) }

// changed reports whether the file is another one by now, or a longer one.
func changed(path string) func() bool {
	before, missing := os.Stat(path)
	return func() bool {
		now, err := os.Stat(path)
		return err == nil && (missing != nil || now.Size() > before.Size() || !os.SameFile(before, now))
	}
}

// sleep ends early when the aggregator ends by itself.
func (l *loop) sleep(d time.Duration) {
	select {
	case <-l.aggregator.ended():
	case <-time.After(d):
	}
}

// upTo is a random time.
func (l *loop) upTo(d time.Duration) time.Duration { return time.Duration(l.rng.Int64N(int64(d) + 1)) }

// outage is how long the store is away: not long, mostly.
func (l *loop) outage() time.Duration {
	if l.rng.IntN(5) == 0 {
		return l.upTo(3 * time.Second)
	}
	return l.upTo(800 * time.Millisecond)
}

// hit counts what a kill of the aggregator came into.
func (l *loop) hit(t *testing.T) {
	t.Helper()
	found, err := l.log.windows()
	if err != nil {
		t.Fatal(err)
	}
	l.tally.hit(found)
}

// gone: the aggregator ended by itself. It may refuse to start when the store goes away while it looks there where the chain
// stands, and for no other reason.
func (l *loop) gone(t *testing.T) {
	t.Helper()
	l.tally.refused++
	if last := l.lives[len(l.lives)-1]; last.outage >= 0 && last.outage == l.store.outages() {
		t.Errorf("it ended by itself though the store was there all the time:\n%s", tail(l.aggregator.said()))
	}
}

// never is what no log may say.
var never = regexp.MustCompile(`panic|another writer|damaged|cannot be trusted|fatal error|SIGSEGV|SIGABRT|witness: |internal error`)

// over looks at what the life that has ended has said.
func (l *loop) over(t *testing.T) {
	t.Helper()
	said := l.aggregator.said()
	if found := never.FindString(said); found != "" {
		t.Errorf("life %d says %q:\n%s", len(l.lives)-1, found, tail(said))
	}
	l.tally.failures += strings.Count(said, "the data is kept in")
}

// tail is the end of a log.
func tail(log string) string { return log[max(0, len(log)-6000):] }
