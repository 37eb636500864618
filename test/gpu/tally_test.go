package gpu

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/auditchain/auditchain/query"
)

// tally is what the clients got, by the hash of what they sent.
type tally struct {
	calls map[string]answered
	held  []string // request_ids of those that were open when their process was killed

	killed int // processes of the model server
}

func (y *tally) add(calls []answered) {
	if y.calls == nil {
		y.calls = make(map[string]answered)
	}
	for _, a := range calls {
		y.calls[plain(a.Call.Body)] = a
	}
}

// settle waits until the aggregator has taken all that there is.
func (p *pipeline) settle(t *testing.T, y *tally) *arrived {
	t.Helper()
	written := p.written(t) // so far: heartbeats go on
	var all *arrived
	eventuallyEvery(t, readInterval, "the log has everything", func() error {
		var err error
		if all, err = p.taken(t.Context()); err != nil {
			return err
		}
		return missing(y, written, all)
	})
	return all
}

// missing says what is not in the log: of the lines that the middleware wrote, of the numbers of the sources, and of what
// the clients got whole.
func missing(y *tally, written *Records, all *arrived) error {
	there := make(map[Source]bool)
	last := make(map[string]uint64)
	inputs, died := make(map[string]bool), make(map[string]bool)
	note := func(s Source) {
		there[s] = true
		last[s.ID] = max(last[s.ID], s.Seq)
	}
	for i := range all.requests {
		r := &all.requests[i].Record
		note(r.Source)
		if r.Status == "server_died" {
			died[r.RequestID] = true
		} else {
			inputs[*r.InputHash] = true
		}
	}
	for i := range all.events {
		note(all.events[i].Source)
		if e := &all.events[i]; (e.SourceEvent == "stop" || e.SourceEvent == "died") && e.Served > 0 {
			last[e.Of] = max(last[e.Of], e.Served-1)
		}
	}
	var problems []error
	for i := range written.Requests {
		if r := &written.Requests[i]; !there[r.Source] {
			problems = append(problems, fmt.Errorf("the line of number %d of %s, status %s, of %s", r.Source.Seq, r.Source.ID, r.Status, r.Timestamp))
		}
	}
	for i := range written.Events {
		if e := &written.Events[i]; !there[e.Source] {
			problems = append(problems, fmt.Errorf("the line of number %d of %s, %s, of %s", e.Source.Seq, e.Source.ID, e.SourceEvent, e.Timestamp))
		}
	}
	for id, n := range last {
		for seq := range n {
			if !there[Source{id, seq}] {
				problems = append(problems, fmt.Errorf("number %d of %s", seq, id))
			}
		}
	}
	for hash, a := range y.calls {
		if a.Err == nil && !inputs[hash] && !died[uuidOf(responseID(a.Body))] {
			problems = append(problems, fmt.Errorf("an answer of status %d that came whole at %s: %.200s", a.Status, a.Ended, a.Call.Body))
		}
	}
	for _, id := range y.held {
		if !died[id] {
			problems = append(problems, fmt.Errorf("server_died of request %s", id))
		}
	}
	if len(problems) > 5 {
		problems = append(problems[:5], fmt.Errorf("and %d more", len(problems)-5))
	}
	return errors.Join(problems...)
}

// uuidOf is what a response's id ends with: the request_id.
func uuidOf(responseID string) string { return responseID[max(0, len(responseID)-36):] }

// compare compares the log with what the clients sent and got, and finds records that are there twice.
func (y *tally) compare(t *testing.T, all *arrived) {
	t.Helper()
	first := make(map[Source]*Record)
	for i := range all.requests {
		a := &all.requests[i]
		if before := first[a.Source]; before != nil {
			if !a.redelivered || !reflect.DeepEqual(before, &a.Record) {
				t.Errorf("number %d of %s is there twice, marked %v, of requests %s and %s", a.Source.Seq, a.Source.ID, a.redelivered, before.RequestID, a.RequestID)
			}
			continue
		}
		first[a.Source] = &a.Record
		if a.Status == "server_died" {
			continue
		}
		call, sent := y.calls[*a.InputHash]
		switch {
		case !sent:
			t.Errorf("nobody sent what request %s got, of status %s", a.RequestID, a.Status)
		case call.Err == nil:
			checkRecord(t, &a.Record, &call.Exchange, call.want)
		}
		if t.Failed() {
			return
		}
	}
}

