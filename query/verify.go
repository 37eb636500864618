package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// Severity says what a finding means for the verdict.
type Severity string

// The severities, worst first.
const (
	Tampered  Severity = "tampered"  // definitely not what the writer wrote, or not kept as it promised
	Unchecked Severity = "unchecked" // could not be checked
	Notice    Severity = "notice"    // worth knowing, and no fault
)

// Finding is one thing that verification found.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     string   `json:"code"`              // what kind of finding, one word for programs
	Object   string   `json:"object,omitempty"`  // its key
	Version  string   `json:"version,omitempty"` // the store's id of the version
	Manifest uint64   `json:"manifest"`          // number of the manifest that it concerns
	FirstSeq *uint64  `json:"first_seq,omitempty"`
	LastSeq  *uint64  `json:"last_seq,omitempty"`
	Text     string   `json:"text"` // what was found and what it means, for people
}

// Report is what a verification says.
type Report struct {
	Chain      string       `json:"chain"`
	Bucket     string       `json:"bucket"`
	Key        chain.Hash   `json:"key_fingerprint"`
	Verdict    string       `json:"verdict"` // intact, tampered or unchecked
	Manifests  uint64       `json:"manifests"`
	Segments   uint64       `json:"segments"`
	Counts     chain.Counts `json:"counts"`         // of the segments that verified
	RawBytes   int64        `json:"raw_bytes"`      // of the entry lines that verified
	Bytes      int64        `json:"bytes"`          // of the segment objects that verified
	Head       *chain.Hash  `json:"head,omitempty"` // last entry hash
	Root       *chain.Hash  `json:"root,omitempty"` // of the tree over all entries
	Checkpoint string       `json:"checkpoint,omitempty"`
	LastSealed time.Time    `json:"last_sealed"` // when the last manifest was made, by the writer's clock
	Locked     string       `json:"locked"`      // what the store says of the locks, in words
	Findings   []Finding    `json:"findings"`
	NotChecked []string     `json:"not_checked"` // what this verification does not speak of
}

// Progress is told how far a verification has come, in bytes of segment objects; total may grow.
type Progress func(done, total int64)

// verification is the state of one Verify.
type verification struct {
	*Log
	report   Report
	mu       sync.Mutex // guards report and done while segments are checked
	done     int64
	total    int64
	progress Progress
	now      time.Time
	first    []byte    // the first manifest there is
	shortest time.Time // earliest retain-until of what was checked
	modes    map[string]int
}

// Verify checks the whole log: that the manifests are all there, signed, and continue each other from the genesis on; that
// each segment is, in the version that its manifest names, what the manifest says, down to the last hash; that all
// of it is locked as promised; and what else lies where only the log should. It reports all it finds and goes on as
// long as there is anything to go on with. The error is not nil only if nothing could be said at all.
func (l *Log) Verify(ctx context.Context, now time.Time, progress Progress) (*Report, error) {
	v := &verification{Log: l, progress: progress, now: now, modes: make(map[string]int)}
	v.report = Report{
		Chain: l.Layout.Chain, Bucket: l.Bucket.String(), Key: l.Key.Fingerprint(), Findings: []Finding{},
		NotChecked: []string{
			"whether the end of the chain was cut off before this verification: compare the head with one kept elsewhere",
			"records that the writer has not sealed yet",
		},
	}
	manifests, strangers, err := l.manifests(ctx)
	if err != nil {
		return nil, err
	}
	segments, err := l.list(ctx, l.Layout.Segments())
	if err != nil {
		return nil, err
	}
	for _, s := range strangers {
		v.find(Finding{Severity: Notice, Code: "stranger", Object: s.key, Text: "an object that is no manifest lies among the manifests"})
	}
	verified := v.walk(ctx, manifests)
	v.checkSegments(ctx, verified, segments)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	v.conclude()
	return &v.report, nil
}

func (v *verification) find(f Finding) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Findings = append(v.report.Findings, f)
}

