package attack

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/auditchain/auditchain/chain"
)

// onDisks is what root of the storage server can do, past the S3 API: versitygw keeps an object as a file, and its version id and
// lock in extended attributes.
var onDisks = []attack{
	segmentChanged("record edited", func(a *arena, lines [][]byte) [][]byte {
		lines[4] = bytes.Replace(lines[4], []byte(`"status":200`), []byte(`"status":500`), 1)
		return lines
	}),
	segmentChanged("record removed", func(a *arena, lines [][]byte) [][]byte { return append(lines[:4], lines[5:]...) }),
	segmentChanged("record inserted", func(a *arena, lines [][]byte) [][]byte {
		return append(lines[:4:4], append([][]byte{bytes.Replace(lines[4], []byte("req-14"), []byte("req-99"), 1)}, lines[4:]...)...)
	}),
	segmentChanged("records swapped", func(a *arena, lines [][]byte) [][]byte { lines[4], lines[5] = lines[5], lines[4]; return lines }),
	segmentChanged("record edited, and the chain of hashes made anew", func(a *arena, lines [][]byte) [][]byte {
		lines[4] = bytes.Replace(lines[4], []byte(`"status":200`), []byte(`"status":500`), 1)
		return rechain(a.left[2], lines)
	}),
	bytesChanged("segment cut off", "segment is shorter than its manifest says", func(object []byte) []byte { return object[:len(object)-1] }),
	bytesChanged("segment lengthened", "segment is longer than its manifest says", func(object []byte) []byte { return append(object, object...) }),
	bytesChanged("segment emptied", "segment is shorter than its manifest says", func([]byte) []byte { return nil }),
	bytesChanged("segment replaced by a bomb, a frame that expands to 8 GiB", "it does not have the SHA-256 that its manifest says",
		func([]byte) []byte { return bomb(bombSize, bombSize) }),
	bytesChanged("segment replaced by a bomb of the same length", "it does not have the SHA-256 that its manifest says",
		func(object []byte) []byte { return bomb(bombSize, bombSize)[:len(object)] }),
	bytesChanged("skippable frames put before a segment's", "it does not have the SHA-256 that its manifest says",
		func(object []byte) []byte { return append(skippable(100), object...) }),
	bytesChanged("skippable frames put behind a segment's", "segment is longer than its manifest says",
		func(object []byte) []byte { return append(object, skippable(100)...) }),
	{
		name: "segment exchanged for another of the chain", who: root, on: disks,
		do: func(a *arena) {
			key, version := a.object("segment 3")
			other := a.get(key, version)
			a.rewrite("segment 2", func([]byte) []byte { return other })
		},
		verdict: tampered, proven: []int{1, 3},
		hits: []hit{{"segment-changed", "segment 2", "10-19", "the segment of entries 10 to 19 is not what was written: …"}},
	},
	manifestChanged("manifest edited", "signature does not verify", func(a *arena, data []byte) []byte {
		return withPayload(data, func(payload []byte) []byte {
			return bytes.Replace(payload, []byte(`"records":10`), []byte(`"records":11`), 1)
		})
	}),
	manifestChanged("manifest edited, and signed with another key", "signature does not verify", func(a *arena, data []byte) []byte {
		return resign(a, newKey(a.T), data, func(payload []byte) []byte {
			return bytes.Replace(payload, []byte(`"records":10`), []byte(`"records":11`), 1)
		})
	}),
	manifestChanged("manifest exchanged for one of another key", "signature does not verify", func(a *arena, _ []byte) []byte { return a.foreign(newKey(a.T), 2) }),
	manifestChanged("second signature put into a manifest", "it has 2 signatures, want exactly one", func(a *arena, data []byte) []byte {
		return regexp.MustCompile(`\[(\{"sig":"[^"]*"\})\]`).ReplaceAll(data, []byte("[$1,$1]"))
	}),
	manifestChanged("member repeated in a manifest", "it is a Sigstore bundle, but not in its one spelling", func(a *arena, data []byte) []byte {
		return bytes.Replace(data, []byte(`{"mediaType":`), []byte(`{"mediaType":"x","mediaType":`), 1)
	}),
	manifestChanged("manifest cut off", "it is no Sigstore bundle: unexpected EOF", func(a *arena, data []byte) []byte { return data[:len(data)-1] }),
	manifestChanged("manifest emptied", "it is no Sigstore bundle: EOF", func(*arena, []byte) []byte { return nil }),
	manifestChanged("manifest replaced by 17 MB", "too long: it has more than the 16777216 bytes allowed", func(*arena, []byte) []byte { return make([]byte, 17_000_000) }),
	manifestChanged("manifest replaced by 15 MB of brackets", "it is no Sigstore bundle: …", func(*arena, []byte) []byte { return bytes.Repeat([]byte{'['}, 15_000_000) }),
	{
		name: "manifest exchanged for another number's", who: root, on: disks,
		do: func(a *arena) {
			key, version := a.object("manifest 2")
			other := a.get(key, version)
			a.rewrite("manifest 3", func([]byte) []byte { return other })
		},
		verdict: tampered, proven: []int{1, 2},
		hits: []hit{
			{"manifest-misplaced", "manifest 3", "10-19", `in the place of manifest 3 lies number 2 of chain "audit.example.com/prod"`},
			{"uncommitted", "segment 3", "", "no manifest names this object"},
		},
	}, {
		name: "manifest exchanged for one of another chain of the same key", who: root, on: disks,
		do: func(a *arena) {
			other := a.foreign(a.key, 2)
			a.rewrite("manifest 2", func([]byte) []byte { return other })
		},
		verdict: tampered, proven: []int{1, 3},
		hits: []hit{
			{"manifest-misplaced", "manifest 2", "", `in the place of manifest 2 lies number 2 of chain "audit.example.com/other"`},
			{"uncommitted", "segment 2", "", "no manifest names this object"},
		},
	}, {
		name: "segment removed", who: root, on: disks,
		do:      removed("segment 2"),
		verdict: tampered, proven: []int{1, 3},
		hits: []hit{{"segment-missing", "segment 2", "10-19", "the version that holds entries 10 to 19 is not there any more, though it was to be kept until …"}},
	}, {
		name: "segment given another version id", who: root, on: disks,
		do: func(a *arena) {
			key, _ := a.object("segment 2")
			a.check(unix.Setxattr(a.path(key), "user.version-id", []byte("01M89ZX6X19EC5C6YQ0513XV3J"), 0))
			a.get(key, "01M89ZX6X19EC5C6YQ0513XV3J")
		},
		verdict: tampered, proven: []int{1, 3},
		hits: []hit{
			{"segment-missing", "segment 2", "10-19", "the version that holds entries 10 to 19 is not there any more, though it was to be kept until …"},
			{"overlaid-version", "segment 2", "10-19", "another version of … bytes was laid over the segment of entries 10 to 19 on …"},
		},
	}, {
		name: "manifest removed", who: root, on: disks,
		do:      removed("manifest 2"),
		verdict: tampered, proven: []int{1, 3},
		hits: []hit{
			{"manifest-missing", "manifest 2", "", "manifest 2 is not there"},
			{"uncommitted", "segment 2", "", "no manifest names this object"},
		},
	}, {
		name: "manifest and its segment removed", who: root, on: disks,
		do:      removed("manifest 2", "segment 2"),
		verdict: tampered, proven: []int{1, 3},
		hits: []hit{{"manifest-missing", "manifest 2", "", "manifest 2 is not there"}},
	}, {
		name: "genesis removed", who: root, on: disks,
		do:      removed("manifest 0"),
		verdict: tampered, proven: everything,
		hits: []hit{{"manifest-missing", "manifest 0", "", "manifest 0 is not there: the chain cannot be followed from its beginning"}},
	}, {
		name: "beginning removed", who: root, on: disks,
		do:      removed("manifest 0", "manifest 1", "segment 1"),
		verdict: tampered, proven: []int{2, 3},
		hits: []hit{{"manifest-missing", "manifest 0", "", "manifests 0 to 1 are not there: the chain cannot be followed from its beginning"}},
	}, {
		name: "rotation removed", who: root, on: disks, log: rotated,
		do:      removed("manifest 4"),
		verdict: tampered, proven: everything,
		hits: []hit{
			{"manifest-missing", "manifest 4", "", "manifest 4 is not there"},
			{"manifest-forged", "manifest 5", "", "manifest 5 is not what the holder of the key wrote: signature does not verify"},
		},
	}, {
		name: "end cut off", who: root, on: disks,
		do:      removed("manifest 3", "segment 3"),
		verdict: intact, proven: []int{1, 2},
		kept: &kept{code: "rolled-back", says: "head: it has 30 entries, the log has 20"},
	}, {
		name: "end cut off that has no entries", who: root, on: disks,
		log:     func(a *arena) { writer(a); a.heartbeat(time.Now()); a.load() },
		do:      removed("manifest 4"),
		verdict: intact, proven: everything,
		kept: &kept{code: "rolled-back", blind: true, says: "head: it is of manifest 4, the log ends with manifest 3"},
	}, {
		name: "bucket set back to an earlier copy", who: root, on: disks,
		log: func(a *arena) {
			a.write(0)
			a.write(10)
			a.copyTree(a.data(), filepath.Join(a.dir, "earlier"))
			a.write(20)
			a.load()
		},
		do: func(a *arena) {
			a.check(os.RemoveAll(a.data()))
			a.copyTree(filepath.Join(a.dir, "earlier"), a.data())
		},
		verdict: intact, proven: []int{1, 2},
		kept: &kept{code: "rolled-back", says: "head: it has 30 entries, the log has 20"},
	}, {
		name: "lock taken off", who: root, on: disks,
		do:      relocked("segment 2", ""),
		verdict: tampered, proven: everything,
		hits: []hit{{"lock-missing", "segment 2", "10-19", "the segment of entries 10 to 19 is not locked"}},
	}, {
		name: "lock taken off a manifest", who: root, on: disks,
		do:      relocked("manifest 2", ""),
		verdict: tampered, proven: everything,
		hits: []hit{{"lock-missing", "manifest 2", "", "manifest 2 is not locked"}},
	}, {
		name: "lock shortened", who: root, on: disks,
		do:      relocked("segment 2", `{"Mode":"COMPLIANCE","RetainUntilDate":"`+time.Now().UTC().Add(24*time.Hour).Format(time.RFC3339)+`"}`),
		verdict: tampered, proven: everything,
		hits: []hit{{"lock-shortened", "segment 2", "10-19", "the segment of entries 10 to 19 is locked until …, its manifest promised …"}},
	}, {
		name: "lock changed to governance mode", who: root, on: disks,
		do:      relocked("segment 2", `{"Mode":"GOVERNANCE","RetainUntilDate":"`+time.Now().UTC().AddDate(0, 0, 40).Format(time.RFC3339)+`"}`),
		verdict: tampered, proven: everything,
		hits: []hit{{"lock-mode", "segment 2", "10-19", "the segment of entries 10 to 19 is locked in mode GOVERNANCE, its manifest promised COMPLIANCE"}},
	}, {
		name: "older version slipped under a manifest", who: root, on: disks,
		do:      func(a *arena) { key, _ := a.object("manifest 2"); a.slipUnder(key, []byte("forged")) },
		verdict: tampered, proven: []int{1, 3},
		hits: []hit{
			{"manifest-forged", "manifest 2", "", "manifest 2 is not what the holder of the key wrote: …"},
			{"overlaid-version", "manifest 2", "", "another version of … bytes was laid over manifest 2 on …; that one is signed with the chain's key"},
			{"uncommitted", "segment 2", "", "no manifest names this object"},
		},
	}, {
		name: "whole log exchanged for one of another key", who: root, on: disks,
		do: func(a *arena) {
			a.wipe()
			a.key = newKey(a.T)
			a.genesis(time.Now())
			for range 3 {
				a.segment(time.Now(), 10)
			}
		},
		verdict: tampered,
		hits:    []hit{{"other-key", "manifest 0", "", "the genesis names the key …, trusted is …; manifests 0 to 3 are not signed with that"}},
		and:     nil,
	},
}

