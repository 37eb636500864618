// Package attack attacks logs on real S3 servers, and says what an auditor must find of it. Every attack is a row of the
// table in docs/SECURITY.md, which TestTable compares with the tables here.
package attack

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/query"
)

// attack is one thing that somebody does to a log, or that happens to it, and what the auditor must find then.
type attack struct {
	name string
	who  string   // can do that
	on   []*store // where it is tried
	log  func(*arena)
	do   func(*arena)

	verdict string
	hits    []hit // all that is found, no more
	proven  []int // manifests of the segments whose content is still proven
	and     func(*arena, *query.Report)
	note    string // on the page, where no finding says it

	// kept is what is found with a head that was kept before; nil if none is needed. The verdict is then "tampered", and without
	// the kept head "intact".
	kept *kept
	// helpless says that no kept head shows it either.
	helpless bool
}

// Who can do something.
const (
	may         = "bucket"     // whoever may write to the bucket, with all rights on it
	root        = "store"      // root of the storage server
	thief       = "key"        // whoever has the signing key, and may write to the bucket
	keyAndStore = "key, store" // both
	network     = "network"    // between the auditor and the store
	sender      = "sender"     // whoever may send records to the writer
	accident    = "accident"
)

// hit is a finding.
type hit struct {
	code    query.Code
	at      string // "manifest 2", "segment 2", a key below the chain's root, or "" for none
	entries string // "10-19", or "" for none
	says    string // in its text, where … stands for anything
}

// kept says with which code a kept head is missed.
type kept struct {
	code  query.Code
	since query.Code // by a verification that goes on from it; "" if the same
	// blind says that a bare checkpoint does not show it.
	blind bool
	says  string
}

const (
	intact    = "intact"
	tampered  = "tampered"
	unchecked = "unchecked"
)

var everything = []int{1, 2, 3}

func attacks() []attack {
	return slices.Concat(byAPI, onDisks, withKey, byTime)
}

func TestAttacks(t *testing.T) {
	for _, attack := range attacks() {
		for _, s := range attack.on {
			t.Run(attack.name+"/"+s.program, func(t *testing.T) {
				t.Parallel()
				attack.run(newArena(t, s))
			})
		}
	}
}

func (k *attack) run(a *arena) {
	log := k.log
	if log == nil {
		log = writer
	}
	log(a)
	if k.kept != nil || k.helpless {
		a.keep()
	}
	k.do(a)
	report := a.verify(query.VerifyOptions{})
	if report.Verdict != k.verdict {
		a.Errorf("the verdict is %s, want %s", report.Verdict, k.verdict)
	}
	a.compare(report, k.hits)
	a.stillProven(report, k.proven)
	if k.and != nil {
		k.and(a, report)
	}
	if k.kept != nil {
		k.kept.missed(a)
	}
	if k.helpless {
		k.notMissed(a)
	}
}

// compare wants exactly these findings.
func (a *arena) compare(report *query.Report, want []hit) {
	a.Helper()
	left := slices.Clone(report.Findings)
	for _, h := range want {
		i := slices.IndexFunc(left, func(f query.Finding) bool { return a.matches(h, f) })
		if i < 0 {
			a.Errorf("nothing found like %+v", h)
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, f := range left {
		a.Errorf("found, and not expected: %s", describe(f))
	}
}

func (a *arena) matches(h hit, f query.Finding) bool {
	object := h.at
	switch {
	case object == "":
	case regexp.MustCompile(`^(manifest|segment) \d+$`).MatchString(h.at):
		if strings.HasPrefix(h.at, "manifest") {
			var n uint64
			fmt.Sscanf(h.at, "manifest %d", &n)
			object = a.layout.Manifest(n)
		} else {
			object, _ = a.object(h.at)
		}
	default:
		object = a.layout.Root() + object
	}
	entries := ""
	if f.FirstSeq != nil {
		entries = fmt.Sprintf("%d-%d", *f.FirstSeq, *f.LastSeq)
	}
	return f.Code == h.code && f.Object == object && entries == h.entries && says(h.says, f.Text) && f.Meaning != ""
}

// says reports whether text has pattern in it, of which … stands for anything.
func says(pattern, text string) bool {
	quoted := strings.ReplaceAll(regexp.QuoteMeta(pattern), "…", ".*")
	return regexp.MustCompile(quoted).MatchString(text)
}

func describe(f query.Finding) string {
	entries := ""
	if f.FirstSeq != nil {
		entries = fmt.Sprintf(" entries %d-%d", *f.FirstSeq, *f.LastSeq)
	}
	return fmt.Sprintf("%s %s at %s%s: %s", f.Severity, f.Code, f.Object, entries, f.Text)
}

// stillProven wants the contents of these segments proven, and no others.
func (a *arena) stillProven(report *query.Report, manifests []int) {
	a.Helper()
	var entries uint64
	for _, n := range manifests {
		entries += a.left[n].NextSeq - a.left[n].FirstSeq
	}
	if report.Segments != uint64(len(manifests)) || report.Counts.Entries != entries {
		a.Errorf("%d segments with %d entries are proven, want %d with %d", report.Segments, report.Counts.Entries, len(manifests), entries)
	}
}

// missed has the auditor verify with each form of the kept head.
func (k *kept) missed(a *arena) {
	a.Helper()
	want := func(what string, opts query.VerifyOptions, code query.Code) {
		a.Helper()
		report := a.verify(opts)
		var found []query.Code
		text := ""
		for _, f := range report.Findings {
			if f.Severity == query.Tampered || f.Severity == query.Unchecked {
				found, text = append(found, f.Code), f.Text
			}
		}
		if report.Verdict != tampered || !slices.Equal(found, []query.Code{code}) {
			a.Errorf("with the kept %s: the verdict is %s with %q, want tampered with %q", what, report.Verdict, found, code)
		}
		if what == "head" && !says(k.says, text) {
			a.Errorf("with the kept %s: %q, want %q", what, text, k.says)
		}
		if report.Proven != nil {
			a.Errorf("with the kept %s: a head is proven", what)
		}
	}
	for _, h := range a.kept {
		expected, since, err := query.ParseKeptHead(h.form, h.data)
		a.check(err)
		if h.form == "checkpoint" && k.blind {
			report := a.verify(query.VerifyOptions{Expect: []query.KeptHead{expected}})
			if report.Verdict != intact {
				a.Errorf("with the kept checkpoint: the verdict is %s, want intact", report.Verdict)
			}
			continue
		}
		want(h.form, query.VerifyOptions{Expect: []query.KeptHead{expected}}, k.code)
		if since != nil {
			code := k.since
			if code == "" {
				code = k.code
			}
			want("head, to go on from", query.VerifyOptions{Since: since}, code)
		}
	}
}

// notMissed wants no form of the kept head to show anything.
func (k *attack) notMissed(a *arena) {
	a.Helper()
	for _, h := range a.kept {
		expected, since, err := query.ParseKeptHead(h.form, h.data)
		a.check(err)
		report := a.verify(query.VerifyOptions{Expect: []query.KeptHead{expected}, Since: since})
		if report.Verdict != intact {
			a.Errorf("with the kept %s: the verdict is %s, want intact", h.form, report.Verdict)
		}
	}
}
