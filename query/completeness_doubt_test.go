package query

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
)

// saying is a source event of a source.
func saying(source string, number int, name, at string, served int) line {
	return line{source: source + "/events", number: number, at: at, bare: true, members: fmt.Sprintf(`,"source_event":%q,"of":%q,"served":%d`, name, source, served)}
}

// stamped is a line with a timestamp that is not of that day.
func stamped(l line, timestamp string) line { return l.with(fmt.Sprintf(`,"timestamp":%q`, timestamp)) }

// other is a source of which all is known.
var other = sealed("10:00:00", saying("gpu-2/b", 0, "start", "08:05:00", 0), req(0, "08:10:00").of("gpu-2/b"), saying("gpu-2/b", 1, "stop", "08:40:00", 1))

// TestCompletenessDoubted: what somebody holds back, makes up or says falsely, and what is late, never makes a log complete.
func TestCompletenessDoubted(t *testing.T) {
	until := func(now string) func(*CompletenessOptions) {
		return func(o *CompletenessOptions) { o.Now = on(now) }
	}
	ended := func(pattern string) func(*CompletenessOptions) {
		return func(o *CompletenessOptions) { o.Ended = []string{"x", pattern} }
	}
	for name, test := range map[string]struct {
		log     []segment
		want    string
		because string                     // what one of the reasons begins with
		ask     func(*CompletenessOptions) // for what else
	}{
		"more open ones than a word names, and some that are not": {
			[]segment{sealed("08:56:00", start, reqs(0, 0, "08:10:00"), say(1, "heartbeat", "08:50:00", 1203, ""), say(2, "heartbeat", "08:55:30", 1203, `,"recorded":101,"lost":1,"open":`+numbers(2, 1001)))},
			"not-met: 1 of 102, 1101 open; 1-1 08:10:00-08:50:00; 1103-1202 08:10:00-08:50:00; alive", "", nil},
		"more open ones than anybody believes": {
			[]segment{sealed("08:56:00", start, reqs(0, 0, "08:10:00"), say(1, "heartbeat", "08:50:00", 100_000, ""), say(2, "heartbeat", "08:55:30", 100_000, `,"recorded":1,"open":`+numbers(1, 1000)))},
			"not-met: 1 of 34464, 65536 open; 65537-99999 08:10:00-08:50:00; alive", "", nil},
		"a source went silent right before the period": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "07:20:00"), say(1, "heartbeat", "07:58:00", 4, ""))},
			"not-met: 0 of 0; silent", "", nil},
		"a source went silent days before": {
			[]segment{sealed("2026-11-16T10:00:00Z", say(0, "start", "2026-11-16T09:00:00Z", 0, "")), other},
			"unknown: 1 of 1; silent", "", nil},
		"a source went silent days before, as the asker knows": {
			[]segment{sealed("2026-11-16T10:00:00Z", say(0, "start", "2026-11-16T09:00:00Z", 0, "")), other},
			"met: 1 of 1; ended", "", ended("gpu-1*")},
		"a source went silent, as the asker knows": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:30:00", 4, ""))},
			"met: 4 of 4; ended", "", ended("*/a")},
		"a source went silent, and the asker knows of another": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:30:00", 4, ""))},
			"not-met: 4 of 4; silent", "sources that went silent: 1;", ended("*/b")},
		"a source of which the asker says that it ended has a gap": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:30:00", 5, `,"open":[4]`))},
			"not-met: 4 of 5; 4-4 08:10:03-08:30:00; ended", "", ended("*/a")},
		"no source events, before the period": {
			[]segment{sealed("06:00:00", reqs(0, 3, "05:10:00")), other},
			"unknown: 1 of 1", "sources without source events: 1;", nil},
		"no source events, but records after the period": {
			[]segment{sealed("10:00:00", reqs(0, 3, "08:10:00"), req(4, "09:01:00"))},
			"met: 4 of 4", "", nil},
		"no source events, and the asker knows that it ended": {
			[]segment{sealed("10:00:00", reqs(0, 3, "08:10:00"))},
			"met: 4 of 4; ended", "", ended("gpu-1/a")},
		"all that came before a source's first record gone": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), stop(1, "08:40:00", 4)), sealed("14:00:00", saying("gpu-2/b", 700, "heartbeat", "13:00:00", 9), req(9, "13:10:00").of("gpu-2/b"))},
			"unknown: 4 of 4, 9 possible, 700 events missing; 0-8 ?-13:00:00; silent", "", nil},
		"a source that began after the period, with a gap": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), stop(1, "08:40:00", 4)), sealed("14:00:00", saying("gpu-2/b", 0, "start", "13:00:00", 0), req(9, "13:10:00").of("gpu-2/b"))},
			"met: 4 of 4", "", nil},
		"said less later": {
			[]segment{sealed("10:00:00", start, reqs(0, 6, "08:10:00"), say(1, "heartbeat", "08:30:00", 10, ""), stop(2, "08:40:00", 7))},
			"not-met: 7 of 10; 7-9 08:40:00-08:30:00", "", nil},
		"said less in a word of a number and a time far ahead": {
			[]segment{sealed("10:00:00", start, reqs(0, 6, "08:10:00"), say(1, "heartbeat", "08:30:00", 10, ""), stamped(say(99, "heartbeat", "", 4, ""), "2199-01-01T00:00:00Z").read("08:31:00"))},
			"not-met: 7 of 10, 97 events missing; 7-9 08:10:06-08:30:00; silent", "sources that went silent: 1;", nil},
		"a stop that was overtaken by a word before it": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), stop(2, "08:40:00", 4).got("08:40:01"), say(1, "heartbeat", "08:39:00", 4, "").got("08:41:00"))},
			"met: 4 of 4", "", nil},
		"a stop that was overtaken by a word before it, long after the period": {
			[]segment{sealed("09:20:00", start, reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:59:00", 4, "")), sealed("09:30:00", say(2, "heartbeat", "09:25:00", 4, "")),
				sealed("12:00:00", stop(4, "11:58:00", 4).got("11:59:00")), sealed("13:00:00", say(3, "heartbeat", "11:57:00", 4, "").got("12:59:00")), sealed("20:00:00", quarantined)},
			"met: 4 of 4", "", nil},
		"a word after the stop": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), stop(1, "08:40:00", 4), say(2, "heartbeat", "08:41:00", 4, ""))},
			"not-met: 4 of 4; silent", "", nil},
		"a clock that is slow": {
			[]segment{sealed("09:00:10", start, reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:55:00", 4, "").got("09:00:00"))},
			"met: 4 of 4; alive", "", nil},
		"a clock that is fast": {
			[]segment{sealed("08:56:00", start, reqs(0, 3, "08:10:00"), say(1, "heartbeat", "09:04:00", 4, "").got("08:55:30"))},
			"met: 4 of 4; alive", "", nil},
		"a word that says it is of later is no sign of life": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), say(1, "heartbeat", "09:59:30", 4, "").got("08:30:00"))},
			"not-met: 4 of 4; silent", "", nil},
		"words that came late, the last of them of before the period's end": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:57:00", 4, "").got("09:06:00"))},
			"not-met: 4 of 4; silent", "", nil},
		"speaks each second": {
			[]segment{sealed("08:51:30", say(0, "start", "08:05:00", 0, `,"heartbeat_s":1`), reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:50:00", 4, ""))},
			"met: 4 of 4; alive", "", nil},
		"says that it speaks once a month": {
			[]segment{sealed("08:51:30", say(0, "start", "08:05:00", 0, `,"heartbeat_s":2678400`), reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:50:00", 4, "")), sealed("2026-11-26T09:00:00Z", quarantined)},
			"not-met: 4 of 4; silent", "", until("2026-11-27T00:00:00Z")},
		"one that was open when the source went silent, after the period": {
			[]segment{sealed("09:00:00", start, reqs(0, 3, "08:10:00"), reqs(5, 6, "08:20:00"), say(1, "heartbeat", "08:50:00", 7, `,"open":[4]`)),
				sealed("12:10:00", say(2, "heartbeat", "12:00:00", 7, `,"open":[4]`)), sealed("20:00:00", quarantined)},
			"not-met: 6 of 7; 4-4 08:10:03-08:20:00; silent", "", nil},
		"one that is said to be open for 24 hours": {
			[]segment{sealed("09:00:00", start, reqs(0, 3, "08:10:00"), reqs(5, 6, "08:20:00"), say(1, "heartbeat", "08:50:00", 7, `,"open":[4]`)),
				sealed("2026-11-24T08:20:00Z", say(2, "heartbeat", "2026-11-24T08:19:00Z", 7, `,"open":[4]`))},
			"met: 6 of 6, 1 open; alive", "", until("2026-11-25T00:00:00Z")},
		"one that is said to be open for more than 24 hours": {
			[]segment{sealed("09:00:00", start, reqs(0, 3, "08:10:00"), reqs(5, 6, "08:20:00"), say(1, "heartbeat", "08:50:00", 7, `,"open":[4]`)),
				sealed("2026-11-24T08:20:02Z", say(2, "heartbeat", "2026-11-24T08:19:00Z", 7, `,"open":[4]`))},
			"not-met: 6 of 7; 4-4 08:10:03-08:20:00; alive", "", until("2026-11-25T00:00:00Z")},
		"a gap that showed four minutes ago": {
			[]segment{sealed("08:54:10", start, reqs(0, 3, "08:10:00"), req(5, "08:50:10"), say(1, "heartbeat", "08:53:00", 6, ""))},
			"unknown: 5 of 5, 1 possible, 1 on the way; 4-4 08:10:03-08:50:10; alive", "whether 100.000 % of what was served has a record cannot be told: requests without record that arrived in the period or beside it: 0; requests whose records may be on the way: 1", nil},
		"a gap that showed five minutes ago": {
			[]segment{sealed("08:55:10", start, reqs(0, 3, "08:10:00"), req(5, "08:50:10"), say(1, "heartbeat", "08:54:00", 6, ""))},
			"not-met: 5 of 6; 4-4 08:10:03-08:50:10; alive", "", nil},
		"a gap that showed five minutes ago, and another one": {
			[]segment{sealed("08:55:10", start, reqs(0, 3, "08:10:00"), req(5, "08:50:10"), req(7, "08:53:00"), say(1, "heartbeat", "08:54:00", 8, ""))},
			"not-met: 6 of 7, 1 possible, 1 on the way; 4-4 08:10:03-08:50:10; 6-6 08:50:10-08:53:00; alive", "", nil},
		"a gap that a word in a segment after the period showed, some of which is of the last minutes": {
			[]segment{sealed("08:50:00", start, reqs(0, 3, "08:10:00")), sealed("09:10:00", say(1, "heartbeat", "08:59:00", 5, "").got("09:04:00"), req(5, "09:09:00")), sealed("09:10:10", say(2, "heartbeat", "09:10:00", 6, ""))},
			"not-met: 4 of 5; 4-4 08:10:03-08:59:00; alive", "", nil},
		"one behind the last word of a source that speaks rarely": {
			[]segment{sealed("08:54:00", say(0, "start", "08:05:00", 0, `,"heartbeat_s":600`), reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:45:00", 4, ""), req(5, "08:46:00"))},
			"unknown: 5 of 5, 1 possible, 1 on the way; 4-4 08:45:00-08:46:00; alive", "", nil},
		"a record without a source that came late": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), stop(1, "08:40:00", 4)), sealed("12:00:00", req(0, "08:20:00").of("").got("11:00:00"))},
			"met: 4 of 4, 1 unnumbered", "", nil},
		"words that come late": {
			[]segment{sealed("09:20:10", start.got("09:19:00"), reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:49:59", 4, "").got("09:20:00"))},
			"unknown: 4 of 4; alive", `sources that the log has not heard until the period's end, so that what they served then may be on its way: 1: "gpu-1/a"`, nil},
		"words that come late, but no later than a clock may be slow": {
			[]segment{sealed("09:20:10", start.got("09:19:00"), reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:50:00", 4, "").got("09:20:00"))},
			"met: 4 of 4; alive", "", nil},
		"a conflict with a record that is said to be of another year": {
			[]segment{sealed("08:59:00", start, reqs(0, 3, "08:10:00"), stop(1, "08:40:00", 4), stamped(req(3, ""), "2024-03-01T00:00:00Z").read("08:45:00"))},
			"not-met: 4 of 4, 1 conflicts", "", nil},
		"a conflict that its mark tells of, of another year": {
			[]segment{sealed("08:59:00", start, reqs(0, 3, "08:10:00"), stop(1, "08:40:00", 4)), sealed("08:59:30", line{source: "gpu-3/x", number: 7, at: "2024-03-01T00:00:00Z", received: "08:59:00", conflict: true})},
			"not-met: 4 of 4, 1 conflicts", "", nil},
		"a conflict of words that are said to be of another year": {
			[]segment{sealed("08:59:00", start, reqs(0, 3, "08:10:00"), stop(1, "08:40:00", 4), stamped(stop(1, "", 4), "9999-12-31T00:00:00Z").read("2024-03-01T00:00:00Z").got("08:41:00"))},
			"not-met: 4 of 4, 1 redelivered, 1 conflicts", "", nil},
		"the log ends before the period does": {
			[]segment{sealed("07:28:00", start.read("07:26:00"), stop(1, "07:27:30", 0))},
			"unknown: 0 of 0", "the log ends at 2026-11-23T07:28:00Z: it was cut off,", nil},
		"the log ends, and nobody promised more": {
			[]segment{sealed("07:30:00", start.read("07:26:00"), say(1, "heartbeat", "07:29:00", 0, "")), sealed("08:00:30", reqs(0, 0, "08:00:01"), stop(2, "08:00:20", 1))},
			"met: 1 of 1", "", nil},
		"the log ends, and a source lived then": {
			[]segment{sealed("07:30:00", start.read("07:26:00"), say(1, "heartbeat", "07:29:00", 0, "")), sealed("08:00:30", reqs(0, 0, "08:00:01"), say(2, "heartbeat", "08:00:20", 1, ""))},
			"unknown: 1 of 1; alive", "sources that the log has not heard until the period's end, ", nil},
		"an inference under the id of events": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), stop(1, "08:40:00", 4), req(0, "08:10:00").of("gpu-2/b/events"))},
			"met: 4 of 4, 1 unnumbered, 1 misplaced", "", nil},
		"an event under the id of another source": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), say(1, "stop", "08:40:00", 4, "").with(`,"x":1`).of("gpu-2/b/events"))},
			"not-met: 4 of 4; silent", "", nil},
		"a timestamp that nobody can read": {
			[]segment{sealed("10:00:00", start, reqs(0, 2, "08:10:00"), stamped(req(3, ""), "noon").read("08:20:00"), stop(1, "08:40:00", 4))},
			"met: 4 of 4", "", nil},
		"a timestamp of before 2000": {
			[]segment{sealed("10:00:00", start, reqs(0, 2, "08:10:00"), stamped(req(3, ""), "1999-12-31T23:59:59Z").read("08:20:00"), stop(1, "08:40:00", 4))},
			"met: 4 of 4", "", nil},
		"a timestamp that wraps around 64 bits": {
			[]segment{sealed("10:00:00", start, reqs(0, 2, "08:10:00"), stamped(req(3, ""), "2611-06-01T00:00:00Z").read("08:20:00"), stop(1, "08:40:00", 4))},
			"met: 4 of 4", "", nil},
		"a timestamp of a little later than it was received": {
			[]segment{sealed("10:00:00", start, reqs(0, 2, "08:50:00"), req(3, "09:00:00").got("08:50:00"), stop(1, "09:40:00", 4))},
			"met: 3 of 3", "", nil},
		"a timestamp of later than it was received": {
			[]segment{sealed("10:00:00", start, reqs(0, 2, "08:49:00"), req(3, "09:00:00").got("08:49:59"), stop(1, "09:40:00", 4))},
			"met: 4 of 4", "", nil},
		"records of more than was served when it stopped": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), stop(1, "08:40:00", 4), req(4, "08:20:00"))},
			"not-met: 5 of 5", `sources that have records of more than they had served when they stopped: 1: "gpu-1/a"`, nil},
		"records of more than was served when it stopped, of another period": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), stop(1, "08:40:00", 4), req(4, "09:20:00"))},
			"met: 4 of 4", "", nil},
		"records of more than was served when it died": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), say(1, "died", "08:40:00", 4, ""), req(4, "08:20:00"))},
			"met: 5 of 5; died", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := build(t, "audit.example.com/doubted")
			for _, s := range test.log {
				b.records(s.sealed, s.lines...)
			}
			r := b.complete(test.ask)
			if brief(r) != test.want || test.because != "" && !says(r.Reasons, test.because) {
				t.Errorf("%s\nwant %s, %s\n%q, %q", brief(r), test.want, test.because, r.Reasons, r.Problems)
			}
		})
	}
}

