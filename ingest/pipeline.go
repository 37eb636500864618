package ingest

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// The way of a rotated journal into the bucket has these steps. Journals behind each other may be at different steps at once, so that
// after an outage all processors compress while the upload is kept busy; but each is drafted and committed after those before it.
//
//  1. Compressed into a segment file (pending-<n>.ndjson.zst), durably. By a goroutine.
//  2. Drafted: what its manifest will say is saved (pending-<n>.json). From here on these bytes go into the bucket.
//  3. Its segment uploaded. By a goroutine.
//  4. Committed: the manifest is signed, saved (pending-<n>.sigstore.json) and put into the bucket.
//  5. Tidied up after: head and recent chunks are saved, journal and pending files removed.
//
// A heartbeat, a rotation and the genesis begin with step 2 and have no step 3. A crash anywhere leaves files from which the next start
// goes on with the step that was cut, with the same bytes.

// pipeline is what run alone has to do with.
type pipeline struct {
	committed       chain.Head // after the last manifest in the bucket
	lastCommit      time.Time
	jobs            []*job    // for manifests committed.NextN and on
	finished        chan *job // jobs whose goroutine has ended
	workers         sync.WaitGroup
	idle            []chain.Compressor
	recent          recent
	noted           *uint64 // first entry of the journal of the note; nil: none was made
	known           sources // of the manifests in the bucket
	bucketChecked   bool
	promisesChecked bool
	reserved        bool // the reserve file is there
	reserveSaid     bool // that there is none has been said
	narrow          bool // the disk was full: one journal at a time, until all are in the bucket
}

// job is a manifest on its way.
type job struct {
	n         uint64
	j         *journal       // nil: there is no segment
	announces *chain.NewKeys // of a rotation that is not drafted yet
	step      step           // that was done last
	err       error          // why the next step failed
	busy      bool           // a goroutine is at the next step
	result    error          // of that step, once the goroutine has ended

	compressor chain.Compressor // while compressing
	segment    chain.Segment    // from compressed on
	md5        [md5.Size]byte
	hashes     []chain.Hash    // of its entries, if the journal's tree is not known
	p          *pending        // from drafted on
	version    storage.Version // of the segment, from uploaded on
	remembered bool            // its chunks and sources are in recent
	m          *chain.Manifest // once it is in the bucket
	stored     *chain.Head     // where the chain stands after it, once it is in the bucket
}

type step int

const (
	begun step = iota
	compressed
	drafted
	uploaded
)

// window is how many journals are on their way at once, and maxUploads how many of them are being uploaded: while one
// segment's manifest is committed the next segment is on the line already.
const (
	window     = 4
	maxUploads = 2
)

// run seals, uploads and commits, until the log is closed and nothing is left, or ctx ends.
func (l *Log) run(ctx context.Context) {
	defer close(l.done)
	defer l.workers.Wait() // they all end with ctx
	defer func() {         // a panic that left here would take all of Fluent Bit down
		if r := recover(); r != nil {
			l.stop(r)
			l.cancel()
		}
	}()
	failures := 0
	for {
		closed := l.isClosed() // before the step: only what it did not find then is not there
		again, err := l.step(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := l.untilNext()
		switch {
		case errors.Is(err, errPanic):
			l.cancel()
			return // said, and final
		case err != nil:
			failures++
			wait = l.backoff(failures)
			l.say(err, wait)
		case again:
			failures = 0
			continue
		case closed && len(l.jobs) == 0:
			return
		}
		l.rest(ctx, wait, err != nil)
	}
}

// say reports a failure, after which the next try comes in wait.
func (l *Log) say(err error, wait time.Duration) {
	l.mu.Lock()
	l.stats.UploadFailures++
	if errors.Is(err, ErrForked) || errors.Is(err, errDamaged) {
		l.failed = err // take no more: what is acknowledged could never be committed
	}
	l.mu.Unlock()
	kept := fmt.Sprintf("the data is kept in %s, ", l.dir)
	if errors.Is(err, errDamaged) {
		kept = "nothing is taken any more, "
	}
	l.opts.Logger.Error(fmt.Sprintf("%v; %snext try in %s", err, kept, wait.Round(time.Millisecond)))
}

// stop ends all work after a panic.
func (l *Log) stop(panicked any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opts.Logger.Error("sealing and uploading have stopped: " + l.fail(panicked).Error())
}

// rest waits until there is something to do. After a failure new data is no reason to try again sooner; closing is.
func (l *Log) rest(ctx context.Context, wait time.Duration, failed bool) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case job := <-l.finished:
			l.settle(job)
			if !failed {
				return
			}
		case <-l.wake:
			if !failed || l.isClosed() {
				return
			}
		}
	}
}

// backoff goes from 0.25 s, doubling, to 10 s.
func backoff(failures int) time.Duration {
	return min(250*time.Millisecond<<min(failures-1, 10), 10*time.Second)
}

