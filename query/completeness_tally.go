package query

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/auditchain/auditchain/chain"
)

// CounterCheck compares what a model server counted in the period with the records of the requests that ended in it.
type CounterCheck struct {
	Before, After *Counters // at the period's ends
	Host          string    // of the sources: what their ids have before the last slash; "": there is one host only
	Endpoints     []string  // patterns of paths, in which * stands for any characters
}

// DefaultEndpoints are the patterns of docs/RECORDS.md, section 5.
var DefaultEndpoints = []string{
	"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/score", "/v1/rerank", "/v1/messages",
	"/v1/audio/transcriptions", "/v1/audio/translations", "/v2/embed", "/v2/rerank", "/pooling", "/classify", "/score", "/rerank",
	"/tokenize", "/detokenize", "/invocations", "/generative_scoring", "/inference/v1/generate", "/generate",
}

// CounterReport says how a model server's counters and the records of its host go together.
type CounterReport struct {
	Host     string          `json:"host"`
	Problem  string          `json:"problem,omitempty"` // why nothing can be told
	Open     uint64          `json:"open"`              // requests of the host that may have ended, and have no record yet
	OnTheWay uint64          `json:"on_the_way"`        // requests of the host whose records may still come
	Missing  uint64          `json:"missing"`           // of the host: gaps that are known without any counter
	Handlers []HandlerReport `json:"handlers"`
	// Engine is by how much vllm:request_success_total grew, and EngineRecords how many records ended: the engine also counts what comes
	// to it by other ways than HTTP, counts each of several answers to one request, and leaves out what was aborted.
	Engine        *uint64 `json:"engine,omitempty"`
	EngineRecords uint64  `json:"engine_records"`
}

// HandlerReport is what became of one handler.
type HandlerReport struct {
	Handler string `json:"handler"`
	Verdict string `json:"verdict"` // equal, more-served, more-records or unknown
	Served  uint64 `json:"served"`  // by how much the counter grew
	Records uint64 `json:"records"` // of requests that ended in the period
	// AtLeast and AtMost leave room for requests that ended within margin of the period's ends, and for open ones.
	AtLeast uint64 `json:"records_at_least"`
	AtMost  uint64 `json:"records_at_most"`
	Text    string `json:"text"`
}

// margin is how exactly the times of the two readings of the counters are known.
const margin = 2 * time.Second

// tally counts records by the endpoint at which their request ended.
type tally struct {
	CounterCheck
	from, to int64
	counts   map[string]*HandlerReport
	hosts    map[string]bool
}

// ended is where and when a request ended; the zero value is of no interest.
type ended struct {
	endpoint string
	at       int64
}

func newTally(check *CounterCheck, from, to int64) *tally {
	t := &tally{CounterCheck: *check, from: from, to: to, counts: make(map[string]*HandlerReport), hosts: make(map[string]bool)}
	for _, counters := range []*Counters{check.Before, check.After} {
		for r := range counters.requests {
			if r.method == "POST" && t.isEndpoint(r.handler) {
				t.counts[r.handler] = &HandlerReport{Handler: r.handler}
			}
		}
	}
	return t
}

func (t *tally) isEndpoint(path string) bool {
	return slices.ContainsFunc(t.Endpoints, func(pattern string) bool { return matches(pattern, path) })
}

// matches reports whether path is like pattern, in which * stands for any characters.
func matches(pattern, path string) bool {
	parts := strings.Split(pattern, "*")
	last := len(parts) - 1
	if last == 0 {
		return pattern == path
	}
	rest, ok := strings.CutPrefix(path, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1:last] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return strings.HasSuffix(rest, parts[last])
}

// hostOf returns what the id of a source has before its last slash.
func hostOf(id string) string {
	if i := strings.LastIndexByte(id, '/'); i >= 0 {
		return id[:i]
	}
	return id
}

// look takes from a record where and when its request ended. It may be called by several goroutines at once.
func (t *tally) look(record []byte, id string, at int64, names map[string]string) ended {
	if t.Host != "" && hostOf(id) != t.Host {
		return ended{}
	}
	endpoint := text(chain.Member(record, "endpoint"))
	if len(endpoint) > maxName || text(chain.Member(record, "method")) != "POST" || !t.isEndpoint(endpoint) {
		return ended{}
	}
	var latency float64
	if value := chain.Member(record, "latency_ms"); value != nil && json.Unmarshal(value, &latency) == nil && latency > 0 && latency < 1e12 {
		at += int64(latency * 1e6)
	}
	if names[endpoint] == "" {
		names[endpoint] = endpoint
	}
	return ended{names[endpoint], at}
}

