package ingest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/auditchain/auditchain/chain"
)

// TestRolledBackDirectory restores an old copy of the store directory: a snapshot, a backup, a disk that forgot.
func TestRolledBackDirectory(t *testing.T) {
	tests := []struct {
		name string
		// before is done before the copy is made, after it what is lost with it. Both get the number of the next record.
		before, after func(r *rig, n *int)
		onLost        OnLostJournal
		want          string // in the error of the next start; "": it goes on
		forked        bool
		lost          bool // the log says that a journal was lost
		kept          int  // records in the log afterwards, before new ones
	}{
		{"nothing happened since", sealed(3), nil, Refuse, "", false, false, 3},
		{"segments since", sealed(3), sealed(4), Resume, "", false, true, 7},
		{"segments since, refuse", sealed(3), sealed(4), Refuse, "on_lost_journal is refuse", false, false, 7},
		{"journal in the copy, sealed since as it was", journaled(3), sealed(0), Refuse, "", false, false, 3},
		{"journal in the copy, sealed since and gone on", journaled(3), sealed(4), Resume, "", false, true, 7},
		{"journal in the copy, sealed with more entries", journaled(3), more(4), Resume, "", false, true, 7},
		{"journal in the copy, sealed with more entries, refuse", journaled(3), more(4), Refuse, "on_lost_journal is refuse", false, false, 7},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			n := 0
			test.before(r, &n)
			copied := r.cfg.StoreDir + ".copy"
			copyDir(t, r.cfg.StoreDir, copied)
			if test.after != nil {
				test.after(r, &n)
			}
			if err := os.RemoveAll(r.cfg.StoreDir); err != nil {
				t.Fatal(err)
			}
			copyDir(t, copied, r.cfg.StoreDir)

			r.cfg.OnLostJournal = test.onLost
			l, err := r.open()
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, ErrForked) != test.forked {
					t.Fatalf("opened: %v", err)
				}
				numbers, _ := r.verify()
				r.wantNumbers(numbers, test.kept)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			mustAppend(t, l, testChunk(n-1, 1, 10)) // delivered again
			mustAppend(t, l, testChunk(n, 2, 10))
			r.mustClose(l)
			numbers, events := r.verify()
			r.wantNumbers(numbers, test.kept+2)
			if slices.Contains(events, chain.EventJournalLost) != test.lost {
				t.Errorf("events %v", events)
			}
		})
	}
}

// sealed takes records into the log that are in the bucket when it has been closed.
func sealed(count int) func(r *rig, n *int) {
	return func(r *rig, n *int) {
		l := r.mustOpen()
		for range count {
			mustAppend(r.t, l, testChunk(*n, 1, 10))
			*n++
		}
		r.mustClose(l)
	}
}

// journaled takes records into the log that are in its journal only.
func journaled(count int) func(r *rig, n *int) {
	return func(r *rig, n *int) {
		l := r.mustOpen()
		for range count {
			mustAppend(r.t, l, testChunk(*n, 1, 10))
			*n++
		}
		crash(l)
	}
}