// untilNext is how long nothing is to be done if nothing comes in.
func (l *Log) untilNext() time.Duration {
	next := l.lastCommit.Add(l.cfg.Heartbeat)
	if len(l.jobs) > 0 { // no heartbeat then
		next = l.now().Add(time.Hour)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := l.activeFrom.Add(l.cfg.UploadTimeout); !l.activeFrom.IsZero() && at.Before(next) {
		next = at
	}
	return min(max(next.Sub(l.now()), 10*time.Millisecond), time.Hour)
}

// step has all jobs go on as far as they can, and reports whether there may be more to do at once.
func (l *Log) step(ctx context.Context) (again bool, err error) {
	for settled := true; settled; {
		select {
		case job := <-l.finished:
			l.settle(job)
		default:
			settled = false
		}
	}
	now := l.now()
	l.fill(now)
	l.noteJournal()
	if len(l.jobs) == 0 {
		l.reserve()
		return false, nil
	}
	if err := l.headFailure(); err != nil {
		return false, err
	}
	for i, job := range l.jobs {
		if job.busy || job.err != nil || l.narrow && i > 0 {
			continue
		}
		switch job.step {
		case begun:
			if job.compressor = l.compressor(); job.compressor != nil {
				l.start(ctx, job, l.compress)
			}
		case compressed:
			if i == 0 || l.jobs[i-1].step >= drafted {
				if job.err = l.draft(ctx, i, now); job.err == nil {
					job.step = drafted
					again = true
				}
			}
		case drafted:
			switch {
			case job.p.Draft.Segment == nil:
				job.step, again = uploaded, true
			case l.uploading() < maxUploads:
				if err := l.checkBucket(ctx); err != nil {
					return false, err
				}
				l.start(ctx, job, l.upload)
			}
		case uploaded:
			if i > 0 {
				continue
			}
			if err := l.finish(ctx, job); err != nil {
				l.bucketChecked = false
				if errors.Is(err, syscall.ENOSPC) {
					l.makeRoom()
				}
				return false, err
			}
			l.jobs = l.jobs[1:]
			return true, nil
		}
	}
	return again, l.headFailure()
}

// headFailure returns why the first job failed, if it did, and has all go on from where they are at the next try.
func (l *Log) headFailure() error {
	err := l.jobs[0].err
	if err == nil {
		return nil
	}
	for _, job := range l.jobs {
		job.err = nil
	}
	if errors.Is(err, syscall.ENOSPC) {
		l.makeRoom()
	}
	return err
}

// fill takes what is to be sealed next into the window.
func (l *Log) fill(now time.Time) {
	closed := l.isClosed()
	l.writing.Lock()
	defer l.writing.Unlock()
	// With nothing on its way: what does not get into the bucket now is not to be cut into more pieces.
	quiet := len(l.jobs) == 0 && len(l.rotated) == 0 && now.Sub(l.lastCommit) >= l.cfg.Heartbeat
	if l.active != nil && (closed || quiet || now.Sub(l.active.since) >= l.cfg.UploadTimeout) {
		l.rotate()
	}
	taken := 0
	for _, job := range l.jobs {
		if job.j != nil {
			taken++
		}
	}
	for _, j := range l.rotated[taken:] {
		if len(l.jobs) >= window {
			return
		}
		l.jobs = append(l.jobs, &job{n: l.committed.NextN + uint64(len(l.jobs)), j: j})
	}
	if len(l.jobs) == 0 && now.Sub(l.lastCommit) >= l.cfg.Heartbeat && !closed {
		l.jobs = append(l.jobs, &job{n: l.committed.NextN, step: compressed})
	}
}

// start does a step of a job in a goroutine.
func (l *Log) start(ctx context.Context, job *job, do func(context.Context, *job) error) {
	job.busy = true
	l.workers.Add(1)
	go func() {
		defer l.workers.Done()
		defer func() { l.finished <- job }() // has room for all
		defer func() {
			if r := recover(); r != nil {
				l.stop(r)
				job.result = fmt.Errorf("%w: %v\n%s", errPanic, r, debug.Stack())
			}
		}()
		job.result = do(ctx, job)
	}()
}

// errPanic says that a goroutine panicked: the log's memory may be half done.
var errPanic = errors.New("internal error")

// settle takes a job back from its goroutine.
func (l *Log) settle(job *job) {
	job.busy = false
	if job.compressor != nil {
		l.idle = append(l.idle, job.compressor)
		job.compressor = nil
	}
	if job.err = job.result; job.err != nil {
		l.bucketChecked = false // whatever it was: look before going on
		return
	}
	job.step++
}

// compressor returns one that is idle, or nil if all processors compress already.
func (l *Log) compressor() chain.Compressor {
	if n := len(l.idle); n > 0 {
		c := l.idle[n-1]
		l.idle = l.idle[:n-1]
		return c
	}
	compressing := 0
	for _, job := range l.jobs {
		if job.compressor != nil {
			compressing++
		}
	}
	if compressing >= max(1, runtime.GOMAXPROCS(0)) {
		return nil
	}
	c, err := l.opts.Compressor(l.cfg.Level)
	if err != nil {
		return nil // there is one at least, since Open
	}
	return c
}

func (l *Log) uploading() (n int) {
	for _, job := range l.jobs {
		if job.busy && job.step == drafted {
			n++
		}
	}
	return n
}