// TestCompletenessCertain: what is certain stays so, whatever else could not be read, and what is not stays open.
func TestCompletenessCertain(t *testing.T) {
	late := []line{req(10, "11:10:00"), req(11, "11:11:00"), stop(1, "11:40:00", 12)}
	for name, test := range map[string]struct {
		lines []line
		least string
		want  string
	}{
		"a gap":                            {append(reqs(0, 4, "08:10:00"), reqs(6, 9, "08:20:00")...), "100", "not-met: 9 of 10, 1 problems; 5-5 08:10:04-08:20:00; silent"},
		"too little at the best":           {append(reqs(0, 4, "08:10:00"), reqs(6, 9, "08:20:00")...), "92.308", "not-met: 9 of 10, 1 problems; 5-5 08:10:04-08:20:00; silent"},
		"enough at the best":               {append(reqs(0, 4, "08:10:00"), reqs(6, 9, "08:20:00")...), "92.307", "unknown: 9 of 10, 1 problems; 5-5 08:10:04-08:20:00; silent"},
		"silent, unless it spoke in there": {reqs(0, 9, "08:10:00"), "100", "unknown: 10 of 10, 1 problems; silent"},
	} {
		t.Run(name, func(t *testing.T) {
			b := build(t, "audit.example.com/certain")
			b.records("08:40:00", append(test.lines, start)...)
			unread := b.records("12:00:00", late...)
			b.m.objects[unread][0].data[20] ^= 1
			r := b.complete(func(o *CompletenessOptions) { o.Min, _ = ParsePercent(test.least) })
			if brief(r) != test.want {
				t.Errorf("%s\nwant %s\n%q, %q", brief(r), test.want, r.Reasons, r.Problems)
			}
		})
	}
}

