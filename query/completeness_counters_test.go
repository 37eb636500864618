package query

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

const metrics = `# HELP http_requests_total Total number of requests by method, status and handler.
# TYPE http_requests_total counter
http_requests_total{handler="/v1/chat/completions",method="POST",status="2xx"} 120.0
  http_requests_total{status="4xx", method="POST", handler="/v1/chat/completions",} 3 1790000000000
http_requests_total{handler="/health",method="GET",status="2xx"} 1e+03
http_requests_total{handler="none",method="GET",status="4xx",x="a\"b\\c\nd"} 1
http_requests_created{handler="none"} what?
process_start_time_seconds 1.79576704213e+09
vllm:request_success_total{engine="0",finished_reason="stop",model_name="llama"} 100.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="llama"} 20.0
this is no metric { at all
`

func TestReadCounters(t *testing.T) {
	c, err := ReadCounters([]byte(metrics))
	if err != nil {
		t.Fatal(err)
	}
	if c.requests[request{"/v1/chat/completions", "POST", "2xx"}] != 120 || c.requests[request{"/v1/chat/completions", "POST", "4xx"}] != 3 ||
		len(c.requests) != 4 || *c.start != 1.79576704213e+09 || *c.engine != 120 {
		t.Errorf("%+v, %v, %v", c.requests, *c.start, *c.engine)
	}
	const labels = `handler="/x",method="POST",status="2xx"`
	for text, want := range map[string]string{
		"":                             "there is no http_requests_total in it",
		"process_start_time_seconds 1": "there is no http_requests_total in it",
		"http_requests_total 1":        "line 1: http_requests_total without handler, method or status",
		"\nhttp_requests_total{" + labels + "} x":                                        `line 2: "x" is not a value`,
		"http_requests_total{" + labels + "} 0x1p3":                                      `line 1: "0x1p3" is not a value`,
		"http_requests_total{" + labels + "} 1_000":                                      `line 1: "1_000" is not a value`,
		"http_requests_total{" + labels + "}":                                            "line 1: want a value, and at most a time behind it",
		"http_requests_total{" + labels + "} 1 2 3":                                      "line 1: want a value, and at most a time behind it",
		"http_requests_total{" + labels + "} 1 soon":                                     `line 1: "soon" is not a time`,
		"http_requests_total{" + labels + "} NaN":                                        "line 1: http_requests_total is NaN, which it cannot be",
		"http_requests_total{" + labels + "} -1":                                         "line 1: http_requests_total is -1, which it cannot be",
		"http_requests_total{" + labels + "} 1.5":                                        "line 1: http_requests_total is 1.5, which it cannot be",
		"http_requests_total{" + labels + "} +Inf":                                       "line 1: http_requests_total is +Inf, which it cannot be",
		"http_requests_total{" + labels + "} 1\nhttp_requests_total{" + labels + "} 2":   "line 2: a series that was there before",
		"http_requests_total{" + labels + ",status=\"4xx\"} 1":                           "line 1: the label status stands there twice",
		"http_requests_total{" + labels:                                                  "line 1: want a comma or a brace behind a label",
		`http_requests_total{handler="/x} 1`:                                             "line 1: a label's value without end",
		`http_requests_total{handler="/x\`:                                               "line 1: a label's value without end",
		`http_requests_total{handler="\x"} 1`:                                            `line 1: a label's value with the escape \x`,
		`http_requests_total{handler=/x} 1`:                                              "line 1: want a label's value in quotation marks",
		`http_requests_total{9="/x"} 1`:                                                  "line 1: want a label's name",
		"http_requests_total{handler=\"\xff\"} 1":                                        "line 1: it is not UTF-8",
		"http_requests_total{handler=\"" + strings.Repeat("x", maxCounterLine) + "\"} 1": "line 1: it has more than 65536 bytes",
		strings.Repeat("#\n", MaxCounterFile/2+1):                                        "it has 16777218 bytes, more than the 16777216 allowed",
	} {
		if _, err := ReadCounters([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%.100q: %v, want %s", text, err, want)
		}
	}
}

// A server that has served nothing yet knows its counter, and has no series of it.
func TestReadCountersOfNothing(t *testing.T) {
	c, err := ReadCounters([]byte("# HELP http_requests_total Total number of requests.\n# TYPE http_requests_total counter\nprocess_start_time_seconds 1\n"))
	if err != nil || len(c.requests) != 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

// FuzzReadCounters: whatever comes, what is read is numbers of requests.
func FuzzReadCounters(f *testing.F) {
	for line := range strings.Lines(metrics) {
		f.Add([]byte(line))
	}
	f.Add([]byte(metrics))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ReadCounters(data)
		if err != nil {
			return
		}
		if len(c.requests) == 0 && !bytes.Contains(data, []byte("# TYPE http_requests_total ")) {
			t.Error("no requests, and no error")
		}
		for r, n := range c.requests {
			if r.handler == "" || r.method == "" || r.status == "" || !(n >= 0) {
				t.Errorf("%+v: %v", r, n)
			}
		}
	})
}

