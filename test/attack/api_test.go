package attack

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// byAPI is what somebody with all rights on the bucket can do by the S3 API.
var byAPI = []attack{
	{
		name: "another version written over a segment", who: may, on: both,
		do:      overlay("segment 2"),
		verdict: tampered, proven: everything,
		hits: []hit{{"overlaid-version", "segment 2", "10-19", "another version of 6 bytes was laid over the segment of entries 10 to 19 on …"}},
	}, {
		name: "another version written over a manifest", who: may, on: both,
		do:      overlay("manifest 2"),
		verdict: tampered, proven: everything,
		hits: []hit{{"overlaid-version", "manifest 2", "10-19", "another version of 6 bytes was laid over manifest 2 on …"}},
	}, {
		name: "delete marker laid over a segment", who: may, on: both,
		do:      hide("segment 2"),
		verdict: tampered, proven: everything,
		hits: []hit{{"delete-marker", "segment 2", "10-19", "a delete marker was laid over the segment of entries 10 to 19 on …"}},
	}, {
		name: "delete marker laid over a manifest", who: may, on: both,
		do:      hide("manifest 2"),
		verdict: tampered, proven: everything,
		hits: []hit{{"delete-marker", "manifest 2", "10-19", "a delete marker was laid over manifest 2 on …"}},
	}, {
		name: "another version and a delete marker over everything", who: may, on: both,
		do: func(a *arena) {
			for _, what := range []string{"manifest 0", "manifest 1", "segment 1", "manifest 2", "segment 2", "manifest 3", "segment 3"} {
				overlay(what)(a)
				hide(what)(a)
			}
		},
		verdict: tampered, proven: everything,
		hits: func() (all []hit) {
			for what, entries := range map[string]string{
				"manifest 0": "", "manifest 1": "0-9", "segment 1": "0-9", "manifest 2": "10-19", "segment 2": "10-19", "manifest 3": "20-29", "segment 3": "20-29",
			} {
				all = append(all, hit{"overlaid-version", what, entries, "another version of 6 bytes was laid over … on …"},
					hit{"delete-marker", what, entries, "a delete marker was laid over … on …"})
			}
			return all
		}(),
	}, {
		name: "locked version deleted, with bypass", who: may, on: both,
		do: refused(func(a *arena, key, version string) error {
			return a.client.RemoveObject(a.Context(), a.name, key, minio.RemoveObjectOptions{VersionID: version, GovernanceBypass: true})
		}),
		verdict: intact, proven: everything,
		note: "refused by the store",
	}, {
		name: "lock shortened, with bypass", who: may, on: both,
		do: refused(func(a *arena, key, version string) error {
			mode, until := minio.Compliance, time.Now().Add(time.Hour)
			return a.client.PutObjectRetention(a.Context(), a.name, key, minio.PutObjectRetentionOptions{Mode: &mode, RetainUntilDate: &until, VersionID: version, GovernanceBypass: true})
		}),
		verdict: intact, proven: everything,
		note: "refused by the store",
	}, {
		name: "lock changed to governance mode, with bypass", who: may, on: both,
		do: refused(func(a *arena, key, version string) error {
			mode, until := minio.Governance, time.Now().AddDate(0, 0, 60)
			return a.client.PutObjectRetention(a.Context(), a.name, key, minio.PutObjectRetentionOptions{Mode: &mode, RetainUntilDate: &until, VersionID: version, GovernanceBypass: true})
		}),
		verdict: intact, proven: everything,
		note: "refused by the store",
	}, {
		name: "lock taken off, with bypass", who: may, on: both,
		do: refused(func(a *arena, key, version string) error {
			return a.client.PutObjectRetention(a.Context(), a.name, key, minio.PutObjectRetentionOptions{VersionID: version, GovernanceBypass: true})
		}),
		verdict: intact, proven: everything,
		note: "refused by the store",
	}, {
		name: "segment deleted, chain in governance mode", who: may, on: both, log: governed,
		do:      bypass("segment 2"),
		verdict: tampered, proven: []int{1, 3},
		hits: []hit{{"segment-missing", "segment 2", "10-19", "the version that holds entries 10 to 19 is not there any more, though it was to be kept until …"}},
	}, {
		name: "manifest deleted, chain in governance mode", who: may, on: both, log: governed,
		do:      bypass("manifest 2"),
		verdict: tampered, proven: []int{1, 3},
		hits: []hit{
			{"manifest-missing", "manifest 2", "", "manifest 2 is not there"},
			{"uncommitted", "segment 2", "", "no manifest names this object"},
		},
	}, {
		name: "last segment and manifest deleted, chain in governance mode", who: may, on: both, log: governed,
		do:      func(a *arena) { bypass("segment 3")(a); bypass("manifest 3")(a) },
		verdict: intact, proven: []int{1, 2},
		kept: &kept{code: "rolled-back", says: "head: it has 30 entries, the log has 20"},
	}, {
		name: "lock shortened, chain in governance mode", who: may, on: both, log: governed,
		do: func(a *arena) {
			key, version := a.object("segment 2")
			mode, until := minio.Governance, time.Now().Add(time.Hour)
			a.check(a.client.PutObjectRetention(a.Context(), a.name, key, minio.PutObjectRetentionOptions{Mode: &mode, RetainUntilDate: &until, VersionID: version, GovernanceBypass: true}))
		},
		verdict: tampered, proven: everything,
		hits: []hit{{"lock-shortened", "segment 2", "10-19", "the segment of entries 10 to 19 is locked until …, its manifest promised …"}},
	}, {
		name: "objects stored without a lock", who: "writer, store", on: both,
		log: func(a *arena) {
			a.genesis(time.Now())
			a.store = func(key string, data []byte, lock chain.Lock) string {
				lock.Mode = "NONE"
				return a.create(key, data, lock)
			}
			a.segment(time.Now(), 10)
			a.store = a.create
			a.load()
		},
		do:      func(*arena) {},
		verdict: tampered, proven: []int{1},
		hits: []hit{
			{"lock-missing", "segment 1", "0-9", "the segment of entries 0 to 9 is not locked"},
			{"lock-missing", "manifest 1", "", "manifest 1 is not locked"},
		},
	}, {
		name: "objects copied to another bucket, without locks", who: may, on: both,
		do: func(a *arena) {
			other := a.name + "-copy"
			a.server.MakeLockedBucket(a.T, other)
			for object := range a.client.ListObjectsIter(a.Context(), a.name, minio.ListObjectsOptions{Recursive: true}) {
				a.check(object.Err)
				data := a.get(object.Key, "")
				_, err := a.client.PutObject(a.Context(), other, object.Key, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{SendContentMd5: true})
				a.check(err)
			}
			a.reader = a.config(other)
		},
		verdict: tampered,
		hits: func() (all []hit) {
			for n := range 4 {
				all = append(all, hit{"lock-missing", fmt.Sprint("manifest ", n), "", fmt.Sprintf("manifest %d is not locked", n)})
			}
			for i, entries := range []string{"0-9", "10-19", "20-29"} {
				what, text := fmt.Sprint("segment ", i+1), strings.Replace(entries, "-", " to ", 1)
				all = append(all, hit{"segment-missing", what, entries, "the version that holds entries " + text + " is not there any more, though it was to be kept until …"},
					hit{"overlaid-version", what, entries, "another version of … bytes was laid over the segment of entries … on …"})
			}
			return all
		}(),
	}, {
		name: "stranger among the segments", who: may, on: both,
		do:      func(a *arena) { a.put(a.layout.Segments()+"date=2026-01-01/000000000001.ndjson.zst", []byte("forged")) },
		verdict: intact, proven: everything,
		hits: []hit{{"uncommitted", "segments/date=2026-01-01/000000000001.ndjson.zst", "", "no manifest names this object"}},
	}, {
		name: "stranger among the manifests", who: may, on: both,
		do:      func(a *arena) { a.put(a.layout.Manifests()+"2.sigstore.json", []byte("forged")) },
		verdict: intact, proven: everything,
		hits: []hit{{"stranger", "manifests/2.sigstore.json", "", "an object that is no manifest lies among the manifests"}},
	}, {
		name: "junk laid where the next manifest belongs", who: may, on: both,
		do:      func(a *arena) { a.put(a.layout.Manifest(4), []byte("forged")) },
		verdict: tampered, proven: everything,
		hits: []hit{{"manifest-forged", "manifest 4", "", "manifest 4 is not what the holder of the key wrote: it is no Sigstore bundle: …"}},
	}, {
		name: "another chain's manifest laid where the next one belongs", who: may, on: both,
		do:      func(a *arena) { a.put(a.layout.Manifest(4), a.foreign(newKey(a.T), 4)) },
		verdict: tampered, proven: everything,
		hits: []hit{{"manifest-forged", "manifest 4", "", "manifest 4 is not what the holder of the key wrote: signature does not verify"}},
	}, {
		name: "manifest of another chain of the same key laid where the next one belongs", who: may, on: both,
		do:      func(a *arena) { a.put(a.layout.Manifest(4), a.foreign(a.key, 4)) },
		verdict: tampered, proven: everything,
		hits: []hit{{"manifest-misplaced", "manifest 4", "", `in the place of manifest 4 lies number 4 of chain "audit.example.com/other"`}},
	}, {
		name: "manifest repeated where the next one belongs", who: may, on: both,
		do: func(a *arena) {
			key, version := a.object("manifest 2")
			a.put(a.layout.Manifest(4), a.get(key, version))
		},
		verdict: tampered, proven: everything,
		hits: []hit{{"manifest-misplaced", "manifest 4", "10-19", `in the place of manifest 4 lies number 2 of chain "audit.example.com/prod"`}},
	}, {
		name: "junk laid far behind the last manifest", who: may, on: both,
		do:      func(a *arena) { a.put(a.layout.Manifest(99), []byte("forged")) },
		verdict: tampered, proven: everything,
		hits: []hit{
			{"manifest-forged", "manifest 99", "", "manifest 99 is not what the holder of the key wrote: …"},
		},
	}, {
		name: "17 MB laid where the next manifest belongs", who: may, on: both,
		do:      func(a *arena) { a.put(a.layout.Manifest(4), make([]byte, 17_000_000)) },
		verdict: tampered, proven: everything,
		hits: []hit{{"manifest-forged", "manifest 4", "", "manifest 4 is not what the holder of the key wrote: too long: it has more than the 16777216 bytes allowed"}},
	},
}