// segmentChanged has the lines of segment 2 changed and packed anew.
func segmentChanged(name string, edit func(a *arena, lines [][]byte) [][]byte) attack {
	return attack{
		name: name, who: root, on: disks,
		do: func(a *arena) {
			object, _ := pack(a.T, edit(a, a.lines(2)))
			a.rewrite("segment 2", func([]byte) []byte { return object })
		},
		verdict: tampered, proven: []int{1, 3},
		hits: []hit{{"segment-changed", "segment 2", "10-19", "the segment of entries 10 to 19 is not what was written: frame 0: …"}},
	}
}

// bytesChanged has the bytes of segment 2 changed.
func bytesChanged(name, says string, edit func([]byte) []byte) attack {
	return attack{
		name: name, who: root, on: disks,
		do:      func(a *arena) { a.rewrite("segment 2", edit) },
		verdict: tampered, proven: []int{1, 3},
		hits: []hit{{"segment-changed", "segment 2", "10-19", "the segment of entries 10 to 19 is not what was written: …" + says}},
	}
}

// manifestChanged has the bytes of manifest 2 changed: then nobody says whose segment 2 is.
func manifestChanged(name, says string, edit func(a *arena, data []byte) []byte) attack {
	return attack{
		name: name, who: root, on: disks,
		do: func(a *arena) {
			a.rewrite("manifest 2", func(data []byte) []byte { return edit(a, data) })
		},
		verdict: tampered, proven: []int{1, 3},
		hits: []hit{
			{"manifest-forged", "manifest 2", "", "manifest 2 is not what the holder of the key wrote: " + says},
			{"uncommitted", "segment 2", "", "no manifest names this object"},
		},
	}
}

