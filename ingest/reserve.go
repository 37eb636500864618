package ingest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/auditchain/auditchain/ingest/disk"
)

// A disk that is full of journals could not be emptied if sealing them had no room to work in. So a file keeps some, which
// is given up when sealing fails for want of it. From then on nothing new is taken until all journals are in the bucket.

// reserveSize is the room kept: for a segment that does not compress, and for the small files around it.
func (l *Log) reserveSize() int64 { return l.cfg.TotalFileSize + min(l.cfg.TotalFileSize, 4<<20) }

// makeRoom gives up the reserve.
func (l *Log) makeRoom() {
	l.narrow = true
	l.mu.Lock()
	l.diskFull = true
	l.mu.Unlock()
	if !l.reserved {
		return
	}
	if err := disk.Remove(l.fs, filepath.Join(l.dir, reserveFile)); err != nil {
		l.opts.Logger.Error("giving up the reserve on a full disk: " + err.Error())
		return
	}
	l.reserved = false
	l.opts.Logger.Warn("the disk of store_dir is full: nothing new is taken until what is there is in the bucket; it is sealed in the room that was kept for that")
}

// reserve takes back what makeRoom gave up, once all journals are in the bucket.
func (l *Log) reserve() {
	if l.narrow {
		l.narrow = false
		l.mu.Lock()
		l.diskFull = false
		l.mu.Unlock()
	}
	if l.reserved {
		return
	}
	path := filepath.Join(l.dir, reserveFile)
	f, err := l.fs.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		err = f.Allocate(l.reserveSize())
		err = errors.Join(err, f.Close())
	}
	if err == nil {
		l.reserved, l.reserveSaid = true, false
		return
	}
	l.fs.Remove(path) // what was allocated of it is of use to others
	if !l.reserveSaid {
		l.reserveSaid = true
		l.opts.Logger.Warn(fmt.Sprintf("no room can be kept for sealing when the disk of store_dir is full, which takes %d bytes: %v", l.reserveSize(), err))
	}
}