// TestCompletenessUnlisted: a segment that is gone, and of which nobody knows what it had, matters only where it may close a gap.
func TestCompletenessUnlisted(t *testing.T) {
	var sparse []line
	for i := range 20_001 {
		sparse = append(sparse, line{source: "gpu-3/c", number: 2 * i, bare: true})
	}
	for name, test := range map[string]struct {
		at    string // when the sparse numbers came
		lines []line
		last  string // word of the source
		want  string
	}{
		"no gap":                           {"12:00:00", reqs(0, 4, "08:10:00"), "stop", "met: 5 of 5"},
		"a gap before it came":             {"12:00:00", append(reqs(0, 2, "08:10:00"), req(4, "08:20:00")), "stop", "unknown: 4 of 5, 1 problems; 3-3 08:10:02-08:20:00"},
		"a gap after it had come":          {"05:00:00", append(reqs(0, 2, "08:10:00"), req(4, "08:20:00")), "stop", "not-met: 4 of 5; 3-3 08:10:02-08:20:00"},
		"silent, unless it spoke in there": {"12:00:00", reqs(0, 4, "08:10:00"), "heartbeat", "unknown: 5 of 5; silent"},
		"silent after it had come":         {"05:00:00", reqs(0, 4, "08:10:00"), "heartbeat", "not-met: 5 of 5; silent"},
	} {
		t.Run(name, func(t *testing.T) {
			b := build(t, "audit.example.com/unlisted")
			for i := range sparse {
				sparse[i].at = test.at
			}
			gone := b.records(test.at, sparse...)
			b.records("13:00:00", append(test.lines, start, say(1, test.last, "08:40:00", 5, ""))...)
			delete(b.m.objects, gone)
			if r := b.complete(nil); brief(r) != test.want {
				t.Errorf("%s\nwant %s\n%q, %q", brief(r), test.want, r.Reasons, r.Problems)
			}
		})
	}
}

