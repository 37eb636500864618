package query

import (
	"cmp"
	"slices"
	"sync"

	"github.com/auditchain/auditchain/chain"
)

// Severity says what a finding means for the verdict.
type Severity string

// The severities, worst first.
const (
	Tampered  Severity = "tampered"  // definitely not what the writer wrote, or not kept as it promised
	Unchecked Severity = "unchecked" // could not be checked
	Warning   Severity = "warning"   // proves nothing by itself, and wants an explanation
	Notice    Severity = "notice"    // worth knowing, and no fault
)

var severities = []Severity{Tampered, Unchecked, Warning, Notice}

// Finding is one thing that verification found.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     Code     `json:"code"`              // what kind of finding, for programs
	Object   string   `json:"object,omitempty"`  // its key
	Version  string   `json:"version,omitempty"` // the store's id of the version
	Manifest uint64   `json:"manifest"`          // number of the manifest that it concerns
	FirstSeq *uint64  `json:"first_seq,omitempty"`
	LastSeq  *uint64  `json:"last_seq,omitempty"`
	Text     string   `json:"text"`    // what was found
	Meaning  string   `json:"meaning"` // what it may mean
}

// entriesOf names the entries of a manifest's segment, if it has one.
func (f *Finding) entriesOf(m *chain.Manifest) {
	if m != nil && m.Segment != nil {
		first, last := m.FirstSeq, m.NextSeq-1
		f.FirstSeq, f.LastSeq = &first, &last
	}
}

// Code is a kind of finding.
type Code string

// The kinds of findings. docs/SECURITY.md lists the attacks that each answers to.
const (
	OtherKey          Code = "other-key"
	ManifestMissing   Code = "manifest-missing"
	ManifestForged    Code = "manifest-forged"
	ManifestMisplaced Code = "manifest-misplaced"
	ChainBroken       Code = "chain-broken"
	Forked            Code = "forked"
	RolledBack        Code = "rolled-back"
	HeadNotFound      Code = "head-not-found"
	SegmentMissing    Code = "segment-missing"
	SegmentChanged    Code = "segment-changed"
	OverlaidVersion   Code = "overlaid-version"
	DeleteMarker      Code = "delete-marker"
	LockMissing       Code = "lock-missing"
	LockMode          Code = "lock-mode"
	LockShortened     Code = "lock-shortened"
	BelowPolicy       Code = "below-policy"
	Unreadable        Code = "unreadable"
	LockUnknown       Code = "lock-unknown"
	Silence           Code = "silence"
	ClockSetBack      Code = "clock-set-back"
	ClockSkew         Code = "clock-skew"
	StoredApart       Code = "stored-apart"
	JournalLost       Code = "journal-lost"
	Conflict          Code = "conflict"
	Expired           Code = "expired"
	NeverLocked       Code = "never-locked"
	Uncommitted       Code = "uncommitted"
	Stranger          Code = "stranger"
)