// data is the directory that versitygw keeps the bucket in.
func (a *arena) data() string { return filepath.Join(a.server.Dir, "data", a.name) }

// path is the file of the current version of an object.
func (a *arena) path(key string) string { return filepath.Join(a.data(), filepath.FromSlash(key)) }

// rewrite changes the bytes of an object where they lie, under the same version id, and makes sure that the server
// serves them so.
func (a *arena) rewrite(what string, edit func([]byte) []byte) {
	a.Helper()
	key, version := a.object(what)
	before := a.get(key, version)
	after := edit(bytes.Clone(before))
	if bytes.Equal(before, after) {
		a.Fatalf("%s has not been changed", what)
	}
	a.check(os.WriteFile(a.path(key), after, 0o644)) // keeps the attributes
	if served := a.get(key, version); !bytes.Equal(served, after) {
		a.Fatalf("the server serves other bytes of %s than lie on its disk", what)
	}
}

// removed takes objects off the disk.
func removed(all ...string) func(*arena) {
	return func(a *arena) {
		for _, what := range all {
			key, version := a.object(what)
			a.check(os.Remove(a.path(key)))
			if _, err := a.bucket.Stat(a.Context(), key, version); err == nil {
				a.Fatalf("%s is still there", what)
			}
		}
	}
}

