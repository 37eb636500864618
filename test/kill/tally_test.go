package kill

import (
	"fmt"
	"strings"
	"time"
)

// tally counts what a run did.
type tally struct {
	rounds, lives, verified int
	took                    time.Duration

	process, store, both int // kills
	closed               int // times that it was asked to end, and did
	closing              int // times that it was asked to end, and killed while it did
	refused              int // starts
	failures             int // tries to write to the bucket that failed, as the log has them
	found                map[window]int

	acknowledged int // flushes that returned OK
	chunks       int // of them, different ones
	recognised   int // flushes that returned OK for what was in the chain already
	sentBack     int // flushes that returned RETRY
	unwitnessed  int // chunks in the chain whose OK was not witnessed
	torn         int // lives whose witness was cut
	records      int
}

// hit counts what a kill came into.
func (y *tally) hit(found map[window]bool) {
	if y.found == nil {
		y.found = make(map[window]int)
	}
	for w := range found {
		y.found[w]++
	}
}

// table is the tally for people.
func (y *tally) table() string {
	var b strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "  %-42s "+format+"\n", append([]any{what}, args...)...)
	}
	line("rounds", "%d in %s, %d lives; the chain verified %d times meanwhile", y.rounds, y.took.Round(time.Second), y.lives, y.verified)
	line("killed", "the plugin's process %d, the store %d, both %d", y.process, y.store, y.both)
	line("asked to end", "%d, %d killed while it closed", y.closed+y.closing, y.closing)
	line("refused to start, the store going away", "%d", y.refused)
	line("the process was killed with", "")
	for _, w := range allWindows {
		line("  "+string(w), "%d", y.found[w])
	}
	line("tries to write to the bucket that failed", "%d", y.failures)
	line("flushes acknowledged", "%d, of %d chunks", y.acknowledged, y.chunks)
	line("  of chunks that were there already", "%d", y.recognised)
	line("flushes sent back", "%d", y.sentBack)
	line("chunks whose OK nobody heard", "%d", y.unwitnessed)
	line("witness's frames cut", "%d", y.torn)
	line("records in the chain", "%d, each once", y.records)
	return b.String()
}
