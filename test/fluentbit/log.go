package fluentbit

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
)

// logBuffer keeps what Fluent Bit says, in memory and in a file.
type logBuffer struct {
	mu      sync.Mutex
	text    strings.Builder
	file    *os.File
	changed chan struct{} // closed, and made anew, when text grows
}

func newLogBuffer(path string) (*logBuffer, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	return &logBuffer{file: file, changed: make(chan struct{})}, err
}

// Write implements io.Writer.
func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	close(l.changed)
	l.changed = make(chan struct{})
	return l.file.Write(p)
}

func (l *logBuffer) close() { l.file.Close() }

// now returns the text and a channel that is closed when there is more.
func (l *logBuffer) now() (string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String(), l.changed
}

// Log is what Fluent Bit has said so far in this run, on stdout and stderr.
func (p *Process) Log() string {
	text, _ := p.log.now()
	return text
}

// WaitLog waits until the log has the substring. It fails if the process ends without having said so.
func (p *Process) WaitLog(ctx context.Context, substring string) error {
	for {
		text, changed := p.log.now()
		if strings.Contains(text, substring) {
			return nil
		}
		select {
		case <-changed:
		case <-p.exited:
			if strings.Contains(p.Log(), substring) {
				return nil
			}
			return fmt.Errorf("fluent-bit ended with exit code %d without saying %q", p.cmd.ProcessState.ExitCode(), substring)
		case <-ctx.Done():
			return fmt.Errorf("fluent-bit did not say %q: %w", substring, ctx.Err())
		}
	}
}
