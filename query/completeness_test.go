package query

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/chain"
)

func TestCompleteness(t *testing.T) {
	for name, test := range map[string]struct {
		log  []segment
		want string
	}{
		"all there": {
			[]segment{sealed("08:30:00", start, reqs(0, 9, "08:10:00")), sealed("10:00:00", stop(1, "08:40:00", 10))},
			"met: 10 of 10"},
		"some before and after the period": {
			[]segment{sealed("08:30:00", start, reqs(0, 4, "07:50:00"), reqs(5, 9, "08:10:00")), sealed("10:00:00", reqs(10, 14, "09:00:00"), stop(1, "09:30:00", 15))},
			"met: 5 of 5"},
		"a gap between two": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), reqs(6, 9, "08:20:00"), stop(1, "08:40:00", 10))},
			"not-met: 8 of 10; 4-5 08:10:03-08:20:00"},
		"a gap before the period": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "07:40:00"), reqs(6, 9, "07:50:00"), reqs(10, 12, "08:10:00"), stop(1, "08:40:00", 13))},
			"met: 3 of 3"},
		"a gap over the period's begin": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "07:40:00"), reqs(6, 9, "08:10:00"), stop(1, "08:40:00", 10))},
			"unknown: 4 of 4, 2 possible; 4-5 07:40:03-08:10:00"},
		"a gap over the period's end": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:40:00"), reqs(6, 9, "09:10:00"), stop(1, "09:40:00", 10))},
			"unknown: 4 of 4, 2 possible; 4-5 08:40:03-09:10:00"},
		"heartbeats narrow a gap down": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "07:40:00"), say(1, "heartbeat", "07:59:59", 5, ""), say(2, "heartbeat", "08:01:00", 8, ""), reqs(9, 9, "08:10:00"), stop(3, "08:40:00", 10))},
			"not-met: 1 of 2, 3 possible; 5-8 07:59:59-08:10:00"},
		"a heartbeat at the period's begin decides": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "07:40:00"), say(1, "heartbeat", "07:59:59", 6, ""), reqs(6, 9, "08:10:00"), stop(2, "08:40:00", 10))},
			"met: 4 of 4"},
		"all of the period gone": {
			[]segment{sealed("07:50:00", start, reqs(0, 3, "07:40:00")), sealed("10:00:00", reqs(20, 22, "09:10:00"), stop(9, "09:40:00", 23))},
			"unknown: 0 of 0, 16 possible, 8 events missing; 4-19 07:40:03-09:10:00"},
		"the first ones gone": {
			[]segment{sealed("10:00:00", say(0, "start", "08:01:00", 0, ""), reqs(3, 4, "08:10:00"), stop(1, "08:40:00", 5))},
			"not-met: 2 of 5; 0-2 08:01:00-08:10:00"},
		"the first ones gone, and the start": {
			[]segment{sealed("10:00:00", reqs(3, 4, "08:10:00"), stop(1, "08:40:00", 5))},
			"unknown: 2 of 2, 3 possible, 1 events missing; 0-2 ?-08:10:00"},
		"the first ones of a later source gone": {
			[]segment{sealed("08:30:00", start, reqs(0, 4, "08:10:00"), stop(1, "08:20:00", 5)), sealed("12:00:00", req(3, "11:00:00").of("gpu-2/b"))},
			"unknown: 5 of 5, 3 possible; 0-2 ?-11:00:00"},
		"the last ones gone": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), stop(1, "08:40:00", 6))},
			"not-met: 4 of 6; 4-5 08:10:03-08:40:00"},
		"nothing but words": {
			[]segment{sealed("10:00:00", say(0, "start", "08:10:00", 0, ""), stop(1, "08:40:00", 6))},
			"not-met: 0 of 6; 0-5 08:10:00-08:40:00"},
		"a long request goes on": {
			[]segment{sealed("08:56:00", start, reqs(0, 3, "08:10:00"), reqs(5, 9, "08:20:00"), say(1, "heartbeat", "08:55:30", 10, `,"open":[4]`))},
			"met: 9 of 9, 1 open; alive"},
		"more open ones than a word names": {
			[]segment{sealed("08:56:00", start, reqs(0, 0, "08:10:00"), say(1, "heartbeat", "08:50:00", 1203, ""), say(2, "heartbeat", "08:55:30", 1203, `,"recorded":1,"lost":1,"open":`+numbers(2, 1001)))},
			"not-met: 1 of 2, 1201 open; 1-1 08:10:00-08:50:00; alive"},
		"one that was open when the source stopped": {
			[]segment{sealed("08:56:00", start, reqs(0, 3, "08:10:00"), reqs(5, 9, "08:20:00"), say(1, "stop", "08:55:30", 10, `,"open":[4]`))},
			"not-met: 9 of 10; 4-4 08:10:03-08:20:00"},
		"one behind the last word of a source that lives": {
			[]segment{sealed("08:56:00", start, reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:55:30", 4, ""), reqs(5, 6, "08:55:40"))},
			"unknown: 6 of 6, 1 possible, 1 on the way; 4-4 08:55:30-08:55:40; alive"},
		"one before the last word, not open": {
			[]segment{sealed("08:56:00", start, reqs(0, 3, "08:10:00"), reqs(5, 9, "08:20:00"), say(1, "heartbeat", "08:55:30", 10, ""))},
			"not-met: 9 of 10; 4-4 08:10:03-08:20:00; alive"},
		"a source died": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), req(4, "08:10:10").with(`,"was":"server_died"`), say(1, "died", "08:30:00", 6, `,"open":[4,5],"reported_by":"gpu-1/b"`))},
			"not-met: 5 of 6; 5-5 08:10:10-08:30:00; died"},
		"a source went silent": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:30:00", 4, ""))},
			"not-met: 4 of 4; silent"},
		"a source went silent right at the period's end": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:59:30", 4, ""))},
			"not-met: 4 of 4; silent"},
		"a source went silent within the hour before": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "07:20:00"), say(1, "heartbeat", "07:40:00", 4, ""))},
			"unknown: 0 of 0; silent"},
		"a source went silent long before": {
			[]segment{sealed("2026-11-16T07:00:00Z", say(0, "start", "2026-11-16T07:00:00Z", 0, "")), other},
			"met: 1 of 1"},
		"a source that speaks every ten minutes is not silent yet": {
			[]segment{sealed("06:25:00", say(0, "start", "05:00:00", 0, `,"heartbeat_s":600`)), sealed("09:00:00", reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:35:00", 4, ""))},
			"unknown: 4 of 4; alive"},
		"and is later": {
			[]segment{sealed("06:30:00", say(0, "start", "06:00:00", 0, `,"heartbeat_s":600`)), sealed("09:30:00", reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:35:00", 4, ""))},
			"not-met: 4 of 4; silent"},
		"spoke again after the period": {
			[]segment{sealed("08:50:00", start, reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:30:00", 4, "")), sealed("20:00:00", say(2, "heartbeat", "19:59:50", 4, ""))},
			"met: 4 of 4; alive"},
		"a late record closes a gap": {
			[]segment{sealed("08:30:00", start, reqs(0, 3, "08:10:00"), reqs(5, 9, "08:20:00")), sealed("10:00:00", stop(1, "08:40:00", 10)), sealed("20:00:00", req(4, "08:11:00"))},
			"met: 10 of 10"},
		"a late record, by the time at which it was read": {
			[]segment{sealed("08:30:00", start, reqs(0, 3, "08:10:00"), reqs(5, 9, "08:20:00")), sealed("10:00:00", stop(1, "08:40:00", 10)), sealed("20:00:00", req(4, "08:11:00").read("19:00:00"))},
			"met: 10 of 10"},
		"all records read late": {
			[]segment{sealed("20:00:00", start.read("19:00:00"), req(0, "08:11:00").read("19:00:00"), req(1, "09:11:00").read("19:00:00"), stop(1, "09:40:00", 2).read("19:00:00"))},
			"met: 1 of 1"},
		"a lost heartbeat is no lost request": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:20:00", 4, ""), say(3, "heartbeat", "08:22:00", 4, ""), stop(4, "08:40:00", 4))},
			"met: 4 of 4, 1 events missing"},
		"no source events": {
			[]segment{sealed("10:00:00", reqs(0, 3, "08:10:00"))},
			"unknown: 4 of 4"},
		"no source": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:10:00"), stop(1, "08:40:00", 4), req(0, "08:20:00").of(""))},
			"met: 4 of 4, 1 unnumbered"},
		"nothing but records without source": {
			[]segment{sealed("10:00:00", req(0, "08:20:00").of(""))},
			"unknown: 0 of 0, 1 unnumbered"},
		"a source that served nothing": {
			[]segment{sealed("10:00:00", start, say(1, "heartbeat", "08:20:00", 0, ""), stop(2, "08:40:00", 0))},
			"met: 0 of 0"},
		"nothing of that time": {
			[]segment{sealed("07:10:00", say(0, "start", "06:00:00", 0, ""), reqs(0, 3, "06:10:00"), stop(1, "06:20:00", 4))},
			"unknown: 0 of 0"},
		"delivered twice": {
			[]segment{sealed("08:30:00", start, reqs(0, 9, "08:10:00")), sealed("10:00:00", req(4, "08:10:04").marked(), stop(1, "08:40:00", 10), stop(1, "08:40:00", 10).marked())},
			"met: 10 of 10, 2 redelivered"},
		"delivered twice without mark": {
			[]segment{sealed("08:30:00", start, reqs(0, 9, "08:10:00")), sealed("10:00:00", req(4, "08:10:04"), stop(1, "08:40:00", 10))},
			"met: 10 of 10, 1 redelivered"},
		"delivered twice at once, without mark": {
			[]segment{sealed("08:30:00", start, reqs(0, 9, "08:10:00"), req(4, "08:10:04"), stop(1, "08:40:00", 10))},
			"met: 10 of 10, 1 redelivered"},
		"marked, but the first is not there": {
			[]segment{sealed("08:30:00", start, req(0, "08:10:00").marked(), stop(1, "08:40:00", 1))},
			"met: 1 of 1"},
		"a conflict": {
			[]segment{sealed("08:30:00", start, reqs(0, 9, "08:10:00")), sealed("10:00:00", req(4, "08:10:04").with(`,"x":1`).marked(), stop(1, "08:40:00", 10))},
			"not-met: 10 of 10, 1 redelivered, 1 conflicts"},
		"a conflict without mark": {
			[]segment{sealed("08:30:00", start, reqs(0, 9, "08:10:00"), req(4, "08:10:04").with(`,"x":1`), stop(1, "08:40:00", 10))},
			"not-met: 10 of 10, 1 redelivered, 1 conflicts"},
		"a conflict with a record of another time": {
			[]segment{sealed("06:30:00", req(4, "06:00:00")), sealed("08:30:00", start, reqs(0, 9, "08:10:00"), stop(1, "08:40:00", 10))},
			"not-met: 10 of 10, 1 redelivered, 1 conflicts"},
		"a conflict of words": {
			[]segment{sealed("08:30:00", start, reqs(0, 9, "08:10:00"), say(1, "stop", "08:40:00", 12, "")), sealed("10:00:00", stop(1, "08:40:00", 10))},
			"not-met: 10 of 12, 1 redelivered, 1 conflicts; 10-11 08:40:00-08:40:00"},
		"a conflict that only its mark tells of": {
			[]segment{sealed("08:30:00", start, line{source: "gpu-1/a", at: "08:10:00", conflict: true}, stop(1, "08:40:00", 1))},
			"not-met: 1 of 1, 1 conflicts"},
		"a gap up to the period's first moment": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "07:59:00"), reqs(5, 6, "08:00:00"), stop(1, "08:40:00", 7))},
			"unknown: 2 of 2, 1 possible; 4-4 07:59:03-08:00:00"},
		"a gap before the period, written out of order": {
			[]segment{sealed("10:00:00", start, reqs(0, 1, "07:50:00"), req(3, "07:51:00"), req(6, "07:55:00"), req(2, "07:50:30"), req(7, "08:10:00"), stop(1, "08:40:00", 8))},
			"met: 1 of 1"},
		"a gap that began long before the period": {
			[]segment{sealed("05:10:00", say(0, "start", "05:00:00", 0, ""), reqs(0, 3, "05:01:00")), sealed("10:00:00", reqs(6, 7, "08:10:00"), stop(1, "08:40:00", 8))},
			"unknown: 2 of 2, 2 possible; 4-5 05:01:03-08:10:00"},
		"two long requests, named out of order": {
			[]segment{sealed("08:56:00", start, reqs(0, 3, "08:10:00"), reqs(6, 9, "08:20:10"), say(1, "heartbeat", "08:55:30", 10, `,"open":[5,4]`))},
			"met: 8 of 8, 2 open; alive"},
		"one that was open for long, until the source stopped": {
			[]segment{sealed("09:00:00", start, reqs(0, 3, "08:10:00"), reqs(5, 6, "08:20:00"), say(1, "heartbeat", "08:50:00", 7, `,"open":[4]`)),
				sealed("10:01:00", say(2, "heartbeat", "10:00:00", 7, `,"open":[4]`)), sealed("20:00:00", stop(3, "19:00:00", 7))},
			"not-met: 6 of 7; 4-4 08:10:03-08:20:00"},
		"one that was open until a word before the last, which does not say": {
			[]segment{sealed("09:00:00", start, reqs(0, 3, "08:10:00"), reqs(5, 6, "08:20:00"), say(1, "heartbeat", "08:50:00", 7, `,"open":[4]`)),
				sealed("10:01:00", say(2, "heartbeat", "10:00:00", 7, `,"open":[4]`)), sealed("15:00:00", say(3, "heartbeat", "15:00:00", 7, "")),
				sealed("20:00:00", line{source: "gpu-1/a/events", number: 4, at: "20:00:00", bare: true, members: `,"source_event":"model_checksum"`})},
			"not-met: 6 of 7; 4-4 08:10:03-08:20:00; silent"},
		"a source went silent after the period": {
			[]segment{sealed("08:50:00", start, reqs(0, 3, "08:10:00"), say(1, "heartbeat", "08:30:00", 4, "")), sealed("12:10:00", say(2, "heartbeat", "12:00:00", 4, "")), sealed("20:00:00", req(0, "19:00:00").of("gpu-2/b"))},
			"met: 4 of 4; silent"},
		"nothing of that time, but of shortly before": {
			[]segment{sealed("10:00:00", say(0, "start", "07:10:00", 0, ""), reqs(0, 3, "07:20:00"), stop(1, "07:30:00", 4))},
			"unknown: 0 of 0"},
		"a source that served nothing, and records without source": {
			[]segment{sealed("10:00:00", start, say(1, "heartbeat", "08:20:00", 0, ""), stop(2, "08:40:00", 0), req(0, "08:20:00").of(""))},
			"unknown: 0 of 0, 1 unnumbered"},
		"a conflict of words, the larger one last": {
			[]segment{sealed("08:30:00", start, reqs(0, 9, "08:10:00"), stop(1, "08:40:00", 10)), sealed("10:00:00", stop(1, "08:40:00", 12))},
			"not-met: 10 of 12, 1 redelivered, 1 conflicts; 10-11 08:40:00-08:40:00"},
		"a clock that was set back over the period's end": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "09:01:00"), reqs(6, 9, "08:50:00"), stop(1, "09:10:00", 10))},
			"unknown: 4 of 4, 2 possible; 4-5 09:01:03-08:50:00"},
		"a clock that was set back": {
			[]segment{sealed("10:00:00", start, reqs(0, 3, "08:01:00"), reqs(6, 9, "07:58:00"), reqs(12, 14, "08:10:00"), stop(1, "08:40:00", 15))},
			"not-met: 7 of 9, 2 possible; 4-5 08:01:03-07:58:00; 10-11 07:58:03-08:10:00"},
		"an event where a request belongs": {
			[]segment{sealed("10:00:00", start, req(0, "08:10:00").with(`,"source_event":"start"`), req(1, "08:11:00"), stop(1, "08:40:00", 2))},
			"met: 2 of 2, 1 misplaced"},
		"numbers as large as they get": {
			[]segment{sealed("10:00:00", reqs(0, 0, "08:10:00"), req(9223372036854775807, "08:20:00"), req(9223372036854775807, "08:20:00").of("gpu-2/b"))},
			"not-met: 3 of 9223372036854775809, 9223372036854775807 possible; 1-9223372036854775806 08:10:00-08:20:00; 0-9223372036854775806 ?-08:20:00"},
	} {
		t.Run(name, func(t *testing.T) {
			b := build(t, "audit.example.com/complete")
			for _, s := range test.log {
				b.records(s.sealed, s.lines...)
			}
			if r := b.complete(nil); brief(r) != test.want {
				t.Errorf("%s\nwant %s\n%q, %q", brief(r), test.want, r.Reasons, r.Problems)
			}
		})
	}
}

