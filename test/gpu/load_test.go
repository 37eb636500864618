package gpu

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const (
	loadWorkers = 4
	loadClients = 200
	loadCalls   = 10 // of each client
)

// Four processes, 200 clients: each request has exactly one record, with what its client sent and got, the numbers of each
// source are dense, and the server's own counter comes to the same.
func TestLoad(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{Workers: loadWorkers})
	done := load(t.Context(), r.URL, loadClients, loadCalls)
	all := r.records(t, len(done))
	requests, err := all.Sources()
	if err != nil {
		t.Error(err)
	}
	byInput := make(map[string]*Record)
	for i := range all.Requests {
		record := &all.Requests[i]
		if byInput[*record.InputHash] != nil {
			t.Errorf("two records of one request: %s", *record.InputHash)
		}
		byInput[*record.InputHash] = record
	}
	if len(byInput) != len(done) {
		t.Errorf("%d records of %d requests", len(byInput), len(done))
	}
	if len(requests) < 2 {
		t.Errorf("only %d processes served", len(requests))
	}
	ids := make(map[string]bool)
	for i := range done {
		e := &done[i].Exchange
		if e.Err != nil {
			t.Fatal(e.Err)
		}
		record := byInput[plain(e.Call.Body)]
		if record == nil {
			t.Fatalf("no record of %s", e.Call.Body)
		}
		checkRecord(t, record, e, done[i].want)
		if ids[record.RequestID] {
			t.Errorf("two records have the request_id %s", record.RequestID)
		}
		ids[record.RequestID] = true
		if t.Failed() {
			t.FailNow() // one is enough to read
		}
	}
	if counted := r.counted(t); counted != len(done) {
		t.Errorf("the server counted %d requests, not %d", counted, len(done))
	}

	r.stop(t)
	all = r.await(t, "the stop of each process", func(all *Records) error {
		if n := len(all.events("stop")); n < loadWorkers {
			return fmt.Errorf("%d of them", n)
		}
		return nil
	})
	if _, err := all.Sources(); err != nil {
		t.Error(err)
	}
	stops := make(map[string]int)
	for _, e := range all.events("stop") {
		if e.Served != e.Recorded || e.Lost != 0 || len(e.Open) != 0 || e.Source.ID != e.Of+"/events" {
			t.Errorf("stop: %+v", e)
		}
		if e.Served > 0 {
			stops[e.Of] = int(e.Served)
		}
	}
	if !maps.Equal(stops, requests) {
		t.Errorf("the sources say they served %v, their records are %v", stops, requests)
	}
	for _, e := range all.events("start") {
		if e.Source.Seq != 0 || e.HeartbeatS != 60 || e.PID == 0 || len(e.Software) == 0 || len(e.Settings) == 0 {
			t.Errorf("start: %+v", e)
		}
	}
	if n := len(all.events("start")); n != loadWorkers {
		t.Errorf("%d processes started", n)
	}
}

// answered is an exchange, and what its record must say.
type answered struct {
	Exchange
	want want
}

// load has clients make calls of all kinds at once, each with a prompt of its own, and returns what came of them.
func load(ctx context.Context, url string, clients, calls int) []answered {
	all := make([]answered, clients*calls)
	client := NewClient(url, clients)
	defer client.Close()
	var group sync.WaitGroup
	for c := range clients {
		group.Go(func() {
			for n := range calls {
				call, want := anyCall(fmt.Sprintf("client%d", c), n)
				all[c*calls+n] = answered{client.Do(ctx, call, nil), want}
			}
		})
	}
	group.Wait()
	return all
}

// anyCall is the client's n-th call: the kinds take turns.
func anyCall(client string, n int) (Call, want) {
	prompt := fmt.Sprintf("%s call %d", client, n)
	user := fmt.Sprint("user of ", client)
	chat := map[string]any{"model": Model, "messages": []map[string]any{{"role": "user", "content": prompt}}, "user": user}
	w := want{in: 3, out: 8, user: "user:" + keyed([]byte(user))}
	switch n % 6 {
	case 0:
	case 1:
		chat["stream"], w.stream = true, true
		chat["stream_options"] = map[string]any{"include_usage": true}
		chat["max_tokens"], w.out = 50, 50
	case 2:
		chat["stream"], w.stream = true, true
		chat["stub"] = map[string]any{"pace": 0.02}
		w.in, w.out = nil, nil
	case 3:
		chat["stub"] = map[string]any{"status": 400}
		w.http, w.status, w.in, w.out, w.err = 400, "400", 0, 0, "BadRequestError"
	case 4:
		w.out = 0
		return NewCall(embeddingsPath, map[string]any{"model": Model, "input": prompt, "user": user}), w
	case 5:
		return NewCall(completionsPath, map[string]any{"model": Model, "prompt": prompt, "user": user}), w
	}
	return NewCall(chatPath, chat), w
}

var requestsTotal = regexp.MustCompile(`^http_requests_total\{handler="/v1/.*\} (\d+)\.0\n$`)

// counted is how many requests below /v1 the server has counted itself.
func (s *Stub) counted(t *testing.T) int {
	t.Helper()
	total := 0
	for line := range strings.Lines(string(s.metrics(t))) {
		if found := requestsTotal.FindStringSubmatch(line); found != nil {
			n, _ := strconv.Atoi(found[1])
			total += n
		}
	}
	return total
}

// metrics is what the server itself counts, in Prometheus's format.
func (s *Stub) metrics(t *testing.T) []byte {
	t.Helper()
	client := NewClient(s.URL, 1)
	defer client.Close()
	e := client.Do(t.Context(), Call{Method: "GET", Path: "/metrics"}, nil)
	if e.Err != nil {
		t.Fatal(e.Err)
	}
	return e.Body
}
