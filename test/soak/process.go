package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// clockTicks is how many of them /proc counts in a second: the same on every Linux that Go runs on.
const clockTicks = 100

// look fills in what the system says of the process.
func look(pid int, s *sample) error {
	dir := fmt.Sprintf("/proc/%d/", pid)
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		value, _, _ = strings.Cut(strings.TrimSpace(value), " ") // without kB
		n, _ := strconv.ParseFloat(value, 64)                    // of those below
		switch name {
		case "VmRSS":
			s.rss = n * 1024
		case "RssAnon":
			s.anon = n * 1024
		case "Threads":
			s.threads = n
		}
	}
	fds, err := os.ReadDir(dir + "fd")
	if err != nil {
		return err
	}
	s.fds = float64(len(fds))
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return err
	}
	// The name, in parentheses, may hold anything; utime and stime are the 12th and 13th after it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return fmt.Errorf("%sstat has %d fields", dir, len(fields))
	}
	user, err1 := strconv.ParseFloat(string(fields[11]), 64)
	system, err2 := strconv.ParseFloat(string(fields[12]), 64)
	s.cpu = (user + system) / clockTicks
	return errors.Join(err1, err2)
}

// size is how many bytes the files below dir have. They may come and go meanwhile.
func size(dir string) (bytes float64) {
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				bytes += float64(info.Size())
			}
		}
		return nil
	})
	return bytes
}

// traces is a setting of GODEBUG that has the runtime write a line to stderr at each garbage collection, and what all
// goroutines do every 10 s: less than a kilobyte per second.
const traces = "GODEBUG=gctrace=1,schedtrace=10000,scheddetail=1"

// traceReader follows these traces in a growing log.
type traceReader struct {
	file       *bufio.Reader
	line       []byte // the begin of one that is not whole yet
	counted    float64
	heap       float64 // bytes
	goroutines float64
}

func newTraceReader(file io.Reader) *traceReader {
	return &traceReader{file: bufio.NewReader(file), heap: math.NaN(), goroutines: math.NaN()}
}

// read reads on to the end of the log as it is now. A list of goroutines that is cut there counts at the next call.
func (t *traceReader) read() error {
	listing := false
	for {
		part, err := t.file.ReadSlice('\n')
		t.line = append(t.line, part...)
		if err == bufio.ErrBufferFull {
			continue
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		listing = t.take(string(t.line)) || listing
		t.line = t.line[:0]
	}
	if !listing && t.counted > 0 {
		t.goroutines = t.counted
	}
	return nil
}

// take reports whether the line is one of a list of goroutines.
func (t *traceReader) take(line string) bool {
	switch {
	case strings.HasPrefix(line, "gc "):
		// gc 1 @0.012s 2%: ... ms cpu, 4->5->3 MB, 4 MB goal, ...: before, after, alive
		_, rest, ok := strings.Cut(line, "->")
		_, rest, ok2 := strings.Cut(rest, "->")
		mb, _, ok3 := strings.Cut(rest, " MB")
		if n, err := strconv.ParseFloat(mb, 64); err == nil && ok && ok2 && ok3 {
			t.heap = n * (1 << 20)
		}
	case strings.HasPrefix(line, "SCHED "):
		t.counted = 0
		return true
	case strings.HasPrefix(line, "  G"):
		if !strings.Contains(line, "status=6(") && !strings.Contains(line, "status=11(") { // dead, and never used yet
			t.counted++
		}
		return true
	}
	return false
}
