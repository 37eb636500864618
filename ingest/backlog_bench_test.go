package ingest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest/disk"
	"github.com/auditchain/auditchain/record/recordtest"
	"github.com/auditchain/auditchain/storage"
)

// slowDisk is a disk whose syncs take time, as they do where they reach a platter or a remote volume.
type slowDisk struct {
	disk.OS
	sync time.Duration
}

func (d slowDisk) OpenFile(path string, flag int, perm fs.FileMode) (disk.File, error) {
	f, err := d.OS.OpenFile(path, flag, perm)
	return slowFile{f, d.sync}, err
}

type slowFile struct {
	disk.File
	sync time.Duration
}

func (f slowFile) Sync() error {
	time.Sleep(f.sync)
	return f.File.Sync()
}

// BenchmarkGroupCommit has 4 workers flush chunks of 50 and of 200 records to a disk whose sync takes 5 ms. Beside it stands one sync
// for each flush: the same bytes, written and synced by the same workers in turn.
func BenchmarkGroupCommit(b *testing.B) {
	const workers, sync5 = 4, 5 * time.Millisecond
	for _, records := range []int{50, 200} {
		generator := recordtest.New(recordtest.Config{Text: 0})
		var alone float64
		b.Run(fmt.Sprintf("records=%d/one sync per flush", records), func(b *testing.B) {
			r := newRig(b)
			f, err := slowDisk{sync: sync5}.OpenFile(r.cfg.SigningKey+".floor", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
			if err != nil {
				b.Fatal(err)
			}
			data := generator.Chunk(records)
			var turn sync.Mutex
			flushes(b, workers, func(int) error {
				turn.Lock()
				defer turn.Unlock()
				if _, err := f.Write(data); err != nil {
					return err
				}
				return f.Sync()
			})
			alone = float64(b.N) / b.Elapsed().Seconds()
			b.ReportMetric(alone, "flushes/s")
		})
		b.Run(fmt.Sprintf("records=%d/group commit", records), func(b *testing.B) {
			r := newRig(b)
			r.fs = slowDisk{sync: sync5}
			r.bucket = &faulty{Bucket: r.bucket, k: 1, always: true} // the bucket is of no interest here
			r.backoff = func(int) time.Duration { return time.Hour }
			l := r.mustOpen()
			defer crash(l)
			chunks := make([][]byte, 64)
			for i := range chunks {
				chunks[i] = generator.Chunk(records)
			}
			flushes(b, workers, func(i int) error { return l.Append([]byte("vllm.audit"), chunks[i%len(chunks)]) })
			each := float64(b.N) / b.Elapsed().Seconds()
			b.ReportMetric(each, "flushes/s")
			b.ReportMetric(each/alone, "times-one-sync-per-flush")
		})
	}
}

// flushes has workers do b.N flushes between them.
func flushes(b *testing.B, workers int, flush func(i int) error) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range workers {
		wg.Go(func() {
			for i := range next {
				if err := flush(i); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.ResetTimer()
	for i := range b.N {
		next <- i
	}
	close(next)
	wg.Wait()
	b.StopTimer()
}

// backlog fills journals of 64 MB with entries of records of about size bytes, while the bucket is away, and returns the rig.
func backlog(b *testing.B, total int64, size int) *rig {
	r := newRig(b)
	away := &faulty{Bucket: r.bucket, k: 1, always: true} // all but the genesis
	r.bucket = away
	r.backoff = func(int) time.Duration { return time.Hour }
	r.cfg.StoreDirLimit = 0
	l := r.mustOpen()
	generator := recordtest.New(recordtest.Config{Text: max(0, size-500)})
	for l.Stats().JournalBytes < total {
		if err := l.Append([]byte("vllm.audit"), generator.Chunk(1_000_000/size)); err != nil {
			b.Fatal(err)
		}
	}
	crash(l)
	r.bucket = away.Bucket
	return r
}

// BenchmarkRecovery measures how long a start takes to check 1 GB of journals, beside reading them and hashing their lines.
func BenchmarkRecovery(b *testing.B) {
	for _, size := range []int{500, 1500} {
		r := backlog(b, 1_000_000_000, size)
		dir := r.dir()
		var floor float64
		name := map[int]string{500: "record=500", 1500: "record=1500"}[size]
		b.Run(name+"/floor", func(b *testing.B) {
			paths, err := listJournals(r.fs, dir)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				for _, path := range paths {
					hashLines(b, path)
				}
			}
			floor = b.Elapsed().Seconds() / float64(b.N)
		})
		b.Run(name+"/auditchain", func(b *testing.B) {
			for b.Loop() {
				l := &Log{world: world{fs: r.fs}, dir: dir, now: time.Now}
				if err := l.replay(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)/floor, "times-read-and-hash")
		})
	}
}

func hashLines(b *testing.B, path string) {
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 1<<20), chain.MaxLine)
	for lines.Scan() {
		sha256.Sum256(lines.Bytes())
	}
	if err := lines.Err(); err != nil {
		b.Fatal(err)
	}
}

// thin is a bucket at the end of a line of so many bytes a second.
type thin struct {
	storage.Bucket
	rate float64
	line sync.Mutex
	busy time.Duration
}

func (t *thin) Create(ctx context.Context, key string, body io.ReadSeeker, opts storage.CreateOptions) (storage.Version, error) {
	t.line.Lock()
	wait := time.Duration(float64(opts.Size) / t.rate * float64(time.Second))
	t.busy += wait
	time.Sleep(wait)
	t.line.Unlock()
	return t.Bucket.Create(ctx, key, body, opts)
}

// BenchmarkCatchUp measures how long 512 MB of journals take into a bucket that takes 40 MB/s, beside the time that the line alone
// is busy.
func BenchmarkCatchUp(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		r := backlog(b, 512_000_000, 1500)
		line := &thin{Bucket: r.bucket, rate: 40e6}
		r.bucket = line
		b.StartTimer()
		start := time.Now()
		l := r.mustOpen()
		for l.Stats().JournalBytes > 0 {
			time.Sleep(time.Millisecond)
		}
		b.ReportMetric(time.Since(start).Seconds()/line.busy.Seconds(), "times-line-busy")
		b.ReportMetric(line.busy.Seconds(), "s-line-busy")
		r.mustClose(l)
	}
}
