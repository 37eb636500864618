package gpu

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Record is a record as docs/RECORDS.md describes it; what may be null is a pointer.
type Record struct {
	RequestID     string    `json:"request_id"`
	Timestamp     time.Time `json:"timestamp"`
	ModelID       *string   `json:"model_id"`
	ModelChecksum *string   `json:"model_checksum"`
	InputHash     *string   `json:"input_hash"`
	OutputHash    *string   `json:"output_hash"`
	UserID        *string   `json:"user_id"`
	InputTokens   *int64    `json:"input_tokens"`
	OutputTokens  *int64    `json:"output_tokens"`
	LatencyMS     *float64  `json:"latency_ms"`
	Status        string    `json:"status"`
	Source        Source    `json:"source"`

	Endpoint        string            `json:"endpoint"`
	Method          string            `json:"method"`
	Operation       string            `json:"operation"`
	Stream          *bool             `json:"stream"`
	HTTPStatus      int               `json:"http_status"`
	TTFTMS          *float64          `json:"ttft_ms"`
	HashOf          map[string]string `json:"hash_of"`
	InputBytes      int               `json:"input_bytes"`
	OutputBytes     int               `json:"output_bytes"`
	ClientRequestID string            `json:"client_request_id"`
	ResponseID      string            `json:"response_id"`
	LoRA            *LoRA             `json:"lora"`
	APIKey          string            `json:"api_key"`
	Error           string            `json:"error"`
	Cut             []string          `json:"cut"`
	Prompt          json.RawMessage   `json:"prompt"`
	Response        json.RawMessage   `json:"response"`
}

// Source is who made a record, and its number there.
type Source struct {
	ID  string `json:"id"`
	Seq uint64 `json:"seq"`
}

// LoRA is an adapter and its checksum.
type LoRA struct {
	ID       string  `json:"id"`
	Checksum *string `json:"checksum"`
}

// Event is a source event.
type Event struct {
	Timestamp   time.Time       `json:"timestamp"`
	Source      Source          `json:"source"`
	SourceEvent string          `json:"source_event"`
	Of          string          `json:"of"`
	Served      uint64          `json:"served"`
	Recorded    uint64          `json:"recorded"`
	Lost        uint64          `json:"lost"`
	Open        []uint64        `json:"open"`
	HeartbeatS  float64         `json:"heartbeat_s"`
	Model       []ModelChecksum `json:"model"`
	Software    json.RawMessage `json:"software"`
	PID         int             `json:"pid"`
	Settings    json.RawMessage `json:"settings"`
	ReportedBy  string          `json:"reported_by"`
}

// ModelChecksum is what a source says of a model.
type ModelChecksum struct {
	Name     string  `json:"name"`
	Checksum *string `json:"checksum"`
	Error    string  `json:"error"`
	LoRA     bool    `json:"lora"`
}

// audit are the members that every record of a request that ended has, in this order.
var audit = []string{
	"request_id", "timestamp", "model_id", "model_checksum", "input_hash", "output_hash", "user_id",
	"input_tokens", "output_tokens", "latency_ms", "status", "source",
}

// Records are what sources have written.
type Records struct {
	Requests []Record
	Events   []Event
}

// Add reads one record, and is strict: nothing may be in it that docs/RECORDS.md does not know.
func (r *Records) Add(line []byte) error {
	if i := bytes.IndexFunc(line, func(c rune) bool { return c < ' ' || c > '~' }); i >= 0 {
		return fmt.Errorf("byte %d of the record is no printable ASCII: %.200q", i, line)
	}
	names, err := members(line)
	if err != nil {
		return fmt.Errorf("%w: %.200q", err, line)
	}
	decode := func(into any) error {
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(into); err != nil {
			return fmt.Errorf("%w: %.200q", err, line)
		}
		return nil
	}
	if slices.Contains(names, "source_event") {
		var e Event
		if err := decode(&e); err != nil {
			return err
		}
		r.Events = append(r.Events, e)
		return nil
	}
	var record Record
	if err := decode(&record); err != nil {
		return err
	}
	if record.Status != "server_died" && !slices.Equal(names[:min(len(names), len(audit))], audit) {
		return fmt.Errorf("the record begins with %q", names[:min(len(names), len(audit))])
	}
	for i, name := range names {
		if (name == "prompt" || name == "response") && i < len(names)-2 {
			return fmt.Errorf("%s is not among the last members %q", name, names)
		}
	}
	r.Requests = append(r.Requests, record)
	return nil
}

// members are the names of an object's members. A name that comes twice is an error.
func members(object []byte) ([]string, error) {
	d := json.NewDecoder(bytes.NewReader(object))
	if begin, err := d.Token(); err != nil || begin != json.Delim('{') {
		return nil, errors.New("no JSON object")
	}
	var names []string
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		if slices.Contains(names, name.(string)) {
			return nil, fmt.Errorf("%q is there twice", name)
		}
		names = append(names, name.(string))
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something behind the JSON object")
	}
	return names, nil
}

// ReadRecords reads all that lies in the middleware's directory. A line without end is left out.
func ReadRecords(dir string) (*Records, error) {
	r := new(Records)
	return r, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".jsonl") {
			return err
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted meanwhile, since all of it has arrived
		}
		if err != nil {
			return err
		}
		for line := range bytes.Lines(text) {
			if line, whole := bytes.CutSuffix(line, []byte("\n")); whole {
				if err := r.Add(line); err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
			}
		}
		return nil
	})
}

// Sources checks that each source's numbers are dense from 0 and none comes twice, in what was read as in what it says of
// itself, and returns how many requests each has.
func (r *Records) Sources() (map[string]int, error) {
	numbers := make(map[string][]uint64)
	for i := range r.Requests {
		s := &r.Requests[i].Source
		numbers[s.ID] = append(numbers[s.ID], s.Seq)
	}
	requests := make(map[string]int)
	for id, all := range numbers {
		requests[id] = len(all)
	}
	for i := range r.Events {
		s := &r.Events[i].Source
		numbers[s.ID] = append(numbers[s.ID], s.Seq)
	}
	var problems []error
	for id, all := range numbers {
		slices.Sort(all)
		for i, n := range all {
			if n != uint64(i) {
				problems = append(problems, fmt.Errorf("%s: number %d comes after %d others", id, n, i))
				break
			}
		}
	}
	return requests, errors.Join(problems...)
}
