package query

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// VerifyOptions say what is verified. The zero value, with Now, is the whole log.
type VerifyOptions struct {
	Now      time.Time
	Progress Progress // may be nil

	// Since is a head that an earlier verification left: what lies before it is not read again. It is taken on its word.
	Since *chain.Head
	// Expect are heads that were kept elsewhere: each must be in the log.
	Expect []KeptHead
	// Range is what the contents of segments are read of; the manifests are all checked.
	Range Range
	// Sample, if not 0, is of how many segments, chosen at random, the contents are read.
	Sample int
}

// whole reports whether all that follows Since is verified.
func (o *VerifyOptions) whole() bool { return o.Range == (Range{}) && o.Sample == 0 }

// Range chooses segments by their entries. The zero value chooses all.
type Range struct {
	FirstSeq, NextSeq uint64 // from FirstSeq on and before NextSeq; NextSeq 0: to the end
	// From and To, if not zero, choose segments with an entry that was received, or a record of a time, from From on and before To.
	From, To time.Time
}

func (r Range) includes(m *chain.Manifest) bool {
	if m.NextSeq <= r.FirstSeq || r.NextSeq > 0 && m.FirstSeq >= r.NextSeq {
		return false
	}
	if r.From.IsZero() && r.To.IsZero() {
		return true
	}
	overlaps := func(s *chain.Span) bool {
		return s != nil && !s.Last.Before(r.From) && (r.To.IsZero() || s.First.Before(r.To))
	}
	return overlaps(m.Received) || overlaps(m.EventTime)
}

// Report is what a verification says.
type Report struct {
	Chain       string            `json:"chain"`
	Bucket      string            `json:"bucket"`
	Key         chain.Hash        `json:"key_fingerprint"` // that is trusted
	Verdict     string            `json:"verdict"`         // intact, tampered or unchecked
	Interrupted bool              `json:"interrupted,omitempty"`
	Manifests   uint64            `json:"manifests"` // that are signed with the chain's keys
	Rotations   []KeyChange       `json:"rotations,omitempty"`
	Segments    uint64            `json:"segments"` // of which the contents verified
	Counts      chain.Counts      `json:"counts"`   // of the segments that verified
	Events      map[string]uint64 `json:"events,omitempty"`
	RawBytes    int64             `json:"raw_bytes"`      // of the entry lines that verified
	Bytes       int64             `json:"bytes"`          // of the segment objects that verified
	Head        *chain.Hash       `json:"head,omitempty"` // last entry hash
	TreeSize    uint64            `json:"tree_size"`
	Root        *chain.Hash       `json:"root,omitempty"` // of the tree over all entries
	Checkpoint  string            `json:"checkpoint,omitempty"`
	LastSealed  time.Time         `json:"last_sealed"`     // when the last manifest was made, by the writer's clock
	Found       []string          `json:"heads,omitempty"` // which of the kept heads are in the log, in words
	Locked      string            `json:"locked"`          // what the store says of the locks, in words
	Findings    []Finding         `json:"findings"`
	Omitted     map[Code]int      `json:"omitted,omitempty"` // how many findings of a kind were left out, where there are very many
	NotChecked  []string          `json:"not_checked"`       // what this verification does not speak of
	// Proven is the last place up to which all was proven without a gap; nil if it is none that can be gone on from.
	Proven *chain.Head `json:"proven,omitempty"`
}

// KeyChange is a rotation of the chain's key.
type KeyChange struct {
	Manifest    uint64     `json:"manifest"`
	Fingerprint chain.Hash `json:"key_fingerprint"` // of the new key
	SealedAt    time.Time  `json:"sealed_at"`
}

// Progress is told how far a verification or search has come, in bytes of segment objects; total may grow. It is called by
// several goroutines at once.
type Progress func(done, total int64)

// verification is the state of one Verify.
type verification struct {
	*Log
	VerifyOptions
	found    findings
	frontier frontier
	report   Report

	unread   atomic.Int64 // segments whose contents were not proven
	hashes   bool         // one of the kept heads is a bare hash
	mu       sync.Mutex   // guards what follows, of the report what segments add to, and expect
	done     int64
	total    int64
	shortest time.Time // earliest retain-until of what was checked
	modes    map[string]int
	expect   []expectation

	// Of the walk over the manifests:
	head        chain.Head
	known       bool             // head stands where the manifest before left it
	gaps        uint64           // manifests are missing that may have ended with fewer entries than so many; 0: none are
	last        uint64           // number of the last manifest that counts
	good        uint64           // manifests that count
	foreign     *chain.PublicKey // of a genesis that is whole, but not of the trusted key
	foreignUpTo uint64           // number of the last manifest from it on that is not signed with the trusted key
	all         uint64           // manifests there are
	before      chain.PublicKey
	policy      *policy
	skipped     struct{ segments, entries uint64 }

	cut        bool              // the manifests could not be listed to their end
	listedFrom string            // the listing of segments begins after this key
	retained   time.Time         // latest retain-until so far
	chosen     []*chain.Manifest // for the sample
	seen       uint64            // segments that could be in the sample
}

