package main

import (
	"encoding/json"
	"time"

	"github.com/auditchain/auditchain/record/recordtest"
	"github.com/tinylib/msgp/msgp"
)

// lost is how many records of the first GPU server get lost on their way.
const lost = 3

// event is what a GPU server says of itself, as the middleware does: docs/RECORDS.md, section 2.
type event struct {
	at     time.Time
	source string // whose it is
	seq    int
	name   string
	served int // requests so far
}

func (e event) members() map[string]any {
	return map[string]any{
		"timestamp": e.at.Format("2006-01-02T15:04:05.000000Z"), "source_event": e.name, "of": e.source,
		"source": map[string]any{"id": e.source + "/events", "seq": e.seq},
		"served": e.served, "recorded": e.served, "lost": 0, "open": []any{}, "heartbeat_s": 60,
	}
}

// lines returns events as JSON lines.
func lines(events []event) (text []byte) {
	for _, e := range events {
		line, err := json.Marshal(e.members())
		if err != nil {
			panic(err) // of these types, nothing fails
		}
		text = append(append(text, line...), '\n')
	}
	return text
}

// chunk returns events as a chunk of msgpack events.
func chunk(events []event) (data []byte) {
	for _, e := range events {
		data = append(data, 0x92, 0x92)
		data = append(recordtest.AppendEventTime(data, e.at), 0x80)
		var err error
		if data, err = msgp.AppendIntf(data, e.members()); err != nil {
			panic(err)
		}
	}
	return data
}

// complete asks how complete the log is: the numbers of the records that got lost are missing.
func (d *demo) complete() error {
	title("Did every inference leave a record? %d were taken away on their way", lost)
	_, err := d.auditchain(1, append([]string{"completeness"}, d.target()...)...)
	return err
}