// walk checks the manifests from the first to the last, and returns those whose signature is good.
func (v *verification) walk(ctx context.Context, manifests []*manifest) []*chain.Manifest {
	var (
		head  chain.Head
		good  []*chain.Manifest
		known bool // head stands where the manifest before this one left it
		other int  // manifests that another key has signed, or none
	)
	if first := manifests[0].n; first > 0 {
		v.find(Finding{Severity: Tampered, Code: "manifests-missing", Manifest: 0,
			Text: notThere(0, first-1) + ": the chain cannot be followed from its beginning"})
	} else {
		known = true
	}
	expect := manifests[0].n
	for m := range v.fetched(ctx, manifests) {
		if m == manifests[0] {
			v.first = m.data
		}
		if m.n != expect {
			v.find(Finding{Severity: Tampered, Code: "manifests-missing", Manifest: expect,
				Text: notThere(expect, m.n-1) + ": someone took it away, or the store lost it"})
			known = false
		}
		expect = m.n + 1
		v.overlaid(m.stored, m.info.Version, m.n, nil)
		f := Finding{Object: m.stored.key, Version: m.info.Version, Manifest: m.n}
		if m.err != nil {
			f.Severity, f.Code, f.Text = Unchecked, "unreadable", fmt.Sprintf("manifest %d cannot be read: %v", m.n, m.err)
			if errors.Is(m.err, storage.ErrNotFound) {
				f.Severity, f.Code, f.Text = Tampered, "manifest-missing", fmt.Sprintf("manifest %d is not there any more; only delete markers are", m.n)
			}
			v.find(f)
			known = false
			continue
		}
		parsed, payload, err := chain.OpenManifest(m.data, v.Key)
		if err != nil {
			f.Severity, f.Code, f.Text = Tampered, "manifest-forged", fmt.Sprintf("manifest %d is not what the holder of the key wrote: %v", m.n, err)
			v.find(f)
			known = false
			if errors.Is(err, chain.ErrSignature) {
				other++
			}
			continue
		}
		v.report.Manifests++
		v.checkLock(f, m.info, parsed, fmt.Sprintf("manifest %d", m.n))
		if !known {
			// Pick the thread up again after what is missing, so that the rest is checked at least against itself.
			if head, err = v.pickUp(parsed, payload, head); err != nil || m.n != parsed.N || parsed.Chain != v.Layout.Chain {
				f.Severity, f.Code, f.Text = Tampered, "manifest-misplaced", fmt.Sprintf("manifest %d says that it is number %d of chain %q", m.n, parsed.N, parsed.Chain)
				v.find(f)
				continue
			}
			known = true
		} else if err := v.advance(&head, parsed, payload); err != nil {
			f.Severity, f.Code, f.Text = Tampered, "chain-broken", err.Error()
			v.find(f)
			known = false
			if parsed.N != m.n || parsed.Chain != v.Layout.Chain {
				continue // a manifest of somewhere else, whatever it describes
			}
			if head, err = v.pickUp(parsed, payload, head); err == nil {
				known = true
			}
		}
		good = append(good, parsed)
		v.report.LastSealed = parsed.SealedAt.Time
	}
	if other == len(manifests) {
		v.otherKey(manifests)
	}
	if head.NextN > 0 && head.CheckpointKey == "" {
		v.report.NotChecked = append(v.report.NotChecked, "signatures of the checkpoints: the genesis, which names their key, is not there")
	}
	if known && head.NextN > 0 {
		entry, root := head.Entry, head.Tree.Root()
		v.report.Head, v.report.Root = &entry, &root
		v.report.Checkpoint = good[len(good)-1].Checkpoint
	}
	return good
}

// notThere says that the manifests from first to last are missing.
func notThere(first, last uint64) string {
	if first == last {
		return fmt.Sprintf("manifest %d is not there", first)
	}
	return fmt.Sprintf("manifests %d to %d are not there", first, last)
}

// otherKey puts one finding in the place of those of all manifests, of which none is signed by the trusted key.
func (v *verification) otherKey(manifests []*manifest) {
	v.report.Findings = slices.DeleteFunc(v.report.Findings, func(f Finding) bool { return f.Code == "manifest-forged" })
	text := fmt.Sprintf("none of the %d manifests is signed by the trusted key: it is the key of another log, or somebody else wrote all of this", len(manifests))
	if m, err := chain.PeekManifest(v.first); err == nil && m.Genesis != nil {
		if named, err := chain.ParsePublicKey([]byte(m.Genesis.ManifestKey)); err == nil {
			text += fmt.Sprintf("; the genesis names the key %s", named.Fingerprint())
		}
	}
	v.find(Finding{Severity: Tampered, Code: "other-key", Text: text})
}

