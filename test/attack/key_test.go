package attack

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/storage"
)

// withKey is what the thief of the signing key can do, alone or as root of the storage server, and what a writer that was
// configured badly does.
var withKey = []attack{
	{
		name: "end written anew with the key, with more entries", who: keyAndStore, on: disks,
		do: func(a *arena) {
			removed("manifest 3", "segment 3")(a)
			a.standAt(3)
			a.segment(time.Now(), 15)
			a.load()
		},
		verdict: intact, proven: everything,
		kept: &kept{code: "head-not-found", says: "head: the log does not contain it"},
	}, {
		name: "end written anew with the key, with fewer entries", who: keyAndStore, on: disks,
		do: func(a *arena) {
			removed("manifest 3", "segment 3")(a)
			a.standAt(3)
			a.segment(time.Now(), 5)
			a.load()
		},
		verdict: intact, proven: everything,
		kept: &kept{code: "rolled-back", since: "head-not-found", says: "head: it has 30 entries, the log has 25"},
	}, {
		name: "last manifest written anew with the key, around the same entries", who: keyAndStore, on: disks,
		do: func(a *arena) {
			segment := a.left[3].Segment
			key, version := a.object("segment 3")
			object, original := a.get(key, version), a.left[3]
			removed("manifest 3")(a)
			a.standAt(3)
			end := a.head
			for _, line := range a.linesOf(original, object) {
				end.Append(chain.Sum(bytes.TrimSuffix(line, []byte{'\n'})))
			}
			a.commit(chain.KindSegment, &end, time.Now(), func(m *chain.Manifest) {
				m.Segment, m.Counts, m.EventTime, m.Received, m.Sources = segment, original.Counts, original.EventTime, original.Received, original.Sources
				m.SealedAt, m.Lock, m.Writer.Host = original.SealedAt, original.Lock, "another"
			})
		},
		verdict: intact, proven: everything,
		kept: &kept{code: "head-not-found", blind: true, says: "head: the log does not contain it"},
	}, {
		name: "whole log written anew with the key", who: keyAndStore, on: disks,
		do: func(a *arena) {
			a.wipe()
			a.genesis(time.Now())
			for range 3 {
				a.segment(time.Now(), 10)
			}
			a.load()
		},
		verdict: intact, proven: everything,
		kept: &kept{code: "head-not-found", says: "head: the log does not contain it"},
	}, {
		name: "whole log written anew with the key, and made to look old", who: keyAndStore, on: disks,
		do: func(a *arena) {
			a.wipe()
			a.keepFor = chain.Retention{Days: 90}
			at := time.Now().AddDate(0, 0, -60)
			a.genesis(at)
			for i := range 3 {
				a.segment(at.Add(time.Duration(i+1)*time.Hour), 10)
			}
			a.load()
		},
		verdict: intact, proven: everything,
		hits: append(numbered(0, 4, hit{"stored-apart", "manifest %d", "", "manifest %d says that it was sealed at …; the store has it since …"}),
			hit{"silence", "", "", "the last manifest was sealed 59 days ago, at …"}),
		kept: &kept{code: "head-not-found", says: "head: the log does not contain it"},
	}, {
		name: "another manifest, signed with the key, written over a manifest", who: thief, on: both,
		do: func(a *arena) {
			a.standAt(3)
			a.store = func(key string, data []byte, _ chain.Lock) string { return a.put(key, data) }
			a.segment(time.Now(), 10)
		},
		verdict: tampered, proven: everything,
		hits: []hit{
			{"forked", "manifest 3", "20-29", "another manifest 3, signed with the chain's key, was laid over it on …"},
			{"overlaid-version", "segment 3", "20-29", "another version of … bytes was laid over the segment of entries 20 to 29 on …"},
		},
	}, {
		name: "older manifest, signed with the key, slipped under a manifest", who: keyAndStore, on: disks,
		do: func(a *arena) {
			a.standAt(3)
			var slipped []byte
			create := a.store
			a.store = func(_ string, data []byte, _ chain.Lock) string { slipped = data; return "" }
			a.heartbeat(a.head.SealedAt) // promises no longer a lock than the file has
			a.store = create
			key, _ := a.object("manifest 3")
			a.slipUnder(key, slipped)
		},
		verdict: tampered, proven: []int{1, 2},
		hits: []hit{
			{"forked", "manifest 3", "", "another manifest 3, signed with the chain's key, was laid over it on …"},
			{"uncommitted", "segment 3", "", "no manifest names this object"},
			// The store tells the time that the attacker gave the file.
			{"stored-apart", "manifest 3", "", "manifest 3 says that it was sealed at …; the store has it since …"},
		},
	}, {
		name: "manifest, signed with the key, that continues another history", who: thief, on: both,
		do:      func(a *arena) { a.head.PreviousManifest[0] ^= 1; a.heartbeat(time.Now()) },
		verdict: tampered, proven: everything,
		hits: []hit{{"chain-broken", "manifest 4", "", "manifest 4 follows another manifest 3 than the one that is there"}},
	}, {
		name: "entries left out between two manifests, with the key", who: thief, on: disks,
		do: func(a *arena) {
			for range 5 {
				a.head.Append(chain.Sum(nil))
			}
			a.segment(time.Now(), 10)
			a.left = append(a.left, a.peek(4))
		},
		verdict: tampered, proven: []int{1, 2, 3, 4},
		hits: []hit{{"chain-broken", "manifest 4", "35-44", "manifest 4 begins at entry 35, want 30"}},
	},
	lies("manifest, signed with the key, that lies about a frame's size", "frame 0: it holds … bytes, its manifest says …", func(d *draft) {
		d.Segment.Frames[0].RawSize++
		d.Segment.RawSize++
	}),
	lies("manifest, signed with the key, that lies about a frame's bytes in the object", "segment is shorter than its manifest says", func(d *draft) {
		d.Segment.Frames[0].Size++
		d.Segment.Size++
	}),
	lies("manifest, signed with the key, that lies about its counts", "its counts are wrong", func(d *draft) { d.Counts.Complete, d.Counts.Incomplete = d.Counts.Incomplete, d.Counts.Complete }),
	lies("manifest, signed with the key, that lies about its sources", "its ranges of sources are wrong", func(d *draft) { d.Sources = []chain.Source{{ID: "gpu-1", Ranges: [][2]uint64{{0, 9}}}} }),
	lies("manifest, signed with the key, that lies about times", "its ranges of times are wrong", func(d *draft) { d.EventTime.First.Time = d.EventTime.First.Add(-time.Hour) }),
	lies("bomb signed with the key, that says its size", "frame 0: …", func(d *draft) { signedBomb(d, bomb(bombSize, bombSize)) }),
	lies("bomb signed with the key, that says nothing of its size", "frame 0: …", func(d *draft) { signedBomb(d, bomb(bombSize, 0)) }),
	lies("bomb signed with the key, that lies about its size", "frame 0: …", func(d *draft) { signedBomb(d, bomb(bombSize, 100)) }),
	lies("skippable frame signed with the key", "frame 0: it holds … bytes, its manifest says …", func(d *draft) {
		signedBomb(d, skippable(1000))
	}),
	{
		name: "frame table, signed with the key, of impossible sizes", who: thief, on: disks,
		do: func(a *arena) {
			a.store = func(key string, data []byte, lock chain.Lock) string {
				if strings.HasPrefix(key, a.layout.Manifests()) {
					data = resign(a, a.key, data, func(payload []byte) []byte {
						return bytes.ReplaceAll(payload, []byte(`"raw_size":`), []byte(`"raw_size":99999999999`))
					})
				}
				return a.create(key, data, lock)
			}
			a.segment(time.Now(), 10)
			a.left = append(a.left, nil)
		},
		verdict: tampered, proven: everything,
		hits: []hit{
			{"manifest-forged", "manifest 4", "", "manifest 4 is not what the holder of the key wrote: its frame 0 has impossible sizes"},
			{"uncommitted", "segments/date=" + time.Now().UTC().Format(time.DateOnly) + "/000000000004.ndjson.zst", "", "no manifest names this object"},
		},
	}, {
		name: "retention below what the genesis promised", who: thief + ", writer", on: both,
		do: func(a *arena) {
			a.head.RetainUntil = time.Time{}
			a.keepFor = chain.Retention{Days: 10}
			a.heartbeat(time.Now())
		},
		verdict: tampered, proven: everything,
		hits: []hit{{"below-policy", "manifest 4", "", "manifest 4 and its segment were to be kept until …; the genesis promised 30d, until …"}},
	}, {
		name: "manifest back-dated, so that its retention ends early", who: thief, on: both,
		do: func(a *arena) {
			a.head.RetainUntil = time.Time{}
			a.heartbeat(time.Now().AddDate(0, 0, -20))
		},
		verdict: tampered, proven: everything,
		hits: []hit{
			{"below-policy", "manifest 4", "", "manifest 4 and its segment were to be kept until …, less long than what comes before it, until …"},
			{"clock-set-back", "manifest 4", "", "manifest 4 was sealed at …, … days before manifest 3"},
			{"stored-apart", "manifest 4", "", "manifest 4 says that it was sealed at …; the store has it since …"},
			{"silence", "", "", "the last manifest was sealed 20 days ago, at …"},
		},
	}, {
		name: "lock mode below what the genesis promised", who: thief + ", writer", on: disks,
		do:      func(a *arena) { a.lock = storage.Governance; a.heartbeat(time.Now()) },
		verdict: tampered, proven: everything,
		hits: []hit{{"below-policy", "manifest 4", "", "manifest 4 and its segment were to be locked GOVERNANCE; the genesis promised COMPLIANCE"}},
	}, {
		name: "chain continued by the retired key", who: thief, on: both,
		log:     func(a *arena) { writer(a); old := a.key; a.rotate(time.Now(), newKey(a.T)); a.key = old; a.load() },
		do:      func(a *arena) { a.head.CheckpointKey = ""; a.heartbeat(time.Now()) },
		verdict: tampered, proven: everything,
		hits: []hit{{"manifest-forged", "manifest 5", "", "manifest 5 is not what the holder of the key wrote: signature does not verify: it is signed with a key that manifest 4 replaced"}},
	}, {
		name: "chain continued by a key that was never announced", who: may, on: disks, log: rotated,
		do:      func(a *arena) { a.head.CheckpointKey, a.key = "", newKey(a.T); a.heartbeat(time.Now()) },
		verdict: tampered, proven: everything,
		hits: []hit{{"manifest-forged", "manifest 6", "", "manifest 6 is not what the holder of the key wrote: signature does not verify: its key was never announced"}},
	}, {
		name: "rotation signed by the new key itself", who: may, on: both,
		do: func(a *arena) {
			a.head.CheckpointKey, a.key = "", newKey(a.T)
			a.rotate(time.Now(), a.key)
			a.heartbeat(time.Now())
		},
		verdict: tampered, proven: everything,
		hits: numbered(4, 6, hit{"manifest-forged", "manifest %d", "", "manifest %d is not what the holder of the key wrote: signature does not verify"}),
	}, {
		name: "rotation taken off, and the chain continued by the retired key", who: keyAndStore, on: disks,
		log: func(a *arena) {
			writer(a)
			old := a.key
			a.rotate(time.Now(), newKey(a.T))
			a.heartbeat(time.Now())
			a.key = old
			a.load()
		},
		do: func(a *arena) {
			removed("manifest 4", "manifest 5")(a)
			a.standAt(4)
			a.heartbeat(time.Now())
			a.heartbeat(time.Now())
		},
		verdict: intact, proven: everything,
		kept: &kept{code: "head-not-found", blind: true, says: "head: the log does not contain it"},
	}, {
		name: "rotation to the thief's key, signed with the stolen one", who: thief, on: both,
		do:      func(a *arena) { a.rotate(time.Now(), newKey(a.T)); a.heartbeat(time.Now()) },
		verdict: intact, proven: everything,
		note: "the report lists the key that holds from there on", helpless: true,
		and: func(a *arena, r *query.Report) {
			if len(r.Rotations) != 1 || r.Rotations[0].Manifest != 4 || r.Rotations[0].Fingerprint != a.key.Public().Fingerprint() {
				a.Errorf("rotations: %+v", r.Rotations)
			}
		},
	},
}

