package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/auditchain/auditchain/test/host"
	"github.com/auditchain/auditchain/test/servers"
)

// mount mounts a file system for the time of the test. It takes the rights of root.
func mount(t *testing.T, source, dir, fstype, options string) error {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", fstype, "-o", options, source, dir).CombinedOutput(); err != nil {
		return fmt.Errorf("a file system cannot be mounted: %w: %s", err, out)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) }) // fails where it was unmounted before
	return nil
}

// smallDisk mounts a disk of so many bytes. Where that cannot be done the test is skipped.
func smallDisk(t *testing.T, size int) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "disk")
	if err := mount(t, "tmpfs", dir, "tmpfs", fmt.Sprint("size=", size)); err != nil {
		t.Skip(err)
	}
	return dir
}

// feeder delivers chunks to a plugin host, one at a time.
type feeder struct {
	h     *host.Host
	left  []chunkFile
	taken []sent
}

// next delivers the next chunk; if it is not taken, it stays the next.
func (f *feeder) next(t *testing.T) (ret string) {
	t.Helper()
	flush(t, f.h, f.left[0].path)
	if ret = f.h.Next(t).Ret; ret == "OK" {
		f.taken = append(f.taken, f.left[0].records...)
		f.left = f.left[1:]
	}
	return ret
}

// try is next, with an error if the chunk is not taken.
func (f *feeder) try(t *testing.T) error {
	t.Helper()
	if ret := f.next(t); ret != "OK" {
		return errors.New(ret)
	}
	return nil
}

// until delivers chunks until one is not taken.
func (f *feeder) until(t *testing.T) {
	t.Helper()
	for f.next(t) == "OK" {
		if len(f.left) == 0 {
			t.Fatal("all chunks were taken")
		}
	}
}

// rest delivers all chunks, each as often as it takes.
func (f *feeder) rest(t *testing.T) {
	t.Helper()
	for len(f.left) > 0 {
		eventually(t, "the next chunk is taken", func() error { return f.try(t) })
	}
}

// saysWhy waits until the plugin has said what of the disk keeps it from taking chunks.
func saysWhy(t *testing.T, h *host.Host, want ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("it says one of %q", want), func() error {
		for _, line := range ourErrors(h.Log()) {
			why, ok := strings.CutPrefix(line, "chunk not taken, Fluent Bit keeps it and will send it again: ")
			if ok && slices.ContainsFunc(want, func(w string) bool { return strings.Contains(why, w) }) {
				return nil
			}
		}
		return fmt.Errorf("it said %q", ourErrors(h.Log()))
	})
}

// fullMessages are what is said of a full disk.
var fullMessages = []string{"no space left on device", "the disk of store_dir is full"}

// testFullDisk: something fills the disk, and later makes room again.
func testFullDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 6<<20)
	l := newLog(t, gatewayHTTP.open(t))
	l.storeDir = filepath.Join(disk, "store")
	h := startHost(t, l.section().With("total_file_size", "1M"))
	f := &feeder{h: h, left: paddedChunkFiles(t, "f", 40, 4000)}
	for range 5 {
		if ret := f.next(t); ret != "OK" {
			t.Fatal(ret)
		}
	}
	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	f.until(t)
	for range 10 {
		f.next(t) // OK for one that fits into what is sealed meanwhile
	}
	saysWhy(t, h, fullMessages...)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	f.rest(t)
	l.waitFor(t, len(f.taken))
	h.End(t)
	c := l.load(t)
	c.checkRecords(t, f.taken)
	c.checkCounts(t)
	l.verify(t)
}

// fill writes a file until there is no room on its disk.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for block := make([]byte, 64<<10); len(block) > 0; {
		if _, err := file.Write(block); errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// testFullWhileStoreAway: what waits for the store fills the disk. When the store is back it is sealed, with nobody's help,