// TestCompletenessSpliced: manifests that do not continue each other, though the key's holder signed each, leave all unknown.
func TestCompletenessSpliced(t *testing.T) {
	for name, change := range map[string]func(m *chain.Manifest){
		"another manifest before it": func(m *chain.Manifest) { m.PreviousManifest = &chain.Hash{1} },
		"another entry before it":    func(m *chain.Manifest) { m.PreviousHead = &chain.Hash{1} },
	} {
		t.Run(name, func(t *testing.T) {
			b := build(t, "audit.example.com/spliced")
			b.records("06:00:00", req(0, "05:00:00").of("gpu-9/z"), saying("gpu-9/z", 0, "stop", "05:10:00", 1))
			b.records("06:10:00", req(0, "05:00:00").of("gpu-8/z"), saying("gpu-8/z", 0, "stop", "05:10:00", 1))
			b.records("09:00:00", append(reqs(0, 3, "08:10:00"), start, stop(1, "08:40:00", 4))...)
			if r := b.complete(nil); brief(r) != "met: 4 of 4" {
				t.Fatalf("%s, %q", brief(r), r.Problems)
			}
			stored := &b.m.objects[b.Layout.Manifest(2)][0]
			m, err := chain.PeekManifest(stored.data)
			if err != nil {
				t.Fatal(err)
			}
			change(m)
			if stored.data, _, err = m.Sign(b.k); err != nil {
				t.Fatal(err)
			}
			if r := b.complete(nil); r.Verdict != VerdictUnknown || r.Problems[0] != "manifest 2 does not continue manifest 1" {
				t.Errorf("%s, %q", brief(r), r.Problems)
			}
		})
	}
}

