package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest/disk/disktest"
	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/storage/storagetest"
)

// FuzzReplayJournal cuts a journal anywhere, puts anything behind, and flips bits anywhere. What is accepted of it is what was
// written, and what is not is said.
func FuzzReplayJournal(f *testing.F) {
	r := newRig(f)
	l := r.mustOpen()
	for i := range 5 {
		mustAppend(f, l, testChunk(i, 2, 10))
	}
	crash(l)
	journals, err := listJournals(l.fs, l.dir)
	if err != nil || len(journals) != 1 {
		f.Fatal(journals, err)
	}
	good, err := os.ReadFile(journals[0])
	if err != nil {
		f.Fatal(err)
	}
	path := journalPath("/", 0)
	f.Add(uint16(len(good)), []byte(nil), uint32(0), byte(0))
	f.Add(uint16(len(good)), []byte("{}\n#00\n"), uint32(0), byte(0))
	f.Add(uint16(700), []byte(nil), uint32(0), byte(0))
	f.Add(uint16(700), make([]byte, 512), uint32(0), byte(0))
	f.Add(uint16(len(good)), []byte(nil), uint32(900), byte(4))
	f.Add(uint16(len(good)), []byte(nil), uint32(len(good)-1), byte('\n'))
	f.Fuzz(func(t *testing.T, cut uint16, tail []byte, at uint32, flip byte) {
		bad := append(bytes.Clone(good[:min(int(cut), len(good))]), tail...)
		if int(at) < len(bad) {
			bad[at] ^= flip
		}
		machine := disktest.New()
		machine.WriteFile(path, bad)
		p := machine.Process()
		j, err := replayJournal(p, path, noLimit, func([]replayed) {})
		if j == nil {
			return // refused: nothing is lost by that
		}
		if !bytes.HasPrefix(good, bad[:j.size]) && !bytes.HasPrefix(bad[:j.size], good) {
			t.Errorf("accepted %q (%v)", bad[:j.size], err)
		}
		torn, isTorn := errors.AsType[*tornError](err)
		if (err != nil) != isTorn || isTorn && (torn.size != j.size || torn.torn != int64(len(bad))-j.size) || !isTorn && j.size != int64(len(bad)) {
			t.Errorf("%d of %d bytes are taken, and %v", j.size, len(bad), err)
		}
	})
}

// TestFindLastAcrossGaps: of manifests past their retention some may be gone, in no order.
func TestFindLastAcrossGaps(t *testing.T) {
	for _, there := range [][]uint64{{0}, {5}, {0, 1, 2}, {3, 5, 6, 7, 8, 9}, {0, 1, 2, 4}, {4, 6, 9, 10, 17}} {
		layout := chain.Layout{Chain: "audit.example.com/test"}
		memory := storagetest.NewMemory()
		l := &Log{world: world{bucket: memory}, layout: layout}
		for _, n := range there {
			if _, err := memory.Create(context.Background(), layout.Manifest(n), bytes.NewReader(nil), storage.CreateOptions{SHA256: chain.Sum(nil)}); err != nil {
				t.Fatal(err)
			}
		}
		if last, found, err := l.findLast(context.Background()); err != nil || !found || last != there[len(there)-1] {
			t.Errorf("of %v it found %d, %t, %v", there, last, found, err)
		}
	}
}

// TestFindLastAsksFewQuestions: however many manifests there are.
func TestFindLastAsksFewQuestions(t *testing.T) {
	layout := chain.Layout{Chain: "audit.example.com/test"}
	memory := storagetest.NewMemory()
	var faults storagetest.Faults
	l := &Log{world: world{bucket: storagetest.NewClient(storagetest.NewProcess(&faults), memory)}, layout: layout}
	for n := range uint64(3000) {
		data := []byte(fmt.Sprint(n))
		opts := storage.CreateOptions{Size: int64(len(data)), SHA256: chain.Sum(data)}
		if _, err := memory.Create(context.Background(), layout.Manifest(n), bytes.NewReader(data), opts); err != nil {
			t.Fatal(err)
		}
		if n&(n-1) != 0 && n%401 != 0 { // around powers of two, and here and there
			continue
		}
		before := faults.Count()
		last, found, err := l.findLast(context.Background())
		if err != nil || !found || last != n {
			t.Fatalf("%d, %t, %v; want %d", last, found, err, n)
		}
		if asked := faults.Count() - before; asked > 28 { // 2 + 2 log2(n) and some
			t.Errorf("of %d manifests the last is found with %d requests", n+1, asked)
		}
	}
}
