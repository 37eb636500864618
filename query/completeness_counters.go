package query

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of what is read from a model server's metrics.
const (
	MaxCounterFile = 16 << 20 // bytes
	maxCounterLine = 64 << 10 // bytes
	maxSeries      = 100_000  // of the counters that are read
)

// Counters is what a model server's metrics said at one time: Prometheus's text format, version 0.0.4.
type Counters struct {
	requests map[request]float64
	start    *float64 // process_start_time_seconds; nil: it is not there
	engine   *float64 // sum of vllm:request_success_total; nil: it is not there
}

// request is a series of http_requests_total.
type request struct{ handler, method, status string }

// ReadCounters reads the text that a model server gives at /metrics, of at most MaxCounterFile bytes. It is read strictly as far as it
// is of interest; lines of other metrics are passed over.
func ReadCounters(data []byte) (*Counters, error) {
	if len(data) > MaxCounterFile {
		return nil, fmt.Errorf("it has %d bytes, more than the %d allowed", len(data), MaxCounterFile)
	}
	c := &Counters{requests: make(map[request]float64)}
	series := make(map[string]bool)
	known := false // a server that has not served anything yet says of what kind the counter is, and no more
	for n := 1; len(data) > 0; n++ {
		line, rest, _ := bytes.Cut(data, []byte{'\n'})
		data = rest
		line = bytes.TrimLeft(line, " \t")
		known = known || bytes.HasPrefix(line, []byte("# TYPE http_requests_total "))
		name, ofInterest := metricName(line)
		if !ofInterest {
			continue
		}
		if err := c.sample(name, line[len(name):], series); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if len(c.requests) == 0 && !known {
		return nil, errors.New("there is no http_requests_total in it")
	}
	return c, nil
}

// sample takes in a line of a metric that is read. Each series is there once.
func (c *Counters) sample(name string, rest []byte, series map[string]bool) error {
	labels, value, err := parseSample(rest)
	if err != nil {
		return err
	}
	key := seriesKey(name, labels)
	if series[key] {
		return errors.New("a series that was there before")
	}
	if series[key] = true; len(series) > maxSeries {
		return fmt.Errorf("more than %d series", maxSeries)
	}
	return c.add(name, labels, value)
}

// metricName returns the name that the line begins with, and whether it is one that is read.
func metricName(line []byte) (string, bool) {
	end := bytes.IndexAny(line, "{ \t")
	if end < 0 {
		return "", false
	}
	switch name := string(line[:end]); name {
	case "http_requests_total", "process_start_time_seconds", "vllm:request_success_total":
		return name, true
	}
	return "", false
}

func seriesKey(name string, labels map[string]string) string {
	var key strings.Builder
	key.WriteString(name)
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(&key, ",%s=%q", label, labels[label])
	}
	return key.String()
}

// parseSample reads what follows a metric's name: labels, the value, and perhaps a time.
func parseSample(rest []byte) (map[string]string, float64, error) {
	if len(rest) > maxCounterLine {
		return nil, 0, fmt.Errorf("it has more than %d bytes", maxCounterLine)
	}
	if !utf8.Valid(rest) {
		return nil, 0, errors.New("it is not UTF-8")
	}
	labels := make(map[string]string)
	if rest[0] == '{' {
		var err error
		if rest, err = parseLabels(rest[1:], labels); err != nil {
			return nil, 0, err
		}
	}
	fields := strings.Fields(string(rest))
	if len(fields) < 1 || len(fields) > 2 {
		return nil, 0, errors.New("want a value, and at most a time behind it")
	}
	value, err := strconv.ParseFloat(fields[0], 64)
	if err != nil || strings.ContainsAny(fields[0], "_xX") { // as literals of programs are, not samples
		return nil, 0, fmt.Errorf("%.40q is not a value", fields[0])
	}
	if len(fields) == 2 {
		if _, err := strconv.ParseInt(fields[1], 10, 64); err != nil {
			return nil, 0, fmt.Errorf("%.40q is not a time", fields[1])
		}
	}
	return labels, value, nil
}

// parseLabels reads `a="b",...}` and returns what follows.
func parseLabels(rest []byte, labels map[string]string) ([]byte, error) {
	for {
		rest = bytes.TrimLeft(rest, " \t")
		if len(rest) > 0 && rest[0] == '}' {
			return rest[1:], nil
		}
		name, after, ok := bytes.Cut(rest, []byte{'='})
		label := string(bytes.TrimRight(name, " \t"))
		if !ok || !isLabel(label) {
			return nil, errors.New("want a label's name")
		}
		if _, twice := labels[label]; twice {
			return nil, fmt.Errorf("the label %s stands there twice", label)
		}
		value, after, err := parseLabelValue(bytes.TrimLeft(after, " \t"))
		if err != nil {
			return nil, err
		}
		labels[label] = value
		rest = bytes.TrimLeft(after, " \t")
		switch {
		case len(rest) > 0 && rest[0] == ',':
			rest = rest[1:]
		case len(rest) == 0 || rest[0] != '}':
			return nil, errors.New("want a comma or a brace behind a label")
		}
	}
}

func isLabel(s string) bool {
	for i, r := range s {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

// parseLabelValue reads a quoted value and returns what follows.
func parseLabelValue(rest []byte) (string, []byte, error) {
	if len(rest) == 0 || rest[0] != '"' {
		return "", nil, errors.New("want a label's value in quotation marks")
	}
	var value []byte
	for i := 1; i < len(rest); i++ {
		switch rest[i] {
		case '"':
			return string(value), rest[i+1:], nil
		case '\\':
			if i++; i == len(rest) {
				break
			}
			switch rest[i] {
			case 'n':
				value = append(value, '\n')
			case '\\', '"':
				value = append(value, rest[i])
			default:
				return "", nil, fmt.Errorf("a label's value with the escape \\%c", rest[i])
			}
		default:
			value = append(value, rest[i])
		}
	}
	return "", nil, errors.New("a label's value without end")
}

// add takes in one sample.
func (c *Counters) add(name string, labels map[string]string, value float64) error {
	if value < 0 || value > maxServed || math.IsNaN(value) || name != "process_start_time_seconds" && value != math.Trunc(value) {
		return fmt.Errorf("%s is %g, which it cannot be", name, value)
	}
	switch name {
	case "http_requests_total":
		r := request{labels["handler"], labels["method"], labels["status"]}
		if r.handler == "" || r.method == "" || r.status == "" {
			return errors.New("http_requests_total without handler, method or status")
		}
		c.requests[r] += value
	case "process_start_time_seconds":
		c.start = &value
	default:
		if c.engine == nil {
			c.engine = new(float64)
		}
		*c.engine += value
	}
	return nil
}