// relocked changes the lock of an object; "" takes it off.
func relocked(what, lock string) func(*arena) {
	return func(a *arena) {
		key, version := a.object(what)
		if lock == "" {
			a.check(unix.Removexattr(a.path(key), "user.object-retention"))
		} else {
			a.check(unix.Setxattr(a.path(key), "user.object-retention", []byte(lock), 0))
		}
		info, err := a.bucket.Stat(a.Context(), key, version)
		if err != nil || lock == "" && info.LockMode != "" || !strings.Contains(lock, info.LockMode) {
			a.Fatalf("the server says %+v, %v", info, err)
		}
	}
}

// slipUnder puts a version under the others of key that is older than all of them.
func (a *arena) slipUnder(key string, data []byte) {
	a.Helper()
	const id = "01AAAAAAAAAAAAAAAAAAAAAAAA" // version ids begin with the time
	sum := chain.Sum([]byte(key)).String()
	dir := filepath.Join(a.server.Dir, "versions", a.name, sum[:2], sum[2:4], sum[4:6], sum)
	a.check(os.MkdirAll(dir, 0o755))
	file := filepath.Join(dir, id)
	a.check(exec.Command("cp", "-a", a.path(key), file).Run())
	a.check(os.WriteFile(file, data, 0o644))
	a.check(unix.Setxattr(file, "user.version-id", []byte(id), 0))
	long := time.Now().AddDate(-1, 0, 0)
	a.check(os.Chtimes(file, long, long))
	if served := a.get(key, id); !bytes.Equal(served, data) {
		a.Fatal("the server does not serve the older version")
	}
}

