package ingest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/ingest/disk"
	"github.com/auditchain/auditchain/record"
)

// journal is a file in the store directory that holds entry lines not yet committed to the bucket. Besides them it has two
// kinds of lines, which sealing leaves out:
//
//   - Before each batch of chunks that were synced at once stands a batch mark, "=". It is written only when all before it
//     is on the disk: what is damaged before the last of them is damage to acknowledged entries, not a write cut short.
//   - After the lines of each chunk stands a commit line, "#" and the entry hash of the chunk's last entry: lines without one
//     after them were never acknowledged.
//
// A journal belongs to whoever holds Log.writing until it is rotated, then to the sealer.
type journal struct {
	path    string
	file    disk.File    // nil once it is rotated
	size    int64        // synced bytes
	first   uint64       // number of its first entry
	prev    chain.Hash   // that its first entry continues; only of a journal that was replayed
	since   time.Time    // when its first chunk was received
	end     position     // after its last synced entry
	hashes  []chain.Hash // of its synced entries, until it is rotated
	tree    *chain.Tree  // after its last entry, from then on; nil: not known yet
	crc     uint32       // CRC-32C of the synced bytes: tells a disk that changed them before they were sealed
	summary chain.Summary
	chunks  []chain.Hash // delivery ids of the last chunks in it, at least maxRecent if it has so many, and at most twice that
}

const (
	journalPrefix = "journal-"
	journalSuffix = ".ndjson"
	batchMark     = '='
	commitMark    = '#'
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func journalPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%s%020d%s", journalPrefix, first, journalSuffix))
}

// createJournal makes the file of the journal whose first entry has the given number, durably.
func createJournal(fsys disk.FS, dir string, first uint64, since time.Time) (*journal, error) {
	path := journalPath(dir, first)
	f, err := fsys.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("creating a journal: %w", err)
	}
	if err := fsys.SyncDir(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("creating a journal: %w", err), f.Close(), fsys.Remove(path))
	}
	return &journal{path: path, file: f, first: first, since: since}, nil
}

// errSync says that a sync failed: what of the journal is on the disk is then unknown, and a second sync that succeeds
// would say nothing about it.
var errSync = errors.New("sync failed")

// sync makes what was written durable.
func (j *journal) sync() error {
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("%s: %w: %w", j.path, errSync, err)
	}
	return nil
}

// rollback takes back what was written since the last sync.
func (j *journal) rollback() error { return j.file.Truncate(j.size) }

// accept counts a chunk's lines as synced.
func (j *journal) accept(f *flush) {
	j.size += int64(len(f.out))
	j.crc = crc32.Update(j.crc, castagnoli, f.out)
	j.end = f.after
	j.hashes = append(j.hashes, f.hashes...)
	j.summary.Receive(f.received)
	if f.marker != nil {
		j.delivered(f.id)
	}
}

// delivered remembers the chunk, for as long as it may be delivered again.
func (j *journal) delivered(id chain.Hash) {
	if len(j.chunks) >= 2*maxRecent {
		j.chunks = append(j.chunks[:0], j.chunks[len(j.chunks)-maxRecent:]...)
	}
	j.chunks = append(j.chunks, id)
}

// close ends the writing to the journal.
func (j *journal) close() error {
	err := j.file.Close()
	j.file = nil
	return err
}

// listJournals returns the paths of the journals in dir, oldest first.
func listJournals(fsys disk.FS, dir string) ([]string, error) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, name := range names { // ascending
		if strings.HasPrefix(name, journalPrefix) && strings.HasSuffix(name, journalSuffix) {
			paths = append(paths, filepath.Join(dir, name))
		}
	}
	return paths, nil
}

// journalFirst returns the number of the first entry of the journal at path, from its name.
func journalFirst(path string) (uint64, error) {
	digits := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), journalPrefix), journalSuffix)
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || journalPath(filepath.Dir(path), n) != path {
		return 0, fmt.Errorf("%s is not the name of a journal", path)
	}
	return n, nil
}

// tornError says that a journal's last bytes were never acknowledged: what a crash leaves of a write, or a write that failed.
type tornError struct {
	path       string
	size, torn int64
	cause      string
}