func asJSON(v any) string {
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// TestCompletenessMin: of a thousand requests one may be missing where 99.9 % are wanted, and of the complete ones more.
func TestCompletenessMin(t *testing.T) {
	b := build(t, "audit.example.com/min")
	b.records("10:00:00", start)
	b.records("10:00:00", slices.Concat(reqs(0, 499, "08:01:00"), reqs(501, 998, "08:20:00"), []line{{source: "gpu-1/a", number: 999, at: "08:40:00", bare: true}, stop(1, "08:50:00", 1000)})...)
	for _, test := range []struct {
		least, complete string
		verdict         string
	}{
		{"100", "0", VerdictNotMet}, {"99.901", "0", VerdictNotMet}, {"99.9", "0", VerdictMet}, {"0", "0", VerdictMet},
		{"99.9", "99.8", VerdictMet}, {"99.9", "99.801", VerdictNotMet}, {"0", "100", VerdictNotMet},
	} {
		r := b.complete(func(o *CompletenessOptions) {
			o.Min, _ = ParsePercent(test.least)
			o.MinComplete, _ = ParsePercent(test.complete)
		})
		if r.Verdict != test.verdict || (r.Verdict == VerdictMet) != (len(r.Reasons) == 0) {
			t.Errorf("with %s and %s: %s, %q, want %s", test.least, test.complete, r.Verdict, r.Reasons, test.verdict)
		}
		if r.Percent.String() != "99.900" || r.CompletePercent.String() != "99.800" || r.Lacking["user_id"] != 1 || r.Lacking["timestamp"] != 0 {
			t.Errorf("%s", asJSON(r))
		}
	}
}

func TestPercent(t *testing.T) {
	for _, test := range []struct {
		part, whole uint64
		want        string
	}{
		{1, 1, "100.000"}, {999_999_999, 1_000_000_000, "99.999"}, {2, 3, "66.666"}, {0, 3, "0.000"}, {0, 0, ""}, {1<<64 - 2, 1<<64 - 1, "99.999"},
	} {
		got := ""
		if p := percent(test.part, test.whole); p != nil {
			got = p.String()
		}
		if got != test.want {
			t.Errorf("%d of %d is %q %%, want %q", test.part, test.whole, got, test.want)
		}
	}
	for in, want := range map[string]string{"100": "100.000", "99.9": "99.900", "99.999": "99.999", "0": "0.000", "7.05": "7.050"} {
		if p, err := ParsePercent(in); err != nil || p.String() != want {
			t.Errorf("%s is %s, %v", in, p, err)
		}
	}
	for _, in := range []string{"", "100.001", "101", "-1", "+1", "99.9999", "1e2", ".5", "9 9", "1_0", "4294967396", "1.-5", "1.+5"} {
		if p, err := ParsePercent(in); err == nil {
			t.Errorf("%q is %s", in, p)
		}
	}
}

// TestCompletenessBy: a table's parts add up to the whole.
func TestCompletenessBy(t *testing.T) {
	b := build(t, "audit.example.com/by")
	b.records("11:00:00", slices.Concat([]line{start}, reqs(0, 3, "08:10:00"), []line{
		req(4, "08:50:00").with(`,"model_id":"qwen"`), req(7, "08:50:09").with(`,"model_id":"qwen"`),
		req(9, "09:10:00").with(`,"model_id":"\u001b[2J"`),
		{source: "gpu-1/b", number: 0, at: "09:30:00", bare: true},
		stop(1, "09:40:00", 10),
	})...)
	for by, want := range map[string]string{
		"source": "[{gpu-1/a 7 7 3 0} {gpu-1/b 1 0 0 0}]",
		"model":  "[{\x1b[2J 1 1 0 0} {llama 4 4 0 0} {qwen 2 2 0 0} { 1 0 3 0}]",
		"hour":   "[{2026-11-23T08:00Z 6 6 2 0} {2026-11-23T09:00Z 2 1 0 0} { 0 0 1 0}]",
	} {
		r := b.complete(func(o *CompletenessOptions) { o.By, o.To = by, on("10:00:00") })
		if got := fmt.Sprint(r.By); got != want {
			t.Errorf("by %s: %q, want %q", by, got, want)
		}
	}
}

// TestCompletenessOmitted: where a manifest does not say which numbers its segment has, the segment does.
func TestCompletenessOmitted(t *testing.T) {
	b := build(t, "audit.example.com/omitted")
	var odd, even []line
	for i := range 20_010 {
		even = append(even, req(2*i, "08:10:00"))
		if i != 77 {
			odd = append(odd, req(2*i+1, "08:10:00"))
		}
	}
	b.records("08:20:00", even...)
	b.records("08:30:00", append(odd, start, stop(1, "08:20:00", 40_020), req(5, "08:10:00"), req(6, "08:10:01"))...)
	if m, err := b.Log.manifest(t.Context(), 1); err != nil {
		t.Fatal(err)
	} else if parsed, err := chain.PeekManifest(m.data); err != nil || parsed.SourcesOmitted == 0 {
		t.Fatalf("the manifest lists its sources: %v", err)
	}
	want := "not-met: 40019 of 40020, 2 redelivered, 1 conflicts; 155-155 08:10:00-08:10:00"
	if r := b.complete(nil); brief(r) != want {
		t.Errorf("%s, want %s", brief(r), want)
	}
}

// TestCompletenessNow: whoever looks while the log still grows does not call silent who has just spoken.
func TestCompletenessNow(t *testing.T) {
	b := build(t, "audit.example.com/now")
	b.records("08:40:00", append(reqs(0, 3, "08:10:00"), start, say(1, "heartbeat", "08:30:00", 4, ""))...)
	for now, want := range map[string]string{"08:31:00": "met: 4 of 4; alive", "08:35:00": "not-met: 4 of 4; silent", "23:00:00": "not-met: 4 of 4; silent"} {
		if r := b.complete(func(o *CompletenessOptions) { o.Now = on(now) }); brief(r) != want {
			t.Errorf("at %s: %s, want %s", now, brief(r), want)
		}
	}
}

// TestCompletenessRotated: a log whose key was rotated is read with the keys of each place.
func TestCompletenessRotated(t *testing.T) {
	b := build(t, "audit.example.com/rotated")
	b.records("08:30:00", append(reqs(0, 3, "08:10:00"), start)...)
	b.rotate(key(t))
	b.records("08:40:00", append(reqs(4, 6, "08:35:00"), stop(1, "08:36:00", 7))...)
	if r := b.complete(nil); brief(r) != "met: 7 of 7" {
		t.Errorf("%s, %q", brief(r), r.Problems)
	}
}

// TestCompletenessReads: of a long log those segments are read that the period touches, and few others.
func TestCompletenessReads(t *testing.T) {
	b := build(t, "audit.example.com/reads")
	n := 0
	for hour := range 20 {
		for minute := 0; minute < 60; minute += 10 {
			at := fmt.Sprintf("%02d:%02d:", hour, minute)
			lines := reqs(n, n+4, at+"00")
			lines = append(lines, say(hour*6+minute/10, "heartbeat", at+"30", n+5, ""))
			if n == 0 {
				lines = append(lines[:5], say(0, "start", at+"30", n+5, `,"heartbeat_s":600`))
			}
			b.records(at+"40", lines...)
			n += 5
		}
	}
	b.m.opened.Store(0)
	r := b.complete(func(o *CompletenessOptions) { o.Now = on("19:55:00") })
	// 7 of the period and the ten minutes before it, one after it, and the last one, for the source's last word; each with its manifest.
	if brief(r) != "met: 30 of 30; alive" || r.Segments != 120 || r.Read != 9 || b.m.opened.Load() != 122+2*9 {
		t.Errorf("%s, %d of %d segments, %d objects opened", brief(r), r.Read, r.Segments, b.m.opened.Load())
	}
}

// TestCompletenessTexts: the report says what is known of gaps and sources.
func TestCompletenessTexts(t *testing.T) {
	b := build(t, "audit.example.com/texts")
	b.records("08:59:59", quarantined)
	b.records("09:00:00", quarantined)
	b.records("10:00:00", slices.Concat([]line{start}, reqs(0, 3, "08:10:00"), []line{
		{source: "gpu-1/a", number: 4, at: "08:20:00", bare: true},
		say(3, "died", "08:30:00", 6, `,"recorded":5,"lost":1,"reported_by":"gpu-1/b"`),
		line{source: "gpu-2/c", number: 0, bare: true}.read("08:15:00"),
		saying("gpu-2/d", 7, "heartbeat", "08:05:00", 0),
		saying("gpu-2/f", 0, "start", "08:05:00", 0), saying("gpu-2/f", 1, "heartbeat", "08:06:00", 2), saying("gpu-2/f", 2, "stop", "08:07:00", 1),
		req(0, "08:06:00").of("gpu-2/f"), req(1, "08:06:00").of("gpu-2/f"), say(0, "start", "08:05:00", 0, "").of("gpu-2/f-said/events"),
		saying("gpu-2/g", 0, "start", "08:05:00", 0), saying("gpu-2/g", 1, "stop", "08:07:00", 0), saying("gpu-2/g", 2, "heartbeat", "08:08:00", 0),
	})...)
	r := b.complete(nil)
	if got := r.Gaps[0].Known; got != "the source's last numbers: the process died" {
		t.Errorf("of the gap: %q", got)
	}
	if s := r.Sources[0]; s.State != StateDied || s.Lost != 1 || *s.Recorded != 5 || *s.Served != 6 || s.ReportedBy != "gpu-1/b" || s.EventsMissing != 2 || s.NoStart {
		t.Errorf("of gpu-1/a: %s", asJSON(s))
	}
	if s := r.Sources[2]; s.ID != "gpu-2/d" || s.State != StateSilent || !s.NoStart {
		t.Errorf("of gpu-2/d: %s", asJSON(s))
	}
	for _, s := range r.Sources {
		if s.Contradicts != (s.ID == "gpu-2/f" || s.ID == "gpu-2/g") || s.Beyond != (s.ID == "gpu-2/f") {
			t.Errorf("of %s: %s", s.ID, asJSON(s))
		}
	}
	for _, want := range []string{
		"sources that contradict themselves: 2;", "source events that are of another source than the one under whose id they came: 1;",
		"sources without source events: 1;", "sources whose start is not in the log: 1", "in all their lives: 1", "records whose timestamp is missing or cannot be: 1;", "source events that are missing, at the most: 9;",
		"could not be read as records: 1;",
	} {
		if !says(r.Notes, want) {
			t.Errorf("%q is not among the notes %q", want, r.Notes)
		}
	}
	if !says(r.Reasons, "only 88.888 % of what was served has a record, not 100.000 %") || !says(r.Reasons, "sources that went silent: 2;") {
		t.Errorf("reasons: %q", r.Reasons)
	}
	text := asJSON(r)
	for _, want := range []string{`"percent": 88.888,`, `"conflicts": []`, `"problems": []`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
}
