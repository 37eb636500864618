package query

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

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
	case until.Before(v.Now):
		return // its retention is over: it may be as it likes
	case m.Lock.Mode == lockNone:
		f.Severity, f.Code, f.Text = Notice, NeverLocked, what+" was written to a store that cannot lock"
	case info.LockMode == lockUnknown:
		f.Severity, f.Code, f.Text = Unchecked, LockUnknown, what+": this user may not ask for its lock"
	case info.LockMode == "":
		f.Code, f.Text = LockMissing, what+" is not locked"
	case info.LockMode != m.Lock.Mode && info.LockMode != storage.Compliance:
		f.Code, f.Text = LockMode, fmt.Sprintf("%s is locked in mode %s, its manifest promised %s", what, info.LockMode, m.Lock.Mode)
	case info.RetainUntil.Before(until):
		f.Code, f.Text = LockShortened, fmt.Sprintf("%s is locked until %s, its manifest promised %s", what, info.RetainUntil.UTC().Format(time.RFC3339), until.Format(time.RFC3339))
	default:
		return
	}
	v.found.add(f)
}

// lockNone is the lock mode in a manifest that was written to a store without locks.
const lockNone = "NONE"

// policy is what the genesis promised, as far as this program understands it.
type policy struct {
	said      chain.Policy
	retention chain.Retention
	heartbeat time.Duration
}

func (v *verification) setPolicy(genesis *chain.Manifest) {
	p := &policy{said: genesis.Genesis.Policy}
	var err error
	if p.retention, err = chain.ParseRetention(p.said.Retention); err != nil {
		v.report.NotChecked = append(v.report.NotChecked, "whether all is kept as long as the genesis promised: its retention is "+err.Error())
	}
	if s := p.said.HeartbeatInterval; s > 0 && s <= int64(366*24*time.Hour/time.Second) {
		p.heartbeat = time.Duration(s) * time.Second
	}
	v.policy = p
}

// strength orders lock modes.
func strength(mode string) int {
	switch mode {
	case storage.Compliance:
		return 2
	case storage.Governance:
		return 1
	}
	return 0
}

// checkPolicy compares the lock that a manifest asked for with what the genesis promised.
func (v *verification) checkPolicy(m *manifest, parsed *chain.Manifest) {
	if v.policy == nil {
		return
	}
	f := Finding{Severity: Tampered, Code: BelowPolicy, Object: m.stored.key, Version: m.info.Version, Manifest: m.n}
	if parsed.Segment != nil {
		first, last := parsed.FirstSeq, parsed.NextSeq-1
		f.FirstSeq, f.LastSeq = &first, &last
	}
	if strength(parsed.Lock.Mode) < strength(v.policy.said.LockMode) {
		f.Text = fmt.Sprintf("manifest %d and its segment were to be locked %s; the genesis promised %s", m.n, parsed.Lock.Mode, v.policy.said.LockMode)
		v.found.add(f)
	}
	least := v.policy.retention.After(parsed.SealedAt.Time).Truncate(time.Second)
	if parsed.Lock.RetainUntil.Before(least) {
		f.Text = fmt.Sprintf("manifest %d and its segment were to be kept until %s; the genesis promised %s, until %s",
			m.n, parsed.Lock.RetainUntil.Format(time.RFC3339), v.policy.said.Retention, least.Format(time.RFC3339))
		v.found.add(f)
	}
}

// Bounds beyond which times are worth a word.
const (
	maxSkew  = time.Minute    // between the writer's clock and the store's
	maxApart = 24 * time.Hour // between sealing and storing
)