func (e *tornError) Error() string {
	return fmt.Sprintf("%s: %d bytes after byte %d are no whole chunk (%s), as a crash leaves of a write that was not acknowledged", e.path, e.torn, e.size, e.cause)
}

// noLimit says that no journal comes after the one that is read.
const noLimit = math.MaxUint64

// replayer reads a journal that an earlier writer left, and checks all of it.
type replayer struct {
	j       *journal
	next    position // after the lines read so far
	pending []replayed
	last    time.Time   // when the last of pending was received
	chunk   *chain.Hash // delivery id of the chunk that pending is
	damage  string      // why nothing after j.size can be read; "": it can
	recall  func([]replayed)
	ended   bool // the next journal goes on from j.end: what follows here is of a write that failed
}

// replayed is an entry of a journal.
type replayed struct {
	facts   chain.Facts
	content content // if it is a record with a source
}

// replayJournal reads the journal at path, all of it. The next journal begins at entry limit. The journal it returns stands
// after the last whole chunk. A *tornError comes with a journal; with any other error the journal is damaged. recall is given the entries
// of each whole chunk.
func replayJournal(fsys disk.FS, path string, limit uint64, recall func([]replayed)) (*journal, error) {
	first, err := journalFirst(path)
	if err != nil {
		return nil, err
	}
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := replayer{j: &journal{path: path, first: first, end: position{seq: first}}, next: position{seq: first}, recall: recall}
	crc, offset := uint32(0), int64(0)
	scanner := bufio.NewScanner(f)
	scanner.Buffer(make([]byte, 1<<20), chain.MaxLine+1)
	scanner.Split(splitLines)
	for scanner.Scan() {
		line := scanner.Bytes()
		crc = crc32.Update(crc, castagnoli, line)
		committed, err := r.line(line, offset)
		offset += int64(len(line))
		if err != nil {
			return nil, damaged(path, r.j.size, err)
		}
		if committed {
			r.j.size, r.j.crc = offset, crc
			r.ended = r.j.end.seq == limit
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("%s: after byte %d: %w", path, offset, err)
	}
	if limit != noLimit && !r.ended {
		return nil, damaged(path, r.j.size, fmt.Errorf("it ends at entry %d, the next journal begins at %d", r.j.end.seq, limit))
	}
	if offset > r.j.size {
		if r.ended {
			r.damage = "the next journal goes on before it"
		} else if r.damage == "" {
			r.damage = "the last chunk has no commit line"
		}
		return r.j, &tornError{path, r.j.size, offset - r.j.size, r.damage}
	}
	return r.j, nil
}

// line takes the next line, with its newline, which begins at offset. committed says that it ended a chunk.
func (r *replayer) line(line []byte, offset int64) (committed bool, err error) {
	line, whole := bytes.CutSuffix(line, []byte{'\n'})
	switch {
	case r.ended:
		return false, nil
	case r.damage != "":
		// What was written after all before it was synced shows that the damage is to what was acknowledged.
		if whole && len(line) == 1 && line[0] == batchMark {
			return false, errors.New(r.damage)
		}
		return false, nil
	case !whole:
		if !torn(line, r.next.entry) {
			return false, errors.New("its last line is not what was being written")
		}
		r.damage = "the last line has no end"
		return false, nil
	case bytes.IndexByte(line, 0) >= 0:
		if !holes(line, offset) {
			return false, errors.New("it has zero bytes")
		}
		r.damage = "it has holes"
		return false, nil
	case len(line) > 0 && line[0] == commitMark:
		return true, r.commit(line)
	case len(line) == 1 && line[0] == batchMark:
		if len(r.pending) > 0 {
			return false, errors.New("a batch begins within a chunk")
		}
		return false, nil
	}
	return false, r.entry(line)
}

func (r *replayer) commit(line []byte) error {
	h, err := chain.ParseHash(line[1:])
	if err != nil || h != r.next.entry || len(r.pending) == 0 {
		return errors.New("a commit line does not fit the entries before it")
	}
	j := r.j
	for i := range r.pending {
		j.summary.Add(r.pending[i].facts)
	}
	r.recall(r.pending)
	if j.summary.Receive(r.last); j.since.IsZero() {
		j.since = r.last
	}
	if r.chunk != nil {
		j.delivered(*r.chunk)
	}
	j.end = r.next
	r.pending, r.chunk = r.pending[:0], nil
	return nil
}

func (r *replayer) entry(line []byte) error {
	e, err := chain.ParseEntry(line)
	if err != nil {
		return err
	}
	if r.next.seq == r.j.first { // what it continues is compared with the journal before it, when that has been read
		r.j.prev, r.next.entry = e.Prev, e.Prev
	}
	if e.Seq != r.next.seq || e.Prev != r.next.entry {
		return fmt.Errorf("entry %d does not continue the entry before it", e.Seq)
	}
	r.next = position{r.next.seq + 1, chain.Sum(line)}
	entry := replayed{facts: e.Facts()}
	if f := &entry.facts; f.SourceID != nil {
		f.SourceID = bytes.Clone(f.SourceID)
		entry.content = contentOf(f.SourceID, f.SourceSeq, record.ContentHash(e.Record))
	}
	r.pending = append(r.pending, entry)
	if r.last = e.Received; e.Chunk != nil {
		id := deliveryID(e.Chunk.SHA256, e.Tag)
		r.chunk = &id
	}
	return nil
}

// sector is the least that a disk writes, in bytes.
const sector = 512

// holes reports whether the zero bytes of a line, which begins at offset, can be what a power cut left of a write that was under
// way: blocks that did not reach the disk, so that each run of them ends with a sector.
func holes(line []byte, offset int64) bool {
	for i := 0; i < len(line); i++ {
		if line[i] == 0 && (i+1 == len(line) || line[i+1] != 0) && (offset+int64(i)+1)%sector != 0 {
			return false
		}
	}
	return true
}

// torn reports whether line, which has no newline, can be the begin of what was being written when a crash came: a batch mark,
// an entry, or the commit line of the entry before it.
func torn(line []byte, last chain.Hash) bool {
	line = bytes.TrimRight(line, "\x00")
	switch {
	case len(line) == 0:
		return true
	case line[0] == commitMark:
		return bytes.HasPrefix(last.AppendHex([]byte{commitMark}), line)
	case line[0] == batchMark:
		return len(line) == 1
	}
	return line[0] == '{'
}

// damaged says that a journal is not what was written to it, where its bytes may have been acknowledged.
func damaged(path string, at int64, what error) error {
	return fmt.Errorf("%s is damaged after byte %d (%w): restore it, or move the whole directory away to go on from the bucket, with an entry in the log that says so", path, at, what)
}

// splitLines is a bufio.SplitFunc for lines with their newlines.
func splitLines(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i+1], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// keepAside copies the bytes after the journal's last whole chunk into a file of their own.
func (j *journal) keepAside(fsys disk.FS, now time.Time) (aside string, err error) {
	aside = j.path + ".torn-" + strconv.FormatInt(now.UnixNano(), 10)
	return aside, j.copy(fsys, aside, func(w io.Writer, f io.Reader) error {
		if _, err := io.CopyN(io.Discard, f, j.size); err != nil {
			return err
		}
		_, err := io.Copy(w, f)
		return err
	})
}

// rewrite puts the journal's whole chunks into a new file of its name. What an earlier life had written and not synced can be read
// here and still be on no disk, and a sync would not tell: after one that failed the system takes what it could not write for written.
func (j *journal) rewrite(fsys disk.FS) error {
	return j.copy(fsys, j.path, func(w io.Writer, f io.Reader) error {
		sum := crc32.New(castagnoli)
		if _, err := io.CopyN(io.MultiWriter(w, sum), f, j.size); err != nil {
			return err
		}
		if sum.Sum32() != j.crc {
			return errDamaged
		}
		return nil
	})
}

func (j *journal) copy(fsys disk.FS, to string, write func(w io.Writer, f io.Reader) error) error {
	f, err := fsys.OpenFile(j.path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return disk.Write(fsys, to, func(w io.Writer) error { return write(w, f) })
}
