package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/auditchain/auditchain/query"
)

// newProgress returns a progress bar on w, and what takes it away again; both do nothing if w is no terminal.
func newProgress(w io.Writer, what string) (query.Progress, func()) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, func() {}
	}
	var mu sync.Mutex
	start := time.Now()
	var drawn time.Time
	draw := func(done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		if total == 0 || time.Since(drawn) < 100*time.Millisecond {
			return
		}
		drawn = time.Now()
		const width = 30
		filled := int(int64(width) * done / total)
		rate := float64(done) / time.Since(start).Seconds()
		left := time.Duration(float64(total-done) / max(rate, 1) * float64(time.Second)).Round(time.Second)
		fmt.Fprintf(f, "\r%s [%s%s] %3d%%  %s/s  %s left \x1b[K", what,
			strings.Repeat("#", filled), strings.Repeat(".", width-filled), 100*done/total, bytesText(int64(rate)), left)
	}
	return draw, func() { fmt.Fprint(f, "\r\x1b[K") }
}

// bytesText writes a number of bytes for people, in powers of 1000.
func bytesText(n int64) string {
	switch {
	case n >= 1_000_000_000:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1_000_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}