// Verify checks a log: that the manifests are all there, signed, and continue each other from the genesis on; that
// each segment is, in the version that its manifest names, what the manifest says, down to the last hash; that all
// of it is locked as promised; and what else lies where only the log should. It reports all it finds and goes on as
// long as there is anything to go on with, in memory that does not grow with the log. If ctx ends it reports what it has.
// The error is not nil only if nothing could be said at all.
func (l *Log) Verify(ctx context.Context, opts VerifyOptions) (*Report, error) {
	v := &verification{Log: l, VerifyOptions: opts, modes: make(map[string]int)}
	v.report = Report{
		Chain: l.Layout.Chain, Bucket: l.Bucket.String(), Key: l.Key.Fingerprint(),
		NotChecked: []string{"records that the writer has not sealed yet"},
	}
	if err := v.begin(ctx); err != nil {
		return nil, err
	}
	var background sync.WaitGroup
	defer background.Wait()
	ctxMeasure, cancel := context.WithCancel(ctx)
	defer cancel()
	if opts.Progress != nil && opts.whole() {
		background.Go(func() { v.measure(ctxMeasure) })
	}
	segments := newObjects(l.list(ctx, l.Layout.Segments(), v.listedFrom))
	defer segments.stop()
	pool := v.startPool(ctx)
	err := v.walk(ctx, pool, segments)
	if err == nil {
		for _, m := range v.chosen {
			pool.todo <- segmentTask{m, new(mark)}
		}
	}
	pool.end()
	if err != nil {
		return nil, err
	}
	if ctx.Err() == nil {
		v.leftOver(ctx, segments)
	}
	v.conclude(ctx)
	return &v.report, nil
}

// OtherKey is the report of a log whose genesis names another key than the one that is trusted: nothing of it is looked at.
func (l *Log) OtherKey(trusted, named chain.Hash) *Report {
	text := fmt.Sprintf("the genesis names the key %s, trusted is %s", named, trusted)
	return &Report{
		Chain: l.Layout.Chain, Bucket: l.Bucket.String(), Key: trusted, Verdict: "tampered", Locked: "not looked at",
		Findings:   []Finding{{Severity: Tampered, Code: OtherKey, Object: l.Layout.Manifest(0), Text: text, Meaning: meanings[OtherKey]}},
		NotChecked: []string{"anything: with the key's PEM file instead of its fingerprint, what is signed with it is looked for"},
	}
}

func (v *verification) notChecked(what string) {
	v.report.NotChecked = append(v.report.NotChecked, what)
}

// begin sets where the walk starts.
func (v *verification) begin(ctx context.Context) error {
	v.before = v.Key
	for _, kept := range v.Expect {
		if kept.Chain != "" && kept.Chain != v.Layout.Chain {
			return fmt.Errorf("%s is of chain %s, not of %s", kept.Name, kept.Chain, v.Layout.Chain)
		}
	}
	for _, kept := range v.Expect {
		v.expect = append(v.expect, expectation{KeptHead: kept})
		v.hashes = v.hashes || kept.Hash != nil
	}
	if v.Since == nil {
		v.head, v.known = chain.Head{Key: v.Key}, true
		return nil
	}
	if v.Since.Chain != v.Layout.Chain {
		return fmt.Errorf("the kept head is of chain %s, not of %s", v.Since.Chain, v.Layout.Chain)
	}
	v.head, v.known, v.frontier.proven = *v.Since, true, *v.Since
	v.retained = v.Since.RetainUntil
	// A day earlier than the head: keys are by the writer's clock.
	v.listedFrom = v.Layout.Segment(0, v.Since.SealedAt.AddDate(0, 0, -1))
	v.notChecked(fmt.Sprintf("what lies before manifest %d, entry %d: the kept head vouches for it", v.Since.NextN, v.Since.NextSeq))
	// The genesis says whose the chain is, and what it promised.
	f := Finding{Object: v.Layout.Manifest(0)}
	m, err := v.manifest(ctx, 0)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		f.Severity, f.Code, f.Text = Unchecked, ManifestMissing, "manifest 0 is not there: whether the kept head is of the trusted key cannot be told"
		v.found.add(f)
		return nil
	case err != nil:
		return err
	}
	genesis, err := v.follow().open(m)
	if err != nil {
		f.Severity, f.Code, f.Version, f.Text = Tampered, ManifestForged, m.info.Version, forgedText(0, err)
		v.found.add(f)
		return nil
	}
	v.setPolicy(genesis)
	return nil
}

