package ingest

import (
	"testing"
	"time"
)

func TestUploadTimeout(t *testing.T) {
	r := newRig(t)
	r.cfg.UploadTimeout = 30 * time.Millisecond
	l := r.mustOpen()
	for n := range 3 {
		mustAppend(t, l, testChunk(n, 1, 1))
		for deadline := time.Now().Add(10 * time.Second); l.Stats().Segments < uint64(n+1); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("stats %+v", l.Stats())
			}
		}
	}
	if s := l.Stats(); s.UnsealedAge != 0 || s.JournalBytes != 0 {
		t.Errorf("stats %+v", s)
	}
	r.mustClose(l)
	numbers, _ := r.verify()
	r.wantNumbers(numbers, 3)
}

func TestHeartbeats(t *testing.T) {
	r := newRig(t)
	r.cfg.Heartbeat = 20 * time.Millisecond
	l := r.mustOpen()
	for deadline := time.Now().Add(10 * time.Second); l.Stats().Heartbeats < 3; {
		if time.Now().After(deadline) {
			t.Fatalf("stats %+v", l.Stats())
		}
		time.Sleep(time.Millisecond)
	}
	mustAppend(t, l, testChunk(0, 1, 1))
	r.mustClose(l)
	numbers, _ := r.verify()
	r.wantNumbers(numbers, 1)
}

// TestHeartbeatsUnderATrickle: the chain is never silent for longer than heartbeat_interval, though the records that come are not
// due for upload yet; and nothing is cut into pieces while the bucket is away.
func TestHeartbeatsUnderATrickle(t *testing.T) {
	r := newRig(t)
	r.cfg.Heartbeat = 50 * time.Millisecond // upload_timeout is an hour
	l := r.mustOpen()
	n := 0
	for start := time.Now(); l.Stats().Segments < 4; n++ {
		mustAppend(t, l, testChunk(n, 1, 1))
		time.Sleep(5 * time.Millisecond)
		if time.Since(start) > 10*time.Second {
			t.Fatalf("stats %+v", l.Stats())
		}
	}
	if heartbeats := l.Stats().Heartbeats; heartbeats > 2 {
		t.Errorf("%d heartbeats beside segments", heartbeats)
	}
	crash(l)
	r.bucket = unreachable{r.bucket}
	l = r.mustOpen()
	for start := time.Now(); time.Since(start) < 300*time.Millisecond; n++ {
		mustAppend(t, l, testChunk(n, 1, 1))
		time.Sleep(5 * time.Millisecond)
	}
	crash(l)
	if journals, err := listJournals(r.fs, r.dir()); err != nil || len(journals) > 3 {
		t.Errorf("%d journals, %v", len(journals), err)
	}
	r.bucket = r.plainBucket()
	r.mustClose(r.mustOpen())
	numbers, _ := r.verify()
	r.wantNumbers(numbers, n)
}