// TestReadWord: of what a source event says no more is kept than there may be.
func TestReadWord(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	word := func(members string) *word {
		return readWord(&chain.Entry{Record: []byte(`{"source_event":"heartbeat"` + members + `}`)}, 7, 8)
	}
	if w := word(fmt.Sprintf(`,"reported_by":%q`, long)); len(w.reportedBy) > maxName || !strings.HasPrefix(long, w.reportedBy) || w.reportedBy == "" {
		t.Errorf("reported_by of %d bytes", len(w.reportedBy))
	}
	if w := word(`,"open":[` + strings.Repeat("1,", 1<<20) + `1]`); len(w.open) != 1 || cap(w.open) > maxOpen {
		t.Errorf("%d open ones, room for %d", len(w.open), cap(w.open))
	}
	if w := word(`,"open":` + numbers(5, 5000)); len(w.open) != maxOpen || w.open[maxOpen-1] != 1004 {
		t.Errorf("%d open ones", len(w.open))
	}
	for text, want := range map[string]string{
		`[]`: "[]", `[2,1]`: "[1 2]", `[18446744073709551615]`: "[18446744073709551615]", `[18446744073709551616]`: "[]", `[-1]`: "[]",
		`["1"]`: "[]", `{"a":1}`: "[]", `null`: "[]", `7`: "[]",
	} {
		if got := fmt.Sprint(word(`,"open":` + text).open); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	for text, want := range map[string]time.Duration{"60": time.Minute, "0.5": time.Second / 2, "0": 0, "-1": 0, `"x"`: 0, "2678400": 24 * time.Hour, "1e308": 24 * time.Hour} {
		if w := word(`,"heartbeat_s":` + text); w.interval != want {
			t.Errorf("heartbeat_s %s is %s, want %s", text, w.interval, want)
		}
	}
}

// TestNumbers: sets of numbers that are put together in whatever order are what they are one by one.
func TestNumbers(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		s := newSource("gpu-1/a")
		var want, again, read chain.Ranges
		var seen []chain.Range
		for segment := range 5 {
			var here chain.Ranges
			for range random.IntN(12) {
				here.Add(random.Uint64N(40))
			}
			for _, run := range here.Runs() {
				for n := run.First; n <= run.Last; n++ {
					if !want.Add(n) {
						again.Add(n)
					}
					read.Add(n)
				}
			}
			s.add(segment, here.Runs())
			seen = union(seen, here.Runs())
		}
		s.list()
		if !slices.Equal(s.numbers, want.Runs()) || !slices.Equal(s.again, again.Runs()) || !slices.Equal(seen, read.Runs()) {
			t.Fatalf("%v, %v, %v; want %v, %v", s.numbers, s.again, seen, want.Runs(), again.Runs())
		}
	}
}

