package attack

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/storage"
)

// byTime is what the clock, the network, senders of records and accidents do.
var byTime = []attack{
	{
		name: "writer silent for hours", who: accident, on: both,
		log: func(a *arena) {
			now := time.Now()
			a.genesis(now.Add(-6 * time.Hour))
			a.segment(now.Add(-350*time.Minute), 10)
			a.segment(now.Add(-30*time.Minute), 10)
			a.load()
		},
		do:      func(*arena) {},
		verdict: intact, proven: []int{1, 2},
		hits: []hit{{"silence", "manifest 2", "", "between manifests 1 and 2 nothing was written for 5h20m0s, from … on; the genesis promised a sign of life every 1h0m0s"}},
	}, {
		name: "writer silent since hours", who: accident, on: both,
		do:      func(a *arena) { a.now = time.Now().Add(5 * time.Hour) },
		verdict: intact, proven: everything,
		hits: []hit{{"silence", "", "", "the last manifest was sealed 5h0m… ago, at …; the genesis promised a sign of life every 1h0m0s: the writer is not running, or the end of the log was cut off"}},
	}, {
		name: "clock set back", who: accident, on: both,
		do:      func(a *arena) { a.segment(time.Now().Add(-10*time.Minute), 10); a.load() },
		verdict: intact, proven: []int{1, 2, 3, 4},
		hits: []hit{{"clock-set-back", "manifest 4", "", "manifest 4 was sealed at …, … before manifest 3"}},
	}, {
		name: "writer's clock far from the store's", who: accident, on: both,
		do: func(a *arena) {
			skew := int64(90_000)
			a.heartbeat(time.Now(), func(m *chain.Manifest) { m.ClockSkew = &skew })
		},
		verdict: intact, proven: everything,
		hits: []hit{{"clock-skew", "manifest 4", "", "manifest 4: the store's clock was 1m30s from the writer's"}},
	}, {
		name: "records delivered twice", who: accident, on: both,
		log:     func(a *arena) { a.write(0); a.write(0); a.load() },
		do:      func(*arena) {},
		verdict: intact, proven: []int{1, 2},
		note: "the report counts the entries that are marked as delivered again",
		and: func(a *arena, r *query.Report) {
			if r.Counts.Redelivered != perChunk {
				a.Errorf("%d entries are marked as delivered again", r.Counts.Redelivered)
			}
		},
	}, {
		name: "record sent in a source's name", who: sender, on: both,
		log: func(a *arena) {
			forged := recordOf(1)
			forged["status"] = 500
			a.deliver(nil, []map[string]any{recordOf(0), recordOf(1), recordOf(2)}, []map[string]any{forged})
			a.load()
		},
		do:      func(*arena) {},
		verdict: intact, proven: []int{1},
		hits: []hit{{"conflict", "segment 1", "3-3", "entry 3 is record 1 of source \"gpu-1\", of which another record with that number had come before"}},
		and: func(a *arena, r *query.Report) {
			if r.Counts.Redelivered != 1 || r.Counts.Conflicts != 1 {
				a.Errorf("%d entries are marked as delivered again, %d as conflicts", r.Counts.Redelivered, r.Counts.Conflicts)
			}
		},
	}, {
		name: "writer's journal lost", who: accident, on: both,
		log: func(a *arena) {
			a.write(0)
			a.check(os.RemoveAll(filepath.Join(a.dir, "store")))
			a.write(10)
			a.load()
		},
		do:      func(*arena) {},
		verdict: intact, proven: []int{1, 2},
		hits: []hit{{"journal-lost", "segment 2", "10-10", "entry 10 of … says that the writer lost its journal: …"}},
	}, {
		name: "segment deleted after its retention", who: may, on: both, log: expiring,
		do: func(a *arena) {
			key, version := a.object("segment 1")
			a.check(a.client.RemoveObject(a.Context(), a.name, key, minio.RemoveObjectOptions{VersionID: version}))
		},
		verdict: intact, proven: []int{2},
		hits: []hit{{"expired", "segment 1", "0-9", "entries 0 to 9 are gone: their retention ended on …"}},
		and: func(a *arena, r *query.Report) {
			if r.TreeSize != 20 || r.Proven == nil || r.Proven.NextN != 3 {
				a.Errorf("the chain is proven up to %+v, %d entries", r.Proven, r.TreeSize)
			}
		},
	}, {
		// versitygw 1.8.0 gives a delete marker the time of the version under it, so that it seems to be laid too early.
		name: "delete marker laid over a segment after its retention", who: may, on: []*store{minioS3}, log: expiring,
		do:      hide("segment 1"),
		verdict: intact, proven: []int{1, 2},
		hits: []hit{{"expired", "segment 1", "0-9", "the segment of entries 0 to 9 was deleted on …; its retention ended on …"}},
	}, {
		name: "first manifests deleted after their retention", who: may, on: both, log: expiring,
		do: func(a *arena) {
			for _, what := range []string{"manifest 0", "manifest 1", "segment 1"} {
				key, version := a.object(what)
				a.check(a.client.RemoveObject(a.Context(), a.name, key, minio.RemoveObjectOptions{VersionID: version}))
			}
		},
		verdict: tampered, proven: []int{2},
		hits: []hit{{"manifest-missing", "manifest 0", "", "manifests 0 to 1 are not there: the chain cannot be followed from its beginning"}},
	}, {
		name: "store out of reach while it is read", who: accident, on: both,
		do: func(a *arena) {
			key, _ := a.object("segment 2")
			a.between(func(answer *http.Response) error {
				if strings.HasSuffix(answer.Request.URL.Path, key) {
					answer.StatusCode, answer.Status = http.StatusServiceUnavailable, "503 Service Unavailable"
					answer.Body, answer.ContentLength = http.NoBody, 0
					answer.Header = http.Header{}
				}
				return nil
			})
		},
		verdict: unchecked, proven: []int{1, 3},
		hits: []hit{{"unreadable", "segment 2", "10-19", "entries 10 to 19 cannot be read: …: store cannot be reached…"}},
	}, {
		name: "answer of the store changed on the way", who: network, on: both,
		do: func(a *arena) {
			key, _ := a.object("segment 2")
			a.between(func(answer *http.Response) error {
				if answer.Request.Method != http.MethodGet || !strings.HasSuffix(answer.Request.URL.Path, key) || answer.Request.URL.Query().Has("retention") {
					return nil
				}
				body, err := io.ReadAll(answer.Body)
				body[len(body)/2] ^= 1
				answer.Body = io.NopCloser(bytes.NewReader(body))
				return err
			})
		},
		verdict: tampered, proven: []int{1, 3},
		hits: []hit{{"segment-changed", "segment 2", "10-19", "the segment of entries 10 to 19 is not what was written: frame 0: it does not have the SHA-256 that its manifest says"}},
	}, {
		name: "reader without the right to ask for locks", who: accident, on: []*store{minioS3},
		do:      func(a *arena) { a.reader = a.session(without(readerRights, "s3:GetObjectRetention")) },
		verdict: unchecked, proven: everything,
		hits: append(numbered(0, 4, hit{"lock-unknown", "manifest %d", "", "manifest %d: this user may not ask for its lock"}),
			hit{"lock-unknown", "segment 1", "0-9", "the segment of entries 0 to 9: this user may not ask for its lock"},
			hit{"lock-unknown", "segment 2", "10-19", "the segment of entries 10 to 19: this user may not ask for its lock"},
			hit{"lock-unknown", "segment 3", "20-29", "the segment of entries 20 to 29: this user may not ask for its lock"}),
	},
}

