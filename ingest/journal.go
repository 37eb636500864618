package ingest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/auditchain/auditchain/chain"
)

// journal is a file in the store directory that holds entry lines not yet committed to the bucket. After the lines of
// each chunk stands a commit line, "#" and the entry hash of the chunk's last entry: lines without one after them were
// never acknowledged. Sealing leaves the commit lines out.
//
// A journal belongs to whoever holds Log.disk until it is rotated, then to the sealer.
type journal struct {
	path    string
	file    *os.File     // nil once it is rotated
	size    int64        // synced bytes
	first   uint64       // number of its first entry
	since   time.Time    // when its first chunk was received
	end     position     // after its last synced entry
	hashes  []chain.Hash // of its synced entries, until it is rotated
	tree    chain.Tree   // after its last entry, from then on
	crc     uint32       // CRC-32C of the synced bytes: tells a disk that changed them before they were sealed
	summary chain.Summary
	chunks  []chain.Hash // delivery ids of the chunks in it
}

const (
	journalPrefix = "journal-"
	journalSuffix = ".ndjson"
	commitMark    = '#'
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func journalName(first uint64) string {
	return fmt.Sprintf("%s%020d%s", journalPrefix, first, journalSuffix)
}

// createJournal makes the file of the journal whose first entry has the given number, durably.
func createJournal(dir string, first uint64, since time.Time) (*journal, error) {
	path := filepath.Join(dir, journalName(first))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("creating a journal: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return &journal{path: path, file: f, first: first, since: since}, nil
}

// errSync says that a sync failed: what of the journal is on the disk is then unknown, and a second sync that succeeds
// would say nothing about it.
var errSync = errors.New("sync failed")

// sync makes what was written durable.
func (j *journal) sync() error {
	if err := unix.Fdatasync(int(j.file.Fd())); err != nil {
		return fmt.Errorf("%s: %w: %w", j.path, errSync, err)
	}
	return nil
}

// rollback takes back what was written since the last sync.
func (j *journal) rollback() error { return j.file.Truncate(j.size) }

// accept counts a chunk's lines as synced.
func (j *journal) accept(f *flush) {
	j.size += int64(len(f.lines))
	j.crc = crc32.Update(j.crc, castagnoli, f.lines)
	j.end = f.after
	j.hashes = append(j.hashes, f.hashes...)
	j.summary.Receive(f.received)
	if f.marker != nil {
		j.chunks = append(j.chunks, f.id)
	}
}

// close ends the writing to the journal.
func (j *journal) close() error {
	err := j.file.Close()
	j.file = nil
	return err
}

// listJournals returns the paths of the journals in dir, oldest first.
func listJournals(dir string) ([]string, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, n := range names {
		if strings.HasPrefix(n.Name(), journalPrefix) && strings.HasSuffix(n.Name(), journalSuffix) {
			paths = append(paths, filepath.Join(dir, n.Name()))
		}
	}
	slices.Sort(paths)
	return paths, nil
}

// journalFirst returns the number of the first entry of the journal at path, from its name.
func journalFirst(path string) (uint64, error) {
	digits := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), journalPrefix), journalSuffix)
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || journalName(n) != filepath.Base(path) {
		return 0, fmt.Errorf("%s is not the name of a journal", path)
	}
	return n, nil
}

// tornError says that a journal's last bytes are not whole chunks: what a crash leaves of a write that was never
// acknowledged.
type tornError struct {
	path       string
	size, torn int64
	cause      string
}

func (e *tornError) Error() string {
	return fmt.Sprintf("%s: %d bytes after byte %d are no whole chunk (%s)", e.path, e.torn, e.size, e.cause)
}

