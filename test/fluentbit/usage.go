package fluentbit

import (
	"syscall"
	"time"
)

// Usage is what a process used in its life.
type Usage struct {
	CPU     time.Duration // user and system
	PeakRSS int64         // largest resident memory, bytes
}

// Usage returns what the process used, once it has ended; nil before, and where the system does not say.
func (p *Process) Usage() *Usage {
	select {
	case <-p.exited:
	default:
		return nil
	}
	state := p.cmd.ProcessState
	rusage, ok := state.SysUsage().(*syscall.Rusage)
	if !ok {
		return nil
	}
	return &Usage{state.UserTime() + state.SystemTime(), rusage.Maxrss << 10}
}