func TestMatches(t *testing.T) {
	for _, test := range []struct {
		pattern, path string
		want          bool
	}{
		{"/v1/score", "/v1/score", true}, {"/v1/score", "/v1/scores", false}, {"*", "/x", true}, {"/v1/*", "/v1/", true}, {"/v1/*", "/v2/x", false},
		{"/*/embed", "/v2/embed", true}, {"/*/a/*", "/x/a/y", true}, {"/*/a/*", "/x/b/y", false}, {"/a*a", "/a", false}, {"/a*b*b", "/axb", false},
	} {
		if matches(test.pattern, test.path) != test.want {
			t.Errorf("%s and %s: want %v", test.pattern, test.path, test.want)
		}
	}
}

// counted is a record of a request on an endpoint, which took so long.
func counted(number int, at, endpoint string, ms int) line {
	return line{source: "gpu-1/a", number: number, at: at, bare: true, members: fmt.Sprintf(`,"endpoint":%q,"method":"POST","latency_ms":%d`, endpoint, ms)}
}

// scraped are metrics with a count of POSTs to /v1/completions, if it is not negative.
func scraped(t *testing.T, n int, more string) *Counters {
	text := "http_requests_total{handler=\"/health\",method=\"GET\",status=\"2xx\"} 1\n" + more
	if n >= 0 {
		text += fmt.Sprintf("\nhttp_requests_total{handler=\"/v1/completions\",method=\"POST\",status=\"2xx\"} %d\n", n)
	}
	c, err := ReadCounters([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCompletenessCounters(t *testing.T) {
	b := build(t, "audit.example.com/counters")
	b.records("07:59:30", say(0, "start", "07:00:00", 0, ""),
		counted(0, "07:58:00", "/v1/completions", 60_000),  // ended before
		counted(1, "07:59:00", "/v1/completions", 120_000)) // ended in it
	lines := []line{
		counted(2, "08:10:00", "/v1/completions", 100), counted(3, "08:11:00", "/v1/completions", 100), counted(3, "08:11:00", "/v1/completions", 100),
		counted(4, "08:12:00", "/v1/load_lora_adapter", 100), counted(5, "08:13:00", "/v1/completions", 100).with(`,"x":1`),
		counted(7, "08:59:00", "/v1/completions", 59_000), // ended a second before its end
		counted(8, "08:59:30", "/v1/completions", 60_000), // ended after it
		say(1, "heartbeat", "08:59:59", 9, `,"open":[6]`),
	}
	b.records("09:00:00", lines...)
	b.records("09:01:00", say(2, "heartbeat", "09:00:59", 9, `,"open":[6]`))
	for name, test := range map[string]struct {
		before, after *Counters
		verdict, text string
		want          string
	}{
		"equal":           {scraped(t, 100, ""), scraped(t, 105, ""), "equal", "equal", VerdictMet},
		"one was open":    {scraped(t, 100, ""), scraped(t, 106, ""), "equal", "equal but for 1 that ended within 2s of the period's ends, or were open", VerdictMet},
		"one on the edge": {scraped(t, 100, ""), scraped(t, 104, ""), "equal", "equal but for 1 that ended within 2s of the period's ends, or were open", VerdictMet},
		"more":            {scraped(t, 100, ""), scraped(t, 109, ""), "more-served", "served without a record that is in the log: 3", VerdictNotMet},
		"less":            {scraped(t, 100, ""), scraped(t, 102, ""), "more-records", "records more than the server counted: 2; it does not count what is refused before it (authentication), or other servers of this host have records", VerdictMet},
		"from nothing":    {scraped(t, -1, ""), scraped(t, 5, ""), "equal", "equal", VerdictMet},
		"gone back":       {scraped(t, 100, ""), scraped(t, 5, ""), "unknown", "its counter of status 2xx went back: the server was started anew, or another one was asked", VerdictUnknown},
		"gone":            {scraped(t, 100, ""), scraped(t, -1, ""), "unknown", "its counter of status 2xx went back: the server was started anew, or another one was asked", VerdictUnknown},
		"started anew":    {scraped(t, 100, "process_start_time_seconds 5"), scraped(t, 105, "process_start_time_seconds 6"), "unknown", "cannot be compared", VerdictUnknown},
		"another server":  {scraped(t, 100, "process_start_time_seconds 5"), scraped(t, 105, ""), "unknown", "cannot be compared", VerdictUnknown},
		"the same":        {scraped(t, 100, "process_start_time_seconds 5"), scraped(t, 105, "process_start_time_seconds 5"), "equal", "equal", VerdictMet},
	} {
		r := b.complete(func(o *CompletenessOptions) {
			o.Counters = &CounterCheck{Before: test.before, After: test.after, Host: "gpu-1", Endpoints: DefaultEndpoints}
			o.Now = on("09:01:00")
		})
		if len(r.Counters.Handlers) != 1 {
			t.Fatalf("%s: %s", name, asJSON(r.Counters))
		}
		h := r.Counters.Handlers[0]
		if h.Handler != "/v1/completions" || h.Records != 5 || h.Verdict != test.verdict || h.Text != test.text || r.Verdict != test.want {
			t.Errorf("%s: %s, %q, %s", name, r.Verdict, r.Reasons, asJSON(h))
		}
	}
}

// TestCompletenessCountersHost: records of several hosts are not compared with one server's counters.
func TestCompletenessCountersHost(t *testing.T) {
	b := build(t, "audit.example.com/hosts")
	b.records("08:30:00", counted(0, "08:10:00", "/v1/completions", 100), counted(0, "08:10:00", "/v1/completions", 100).of("gpu-2/b"))
	for host, want := range map[string]string{
		"": "the counters cannot be compared: several hosts have records in the period: say of which one the counters are", "gpu-1": "", "gpu-2": "",
		"gpu-3": "/v1/completions: the model server counted 1, the log has 0 at the most; served without a record that is in the log: 1",
	} {
		r := b.complete(func(o *CompletenessOptions) {
			o.Counters = &CounterCheck{Before: scraped(t, 0, ""), After: scraped(t, 1, ""), Host: host, Endpoints: []string{"/v1/comp*"}}
			o.Ended = []string{"*"}
		})
		if got := strings.Join(r.Reasons, "\n"); got != want {
			t.Errorf("of %q: %q, want %q", host, got, want)
		}
	}
}

// TestCompletenessEngine: what the engine counts beyond HTTP is noted.
func TestCompletenessEngine(t *testing.T) {
	b := build(t, "audit.example.com/engine")
	b.records("08:30:00", counted(0, "08:10:00", "/v1/completions", 100))
	r := b.complete(func(o *CompletenessOptions) {
		o.Counters = &CounterCheck{Before: scraped(t, 0, "vllm:request_success_total 7"), After: scraped(t, 1, "vllm:request_success_total 10"), Endpoints: DefaultEndpoints}
		o.Ended = []string{"gpu-1/a"}
	})
	if r.Verdict != VerdictMet || !slices.ContainsFunc(r.Notes, func(s string) bool {
		return strings.HasPrefix(s, "requests that the engine finished and that have no record: 2;")
	}) {
		t.Errorf("%s, %q", r.Verdict, r.Notes)
	}
}

// TestCompletenessCountersOnTheWay: what was served and is not in the log yet may be on its way, and no more than that is forgiven.
func TestCompletenessCountersOnTheWay(t *testing.T) {
	b := build(t, "audit.example.com/way")
	b.records("09:00:00", start, counted(0, "08:10:00", "/v1/completions", 100), counted(3, "08:59:00", "/v1/completions", 100), say(1, "heartbeat", "08:59:59", 4, `,"open":[1]`))
	for served, want := range map[int]string{1: "", 2: "", 3: "", 4: "served without a record that is in the log: 1; they may be on the way", 5: "served without a record that is in the log: 2"} {
		r := b.complete(func(o *CompletenessOptions) {
			o.Counters = &CounterCheck{Before: scraped(t, 0, ""), After: scraped(t, served, ""), Endpoints: DefaultEndpoints}
		})
		isNo, isUnknown := r.Verdict == VerdictNotMet, r.Verdict == VerdictUnknown
		if h := r.Counters.Handlers[0]; served > 3 && h.Text != want || isNo != (served > 4) || isUnknown != (served <= 4) {
			t.Errorf("%d served: %s, %s", served, r.Verdict, asJSON(h))
		}
		if !says(r.Notes, "the counters are without process_start_time_seconds") {
			t.Errorf("%q", r.Notes)
		}
	}
}