// TestCompletenessSparse: numbers that come sparse and in falling order take no longer than others.
func TestCompletenessSparse(t *testing.T) {
	const segments, each = 20, 10_000
	b := build(t, "audit.example.com/sparse")
	for i := range segments {
		lines := make([]line, each)
		for j := range lines {
			lines[j] = line{source: "gpu-1/a", number: 2 * (segments*each - i*each - j), at: "08:10:00", bare: true}
		}
		b.records("08:20:00", lines...)
	}
	if r := b.complete(nil); r.Present != segments*each || len(r.Gaps) != segments*each {
		t.Errorf("%d present, %d gaps", r.Present, len(r.Gaps))
	}
}

// TestCompletenessBehind: a segment that was sealed late has more behind it; nobody is silent for that.
func TestCompletenessBehind(t *testing.T) {
	b := build(t, "audit.example.com/behind")
	b.records("09:20:00", append(reqs(0, 3, "08:10:00"), start, say(1, "heartbeat", "08:30:00", 4, ""))...)
	if r := b.completeSoFar(nil); brief(r) != "unknown: 4 of 4; alive" || !r.AsOf.Equal(on("08:30:00")) || !r.LastSealed.Equal(on("09:20:00")) {
		t.Errorf("%s, %q, as of %s", brief(r), r.Reasons, r.AsOf)
	}
	b.records("09:20:01", say(2, "heartbeat", "08:59:30", 4, ""))
	if r := b.completeSoFar(nil); brief(r) != "met: 4 of 4; alive" {
		t.Errorf("%s, %q", brief(r), r.Reasons)
	}
	if r := b.complete(nil); brief(r) != "not-met: 4 of 4; silent" {
		t.Errorf("%s, %q", brief(r), r.Reasons)
	}
}