// add counts a record.
func (t *tally) add(s *source, e *sighting) {
	const m = int64(margin)
	if t == nil || e.ended.endpoint == "" || e.ended.at < t.from-m || e.ended.at >= t.to+m {
		return
	}
	if len(t.hosts) < 2 {
		t.hosts[hostOf(s.id)] = true
	}
	h := t.counts[e.ended.endpoint]
	if h == nil {
		if len(t.counts) >= maxShares {
			return
		}
		h = &HandlerReport{Handler: e.ended.endpoint}
		t.counts[e.ended.endpoint] = h
	}
	h.AtMost++
	if e.ended.at >= t.from && e.ended.at < t.to {
		h.Records++
	}
	if e.ended.at >= t.from+m && e.ended.at < t.to-m {
		h.AtLeast++
	}
}

// hostGaps is what has no record, of a host's sources.
type hostGaps struct{ open, onTheWay, missing uint64 }

func (h *hostGaps) add(s *SourceReport) {
	h.open = plus(h.open, s.Open)
	h.onTheWay = plus(h.onTheWay, s.OnTheWay)
	h.missing = plus(h.missing, plus(s.Missing, s.Possible-s.OnTheWay))
}

// compare makes the report.
func (t *tally) compare(host hostGaps) *CounterReport {
	r := &CounterReport{Host: t.Host, Open: host.open, OnTheWay: host.onTheWay, Missing: host.missing, Handlers: []HandlerReport{}}
	before, after := t.Before, t.After
	switch {
	case (before.start == nil) != (after.start == nil):
		r.Problem = "process_start_time_seconds is in one of the two readings only: they are not of the same server, or it was restarted"
	case before.start != nil && *before.start != *after.start:
		r.Problem = "the server was started anew between the two readings, and its counters began anew"
	case t.Host == "" && len(t.hosts) > 1:
		r.Problem = "several hosts have records in the period: say of which one the counters are"
	}
	names := make([]string, 0, len(t.counts))
	for name := range t.counts {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		h := t.counts[name]
		t.judge(h, r.Problem != "", host)
		r.EngineRecords += h.Records
		r.Handlers = append(r.Handlers, *h)
	}
	if r.Problem == "" && before.engine != nil && after.engine != nil && *after.engine >= *before.engine {
		grown := uint64(*after.engine - *before.engine)
		r.Engine = &grown
	}
	return r
}

// judge says how one handler's counter and its records go together.
func (t *tally) judge(h *HandlerReport, unknown bool, host hostGaps) {
	h.AtMost = plus(h.AtMost, host.open)
	before, after := make(map[request]float64), t.After.requests
	back := ""
	for r, value := range t.Before.requests {
		if r.handler != h.Handler || r.method != "POST" {
			continue
		}
		before[r] = value
		if now, ok := after[r]; !ok || now < value {
			back = r.status
		}
	}
	var served float64
	for r, value := range after {
		if r.handler == h.Handler && r.method == "POST" {
			served += value - before[r]
		}
	}
	switch {
	case unknown:
		h.Verdict, h.Text = "unknown", "cannot be compared"
	case back != "":
		h.Verdict, h.Text = "unknown", fmt.Sprintf("its counter of status %s went back: the server was started anew, or another one was asked", back)
	default:
		h.Served = uint64(served)
		switch {
		case h.Served > h.AtMost && h.Served <= plus(h.AtMost, host.onTheWay):
			h.Verdict, h.Text = "unknown", fmt.Sprintf("served without a record that is in the log: %d; they may be on the way", h.Served-h.AtMost)
		case h.Served > h.AtMost:
			h.Verdict, h.Text = "more-served", fmt.Sprintf("served without a record that is in the log: %d", h.Served-h.AtMost)
			if host.missing > 0 {
				h.Text += fmt.Sprintf("; known as gaps of this host: %d", host.missing)
			}
		case h.Served < h.AtLeast:
			h.Verdict, h.Text = "more-records", fmt.Sprintf("records more than the server counted: %d; it does not count what is refused before it (authentication), or other servers of this host have records", h.AtLeast-h.Served)
		case h.Served == h.Records:
			h.Verdict, h.Text = "equal", "equal"
		default:
			h.Verdict, h.Text = "equal", fmt.Sprintf("equal but for %d that ended within %s of the period's ends, or were open", max(h.Served, h.Records)-min(h.Served, h.Records), margin)
		}
	}
}

// no returns why the counters are against completeness.
func (r *CounterReport) no() (reasons []string) {
	for _, h := range r.Handlers {
		if h.Verdict == "more-served" {
			reasons = append(reasons, fmt.Sprintf("%s: the model server counted %d, the log has %d at the most; %s", h.Handler, h.Served, h.AtMost, h.Text))
		}
	}
	return reasons
}

// unknown returns why the counters could not be compared.
func (r *CounterReport) unknown() (reasons []string) {
	if r.Problem != "" {
		return []string{"the counters cannot be compared: " + r.Problem}
	}
	for _, h := range r.Handlers {
		if h.Verdict == "unknown" {
			reasons = append(reasons, fmt.Sprintf("%s: %s", h.Handler, h.Text))
		}
	}
	return reasons
}