func overlay(what string) func(*arena) {
	return func(a *arena) { key, _ := a.object(what); a.put(key, []byte("forged")) }
}

func hide(what string) func(*arena) {
	return func(a *arena) {
		key, _ := a.object(what)
		a.check(a.client.RemoveObject(a.Context(), a.name, key, minio.RemoveObjectOptions{}))
	}
}

// bypass deletes a version for good, as who may bypass governance mode can.
func bypass(what string) func(*arena) {
	return func(a *arena) {
		key, version := a.object(what)
		a.check(a.client.RemoveObject(a.Context(), a.name, key, minio.RemoveObjectOptions{VersionID: version, GovernanceBypass: true}))
	}
}

// refused wants the store to refuse this for a segment and for a manifest, and both to be there and locked as before.
func refused(try func(a *arena, key, version string) error) func(*arena) {
	return func(a *arena) {
		for _, what := range []string{"segment 2", "manifest 2"} {
			key, version := a.object(what)
			before, err := a.bucket.Stat(a.Context(), key, version)
			a.check(err)
			if err := try(a, key, version); err == nil {
				a.Errorf("%s: the store did it", what)
			} else if code := minio.ToErrorResponse(err).StatusCode; code < 400 || code >= 500 {
				a.Errorf("%s: %v", what, err)
			}
			after, err := a.bucket.Stat(a.Context(), key, version)
			if err != nil || after.LockMode != storage.Compliance || !after.RetainUntil.Equal(before.RetainUntil) {
				a.Errorf("%s is now %+v, %v", what, after, err)
			}
		}
	}
}

// foreign is manifest n of another chain that is signed with key.
func (a *arena) foreign(key *chain.SigningKey, n uint64) []byte {
	a.Helper()
	var last []byte
	f := newForger(a.T, nil, "audit.example.com/other", key)
	f.store = func(_ string, data []byte, _ chain.Lock) string { last = data; return "" }
	f.genesis(time.Now())
	for range n {
		f.heartbeat(time.Now())
	}
	return last
}