// measure adds up how much there is to read, for the progress alone.
func (v *verification) measure(ctx context.Context) {
	for s, err := range v.list(ctx, v.Layout.Segments(), v.listedFrom) {
		if err != nil {
			return
		}
		if info, ok := s.oldest(); ok {
			v.mu.Lock()
			v.total += info.Size
			v.mu.Unlock()
		}
	}
}

// submit has a segment read, now or, if it is drawn, at the end.
func (v *verification) submit(ctx context.Context, pool *segmentPool, m *chain.Manifest, mark *mark) {
	skip := func(m *chain.Manifest) {
		v.skipped.segments++
		v.unread.Add(1)
		v.skipped.entries += m.NextSeq - m.FirstSeq
	}
	switch {
	case !v.Range.includes(m):
		skip(m)
		v.frontier.reach(mark, false)
	case v.Sample > 0:
		// Reservoir sampling: every segment has the same chance, though their number is not known yet.
		v.seen++
		v.frontier.reach(mark, false)
		if len(v.chosen) < v.Sample {
			v.chosen = append(v.chosen, m)
		} else if i := rand.Uint64N(v.seen); i < uint64(v.Sample) {
			skip(v.chosen[i])
			v.chosen[i] = m
		} else {
			skip(m)
		}
	default:
		select {
		case pool.todo <- segmentTask{m, mark}:
		case <-ctx.Done():
			v.frontier.reach(mark, false)
		}
	}
}

// leftOver reports what no manifest names.
func (v *verification) leftOver(ctx context.Context, segments *objects) {
	if v.good == 0 || v.cut {
		return // nobody can say what belongs there
	}
	segments.rest(func(s stored) {
		if n, ok := v.Layout.ParseSegmentKey(s.key); ok && v.Since != nil && n < v.Since.NextN {
			return // the kept head vouches for it
		}
		v.found.add(Finding{Severity: Notice, Code: Uncommitted, Object: s.key, Text: "no manifest names this object"})
	})
	if segments.err != nil && ctx.Err() == nil {
		v.unlisted(segments)
	}
}

// conclude gives the verdict.
func (v *verification) conclude(ctx context.Context) {
	v.checkExpected(ctx.Err() != nil)
	r := &v.report
	if ctx.Err() != nil {
		r.Interrupted = true
		v.notChecked("what comes after the place where this verification was interrupted")
	}
	if n := v.skipped.segments; n > 0 {
		v.notChecked(fmt.Sprintf("the contents of %d segments, %d entries, that were not chosen; their manifests were checked", n, v.skipped.entries))
	}
	r.Findings, r.Omitted = v.found.sorted()
	r.Verdict = "intact"
	if r.Interrupted {
		r.Verdict = "unchecked"
	}
	for _, f := range r.Findings {
		switch {
		case f.Severity == Tampered:
			r.Verdict = "tampered"
		case f.Severity == Unchecked && r.Verdict == "intact":
			r.Verdict = "unchecked"
		}
	}
	if v.frontier.proven.NextN > 0 && v.frontier.proven.CheckpointKey != "" && !v.found.bad() && v.whole() {
		proven := v.frontier.proven
		r.Proven = &proven
	}
	switch {
	case !v.Bucket.Locks():
		r.Locked = "not locked: the store cannot lock"
		v.notChecked("versions and locks: " + v.Bucket.String() + " has none")
	case len(v.modes) == 1 && v.modes[storage.Compliance] > 0:
		r.Locked = fmt.Sprintf("COMPLIANCE, all %d objects, none before %s", v.modes[storage.Compliance], v.shortest.UTC().Format(time.DateOnly))
	default:
		r.Locked = fmt.Sprintf("%d objects COMPLIANCE, %d GOVERNANCE, %d without a lock, %d not known",
			v.modes[storage.Compliance], v.modes[storage.Governance], v.modes[""], v.modes[lockUnknown])
	}
}
