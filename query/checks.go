package query

import (
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
		v.notChecked("whether all is kept as long as the genesis promised: its retention is " + err.Error())
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

// checkPolicy compares the lock that a manifest asked for with what the genesis promised, and with that of the manifests before it.
func (v *verification) checkPolicy(m *manifest, parsed *chain.Manifest) {
	f := Finding{Severity: Tampered, Code: BelowPolicy, Object: m.stored.key, Version: m.info.Version, Manifest: m.n}
	f.entriesOf(parsed)
	until, before := parsed.Lock.RetainUntil.Time, v.retained
	if until.After(before) {
		v.retained = until
	}
	p := v.policy
	if p != nil && strength(parsed.Lock.Mode) < strength(p.said.LockMode) {
		f.Text = fmt.Sprintf("manifest %d and its segment were to be locked %s; the genesis promised %s", m.n, parsed.Lock.Mode, p.said.LockMode)
		v.found.add(f)
	}
	switch {
	case p != nil && until.Before(p.retention.After(parsed.SealedAt.Time).Truncate(time.Second)):
		f.Text = fmt.Sprintf("manifest %d and its segment were to be kept until %s; the genesis promised %s, until %s",
			m.n, until.Format(time.RFC3339), p.said.Retention, p.retention.After(parsed.SealedAt.Time).Format(time.RFC3339))
	case until.Before(before):
		f.Text = fmt.Sprintf("manifest %d and its segment were to be kept until %s, less long than what comes before it, until %s",
			m.n, until.Format(time.RFC3339), before.Format(time.RFC3339))
	default:
		return
	}
	v.found.add(f)
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
			f.Code, f.Text = ClockSetBack, fmt.Sprintf("manifest %d was sealed at %s, %s before manifest %d", m.n, sealed.Format(time.RFC3339), long(last.Sub(sealed)), v.last)
			v.found.add(f)
		}
		if gap := sealed.Sub(last); v.policy != nil && gap > v.policy.silence() && v.last+1 == m.n {
			f.Code, f.Text = Silence, fmt.Sprintf("between manifests %d and %d nothing was written for %s, from %s on; the genesis promised a sign of life every %s",
				v.last, m.n, long(gap), last.Format(time.RFC3339), v.policy.heartbeat)
			v.found.add(f)
		}
	}
	if parsed.ClockSkew != nil {
		const most = 1 << 40 // some 30 years
		skew := time.Duration(min(max(*parsed.ClockSkew, -most), most)) * time.Millisecond
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