// checkTimes compares the times of a manifest with those of the one before it, and with the store's.
func (v *verification) checkTimes(m *manifest, parsed *chain.Manifest) {
	f := Finding{Severity: Warning, Object: m.stored.key, Version: m.info.Version, Manifest: m.n}
	sealed := parsed.SealedAt.Time
	if last := v.report.LastSealed; !last.IsZero() {
		if sealed.Before(last) {
			f.Code, f.Text = ClockSetBack, fmt.Sprintf("manifest %d was sealed at %s, %s before manifest %d", m.n, sealed.Format(time.RFC3339), long(last.Sub(sealed)), m.n-1)
			v.found.add(f)
		}
		if gap := sealed.Sub(last); v.policy != nil && gap > v.policy.silence() {
			f.Code, f.Text = Silence, fmt.Sprintf("between manifests %d and %d nothing was written for %s, from %s on; the genesis promised a sign of life every %s",
				m.n-1, m.n, long(gap), last.Format(time.RFC3339), v.policy.heartbeat)
			v.found.add(f)
		}
	}
	if parsed.ClockSkew != nil {
		skew := time.Duration(*parsed.ClockSkew) * time.Millisecond
		if skew > maxSkew || skew < -maxSkew {
			f.Code, f.Text = ClockSkew, fmt.Sprintf("manifest %d: the store's clock was %s from the writer's", m.n, skew)
			v.found.add(f)
		}
	}
	if stored := m.info.LastModified; v.Bucket.Locks() && !stored.IsZero() {
		if apart := stored.Sub(sealed); apart > maxApart || apart < -maxApart {
			f.Code, f.Text = StoredApart, fmt.Sprintf("manifest %d says that it was sealed at %s; the store has it since %s", m.n, sealed.Format(time.RFC3339), stored.UTC().Format(time.RFC3339))
			v.found.add(f)
		}
	}
}

// silence is how long a writer that lives may be silent: uploading takes its time, too.
func (p *policy) silence() time.Duration {
	if p.heartbeat == 0 {
		return 1<<63 - 1
	}
	return p.heartbeat + p.heartbeat/2 + time.Minute
}

// checkSilence says how long ago the last manifest is.
func (v *verification) checkSilence() {
	if v.policy == nil || v.report.LastSealed.IsZero() {
		return
	}
	if gap := v.Now.Sub(v.report.LastSealed); gap > v.policy.silence() {
		v.found.add(Finding{Severity: Warning, Code: Silence, Manifest: v.head.NextN, Text: fmt.Sprintf(
			"the last manifest was sealed %s ago, at %s; the genesis promised a sign of life every %s: the writer is not running, or the end of the log was cut off",
			long(gap), v.report.LastSealed.Format(time.RFC3339), v.policy.heartbeat)})
	}
}

