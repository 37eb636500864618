package storagetest

import (
	"errors"
	"sync"
)

// Op is a step that a program under test is about to take, on a bucket or on a disk.
type Op struct {
	N     int    // how many steps came before it, of all that its Faults counts
	Kind  string // one of the constants of this package or of disktest
	Path  string // the file, or the key, or the prefix that is listed
	Bytes int    // to be written, or to be read at most
}

// The steps on a bucket. ClockSkew, Locks and String are none.
const (
	OpCreate   = "bucket.Create"
	OpOpen     = "bucket.Open"
	OpBody     = "bucket.Read" // one Read of what Open returned, that at its end too
	OpStat     = "bucket.Stat"
	OpLock     = "bucket.Lock"
	OpVersions = "bucket.Versions"
	OpList     = "bucket.List"
	OpCheck    = "bucket.Check"
)

// Fault is what goes wrong at a step. The zero Fault is nothing.
type Fault struct {
	Err    error          // what the caller is told
	Done   bool           // the step is done all the same
	N      int            // if not Done, how much of it is: bytes of a read or write, entries of a list
	Change func(p []byte) // changes the bytes that were read, or are to be written
}

// Fail is a step that is not done, and err.
func Fail(err error) Fault { return Fault{Err: err} }

// FailDone is a step that is done and reported as err: the answer is lost.
func FailDone(err error) Fault { return Fault{Err: err, Done: true} }

// Short is a read or a write of n bytes at most, or a list of n entries, and then err. Of any other step it is Fail.
func Short(n int, err error) Fault { return Fault{Err: err, N: n} }

// Corrupt changes the bytes of a read, of a write, or of a body on its way to the bucket, and says nothing. Other steps it leaves
// as they are.
func Corrupt(change func(p []byte)) Fault { return Fault{Change: change} }

// Faults counts the steps of everything that it is given to, in the order in which they happen, and asks before each of them
// what goes wrong. The zero Faults lets everything go well.
type Faults struct {
	mu   sync.Mutex
	n    int
	hook func(Op) Fault
}

// Inject has hook asked from now on, instead of any before; nil is nobody. It is called for one step at a time, so it may keep
// what it knows in plain variables. It must not take a step itself or wait for one; it may end processes and cut the power,
// which is then before the step.
func (f *Faults) Inject(hook func(Op) Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

// Count is how many steps there were.
func (f *Faults) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// ErrCrashed is what a process that was killed gets for everything that it still tries.
var ErrCrashed = errors.New("the process was killed")

// Process is one run of a program under test. Nothing that it does takes effect after it was killed, though its goroutines go on.
type Process struct {
	faults *Faults
	mu     sync.RWMutex // held for reading by what must not be cut by Kill
	dead   bool
}

// NewProcess begins a process whose steps f counts.
func NewProcess(f *Faults) *Process { return &Process{faults: f} }

// Kill ends the process, after what is just taking effect.
func (p *Process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
}

// Err is ErrCrashed after Kill.
func (p *Process) Err() error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.dead {
		return ErrCrashed
	}
	return nil
}

// Step counts a step and returns what goes wrong with it. A process that is dead takes none, and gets ErrCrashed.
func (p *Process) Step(kind, path string, bytes int) (Fault, error) {
	p.faults.mu.Lock()
	defer p.faults.mu.Unlock()
	if err := p.Err(); err != nil {
		return Fault{}, err
	}
	op := Op{p.faults.n, kind, path, bytes}
	p.faults.n++
	var fault Fault
	if p.faults.hook != nil {
		fault = p.faults.hook(op)
	}
	return fault, p.Err()
}

// Do runs f, unless the process is dead. Kill waits for it; so f must not take a step.
func (p *Process) Do(f func()) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.dead {
		return ErrCrashed
	}
	f()
	return nil
}
