package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/test/host"
)

// damage is a bit that flips in a file of the store directory while nothing runs.
type damage struct {
	file    string // pattern of its name; of several the first
	waiting string // the directory in the bucket that took nothing, so that something is still on its way
	refused bool   // the next start says no, until the file is restored
	aside   bool   // the damaged file is kept under another name: the bucket has no more of it
	unused  bool   // nothing is read in it any more
}

// damages are the files of a chain. What can be made again is; what cannot stops the start.
var damages = []damage{
	{file: "journal-*.ndjson", refused: true},
	{file: "journal-*.ndjson", waiting: "segments", refused: true},
	{file: "head.sigstore.json"},
	{file: "head.sigstore.json", waiting: "manifests"},
	{file: "recent.json"},
	{file: "pending-*[0-9].json", waiting: "segments", aside: true},
	{file: "pending-*.ndjson.zst", waiting: "segments"},
	{file: "pending-*.sigstore.json", waiting: "manifests", aside: true},
	{file: "pending-*[0-9].json", waiting: "manifests", unused: true},  // its manifest is signed,
	{file: "pending-*.ndjson.zst", waiting: "manifests", unused: true}, // and its segment in the bucket
	{file: "reserve", unused: true},
}

// testDamage: whatever bit flips, nothing of what was acknowledged is lost or there twice, and what is said of it names the file.
func testDamage(t *testing.T) {
	chunks := paddedChunkFiles(t, "d", 12, 8000) // of 170 KB; segments have 1 MB
	states := map[string]*fileLog{"": nil, "segments": nil, "manifests": nil}
	for _, waiting := range slices.Sorted(maps.Keys(states)) {
		states[waiting] = stopped(t, chunks, waiting)
	}
	for _, d := range damages {
		t.Run(strings.TrimSpace(d.file+" "+d.waiting), func(t *testing.T) {
			t.Parallel()
			places := []float64{0.5}
			if long() {
				places = []float64{0, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1}
			}
			for _, place := range places {
				d.try(t, states[d.waiting].clone(t), chunks, place)
			}
		})
	}
}

// stopped is a log that was killed after it had acknowledged all chunks and committed some.
func stopped(t *testing.T, chunks []chunkFile, waiting string) *fileLog {
	t.Helper()
	l := newFileLog(t)
	if lived := l.live(t, l.section(), host.Options{}, deliver(chunks[:2])...); len(lived.refused(chunks[:2])) > 0 || lived.err != nil {
		t.Fatalf("%+v", lived)
	}
	f := &feeder{h: startHost(t, l.section()), left: chunks[2:]}
	blocked := filepath.Join(l.bucket(), l.layout().Root(), waiting)
	if waiting != "" {
		if err := os.Rename(blocked, blocked+".away"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(blocked, nil, 0o600); err != nil { // nothing can be put below a file
			t.Fatal(err)
		}
	}
	for len(f.left) > 0 {
		if err := f.try(t); err != nil {
			t.Fatal(err)
		}
	}
	pending := map[string]string{"": "lock", "segments": "pending-*[0-9].json", "manifests": "pending-*.sigstore.json"}[waiting]
	eventually(t, "there is "+pending, func() error {
		if found, err := filepath.Glob(filepath.Join(l.state(), pending)); err != nil || len(found) == 0 {
			return errNotYet
		}
		return nil
	})
	f.h.Kill()
	if waiting != "" {
		if err := errors.Join(os.Remove(blocked), os.Rename(blocked+".away", blocked)); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// try flips a bit in the file, at place of it, 0 to 1, and starts.
func (d *damage) try(t *testing.T, l *fileLog, chunks []chunkFile, place float64) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(l.state(), d.file))
	if err != nil || len(found) == 0 {
		t.Fatalf("there is no %s: %v", d.file, err)
	}
	path := found[0]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Clone(whole)
	at := int(place * float64(len(whole)-1))
	broken[at] ^= 1
	if err := os.WriteFile(path, broken, 0o600); err != nil {
		t.Fatal(err)
	}
	where := fmt.Sprintf("byte %d of %s of %d", at, filepath.Base(path), len(whole))
	before := l.files(t)
	if d.refused {
		lived := l.live(t, l.section(), host.Options{})
		if said := ourErrors(lived.log); lived.init != "ERROR" || len(said) != 1 || !strings.Contains(said[0], path) {
			t.Errorf("%s: init %s, it said %q", where, lived.init, said)
		}
		if after := l.files(t); !maps.Equal(before, after) {
			t.Errorf("%s: it did not start, and left %q of %q", where, slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	} else if !d.unused {
		lived := l.live(t, l.section(), host.Options{}, "kill")
		if lived.init != "OK" || !strings.Contains(lived.log, filepath.Base(path)) {
			t.Errorf("%s: init %s, it said nothing of the file:\n%s", where, lived.init, lived.log)
		}
		kept := slices.Contains(slices.Collect(maps.Values(l.files(t))), string(broken))
		if d.aside && !kept {
			t.Errorf("%s: the damaged file is not kept", where)
		}
	}
	l.settle(t, chunks, chunks) // all of them again: each is known
	if t.Failed() {
		t.Fatal(where)
	}
}

// files are the contents of the chain's own files, by name.
func (l *fileLog) files(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(l.state(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if !strings.HasPrefix(d.Name(), ".tmp-") { // means nothing
			all[d.Name()] = string(data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