// sameAsWritten: what is in the log is what the middleware wrote.
func sameAsWritten(t *testing.T, written *Records, all *arrived) {
	t.Helper()
	requests, events := make(map[Source]*Record), make(map[Source]*Event)
	for i := range all.requests {
		requests[all.requests[i].Source] = &all.requests[i].Record
	}
	for i := range all.events {
		events[all.events[i].Source] = &all.events[i]
	}
	for i := range written.Requests {
		if r := &written.Requests[i]; !reflect.DeepEqual(r, requests[r.Source]) {
			t.Fatalf("the log has\n%+v of\n%+v", requests[r.Source], r)
		}
	}
	for i := range written.Events {
		if e := &written.Events[i]; !reflect.DeepEqual(e, events[e.Source]) {
			t.Fatalf("the log has\n%+v of\n%+v", events[e.Source], e)
		}
	}
}

func (p *pipeline) verify(t *testing.T) {
	t.Helper()
	report, err := p.log.Verify(t.Context(), query.VerifyOptions{Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if report.Verdict != "intact" {
		t.Errorf("the log is %s: %+v", report.Verdict, report.Findings)
	}
}

// complete: every process is known to have ended, in order or not, and every number it took has a record.
func (p *pipeline) complete(t *testing.T, y *tally, all *arrived) {
	t.Helper()
	requests := make(map[Source]bool)
	for i := range all.requests {
		requests[all.requests[i].Source] = true
	}
	ended := make(map[string]int)
	for i := range all.events {
		ended[all.events[i].SourceEvent]++
	}
	if ended["start"] != ended["stop"]+ended["died"] || ended["died"] != y.killed {
		t.Errorf("source events: %v; %d processes were killed", ended, y.killed)
	}
	c, err := p.log.Completeness(t.Context(), query.CompletenessOptions{To: time.Now(), Now: time.Now(), Min: query.All})
	if err != nil {
		t.Fatal(err)
	}
	if c.Verdict != query.VerdictMet || c.Served != uint64(len(requests)) || c.Missing+c.Possible+c.Open > 0 {
		t.Errorf("completeness is %s: %d served, %d present, %d missing, %d possible, %d open, %v; the log has %d requests",
			c.Verdict, c.Served, c.Present, c.Missing, c.Possible, c.Open, c.Reasons, len(requests))
	}
}

func (p *pipeline) counters(t *testing.T) *query.Counters {
	t.Helper()
	c, err := query.ReadCounters(p.metrics(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// counted: what the server counted itself goes together with the log.
func (p *pipeline) counted(t *testing.T, began, ended time.Time, before, after *query.Counters) {
	t.Helper()
	check := &query.CounterCheck{Before: before, After: after, Endpoints: query.DefaultEndpoints}
	eventuallyEvery(t, readInterval, "the log and the server's counters agree", func() error {
		c, err := p.log.Completeness(t.Context(), query.CompletenessOptions{From: began, To: ended, Now: time.Now(), Min: query.All, Counters: check})
		if err != nil {
			return err
		}
		if c.Verdict != query.VerdictMet || c.Counters.Problem != "" || len(c.Counters.Handlers) != 3 {
			return fmt.Errorf("%s, %v, %+v", c.Verdict, c.Reasons, c.Counters)
		}
		for _, h := range c.Counters.Handlers {
			if h.Verdict != "equal" || h.Served != h.Records {
				return fmt.Errorf("%+v", h)
			}
		}
		return nil
	})
}

// text is the tally for people.
func (y *tally) text(all *arrived) string {
	whole, failed, died, redelivered := 0, 0, 0, 0
	for _, a := range y.calls {
		if a.Err == nil {
			whole++
		} else {
			failed++
		}
	}
	sources := make(map[string]bool)
	for i := range all.requests {
		r := &all.requests[i]
		sources[r.Source.ID] = true
		if r.redelivered {
			redelivered++
		}
		if r.Status == "server_died" {
			died++
		}
	}
	return fmt.Sprintf("%d answers came whole, %d calls failed; the log has %d records of %d processes, %d of them server_died, %d redelivered",
		whole, failed, len(all.requests), len(sources), died, redelivered)
}

// ages are how old records were when the log had taken them, counted from the end of the response, ascending.
func (a *arrived) ages() []time.Duration {
	var ages []time.Duration
	for i := range a.requests {
		r := &a.requests[i]
		if r.LatencyMS != nil && !r.redelivered {
			ended := r.Timestamp.Add(time.Duration(*r.LatencyMS * float64(time.Millisecond)))
			ages = append(ages, r.received.Sub(ended))
		}
	}
	slices.SortFunc(ages, cmp.Compare)
	return ages
}

// percentile of ascending values.
func percentile(values []time.Duration, p int) time.Duration { return values[(len(values)-1)*p/100] }