// long writes a length of time for people.
func long(d time.Duration) string {
	if days := d / (24 * time.Hour); days >= 3 {
		return fmt.Sprintf("%d days", days)
	}
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// expectation is a kept head and what became of it.
type expectation struct {
	KeptHead
	found bool
}

// meet compares the kept heads with where the chain stands after manifest n.
func (v *verification) meet(head *chain.Head, n uint64) {
	for i := range v.expect {
		e := &v.expect[i]
		if !e.found && e.matches(head) {
			e.found = true
			v.report.Found = append(v.report.Found, fmt.Sprintf("%s: in the log, at manifest %d, %d entries", e.Name, n, head.NextSeq))
		}
	}
}

// checkExpected reports the kept heads that were not met.
func (v *verification) checkExpected() {
	root := v.head.Tree.Root()
	for _, e := range v.expect {
		f := Finding{Severity: Tampered, Manifest: v.head.NextN}
		switch {
		case e.found:
			continue
		case v.Since != nil && e.before(v.Since):
			f.Severity, f.Code, f.Text = Unchecked, Unreadable, fmt.Sprintf("%s: it lies before the head that this verification goes on from", e.Name)
		case !v.known:
			f.Severity, f.Code, f.Text = Unchecked, Unreadable, fmt.Sprintf("%s: it was not met, but manifests are missing", e.Name)
		case e.Size > v.head.NextSeq:
			f.Code, f.Text = RolledBack, fmt.Sprintf("%s: it has %d entries, the log has %d", e.Name, e.Size, v.head.NextSeq)
		case e.Payload != nil && e.N >= v.head.NextN && e.Size == v.head.NextSeq && *e.Root == root:
			f.Code, f.Text = RolledBack, fmt.Sprintf("%s: it is of manifest %d, the log ends with manifest %d", e.Name, e.N, v.head.NextN-1)
		default:
			f.Code, f.Text = HeadNotFound, fmt.Sprintf("%s: the log does not contain it", e.Name)
		}
		v.found.add(f)
	}
	if len(v.expect) == 0 && v.Since == nil {
		v.report.NotChecked = append(v.report.NotChecked, "whether the end of the chain was cut off, or all of it written anew with its key: compare it with a head kept elsewhere (--expect-head)")
	} else {
		v.report.NotChecked = append(v.report.NotChecked, "whether anything that came after the kept head was cut off, or written anew with the chain's key")
	}
}

// conclude gives the verdict.
func (v *verification) conclude(ctx context.Context) {
	r := &v.report
	if ctx.Err() != nil {
		r.Interrupted = true
		r.NotChecked = append(r.NotChecked, "what comes after the place where this verification was interrupted")
	}
	if n := v.skipped.segments; n > 0 {
		r.NotChecked = append(r.NotChecked, fmt.Sprintf("the contents of %d segments, %d entries, that were not chosen; their manifests were checked", n, v.skipped.entries))
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
		r.NotChecked = append(r.NotChecked, "versions and locks: "+v.Bucket.String()+" has none")
	case len(v.modes) == 1 && v.modes[storage.Compliance] > 0:
		r.Locked = fmt.Sprintf("COMPLIANCE, all %d objects, none before %s", v.modes[storage.Compliance], v.shortest.UTC().Format(time.DateOnly))
	default:
		r.Locked = fmt.Sprintf("%d objects COMPLIANCE, %d GOVERNANCE, %d without a lock, %d not known",
			v.modes[storage.Compliance], v.modes[storage.Governance], v.modes[""], v.modes[lockUnknown])
	}
}

// KeptHead is what somebody kept of a log outside of its store: how many entries it had and the root of the tree over them, or
// only a hash.
type KeptHead struct {
	Name string      // for messages
	Size uint64      // of the tree; 0 if only a hash is known
	Root *chain.Hash // of the tree
	Hash *chain.Hash // an entry hash, a tree's root or a manifest's payload hash

	// Payload is the payload hash of manifest number N that the head is of, if that is known: manifests without entries do not
	// change the tree, and would be missed by nobody who knows the tree alone.
	Payload *chain.Hash
	N       uint64

	Checkpoint string // signed note; "" if only a hash is known
}

func (k *KeptHead) matches(h *chain.Head) bool {
	root := h.Tree.Root()
	if k.Hash != nil {
		return h.NextSeq > 0 && (*k.Hash == h.Entry || *k.Hash == root) || *k.Hash == h.PreviousManifest
	}
	if k.Payload != nil && (*k.Payload != h.PreviousManifest || k.N+1 != h.NextN) {
		return false
	}
	return k.Size == h.NextSeq && *k.Root == root
}

// before reports whether the kept head is known to lie before h.
func (k *KeptHead) before(h *chain.Head) bool {
	if k.Payload != nil {
		return k.N+1 < h.NextN
	}
	return k.Size > 0 && k.Size < h.NextSeq
}

// MaxHeadFile is how long a file with a kept head may be, in bytes.
const MaxHeadFile = chain.MaxManifest

// ParseKeptHead reads a kept head: the JSON of a [chain.Head], a manifest, a checkpoint, or 64 hex digits. The first is
// returned whole too, to go on from.
func ParseKeptHead(name string, data []byte) (KeptHead, *chain.Head, error) {
	if len(data) > MaxHeadFile {
		return KeptHead{}, nil, fmt.Errorf("%s has %d bytes, more than the %d allowed", name, len(data), MaxHeadFile)
	}
	k := KeptHead{Name: name}
	if hash, err := chain.ParseHash(bytes.TrimSpace(data)); err == nil {
		k.Hash = &hash
		return k, nil, nil
	}
	if m, err := chain.PeekManifest(bytes.TrimSpace(data)); err == nil {
		payload, err := chain.BundlePayloadHash(bytes.TrimSpace(data))
		if err != nil {
			return k, nil, err
		}
		c, err := chain.PeekCheckpoint(m.Checkpoint)
		k.Size, k.Root, k.Checkpoint, k.Payload, k.N = c.Size, &c.Root, m.Checkpoint, &payload, m.N
		return k, nil, err
	}
	head := new(chain.Head)
	err := head.UnmarshalJSON(bytes.TrimSpace(data))
	if err == nil {
		root := head.Tree.Root()
		k.Size, k.Root, k.Checkpoint, k.Payload, k.N = head.NextSeq, &root, head.Checkpoint, &head.PreviousManifest, head.NextN-1
		return k, head, nil
	}
	if c, err := chain.PeekCheckpoint(string(data)); err == nil {
		k.Size, k.Root, k.Checkpoint = c.Size, &c.Root, string(data)
		return k, nil, nil
	}
	if len(data) > 0 && data[0] == '{' {
		return k, nil, fmt.Errorf("%s: %w", name, err)
	}
	return k, nil, errors.New(name + " is no head: want what `auditchain verify --save-head` wrote, a manifest, a checkpoint, or 64 hex digits")
}