// replayJournal reads the journal at path, which must continue head, and checks all of it. The journal it returns
// stands after the last whole chunk. A *tornError comes with a journal; with any other error the journal is damaged.
func replayJournal(path string, head position) (*journal, error) {
	first, err := journalFirst(path)
	if err != nil {
		return nil, err
	}
	if first != head.seq {
		return nil, fmt.Errorf("%s begins at entry %d, but entry %d comes next", path, first, head.seq)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	j := &journal{path: path, first: first, end: head}

	var (
		next    = head // after the lines read so far
		pending []chain.Facts
		hashes  []chain.Hash // of pending
		crc     uint32
		offset  int64
		chunk   *chain.Hash
		last    time.Time
		damage  string // why nothing after j.size can be read
	)
	scanner := bufio.NewScanner(f)
	scanner.Buffer(make([]byte, 1<<20), chain.MaxLine+1)
	scanner.Split(splitLines)
	for scanner.Scan() {
		line := scanner.Bytes()
		crc = crc32.Update(crc, castagnoli, line)
		offset += int64(len(line))
		line, whole := bytes.CutSuffix(line, []byte{'\n'})
		if damage != "" {
			// A whole chunk after the damage was perhaps acknowledged, and cannot be chained any more.
			if whole && len(line) == 1+2*chain.HashSize && line[0] == commitMark {
				return nil, damaged(path, j.size, damage)
			}
			continue
		}
		switch {
		case !whole && !torn(line, next.entry):
			return nil, damaged(path, j.size, "its last line is not what was being written")
		case !whole:
			damage = "the last line has no end"
		case bytes.IndexByte(line, 0) >= 0:
			damage = "it has holes" // of a write that a power cut left half done: what was synced has no zero bytes
		case len(line) > 0 && line[0] == commitMark:
			h, err := chain.ParseHash(line[1:])
			if err != nil || h != next.entry || len(pending) == 0 {
				return nil, damaged(path, j.size, "a commit line does not fit the entries before it")
			}
			for _, facts := range pending {
				if j.summary.Add(facts) {
					j.summary.Redelivered++
				}
			}
			if j.summary.Receive(last); j.since.IsZero() {
				j.since = last
			}
			if chunk != nil {
				j.chunks = append(j.chunks, *chunk)
			}
			j.end, j.size, j.crc = next, offset, crc
			j.hashes = append(j.hashes, hashes...)
			pending, hashes, chunk = pending[:0], hashes[:0], nil
		default:
			e, err := chain.ParseEntry(line)
			switch {
			case err != nil:
				return nil, damaged(path, j.size, err.Error())
			case e.Seq != next.seq || e.Prev != next.entry:
				return nil, damaged(path, j.size, fmt.Sprintf("entry %d does not continue the entry before it", e.Seq))
			default:
				next = position{next.seq + 1, chain.Sum(line)}
				hashes = append(hashes, next.entry)
				facts := e.Facts()
				facts.SourceID = bytes.Clone(facts.SourceID)
				pending = append(pending, facts)
				if last = e.Received; e.Chunk != nil {
					id := deliveryID(e.Chunk.SHA256, e.Tag)
					chunk = &id
				}
			}
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("%s: after byte %d: %w", path, offset, err)
	}
	if offset > j.size {
		if damage == "" {
			damage = "the last chunk has no commit line"
		}
		return j, &tornError{path, j.size, offset - j.size, damage}
	}
	return j, nil
}

// torn reports whether line, which has no newline, can be the begin of what was being written when a crash came: an
// entry, or the commit line of the entry before it.
func torn(line []byte, last chain.Hash) bool {
	if len(line) > 0 && line[0] == commitMark {
		return bytes.HasPrefix(last.AppendHex([]byte{commitMark}), bytes.TrimRight(line, "\x00"))
	}
	return true
}

// damaged says that a journal is not what was written to it, where its bytes may have been acknowledged.
func damaged(path string, at int64, what string) error {
	return fmt.Errorf("%s is damaged after byte %d (%s): restore it, or move the whole directory away to go on from the bucket, with an entry in the log that says so", path, at, what)
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

// cutTorn keeps the bytes after the journal's last whole chunk aside, in a file of their own, and cuts them off.
func (j *journal) cutTorn() (aside string, err error) {
	f, err := os.OpenFile(j.path, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	aside = j.path + ".torn-" + strconv.FormatInt(time.Now().UnixNano(), 10)
	err = writeDurably(aside, func(w io.Writer) error {
		_, err := io.Copy(w, io.NewSectionReader(f, j.size, 1<<62))
		return err
	})
	if err != nil {
		return "", err
	}
	if err := f.Truncate(j.size); err != nil {
		return "", err
	}
	return aside, f.Sync()
}
