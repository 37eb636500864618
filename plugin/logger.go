package main

import (
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

// level is a level of Fluent Bit's log.
type level int

const (
	levelError level = 1 + iota
	levelWarn
	levelInfo
	levelDebug
)

func (l level) String() string {
	return [...]string{levelError: "error", levelWarn: "warn", levelInfo: "info", levelDebug: "debug"}[l]
}

// printer is where a logger's lines go, as long as the instance is open.
type printer interface {
	enabled(level) bool
	print(level, string) bool // false: it has no means to
}

// logger writes lines as Fluent Bit's own plugins do: [output:<plugin>:<instance>] <message>. Any goroutine may call it.
// Without a printer the lines go to stderr.
type logger struct {
	prefix string
	stderr io.Writer
	now    func() time.Time

	mu      sync.RWMutex // held for reading while printer is in use
	printer printer      // nil once the instance is gone
}

func newLogger(h *host) *logger {
	l := stderrLogger(h.name)
	l.printer = h
	return l
}

func stderrLogger(instance string) *logger {
	return &logger{prefix: fmt.Sprintf("[output:%s:%s] ", pluginName, instance), stderr: stderr{}, now: time.Now}
}

// stderr is standard error without the courtesy of os.Stderr to end the process when nobody reads it any more.
type stderr struct{}

func (stderr) Write(p []byte) (int, error) { return syscall.Write(syscall.Stderr, p) }

func (l *logger) Error(msg string) { l.log(levelError, msg) }
func (l *logger) Warn(msg string)  { l.log(levelWarn, msg) }
func (l *logger) Info(msg string)  { l.log(levelInfo, msg) }
func (l *logger) Debug(msg string) { l.log(levelDebug, msg) }

// detach makes sure that the printer is not in use and never will be again.
func (l *logger) detach() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.printer = nil
}

func (l *logger) log(level level, msg string) {
	line := l.prefix + oneLine(msg)
	if l.printed(level, line) {
		return
	}
	fmt.Fprintf(l.stderr, "[%s] [%5s] %s\n", l.now().Format("2006/01/02 15:04:05.000"), level, line)
}

// printed reports whether Fluent Bit has the line, or does not want it.
func (l *logger) printed(level level, line string) (done bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	defer func() {
		if recover() != nil { // which cannot be told by the way that panicked
			done = false
		}
	}()
	if l.printer == nil {
		return level > levelInfo
	}
	return !l.printer.enabled(level) || l.printer.print(level, line)
}

// maxMessage is the length of a message in bytes. Fluent Bit cuts lines, with what it puts before them, at 4 KiB.
const maxMessage = 3000

// oneLine makes msg fit to be logged: the lines of joined errors become one, control characters become spaces, and what is
// too long is cut.
func oneLine(msg string) string {
	msg = strings.ToValidUTF8(strings.TrimSpace(msg), "\uFFFD")
	msg = strings.ReplaceAll(msg, "\n", "; ")
	msg = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, msg)
	if len(msg) <= maxMessage {
		return msg
	}
	cut := maxMessage
	for !utf8.RuneStart(msg[cut]) {
		cut--
	}
	return fmt.Sprintf("%s... (%d bytes more)", msg[:cut], len(msg)-cut)
}

// onPanic, deferred, ends a panic: it logs what happened and where, and calls after.
func onPanic(l *logger, doing string, after func()) {
	if r := recover(); r != nil {
		l.Error(fmt.Sprintf("panic while %s: %v at %s; please report this", doing, r, panicked()))
		after()
	}
}

// panicked is the innermost calls of what panicked, for the deferred function that called recover.
func panicked() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	seen := false
	var calls []string
	for more := true; more && len(calls) < 4; {
		var frame runtime.Frame
		frame, more = frames.Next()
		if seen && !strings.HasPrefix(frame.Function, "runtime.") {
			calls = append(calls, fmt.Sprintf("%s (%s:%d)", frame.Function, filepath.Base(frame.File), frame.Line))
		}
		seen = seen || frame.Function == "runtime.gopanic"
	}
	return strings.Join(calls, ", called by ")
}