// meanings says of each kind what it may mean, in plain words.
var meanings = map[Code]string{
	OtherKey:          "This is the key of another log, or a later one of this log (trust the genesis's), or somebody else wrote all of this.",
	ManifestMissing:   "Somebody who could delete took it away, the store lost it, or what comes after it was made up. What it said is not proven any more; a segment that it committed cannot be told from a forgery.",
	ManifestForged:    "Somebody without the chain's key changed or wrote it, or it is damaged. Nothing that it says counts.",
	ManifestMisplaced: "A genuine manifest was put where another belongs.",
	ChainBroken:       "It is signed with the chain's key, but does not continue the chain: manifests were taken out, put in or exchanged, or whoever has the key wrote two histories.",
	Forked:            "There are two histories, both signed with the chain's key: whoever has the key wrote one of them afterwards.",
	RolledBack:        "The end of the log was cut off, or all of it was set back to an earlier state. What came after is gone from here.",
	HeadNotFound:      "The log was written anew by whoever has its key, from this head or from somewhere before it on, or the head is of another log.",
	SegmentMissing:    "Somebody who could delete took it away, or the store lost it. That these entries were there, and their hashes, is still proven; their content is gone.",
	SegmentChanged:    "Somebody who could write to the store's disks changed it, or it is damaged. None of these entries can be relied on as they stand there.",
	OverlaidVersion:   "Somebody who may write to the bucket laid it there. It changes nothing in the log, and misleads whoever reads the latest version.",
	DeleteMarker:      "Somebody who may delete in the bucket, or a lifecycle rule, laid it there. It takes nothing from the log, and hides the object from whoever reads the latest version.",
	LockMissing:       "Whoever may delete in the bucket can delete it for good. It was never locked, the lock was taken off on the store's disks, or this is a copy.",
	LockMode:          "Whoever may bypass governance mode can delete it for good.",
	LockShortened:     "It can be deleted earlier than was promised.",
	BelowPolicy:       "The writer was configured to keep it less well than the chain promised in its genesis.",
	Unreadable:        "This says nothing about the log: try again, or ask for the rights to read it.",
	LockUnknown:       "Whether it can be deleted is not known: ask for s3:GetObjectRetention.",
	Silence:           "The writer was not running, could not reach the store, or what it wrote was cut off. Records of that time may be missing.",
	ClockSetBack:      "The writer's clock was wrong, before or after. Times of entries around it may be wrong; their order is not.",
	ClockSkew:         "The writer's clock differed from the store's. Times of entries around it may be wrong; their order is not.",
	StoredApart:       "The store was out of reach for that long, its objects were copied from elsewhere, or the times that the manifest says are made up.",
	JournalLost:       "The writer lost its local state: records that it had acknowledged and not yet uploaded may be missing here.",
	Conflict:          "Somebody wrote in the source's name, or changed a record before it came here; or the source gave a number twice. Both are in the log: it cannot say which of them is true.",
	Expired:           "It was kept as long as promised. That these entries were there, and their hashes, is still proven through the manifests.",
	NeverLocked:       "The store that the writer wrote to has no locks.",
	Uncommitted:       "It is about to be committed, or was left by a writer that stopped, or someone else wrote it. It is no part of the log.",
	Stranger:          "Someone wrote it, or put it there by mistake. It is no part of the log.",
}

// How many findings of one kind are kept; the rest is counted. Anybody may put objects into a bucket, and a log without locks has one
// finding for each of its objects.
const (
	maxNotices  = 1000 // that are no fault
	maxFindings = 100_000
)

// findings collects what is found, from any goroutine.
type findings struct {
	mu  sync.Mutex
	all []Finding
	of  map[Code]int
}

func (f *findings) add(finding Finding) {
	finding.Meaning = meanings[finding.Code]
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of == nil {
		f.of = make(map[Code]int)
	}
	f.of[finding.Code]++
	if n := f.of[finding.Code]; n > maxFindings || finding.Severity == Notice && n > maxNotices {
		return
	}
	f.all = append(f.all, finding)
}

// replace puts one finding in the place of those that match.
func (f *findings) replace(match func(Finding) bool, finding Finding) {
	f.mu.Lock()
	f.all = slices.DeleteFunc(f.all, func(old Finding) bool {
		if match(old) {
			f.of[old.Code]--
			return true
		}
		return false
	})
	f.mu.Unlock()
	f.add(finding)
}

// bad reports whether anything was found that is against the log, or keeps from saying that nothing is.
func (f *findings) bad() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.all, func(f Finding) bool { return f.Severity == Tampered || f.Severity == Unchecked })
}

// sorted returns all findings, the worst first, and how many of each kind were left out.
func (f *findings) sorted() (all []Finding, omitted map[Code]int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.SortStableFunc(f.all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(slices.Index(severities, a.Severity), slices.Index(severities, b.Severity)),
			cmp.Compare(a.Manifest, b.Manifest), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Code, b.Code))
	})
	kept := make(map[Code]int)
	for _, finding := range f.all {
		kept[finding.Code]++
	}
	for code, n := range f.of {
		if n > kept[code] {
			if omitted == nil {
				omitted = make(map[Code]int)
			}
			omitted[code] = n - kept[code]
		}
	}
	return append([]Finding{}, f.all...), omitted
}
