package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/auditchain/auditchain/ingest"
)

// closeTimeout is how long an instance may take to seal and upload what is left when Fluent Bit stops or reloads. What
// is not uploaded by then is safe in store_dir. Instances are closed one after the other, on top of Fluent Bit's grace
// period (5 s by default), and whoever stops Fluent Bit kills it at some time: Docker after 10 s.
const closeTimeout = 4 * time.Second

// eventLog is the part of [ingest.Log] that the plugin uses.
type eventLog interface {
	Append(tag, chunk []byte) error
	Stats() ingest.Stats
	Close(ctx context.Context) error
}

// instance is one [OUTPUT] section at work.
type instance struct {
	log     eventLog
	logger  *logger
	metrics *metrics // nil: none

	mu       sync.Mutex
	refusing string    // the last error of append, "" if it went well
	said     time.Time // when it was logged
}

// open opens the log that the section's keys describe. get returns "" for a key that is not there.
func open(get func(key string) string, l *logger) (*instance, error) {
	cfg, err := ingest.ParseConfig(get)
	if err != nil {
		return nil, err
	}
	for _, ignored := range ingest.Ignored(get) {
		l.Warn(ignored)
	}
	log, err := ingest.Open(context.Background(), cfg, ingest.Options{Logger: l, Version: version, Compressor: newCompressor})
	if err != nil {
		return nil, err
	}
	l.Info(fmt.Sprintf("auditchain %s: chain %s, next entry %d", version, cfg.Chain, log.Stats().HeadSeq))
	return &instance{log: log, logger: l}, nil
}

// repeatAfter is how often the same reason for taking no chunks is logged.
const repeatAfter = 30 * time.Second

// append appends a chunk to the log, and logs why that fails, but not for every chunk.
func (i *instance) append(tag, chunk []byte) error {
	err := i.log.Append(tag, chunk)
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case err == nil && i.refusing != "":
		i.refusing = ""
		i.logger.Info("taking chunks again")
	case err != nil && (err.Error() != i.refusing || i.logger.now().Sub(i.said) >= repeatAfter):
		i.refusing, i.said = err.Error(), i.logger.now()
		i.logger.Error(fmt.Sprintf("chunk not taken, Fluent Bit keeps it and will send it again: %v", err))
	}
	return err
}

// close closes the log and lets go of Fluent Bit. After it nothing of the instance runs.
func (i *instance) close() {
	defer i.logger.detach()
	defer onPanic(i.logger, "closing", func() {})
	defer i.metrics.stop()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := i.log.Close(ctx); err != nil {
		i.logger.Warn(err.Error())
	}
}

// table holds the open instances by the number that Fluent Bit has for them: C must not keep pointers into Go's memory.
type table struct {
	mu   sync.RWMutex
	open map[uintptr]*instance
	last uintptr
}

var instances = table{open: make(map[uintptr]*instance)}

// add returns the instance's number, never 0 and never that of another.
func (t *table) add(i *instance) uintptr {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	t.open[t.last] = i
	return t.last
}

// get returns the instance, or one that takes nothing if there is none of that number.
func (t *table) get(id uintptr) *instance {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if i := t.open[id]; i != nil {
		return i
	}
	return &nobody
}

// remove is get; the number is not valid any more.
func (t *table) remove(id uintptr) *instance {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := t.open[id]; i != nil {
		delete(t.open, id)
		return i
	}
	return &nobody
}

// nobody stands for instances that are not open.
var nobody = instance{log: closedLog{}, logger: stderrLogger("not open")}

// closedLog takes nothing.
type closedLog struct{}

func (closedLog) Append(_, _ []byte) error    { return ingest.ErrClosed }
func (closedLog) Stats() ingest.Stats         { return ingest.Stats{} }
func (closedLog) Close(context.Context) error { return nil }