// and then there is room again.
func testFullWhileStoreAway(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarted %t", restart), func(t *testing.T) {
			t.Parallel()
			server := servers.Versitygw(t)
			l := newLog(t, server)
			l.storeDir = filepath.Join(smallDisk(t, 4<<20), "store")
			section := l.section().With("total_file_size", "1M").With("upload_timeout", "60s")
			f := &feeder{h: startHost(t, section), left: paddedChunkFiles(t, "f", 80, 4000)} // 8 MB
			if ret := f.next(t); ret != "OK" {
				t.Fatal(ret)
			}
			server.Kill()
			f.until(t)
			saysWhy(t, f.h, fullMessages...)
			if len(f.taken) < 20*10 {
				t.Errorf("only %d records were taken before the disk was full", len(f.taken))
			}
			if restart {
				f.h.Kill()
				f.h = startHost(t, section)
				f.until(t)
			}
			before := len(f.taken)
			if err := server.Restart(); err != nil {
				t.Fatal(err)
			}
			// Full journals go without anything being delivered, the last one after upload_timeout.
			l.waitFor(t, before*2/3)
			f.rest(t)
			f.h.End(t)
			l.waitFor(t, len(f.taken))
			c := l.load(t)
			c.checkRecords(t, f.taken)
			l.verify(t)
		})
	}
}

// testReadOnly: nothing can be written any more, and later it can again.
func testReadOnly(t *testing.T) {
	t.Run("for a while", func(t *testing.T) {
		t.Parallel()
		d := newLoopDisk(t)
		l := newFileLog(t)
		section := l.section().With("store_dir", filepath.Join(d.dir, "store")).With("upload_timeout", "1s")
		f := &feeder{h: startHost(t, section), left: chunkFiles(t, "r", 60)}
		for range 2 {
			for range 5 {
				if ret := f.next(t); ret != "OK" {
					t.Fatal(ret)
				}
			}
			d.immutable(t, true)
			f.until(t)
			time.Sleep(1200 * time.Millisecond) // upload_timeout: it tries to seal
			d.immutable(t, false)
			eventually(t, "chunks are taken again", func() error { return f.try(t) })
		}
		saysWhy(t, f.h, "operation not permitted")
		f.rest(t)
		f.h.End(t)
		l.check(t, f.taken)
	})
	t.Run("until a restart", func(t *testing.T) {
		t.Parallel()
		d := newLoopDisk(t)
		l := newFileLog(t)
		section := l.section().With("store_dir", filepath.Join(d.dir, "store"))
		f := &feeder{h: startHost(t, section), left: chunkFiles(t, "r", 60)}
		for range 20 {
			if ret := f.next(t); ret != "OK" {
				t.Fatal(ret)
			}
		}
		d.error(t)
		f.until(t)
		saysWhy(t, f.h, "read-only file system")
		f.h.End(t)
		d.unmount(t)
		d.mount(t)
		d.remount(t, "ro")
		lived := l.live(t, section, host.Options{})
		if said := ourErrors(lived.log); lived.init != "ERROR" || len(said) != 1 || !strings.HasPrefix(said[0], "store_dir: ") || !strings.Contains(said[0], "read-only file system") {
			t.Errorf("on a read-only file system: init %s, it said %q", lived.init, said)
		}
		d.remount(t, "rw")
		f.h = startHost(t, section)
		f.rest(t)
		f.h.End(t)
		l.check(t, f.taken)
	})
}

// loopDisk is an ext4 file system in a file.
type loopDisk struct{ image, dir string }

// newLoopDisk makes one of 32 MB and mounts it. Where that cannot be done the test is skipped.
func newLoopDisk(t *testing.T) *loopDisk {
	t.Helper()
	d := &loopDisk{filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "disk")}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, 32<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", d.image).CombinedOutput(); err != nil {
		t.Skipf("a file system cannot be made here: %v: %s", err, out)
	}
	if err := d.tryMount(t); err != nil {
		t.Skip(err)
	}
	return d
}

func (d *loopDisk) tryMount(t *testing.T) error {
	t.Helper()
	return mount(t, d.image, d.dir, "ext4", "loop,errors=remount-ro")
}

// mount mounts the disk again; the file system recovers.
func (d *loopDisk) mount(t *testing.T) {
	t.Helper()
	if err := d.tryMount(t); err != nil {
		t.Fatal(err)
	}
}