// more has the writer go on in the very journal that was copied, and seal it then.
func more(count int) func(r *rig, n *int) {
	return func(r *rig, n *int) {
		// What was journaled is taken back, and taken again with more, so that the copy's journal ends within the sealed one.
		journals, err := listJournals(r.fs, r.dir())
		if err != nil || len(journals) != 1 {
			r.t.Fatal(journals, err)
		}
		data, err := os.ReadFile(journals[0])
		if err != nil {
			r.t.Fatal(err)
		}
		reachable := r.bucket
		r.bucket = unreachable{reachable}
		l := r.mustOpen()
		for range count {
			mustAppend(r.t, l, testChunk(*n, 1, 10))
			*n++
		}
		crash(l)
		r.bucket = reachable
		drafts, err := filepath.Glob(filepath.Join(l.dir, pendingPrefix+"*"))
		if err != nil {
			r.t.Fatal(err)
		}
		for _, path := range drafts {
			if err := os.Remove(path); err != nil {
				r.t.Fatal(err)
			}
		}
		all, err := listJournals(r.fs, r.dir())
		if err != nil || len(all) != 2 {
			r.t.Fatal(all, err)
		}
		rest, err := os.ReadFile(all[1])
		if err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(all[0], append(data, rest...), 0o600); err != nil {
			r.t.Fatal(err)
		}
		if err := os.Remove(all[1]); err != nil {
			r.t.Fatal(err)
		}
		sealed(0)(r, n)
	}
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestRolledBackAndGoneOn: the copy took chunks of its own before it heard of the bucket. Nobody knows better than an operator
// which of the two histories is to be sent anew.
func TestRolledBackAndGoneOn(t *testing.T) {
	r := newRig(t)
	n := 0
	sealed(2)(r, &n)
	copied := r.cfg.StoreDir + ".copy"
	copyDir(t, r.cfg.StoreDir, copied)
	sealed(2)(r, &n)
	if err := os.RemoveAll(r.cfg.StoreDir); err != nil {
		t.Fatal(err)
	}
	copyDir(t, copied, r.cfg.StoreDir)
	r.bucket = unreachable{r.bucket}
	l := r.mustOpen() // with the bucket away it knows no better
	mustAppend(t, l, testChunk(100, 1, 10))
	crash(l)
	r.bucket = r.plainBucket()
	if _, err := r.open(); !errors.Is(err, ErrForked) || !strings.Contains(err.Error(), "holds entries that are not in it") {
		t.Errorf("opened: %v", err)
	}
	if journals, err := listJournals(r.fs, r.dir()); err != nil || len(journals) != 1 {
		t.Errorf("the journal is not kept: %v, %v", journals, err)
	}
	numbers, _ := r.verify()
	r.wantNumbers(numbers, 4)
}

// TestNewestJournalGone: nothing but the note tells that there was one.
func TestNewestJournalGone(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"gone":    os.Remove,
		"empty":   func(path string) error { return os.Truncate(path, 0) },
		"renamed": func(path string) error { return os.Rename(path, path+".bak") },
	} {
		for _, mode := range []OnLostJournal{Resume, Refuse} {
			t.Run(name+", "+string(mode), func(t *testing.T) {
				r := newRig(t)
				n := 0
				sealed(2)(r, &n)
				l := r.mustOpen()
				mustAppend(t, l, testChunk(100, 1, 10))
				for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
					var noted note
					if err := l.load(filepath.Join(l.dir, noteFile), &noted); err == nil && noted.First == uint64(n) {
						break
					}
					if time.Now().After(deadline) {
						t.Fatal("the journal is not noted")
					}
				}
				crash(l)
				if err := harm(journalPath(l.dir, uint64(n))); err != nil {
					t.Fatal(err)
				}
				r.cfg.OnLostJournal = mode
				l, err := r.open()
				if mode == Refuse {
					if err == nil || !strings.Contains(err.Error(), "on_lost_journal is refuse") {
						t.Errorf("opened: %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				mustAppend(t, l, testChunk(n, 1, 10))
				r.mustClose(l)
				numbers, events := r.verify()
				r.wantNumbers(numbers, n+1)
				if len(events) != 1 || events[0] != chain.EventJournalLost || !r.log.has("going on without it") {
					t.Errorf("events %v, log %q", events, r.log.lines)
				}
				r.mustClose(r.mustOpen())
			})
		}
	}
}

// TestTakenOverAfterLostAnswer: the answer to a manifest's PUT is lost, its writer dies, and another goes on from there. The
// first finds its manifest in the bucket, and that it was not the last.
func TestTakenOverAfterLostAnswer(t *testing.T) {
	for _, mode := range []OnLostJournal{Resume, Refuse} {
		r := newRig(t)
		n := 0
		sealed(1)(r, &n)
		plain := r.bucket
		deaf := &faulty{Bucket: plain, k: 1, done: true, always: true} // the segment is heard of, its manifest is not
		r.bucket = deaf
		l := r.mustOpen()
		mustAppend(t, l, testChunk(n, 1, 10))
		n++
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		l.Close(ctx)
		cancel()
		r.bucket = plain
		other := *r
		other.cfg.StoreDir = r.cfg.StoreDir + ".other"
		sealed(1)(&other, &n)
		r.cfg.OnLostJournal = mode
		l, err := r.open()
		if mode == Refuse {
			if err == nil || !strings.Contains(err.Error(), "on_lost_journal is refuse") {
				t.Errorf("opened: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, testChunk(n, 1, 10))
		r.mustClose(l)
		numbers, _ := r.verify()
		r.wantNumbers(numbers, n+1)
	}
}

// TestDamagedHeadLosesNothing: with no journal there, that nothing was in it is known all the same.
func TestDamagedHeadLosesNothing(t *testing.T) {
	r := newRig(t)
	r.cfg.OnLostJournal = Refuse
	n := 0
	for range 3 {
		sealed(2)(r, &n)
		path := filepath.Join(r.dir(), headFile)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sealed(2)(r, &n)
	numbers, events := r.verify()
	if r.wantNumbers(numbers, n); len(events) > 0 {
		t.Errorf("events %v", events)
	}
}

// TestDamagedState flips a bit in each file that a crash leaves in the store directory, wherever it is: what can be made again is
// made again, and nothing is lost.
func TestDamagedState(t *testing.T) {
	signedName := filepath.Base((&Log{}).signedPath(2))
	tests := []struct {
		file string
		fail string // what of a manifest's way into the bucket fails before the crash: suffix of the key
		want string // in the log
	}{
		{headFile, ".zst", "looking for it in"},
		{recentFile, ".zst", "reading what was committed lately from"},
		{filepath.Base((&Log{}).pendingPath(2)), ".zst", "its draft is kept aside as"},
		{filepath.Base((&Log{}).segmentPath(2)), ".zst", "is made anew"},
		{signedName, signedName[len(pendingPrefix):], "cannot be used"},
	}
	for _, test := range tests {
		t.Run(test.file, func(t *testing.T) {
			for _, gone := range []bool{false, true} {
				for at := range 3 {
					r := newRig(t)
					n := 0
					sealed(3)(r, &n)
					plain := r.bucket
					r.bucket = &failing{Bucket: plain, suffix: test.fail}
					l := r.mustOpen()
					mustAppend(t, l, testChunk(n, 1, 10))
					n++
					l.writing.Lock()
					l.rotate()
					l.writing.Unlock()
					r.bucket.(*failing).wait(t)
					crash(l)
					r.bucket = plain

					path := filepath.Join(l.dir, test.file)
					data, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					data[at*(len(data)-1)/2] ^= 1
					if err := os.WriteFile(path, data, 0o600); err != nil {
						t.Fatal(err)
					}
					if gone {
						if err := os.Remove(path); err != nil {
							t.Fatal(err)
						}
					}
					l = r.mustOpen()
					if !gone && !r.log.has(test.want) {
						t.Errorf("byte %d of 2: log: %q", at, r.log.lines)
					}
					for i := range n {
						mustAppend(t, l, testChunk(i, 1, 10)) // delivered again
					}
					mustAppend(t, l, testChunk(n, 1, 10))
					r.mustClose(l)
					numbers, events := r.verify()
					r.wantNumbers(numbers, n+1)
					if len(events) > 0 {
						t.Errorf("events %v", events)
					}
				}
			}
		})
	}
}

// TestPipesInTheDirectory: a start does not hang at what is no file, whatever name it has.
func TestPipesInTheDirectory(t *testing.T) {
	for _, name := range []string{headFile, recentFile, noteFile, lostFile, reserveFile, lockFile, filepath.Base((&Log{}).pendingPath(2)),
		filepath.Base((&Log{}).segmentPath(2)), filepath.Base((&Log{}).signedPath(2)), filepath.Base(journalPath("", 1)), ".tmp-" + recentFile} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			n := 0
			sealed(1)(r, &n)
			path := filepath.Join(r.dir(), name)
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if err := unix.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			opened := make(chan error, 1)
			go func() {
				l, err := r.open()
				if err == nil {
					crash(l)
				}
				opened <- err
			}()
			select {
			case err := <-opened:
				if err != nil && !strings.Contains(err.Error(), path) {
					t.Errorf("the error does not name it: %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the start hangs")
			}
		})
	}
}