// expiring is a log whose genesis and first segment were sealed nearly as long ago as they are kept, and may be deleted now.
func expiring(a *arena) {
	a.Helper()
	a.promise = chain.Policy{Retention: "1d", LockMode: storage.Compliance, HeartbeatInterval: 2 * 24 * 3600}
	a.keepFor = chain.Retention{Days: 1}
	over := time.Now().Add(3 * time.Second).Truncate(time.Second)
	at := over.AddDate(0, 0, -1)
	a.genesis(at)
	a.segment(at, 10)
	a.segment(time.Now(), 10)
	a.load()
	time.Sleep(time.Until(over) + 1100*time.Millisecond) // the stores' clocks have whole seconds
}

// between puts somebody between the auditor and the store who changes answers.
func (a *arena) between(change func(*http.Response) error) {
	a.Helper()
	store, err := url.Parse(a.server.Endpoint)
	a.check(err)
	proxy := http.Server{Handler: &httputil.ReverseProxy{
		// The request stays signed for the host that it was sent to.
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(store); r.Out.Host = r.In.Host },
		ModifyResponse: change,
	}}
	listener := a.listen()
	go proxy.Serve(listener)
	a.Cleanup(func() { proxy.Close() })
	a.reader.Endpoint = "http://" + listener.Addr().String()
}

func without(all []string, one string) (rest []string) {
	for _, s := range all {
		if s != one {
			rest = append(rest, s)
		}
	}
	return rest
}
