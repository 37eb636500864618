package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest/disk"
)

// Files in the chain's directory, besides the journals, and besides those of a manifest on its way (pending):
const (
	headFile    = "head.sigstore.json" // the last manifest that is in the bucket
	lostFile    = "journal-lost.json"  // what a journal_lost entry must say, until it is in the journal
	recentFile  = "recent.json"        // what was committed lately: see recent
	noteFile    = "journal.json"       // which journal is being written: see note
	reserveFile = "reserve"            // room to seal with when the disk is full
	lockFile    = "lock"
)

// Files of manifest n on its way into the bucket:
func (l *Log) pendingPath(n uint64) string { // what is being committed, from before its first byte is uploaded
	return filepath.Join(l.dir, fmt.Sprintf("%s%012d.json", pendingPrefix, n))
}
func (l *Log) segmentPath(n uint64) string {
	return filepath.Join(l.dir, fmt.Sprintf("%s%012d.ndjson.zst", pendingPrefix, n))
}
func (l *Log) signedPath(n uint64) string { // its manifest, from before its first byte is uploaded
	return filepath.Join(l.dir, fmt.Sprintf("%s%012d.sigstore.json", pendingPrefix, n))
}

const pendingPrefix = "pending-"

// maxSaved bounds the files of state that are read, in bytes.
const maxSaved = chain.MaxManifest

// errSaved says that a file of state is not what was written.
var errSaved = errors.New("is damaged")

// save makes a file of state durable: v as JSON on one line, and the SHA-256 of that line on the next.
func (l *Log) save(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return disk.Write(l.fs, path, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s\n%s\n", text, chain.Sum(text))
		return err
	})
}

// load reads what save wrote. The error wraps fs.ErrNotExist if there is no such file, errSaved if it is not what was written.
func (l *Log) load(path string, v any) error {
	data, err := disk.ReadFile(l.fs, path, maxSaved)
	if err != nil {
		return err
	}
	text, sum, _ := bytes.Cut(data, []byte{'\n'})
	if string(sum) != chain.Sum(text).String()+"\n" {
		return fmt.Errorf("%s %w: its checksum is another", path, errSaved)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s %w: %w", path, errSaved, err)
	}
	return nil
}

// damagedMark is in the names of files that are kept aside.
const damagedMark = ".damaged-"

// setAside gives a file another name, under which nothing reads it but who looks into what happened.
func (l *Log) setAside(path string) (aside string, err error) {
	aside = path + damagedMark + strconv.FormatInt(l.now().UnixNano(), 10)
	if err := l.fs.Rename(path, aside); err != nil {
		return "", err
	}
	return aside, l.fs.SyncDir(l.dir)
}

// listPending returns the numbers of the manifests of which there are files, ascending.
func (l *Log) listPending() ([]uint64, error) {
	names, err := l.fs.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	var all []uint64
	for _, name := range names {
		digits, isPending := strings.CutPrefix(name, pendingPrefix)
		digits, suffix, _ := strings.Cut(digits, ".")
		n, err := strconv.ParseUint(digits, 10, 64)
		if !isPending || err != nil || strings.Contains(suffix, damagedMark) || len(all) > 0 && all[len(all)-1] == n {
			continue
		}
		all = append(all, n)
	}
	return all, nil
}

// note says that a journal has been begun, so that a start finds out when the newest is gone, which no other file tells. It is
// written after the journal's first chunk was acknowledged, not before: what comes between the two is not noted.
type note struct {
	First uint64 `json:"first"` // number of its first entry
	Size  int64  `json:"size"`  // bytes that it has at least
}

// noteJournal makes the note of the active journal, once.
func (l *Log) noteJournal() {
	var n note
	l.writing.Lock()
	if l.active != nil {
		n = note{l.active.first, l.active.size}
	}
	l.writing.Unlock()
	if n.Size == 0 || l.noted != nil && *l.noted == n.First {
		return
	}
	if err := l.save(filepath.Join(l.dir, noteFile), &n); err != nil {
		l.opts.Logger.Debug("noting which journal is written: " + err.Error()) // the next step tries again
		return
	}
	l.noted = &n.First
}

// missing reports whether the journal of the note should be there and is not, or not all of it.
func (l *Log) missing() (bool, error) {
	var n note
	err := l.load(filepath.Join(l.dir, noteFile), &n)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errSaved) {
		return false, nil
	}
	if err != nil || n.First < l.committed.NextSeq {
		return false, err
	}
	for _, j := range l.rotated {
		if j.first == n.First {
			return j.size < n.Size, nil
		}
	}
	return true, nil
}

// recent is what is known of the entries committed lately, to know chunks and records that come again.
type recent struct {
	// Payload is the SHA-256 of the payload of the manifest that was committed with them. It tells where the store directory stood when
	// its head cannot be read.
	Payload chain.Hash     `json:"payload"`
	Chunks  []byte         `json:"chunks"` // delivery ids, 32 bytes each, oldest first
	Sources []chain.Source `json:"sources"`
}

// maxRecent is how many chunks of committed journals are remembered, to know them when they are delivered again: Fluent Bit
// delivers again what was under way when it was killed, which is a few chunks.
const maxRecent = 32768

// addChunks takes in the delivery ids of a committed journal.
func (r *recent) addChunks(ids []chain.Hash) {
	for _, id := range ids {
		r.Chunks = append(r.Chunks, id[:]...)
	}
	r.Chunks = r.Chunks[max(0, len(r.Chunks)-maxRecent*chain.HashSize):]
}

// chunks calls yield with each delivery id.
func (r *recent) chunks(yield func(chain.Hash) bool) {
	for b := r.Chunks; len(b) >= chain.HashSize; b = b[chain.HashSize:] {
		if !yield(chain.Hash(b[:chain.HashSize])) {
			return
		}
	}
}