// remount makes the disk, which nobody writes to, read-only, "ro", or writable again, "rw".
func (d *loopDisk) remount(t *testing.T, mode string) {
	t.Helper()
	if out, err := exec.Command("mount", "-o", "remount,"+mode, d.dir).CombinedOutput(); err != nil {
		t.Fatalf("remounting %s: %v: %s", mode, err, out)
	}
}

// immutable makes all that there is on the disk such that it cannot be changed, or undoes that.
func (d *loopDisk) immutable(t *testing.T, on bool) {
	t.Helper()
	mode := map[bool]string{true: "+i", false: "-i"}[on]
	if out, err := exec.Command("chattr", "-R", mode, filepath.Join(d.dir, "store")).CombinedOutput(); err != nil {
		t.Skipf("files cannot be made immutable here: %v: %s", err, out)
	}
}

// error has the kernel find an error in the file system, so that it remounts it read-only. No remount undoes that.
func (d *loopDisk) error(t *testing.T) {
	t.Helper()
	out, err := exec.Command("findmnt", "-n", "-o", "SOURCE", d.dir).Output()
	if err != nil {
		t.Skipf("the device of the disk cannot be found: %v", err)
	}
	trigger := filepath.Join("/sys/fs/ext4", filepath.Base(strings.TrimSpace(string(out))), "trigger_fs_error")
	if err := os.WriteFile(trigger, []byte("1"), 0); err != nil {
		t.Skipf("the file system cannot be made to find an error: %v", err)
	}
}

// shutdown has the file system behave as if the disk had gone: nothing is written to it any more, all calls fail.
func (d *loopDisk) shutdown(t *testing.T, how uint32) {
	t.Helper()
	const goingDown = 0x8004587d // FS_IOC_SHUTDOWN
	f, err := os.Open(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), goingDown, uintptr(unsafe.Pointer(&how))); errno != 0 {
		t.Skipf("the file system cannot be shut down: %v", errno)
	}
}

// unmount waits until nothing uses the disk any more.
func (d *loopDisk) unmount(t *testing.T) {
	t.Helper()
	eventually(t, "the disk is not in use", func() error { return unix.Unmount(d.dir, 0) })
}

// testPowerCut: the disk goes while chunks come in, with all that was not synced, and the process with it. It is started again when
// the file system has recovered.
func testPowerCut(t *testing.T) {
	const (
		withoutLog = 2 // FS_SHUTDOWN_FLAGS_NOLOGFLUSH: as when the power is cut
		withLog    = 1 // FS_SHUTDOWN_FLAGS_LOGFLUSH: names are on the disk, and perhaps not what is in the files
	)
	rounds := 4
	if long() {
		rounds = 40
	}
	for name, how := range map[string]uint32{"nothing unsynced is kept": withoutLog, "names are kept": withLog} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newLoopDisk(t)
			l := newFileLog(t)
			section := l.section().With("store_dir", filepath.Join(d.dir, "store")).With("upload_timeout", "1s")
			chunks := paddedChunkFiles(t, "p", 30*rounds, 2000)
			open := make(map[string]bool)
			for _, c := range chunks {
				open[c.path] = true
			}
			for round := range rounds {
				h := startHost(t, section)
				h.Send(t, fmt.Sprint("threads ", 1+round%4), "retries 1 10")
				for _, path := range slices.Sorted(maps.Keys(open)) {
					flush(t, h, path)
				}
				for range 1 + 7*round%23 {
					if a := h.Next(t); a.Ret == "OK" {
						delete(open, a.File)
					}
				}
				// With the power the process goes, and nobody hears it any more. Here it lives a little longer, and a sync that was
				// under way may tell it, wrongly, that all is well: what it answers now does not count.
				d.shutdown(t, how)
				time.Sleep(time.Duration(round%3) * 10 * time.Millisecond)
				h.Kill()
				d.unmount(t)
				d.mount(t)
			}
			h := startHost(t, section)
			for _, path := range slices.Sorted(maps.Keys(open)) {
				flush(t, h, path)
			}
			for range open {
				if a := h.Next(t); a.Ret != "OK" {
					t.Fatalf("%+v", a)
				}
			}
			h.End(t)
			l.check(t, recordsOf(chunks)).checkWhole(t, chunks)
		})
	}
}