// advance moves head past m, and sees to it that a genesis is of the trusted key and the chain that was asked for.
func (v *verification) advance(head *chain.Head, m *chain.Manifest, payload chain.Hash) error {
	next := *head
	if err := next.Advance(m, payload); err != nil {
		return err
	}
	if m.Chain != v.Layout.Chain {
		return fmt.Errorf("manifest %d is of chain %q", m.N, m.Chain)
	}
	if m.Kind == chain.KindGenesis && !next.Key.Equal(v.Key) {
		return errors.New("the genesis names another key than the one that is trusted")
	}
	*head = next
	return nil
}

func (v *verification) pickUp(m *chain.Manifest, payload chain.Hash, before chain.Head) (chain.Head, error) {
	head, err := chain.HeadOf(m, payload, v.Key)
	head.CheckpointKey = before.CheckpointKey
	return head, err
}

// overlaid reports what lies over or under the version that counts.
func (v *verification) overlaid(s stored, counts storage.Version, n uint64, m *chain.Manifest) {
	for _, version := range s.versions {
		if !version.DeleteMarker && version.Version == counts {
			continue
		}
		f := Finding{Severity: Tampered, Object: s.key, Version: version.Version, Manifest: n}
		if m != nil {
			first, last := m.FirstSeq, m.NextSeq-1
			f.FirstSeq, f.LastSeq = &first, &last
		}
		when := version.LastModified.UTC().Format(time.RFC3339)
		if version.DeleteMarker {
			f.Code = "delete-marker"
			f.Text = fmt.Sprintf("a delete marker was laid over it on %s: it hides the object from those who ask for the latest; the locked version is still there", when)
		} else {
			f.Code = "overlaid-version"
			f.Text = fmt.Sprintf("another version of %d bytes was written to its name on %s: who asks for the latest is given that one, not the version that counts", version.Size, when)
		}
		v.find(f)
	}
}

// checkLock compares what the store says of an object's lock with what its manifest promised.
func (v *verification) checkLock(f Finding, info storage.Info, m *chain.Manifest, what string) {
	if !v.Bucket.Locks() {
		return
	}
	until := m.Lock.RetainUntil.Time
	v.mu.Lock()
	v.modes[info.LockMode]++
	if !info.RetainUntil.IsZero() && (v.shortest.IsZero() || info.RetainUntil.Before(v.shortest)) {
		v.shortest = info.RetainUntil
	}
	v.mu.Unlock()
	f.Severity = Tampered
	switch {
	case until.Before(v.now):
		return // its retention is over: it may be as it likes
	case m.Lock.Mode == "NONE":
		f.Severity, f.Code, f.Text = Notice, "never-locked", what+" was written to a store that cannot lock"
	case info.LockMode == lockUnknown:
		f.Severity, f.Code, f.Text = Unchecked, "lock-unknown", what+": this user may not ask for its lock (s3:GetObjectRetention)"
	case info.LockMode == "":
		f.Code, f.Text = "lock-missing", what+" is not locked"
	case info.LockMode != m.Lock.Mode:
		f.Code, f.Text = "lock-mode", fmt.Sprintf("%s is locked in mode %s, its manifest promised %s", what, info.LockMode, m.Lock.Mode)
	case info.RetainUntil.Before(until):
		f.Code, f.Text = "lock-shortened", fmt.Sprintf("%s is locked until %s, its manifest promised %s", what, info.RetainUntil.UTC().Format(time.RFC3339), until.Format(time.RFC3339))
	default:
		return
	}
	v.find(f)
}

// checkSegments reads all segments, several at a time.
func (v *verification) checkSegments(ctx context.Context, manifests []*chain.Manifest, objects []stored) {
	if len(manifests) == 0 {
		return // nobody can say what belongs there
	}
	byKey := make(map[string]stored, len(objects))
	for _, o := range objects {
		byKey[o.key] = o
	}
	var todo []*chain.Manifest
	for _, m := range manifests {
		if m.Segment == nil {
			continue
		}
		todo = append(todo, m)
		v.total += m.Segment.Size
		key := v.Layout.Root() + m.Segment.Key
		v.overlaid(byKey[key], m.Segment.VersionID, m.N, m)
		delete(byKey, key)
	}
	for key := range byKey {
		v.find(Finding{Severity: Notice, Code: "uncommitted", Object: key,
			Text: "no manifest names this object: it is about to be committed, or was left by a writer that stopped, or someone else wrote it"})
	}
	forEach(todo, 2*runtime.GOMAXPROCS(0), func(m *chain.Manifest) {
		if ctx.Err() == nil {
			v.checkSegment(ctx, m)
		}
	})
}

