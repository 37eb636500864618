package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestOneLine(t *testing.T) {
	long := strings.Repeat("a", maxMessage-1) + "é" + strings.Repeat("b", 10)
	for _, c := range []struct{ name, in, want string }{
		{"plain", "100% sure %s %n", "100% sure %s %n"},
		{"joined errors", errors.Join(errors.New("chain: missing"), errors.New("bucket: missing")).Error(), "chain: missing; bucket: missing"},
		{"newline at the end", "done\n", "done"},
		{"control characters", "a\x00b\x1b[31mc\td\u0085e", "a b [31mc d e"},
		{"not UTF-8", "a\xff\xfeb", "a\uFFFDb"},
		{"too long", long, strings.Repeat("a", maxMessage-1) + "... (12 bytes more)"},
	} {
		got := oneLine(c.in)
		if got != c.want || !utf8.ValidString(got) {
			t.Errorf("%s: oneLine = %q, want %q", c.name, got, c.want)
		}
	}
}

// recorder is a Fluent Bit that remembers what is logged.
type recorder struct {
	level level
	mute  bool
	lines []string
}

func (r *recorder) enabled(l level) bool { return l <= r.level }
func (r *recorder) print(l level, line string) bool {
	if !r.mute {
		r.lines = append(r.lines, l.String()+" "+line)
	}
	return !r.mute
}

func newTestLogger(r *recorder) (*logger, *bytes.Buffer) {
	var stderr bytes.Buffer
	l := stderrLogger("x")
	l.stderr = &stderr
	l.now = func() time.Time { return time.Date(2026, 11, 24, 3, 4, 5, 6e6, time.UTC) }
	if r != nil {
		l.printer = r
	}
	return l, &stderr
}

func TestLoggerWritesWhereItCan(t *testing.T) {
	say := func(l *logger) {
		l.Error("one")
		l.Warn("two")
		l.Info("three")
		l.Debug("four")
	}
	r := &recorder{level: levelWarn}
	l, stderr := newTestLogger(r)
	say(l)
	want := "error [output:auditchain:x] one|warn [output:auditchain:x] two"
	if got := strings.Join(r.lines, "|"); got != want || stderr.Len() > 0 {
		t.Errorf("Fluent Bit got %q, want %q; stderr %q", got, want, stderr)
	}

	l, stderr = newTestLogger(&recorder{level: levelWarn, mute: true})
	say(l)
	want = "[2026/11/24 03:04:05.006] [error] [output:auditchain:x] one\n[2026/11/24 03:04:05.006] [ warn] [output:auditchain:x] two\n"
	if stderr.String() != want {
		t.Errorf("with a mute Fluent Bit stderr has %q, want %q", stderr, want)
	}

	l, stderr = newTestLogger(r)
	l.detach()
	r.lines = nil
	say(l)
	if n := strings.Count(stderr.String(), "\n"); n != 3 || len(r.lines) > 0 {
		t.Errorf("after detach stderr has %q, Fluent Bit %q", stderr, r.lines)
	}
}

func TestOnPanic(t *testing.T) {
	for name, do := range map[string]func(){
		"explicit": func() { panic("50% off") },
		"nil":      func() { var p *table; p.add(nil) },
		"index":    func() { var s []int; s[len(s)]++ },
	} {
		r := &recorder{level: levelDebug}
		l, _ := newTestLogger(r)
		after := false
		func() {
			defer onPanic(l, "testing", func() { after = true })
			do()
		}()
		if !after || len(r.lines) != 1 {
			t.Fatalf("%s: after %v, lines %q", name, after, r.lines)
		}
		if line := r.lines[0]; !strings.Contains(line, "panic while testing: ") || !strings.Contains(line, ".TestOnPanic.func") || !strings.Contains(line, "logger_test.go:") {
			t.Errorf("%s: %q does not say what and where", name, line)
		}
	}
}
