package query

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/auditchain/auditchain/chain"
)

// line is a record that a test puts into a log.
type line struct {
	source      string
	number      int
	at          string // timestamp, a time of day
	event       string // the event's time, if it is another
	received    string // a time of day, if it is another than the event's
	members     string // further members, with a comma before them
	redelivered bool
	conflict    bool
	bare        bool // without audit fields but the timestamp
}

const day = "2026-11-23T"

// on is a time of that day, or a time.
func on(s string) time.Time {
	if !strings.Contains(s, "T") {
		s = day + s + "Z"
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

// req is a complete record of the source gpu-1/a.
func req(number int, at string) line { return line{source: "gpu-1/a", number: number, at: at} }

// reqs are the complete records first to last, a second apart.
func reqs(first, last int, at string) (all []line) {
	for i := first; i <= last; i++ {
		all = append(all, req(i, on(at).Add(time.Duration(i-first)*time.Second).Format(time.TimeOnly)))
	}
	return all
}

// say is a source event of gpu-1/a.
func say(number int, name, at string, served int, members string) line {
	return line{source: "gpu-1/a/events", number: number, at: at, bare: true,
		members: fmt.Sprintf(`,"source_event":%q,"of":"gpu-1/a","served":%d%s`, name, served, members)}
}

func (l line) of(source string) line    { l.source = source; return l }
func (l line) with(members string) line { l.members += members; return l }
func (l line) marked() line             { l.redelivered = true; return l }
func (l line) read(at string) line      { l.event = at; return l }

func (l line) got(at string) line { l.received = at; return l }

// quarantined stands for bytes that were no record.
var quarantined = line{source: "quarantine"}

// receivedAt is when the log received the line, which was sealed at a time of day.
func (l line) receivedAt(sealed string) time.Time {
	for _, at := range []string{l.received, l.event, l.at} {
		if at != "" {
			return on(at)
		}
	}
	return on(sealed)
}

// body is the entry's body.
func (l line) body() string {
	if l == quarantined {
		return `"event":"quarantine","detail":{}}`
	}
	event := l.at
	if l.event != "" {
		event = l.event
	}
	var b strings.Builder
	fmt.Fprintf(&b, `"time":"%s","record":{`, chain.AppendTime(nil, on(event)))
	if l.at != "" {
		fmt.Fprintf(&b, `"timestamp":"%s"`, on(l.at).Format(time.RFC3339))
	} else {
		b.WriteString(`"n":1`)
	}
	if !l.bare {
		fmt.Fprintf(&b, `,"request_id":"%s-%d","model_checksum":"c","input_hash":"i","output_hash":"o","user_id":"u","input_tokens":1,"output_tokens":1,"latency_ms":250.5,"status":"200"`, l.source, l.number)
		if !strings.Contains(l.members, "model_id") {
			b.WriteString(`,"model_id":"llama"`)
		}
	}
	if l.source != "" {
		fmt.Fprintf(&b, `,"source":{"id":%q,"seq":%d}`, l.source, l.number)
	}
	b.WriteString(l.members)
	b.WriteString("}}")
	return b.String()
}

// records commits a segment of lines, sealed at a time of day.
func (b *builder) records(sealed string, lines ...line) string {
	b.at = on(sealed)
	end := b.head
	var object bytes.Buffer
	w := chain.NewSegmentWriter(&object, b.zstd)
	var sum chain.Summary
	for _, l := range lines {
		middle := chain.AppendMiddle(nil, l.receivedAt(sealed), []byte("vllm.audit"))
		text := chain.AppendEntry(nil, end.NextSeq, end.Entry, middle, nil, l.redelivered || l.conflict, l.conflict, []byte(l.body()))
		end.Append(chain.Sum(text))
		e, err := chain.ParseEntry(text)
		if err == nil {
			sum.Add(e.Facts())
			sum.Receive(e.Received)
			_, err = w.Write(append(text, '\n'))
		}
		if err != nil {
			b.Fatalf("%s: %v", text, err)
		}
	}
	s, _, err := w.Close()
	if err != nil {
		b.Fatal(err)
	}
	b.commit(chain.KindSegment, &end, func(next *chain.Manifest) {
		s.Key, s.VersionID = chain.SegmentName(next.N, b.at), "s"
		counts := sum.Counts()
		next.Segment, next.Counts = &s, &counts
		next.EventTime, next.Received = sum.EventTimes(), sum.ReceivedTimes()
		next.Sources, next.SourcesOmitted = sum.SourceRanges()
	})
	key := b.Layout.Root() + s.Key
	b.m.put(key, "s", object.Bytes(), b.until.AddDate(1, 0, 0))
	return key
}

// complete asks for the completeness of 08:00 to 09:00, once the writer has said that nothing came after the last segment.
func (b *builder) complete(change func(*CompletenessOptions)) *Completeness {
	b.Helper()
	b.commit(chain.KindHeartbeat, &b.head, func(*chain.Manifest) {})
	return b.completeSoFar(change)
}

// completeSoFar asks while more may be on its way.
func (b *builder) completeSoFar(change func(*CompletenessOptions)) *Completeness {
	b.Helper()
	opts := CompletenessOptions{From: on("08:00:00"), To: on("09:00:00"), Now: on("23:00:00"), Min: All}
	if change != nil {
		change(&opts)
	}
	r, err := b.Completeness(b.Context(), opts)
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// brief is a report in one line.
func brief(r *Completeness) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d of %d", r.Verdict, r.Present, r.Served)
	for _, n := range []struct {
		name string
		n    uint64
	}{
		{"possible", r.Possible}, {"on the way", r.OnTheWay}, {"open", r.Open}, {"redelivered", r.Redelivered}, {"conflicts", uint64(len(r.Conflicts))}, {"unnumbered", r.Unnumbered},
		{"misplaced", r.Misplaced}, {"events missing", r.EventsMissing}, {"problems", uint64(len(r.Problems))},
	} {
		if n.n > 0 {
			fmt.Fprintf(&b, ", %d %s", n.n, n.name)
		}
	}
	for _, g := range r.Gaps {
		at := func(t *time.Time) string {
			if t == nil {
				return "?"
			}
			return t.Format(time.TimeOnly)
		}
		fmt.Fprintf(&b, "; %d-%d %s-%s", g.First, g.Last, at(g.After), at(g.Before))
	}
	for _, s := range r.Sources {
		if s.State != StateStopped && s.State != StateNumbers {
			fmt.Fprintf(&b, "; %s", s.State)
		}
	}
	return b.String()
}

// numbers is a JSON array of first to last.
func numbers(first, last int) string {
	var all []int
	for n := first; n <= last; n++ {
		all = append(all, n)
	}
	text, _ := json.Marshal(all)
	return string(text)
}

// Most cases begin and end a source like this.
var (
	start = say(0, "start", "07:30:00", 0, `,"heartbeat_s":60`)
	stop  = func(number int, at string, served int) line { return say(number, "stop", at, served, "") }
)

// segment is what was sealed at a time.
type segment struct {
	sealed string
	lines  []line
}

// sealed is a segment of lines.
func sealed(at string, parts ...any) segment {
	s := segment{sealed: at}
	for _, p := range parts {
		switch p := p.(type) {
		case line:
			s.lines = append(s.lines, p)
		case []line:
			s.lines = append(s.lines, p...)
		}
	}
	return s
}