func (v *verification) checkSegment(ctx context.Context, m *chain.Manifest) {
	key := v.Layout.Root() + m.Segment.Key
	first, last := m.FirstSeq, m.NextSeq-1
	f := Finding{Object: key, Version: m.Segment.VersionID, Manifest: m.N, FirstSeq: &first, LastSeq: &last}
	r, info, err := v.open(ctx, key, m.Segment.VersionID)
	if err != nil {
		f.Severity, f.Code, f.Text = Unchecked, "unreadable", fmt.Sprintf("entries %d to %d cannot be read: %v", first, last, err)
		if errors.Is(err, storage.ErrNotFound) {
			f.Severity, f.Code, f.Text = Tampered, "segment-missing", fmt.Sprintf("the version that holds entries %d to %d is not there any more, though it was to be kept until %s", first, last, m.Lock.RetainUntil.Format(time.RFC3339))
			if m.Lock.RetainUntil.Before(v.now) {
				f.Severity, f.Code, f.Text = Notice, "expired", fmt.Sprintf("entries %d to %d are gone: their retention ended on %s; the manifests still prove the rest", first, last, m.Lock.RetainUntil.Format(time.RFC3339))
			}
		}
		v.find(f)
		return
	}
	defer r.Close()
	v.checkLock(f, info, m, fmt.Sprintf("the segment of entries %d to %d", first, last))
	counted := &countingReader{r: r, add: v.count}
	err = chain.VerifySegment(m, counted, nil)
	switch {
	case err != nil && counted.err != nil: // reading failed, not the content
		f.Severity, f.Code, f.Text = Unchecked, "unreadable", fmt.Sprintf("entries %d to %d cannot be read to their end: %v", first, last, counted.err)
		v.find(f)
		return
	case err != nil:
		f.Severity, f.Code, f.Text = Tampered, "segment-changed", fmt.Sprintf("the segment of entries %d to %d is not what was written: %v", first, last, err)
		v.find(f)
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	r0 := &v.report
	r0.Segments++
	r0.RawBytes += m.Segment.RawSize
	r0.Bytes += m.Segment.Size
	r0.Counts.Add(m.Counts)
}

func (v *verification) count(n int) {
	v.mu.Lock()
	v.done += int64(n)
	done, total := v.done, v.total
	v.mu.Unlock()
	if v.progress != nil {
		v.progress(done, total)
	}
}

// conclude orders the findings and gives the verdict.
func (v *verification) conclude() {
	r := &v.report
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Manifest, b.Manifest), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Code, b.Code))
	})
	r.Verdict = "intact"
	for _, f := range r.Findings {
		switch {
		case f.Severity == Tampered:
			r.Verdict = "tampered"
		case f.Severity == Unchecked && r.Verdict == "intact":
			r.Verdict = "unchecked"
		}
	}
	switch {
	case !v.Bucket.Locks():
		r.Locked = "not locked: the store cannot lock"
		r.NotChecked = append(r.NotChecked, "locks: "+v.Bucket.String()+" has none")
	case len(v.modes) == 1 && v.modes[storage.Compliance] > 0:
		r.Locked = fmt.Sprintf("COMPLIANCE, all %d objects, none before %s", v.modes[storage.Compliance], v.shortest.UTC().Format(time.DateOnly))
	default:
		r.Locked = fmt.Sprintf("%d objects COMPLIANCE, %d GOVERNANCE, %d without a lock, %d not known",
			v.modes[storage.Compliance], v.modes[storage.Governance], v.modes[""], v.modes[lockUnknown])
	}
}

// countingReader remembers the error that reading ended with, and counts bytes.
type countingReader struct {
	r   io.Reader
	add func(n int)
	err error
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.add(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}