// rotated is the writer's log with a rotation of its key, manifest 4, and a heartbeat.
func rotated(a *arena) {
	a.Helper()
	writer(a)
	a.rotate(time.Now(), newKey(a.T))
	a.heartbeat(time.Now())
	a.load()
}

// lies has a segment committed as manifest 4 that is not what the manifest says.
func lies(name, text string, change func(*draft)) attack {
	return attack{
		name: name, who: thief, on: disks,
		do: func(a *arena) {
			a.segment(time.Now(), 10, change)
			a.left = append(a.left, a.peek(4))
		},
		verdict: tampered, proven: everything,
		hits: []hit{{"segment-changed", "segment 4", "30-39", "the segment of entries 30 to 39 is not what was written: …" + text}},
	}
}

// signedBomb puts a frame in the place of the segment's one, with its hash and size.
func signedBomb(d *draft, frame []byte) {
	d.object = frame
	d.Segment.SHA256, d.Segment.Size = chain.Sum(frame), int64(len(frame))
	d.Segment.Frames[0].SHA256, d.Segment.Frames[0].Size = d.Segment.SHA256, d.Segment.Size
}

// peek is manifest n, whatever it says.
func (a *arena) peek(n uint64) *chain.Manifest {
	a.Helper()
	m, err := chain.PeekManifest(a.get(a.layout.Manifest(n), ""))
	a.check(err)
	return m
}

// numbered are hits of h at manifests from to to-1.
func numbered(from, to int, h hit) (all []hit) {
	for n := from; n < to; n++ {
		next := h
		next.at, next.says = strings.ReplaceAll(h.at, "%d", fmt.Sprint(n)), strings.ReplaceAll(h.says, "%d", fmt.Sprint(n))
		all = append(all, next)
	}
	return all
}