// wipe takes the whole log off the disks.
func (a *arena) wipe() {
	a.Helper()
	a.check(os.RemoveAll(a.path(strings.TrimSuffix(a.layout.Root(), "/"))))
	a.check(os.RemoveAll(filepath.Join(a.server.Dir, "versions", a.name)))
}

// copyTree copies a directory with its attributes.
func (a *arena) copyTree(from, to string) {
	a.Helper()
	a.check(exec.Command("cp", "-a", from, to).Run())
}

// rechain gives lines the numbers and hashes that they need to follow each other after what was before m.
func rechain(m *chain.Manifest, lines [][]byte) [][]byte {
	prefix := regexp.MustCompile(`^\{"seq":\d+,"prev":"[0-9a-f]{64}"`)
	previous := *m.PreviousHead
	var out [][]byte
	for i, line := range lines {
		line = prefix.ReplaceAll(line, fmt.Appendf(nil, `{"seq":%d,"prev":"%s"`, m.FirstSeq+uint64(i), previous))
		previous = chain.Sum(bytes.TrimSuffix(line, []byte{'\n'}))
		out = append(out, line)
	}
	return out
}

var payloadOf = regexp.MustCompile(`"payload":"([^"]*)"`)

// withPayload changes a manifest's payload and leaves its signature.
func withPayload(data []byte, edit func([]byte) []byte) []byte {
	payload, _ := base64.StdEncoding.DecodeString(string(payloadOf.FindSubmatch(data)[1]))
	changed := base64.StdEncoding.EncodeToString(edit(payload))
	return payloadOf.ReplaceAll(data, []byte(`"payload":"`+changed+`"`))
}

// resign changes a manifest's payload and signs it, whatever it says.
func resign(a *arena, key *chain.SigningKey, data []byte, edit func([]byte) []byte) []byte {
	a.Helper()
	payload, err := base64.StdEncoding.DecodeString(string(payloadOf.FindSubmatch(data)[1]))
	a.check(err)
	data, err = chain.SignBundle(key, edit(payload))
	a.check(err)
	return data
}

const bombSize = 8 << 30

// bomb is a zstd frame (RFC 8878) of blocks of one repeated byte that expands to size bytes, and says that it holds said; with
// said 0 it does not say.
func bomb(size, said int64) []byte {
	const block = 128 << 10
	frame := binary.LittleEndian.AppendUint32(nil, 0xfd2fb528)
	if said > 0 {
		frame = append(frame, 0xc0, 0x38) // content size in 8 bytes; window of 128 KiB
		frame = binary.LittleEndian.AppendUint64(frame, uint64(said))
	} else {
		frame = append(frame, 0x00, 0x38)
	}
	for left := size; left > 0; left -= block {
		header := uint32(block)<<3 | 1<<1 // a repeated byte
		if left <= block {
			header |= 1 // the last one
		}
		frame = append(frame, byte(header), byte(header>>8), byte(header>>16), '\n')
	}
	return frame
}

// skippable is a skippable frame with n bytes.
func skippable(n int) []byte {
	frame := binary.LittleEndian.AppendUint32(nil, 0x184d2a50)
	return append(binary.LittleEndian.AppendUint32(frame, uint32(n)), make([]byte, n)...)
}
