package query

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/auditchain/auditchain/chain"
)

// Match is a record that was found, with its place in the chain. The record's segment was checked against its signed
// manifest, whole, when it was found.
type Match struct {
	Seq       uint64          `json:"seq"`
	EntryHash chain.Hash      `json:"entry_hash"`
	Prev      chain.Hash      `json:"prev"`
	Received  time.Time       `json:"received"`
	Time      time.Time       `json:"time"`
	Tag       json.RawMessage `json:"tag"`
	Manifest  uint64          `json:"manifest"`
	Segment   string          `json:"segment"`    // its key
	VersionID string          `json:"version_id"` // of the segment
	Locked    string          `json:"locked"`     // what the store says of the segment's lock
	SealedAt  time.Time       `json:"sealed_at"`
	SignedBy  chain.Hash      `json:"key_fingerprint"` // of the key that the manifest is signed with
	// Redelivered: the writer had taken a record of the same source and number before.
	Redelivered bool `json:"redelivered,omitempty"`
	// Conflict: that one was another record.
	Conflict bool            `json:"conflict,omitempty"`
	TreeSize uint64          `json:"tree_size"` // of the manifest's checkpoint
	Root     chain.Hash      `json:"root"`
	Line     json.RawMessage `json:"entry"` // the entry's line, byte for byte
}

// FindResult is what a search found.
type FindResult struct {
	Matches []Match `json:"matches"` // by their number
	// Problems names manifests and segments that could not be searched, or are not what they should be: the record may be
	// in there.
	Problems []string `json:"problems"`
	Searched uint64   `json:"searched"` // entries, in segments that verified
	// LastSealed is when the last manifest was sealed: what the writer took since is not in the log yet.
	LastSealed time.Time `json:"last_sealed"`

	Keys [][]byte `json:"-"` // the stored genesis and rotations
}

// ids are the members of a record by which it is found: its own id, the one that the client was told, and the client's own.
var ids = []string{"request_id", "response_id", "client_request_id", "gen_ai.response.id"}

// Find reads all segments for the records that have id as one of their ids.
func (l *Log) Find(ctx context.Context, id string, progress Progress) (*FindResult, error) {
	var (
		mu          sync.Mutex
		result      = &FindResult{Matches: []Match{}, Problems: []string{}}
		keys        = l.follow()
		manifests   int
		todo        []search
		done, total int64
	)
	problem := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		result.Problems = append(result.Problems, fmt.Sprintf(format, args...))
	}
	for m, err := range l.manifests(ctx, 0, nil) {
		if err != nil {
			return nil, err
		}
		manifests++
		if err := keys.missing(m); err != nil {
			problem("%v", err)
		}
		parsed, err := keys.open(m)
		if err != nil {
			problem("%v", err)
			continue
		}
		if result.LastSealed = parsed.SealedAt.Time; parsed.Segment != nil {
			todo = append(todo, search{parsed, keys.key.Fingerprint()})
			total += parsed.Segment.Size
		}
	}
	if manifests == 0 && ctx.Err() == nil {
		return nil, fmt.Errorf("%w: %q in %s", ErrNoChain, l.Layout.Chain, l.Bucket)
	}
	result.Keys = keys.keys
	want := chain.AppendString(nil, []byte(id))
	forEach(todo, 2*runtime.GOMAXPROCS(0), func(s search) {
		m := s.m
		if ctx.Err() != nil {
			return
		}
		matches, err := l.findIn(ctx, s, want)
		if err != nil {
			problem("segment of entries %d to %d: %v", m.FirstSeq, m.NextSeq-1, err)
		}
		mu.Lock()
		defer mu.Unlock()
		result.Matches = append(result.Matches, matches...)
		if err == nil {
			result.Searched += m.NextSeq - m.FirstSeq
		}
		if done += m.Segment.Size; progress != nil {
			progress(done, total)
		}
	})
	slices.SortFunc(result.Matches, func(a, b Match) int { return cmp.Compare(a.Seq, b.Seq) })
	slices.Sort(result.Problems)
	return result, ctx.Err()
}

// search is a segment to be searched.
type search struct {
	m   *chain.Manifest
	key chain.Hash // fingerprint of the key that signed m
}

// findIn searches one segment. It returns nothing from a segment that does not verify.
func (l *Log) findIn(ctx context.Context, s search, want []byte) ([]Match, error) {
	m := s.m
	key := l.Layout.Root() + m.Segment.Key
	r, info, err := l.open(ctx, key, m.Segment.VersionID)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	tree, err := chain.NewTree(m.NextSeq, m.TreeAfter)
	if err != nil {
		return nil, err
	}
	locked := "not locked"
	switch info.LockMode {
	case "":
	case lockUnknown:
		locked = "its lock may not be asked for"
	default:
		locked = info.LockMode + " until " + info.RetainUntil.UTC().Format(time.RFC3339)
	}
	var matches []Match
	err = chain.VerifySegment(m, r, func(e *chain.Entry, line []byte) error {
		if !bytes.Contains(line, want[1:len(want)-1]) || !names(e, want) {
			return nil
		}
		matches = append(matches, Match{
			Seq: e.Seq, EntryHash: chain.Sum(line), Prev: e.Prev, Received: e.Received, Time: e.Time, Tag: bytes.Clone(e.Tag),
			Manifest: m.N, Segment: key, VersionID: m.Segment.VersionID, Locked: locked,
			SealedAt: m.SealedAt.Time, SignedBy: s.key, TreeSize: m.NextSeq, Root: tree.Root(), Line: bytes.Clone(line),
			Redelivered: e.Redelivered, Conflict: e.Conflict,
		})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("it does not verify: %w", err)
	}
	return matches, nil
}

// names reports whether the entry's record carries the id want, a JSON string, or the number that it spells: as a member,
// or as one that was repeated in the record.
func names(e *chain.Entry, want []byte) bool {
	is := func(value []byte) bool {
		return bytes.Equal(value, want) || len(value) == len(want)-2 && bytes.Equal(value, want[1:len(want)-1])
	}
	objects := [][]byte{e.Record}
	if e.Meta != nil {
		objects = append(objects, chain.Member(chain.Member(e.Meta, "otlp"), "attributes"))
	}
	for _, obj := range objects {
		for _, name := range ids {
			if is(chain.Member(obj, name)) {
				return true
			}
		}
		var again [][2]json.RawMessage
		if dup := chain.Member(obj, chain.TagDup); dup != nil && json.Unmarshal(dup, &again) == nil {
			for _, pair := range again {
				if slices.Contains(ids, strings.Trim(string(pair[0]), `"`)) && is(pair[1]) {
					return true
				}
			}
		}
	}
	return false
}

// Walk calls visit with every entry of the log and its line, in order, checking each segment against its manifest on the
// way. What visit is given is valid during the call only.
func (l *Log) Walk(ctx context.Context, visit func(e *chain.Entry, line []byte) error) error {
	keys := l.follow()
	for m, err := range l.manifests(ctx, 0, nil) {
		if err != nil {
			return err
		}
		if err := keys.missing(m); err != nil {
			return err
		}
		parsed, err := keys.open(m)
		if err != nil {
			return err
		}
		if parsed.Segment == nil {
			continue
		}
		r, _, err := l.open(ctx, l.Layout.Root()+parsed.Segment.Key, parsed.Segment.VersionID)
		if err != nil {
			return err
		}
		err = chain.VerifySegment(parsed, r, visit)
		r.Close()
		if err != nil {
			return fmt.Errorf("segment of manifest %d: %w", m.n, err)
		}
	}
	return nil
}
