package attack

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// forger makes manifests and segments by hand, with whatever key, times and locks it likes: it is the thief of the signing
// key, a writer whose clock is wrong, or one that was configured badly.
type forger struct {
	t       *testing.T
	bucket  storage.Bucket
	layout  chain.Layout
	key     *chain.SigningKey // that it signs with
	trusted chain.PublicKey   // that the auditor was given
	head    chain.Head        // where the chain stands
	promise chain.Policy      // of the genesis
	lock    string            // mode
	keepFor chain.Retention
	store   func(key string, data []byte, lock chain.Lock) (version string)
}

func newForger(t *testing.T, bucket storage.Bucket, name string, key *chain.SigningKey) forger {
	f := forger{
		t: t, bucket: bucket, layout: chain.Layout{Chain: name}, key: key, trusted: key.Public(),
		head:    chain.Head{Chain: name, Key: key.Public()},
		promise: chain.Policy{Retention: "30d", LockMode: storage.Compliance, HeartbeatInterval: 3600},
		lock:    storage.Compliance, keepFor: chain.Retention{Days: 30},
	}
	f.store = f.create
	return f
}

// create stores an object as the writer does.
func (f *forger) create(key string, data []byte, lock chain.Lock) string {
	f.t.Helper()
	version, err := f.bucket.Create(f.t.Context(), key, bytes.NewReader(data), createOptions(data, lock))
	if err != nil {
		f.t.Fatal(err)
	}
	return version
}

// draft is a segment and its manifest before they are stored and signed.
type draft struct {
	*chain.Manifest
	object []byte
}

// commit signs and stores a manifest, and moves the head past it.
func (f *forger) commit(kind chain.Kind, end *chain.Head, at time.Time, fill func(*chain.Manifest)) *chain.Manifest {
	f.t.Helper()
	m, err := f.head.Next(kind, end, f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	m.SealedAt = chain.Time{Time: at.UTC()}
	until := f.keepFor.After(at.UTC()).Truncate(time.Second)
	if until.Before(f.head.RetainUntil) {
		until = f.head.RetainUntil
	}
	m.Lock = chain.Lock{Mode: f.lock, RetainUntil: chain.Time{Time: until}}
	m.Writer = chain.Writer{Version: "1.0.0", Host: "aggregator-1", Instance: "0011223344556677"}
	fill(m)
	data, payload, err := m.Sign(f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	f.store(f.layout.Manifest(m.N), data, m.Lock)
	if err := f.head.Advance(m, payload); err != nil {
		f.t.Fatal(err)
	}
	return m
}

func (f *forger) genesis(at time.Time) {
	f.t.Helper()
	checkpointKey, err := f.key.CheckpointKey(f.layout.Chain)
	if err != nil {
		f.t.Fatal(err)
	}
	f.head = chain.Head{Chain: f.layout.Chain, Key: f.key.Public()}
	f.commit(chain.KindGenesis, &f.head, at, func(m *chain.Manifest) {
		m.Genesis = &chain.GenesisInfo{Created: m.SealedAt, ManifestKey: string(f.key.Public().PEM()), CheckpointKey: checkpointKey, Policy: f.promise}
	})
}

func (f *forger) heartbeat(at time.Time, change ...func(*chain.Manifest)) *chain.Manifest {
	f.t.Helper()
	return f.commit(chain.KindHeartbeat, &f.head, at, func(m *chain.Manifest) {
		for _, c := range change {
			c(m)
		}
	})
}

// rotate announces a key, and signs with it from there on.
func (f *forger) rotate(at time.Time, next *chain.SigningKey) {
	f.t.Helper()
	checkpointKey, err := next.CheckpointKey(f.layout.Chain)
	if err != nil {
		f.t.Fatal(err)
	}
	f.commit(chain.KindRotation, &f.head, at, func(m *chain.Manifest) {
		m.Rotation = &chain.NewKeys{ManifestKey: string(next.Public().PEM()), CheckpointKey: checkpointKey}
	})
	f.key = next
}

// segment commits so many records. change may change the draft before its object is stored and its manifest signed.
func (f *forger) segment(at time.Time, records int, change ...func(*draft)) *chain.Manifest {
	f.t.Helper()
	lines, end, sum := f.entries(at, records)
	object, table := pack(f.t, lines)
	return f.commit(chain.KindSegment, &end, at, func(m *chain.Manifest) {
		counts := sum.Counts()
		m.Segment, m.Counts = &table, &counts
		m.EventTime, m.Received = sum.EventTimes(), sum.ReceivedTimes()
		m.Sources, m.SourcesOmitted = sum.SourceRanges()
		table.Key = chain.SegmentName(m.N, m.SealedAt.Time)
		d := draft{m, object}
		for _, c := range change {
			c(&d)
		}
		if m.Segment.VersionID == "" {
			m.Segment.VersionID = f.store(f.layout.Root()+m.Segment.Key, d.object, m.Lock)
		}
	})
}

// entries are the lines of so many records after the head, and where the chain stands after them.
func (f *forger) entries(at time.Time, records int) (lines [][]byte, end chain.Head, sum chain.Summary) {
	end = f.head
	received := at.Add(-time.Second).UTC()
	middle := chain.AppendMiddle(nil, received, []byte(bucketTag))
	marker := &chain.ChunkMarker{SHA256: chain.Sum(fmt.Append(nil, at, end.NextSeq)), Entries: uint64(records)}
	for range records {
		body := fmt.Sprintf(`"time":%q,"record":{"request_id":"forged-%d","model_id":"another"}}`, chain.AppendTime(nil, received), end.NextSeq)
		line := chain.AppendEntry(nil, end.NextSeq, end.Entry, middle, marker, false, false, []byte(body))
		marker = nil
		e, err := chain.ParseEntry(line)
		if err != nil {
			f.t.Fatal(err)
		}
		end.Append(chain.Sum(line))
		sum.Add(e.Facts())
		sum.Receive(received)
		lines = append(lines, append(line, '\n'))
	}
	return lines, end, sum
}

// pack makes a segment's object of lines.
func pack(t *testing.T, lines [][]byte) ([]byte, chain.Segment) {
	t.Helper()
	c, err := chain.NewCompressor(chain.LevelFastest)
	if err != nil {
		t.Fatal(err)
	}
	var object bytes.Buffer
	w := chain.NewSegmentWriter(&object, c)
	for _, line := range lines {
		if _, err := w.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	table, _, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return object.Bytes(), table
}

// newKey is a key that nobody has announced.
func newKey(t *testing.T) *chain.SigningKey {
	t.Helper()
	text, err := chain.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := chain.ParseSigningKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
