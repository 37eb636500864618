package query

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/chain"
)

func kept(t *testing.T, data string) KeptHead {
	t.Helper()
	k, _, err := ParseKeptHead("kept", []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// kept is the whole head that b has now.
func (b *builder) kept(t *testing.T) KeptHead {
	t.Helper()
	head := b.head
	data, err := head.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return kept(t, string(data))
}

// entries returns the hashes of all entries.
func entries(t *testing.T, l *Log) (all []chain.Hash) {
	t.Helper()
	if err := l.Walk(t.Context(), func(_ *chain.Entry, line []byte) error {
		all = append(all, chain.Sum(line))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// expect verifies with a kept head, and returns what the report says of it: where it is, or its finding.
func expect(t *testing.T, l *Log, opts VerifyOptions, k KeptHead) (Severity, Code, string) {
	t.Helper()
	opts.Expect = []KeptHead{k}
	r := verify(t, l, opts)
	if len(r.Found) == 1 {
		return "", "", strings.TrimPrefix(r.Found[0], "kept: in the log, ")
	}
	i := slices.IndexFunc(r.Findings, func(f Finding) bool { return strings.HasPrefix(f.Text, "kept: ") })
	if i < 0 {
		t.Errorf("nothing is said of the head: %+v", r)
		return "", "", ""
	}
	return r.Findings[i].Severity, r.Findings[i].Code, strings.TrimPrefix(r.Findings[i].Text, "kept: ")
}

// TestHashFound: a hash is that of any entry, of a tree after a manifest, or of a manifest.
func TestHashFound(t *testing.T) {
	b := build(t, "audit.example.com/hash")
	first := b.head.PreviousManifest
	b.segment(5)
	b.segment(5)
	hashes, root := entries(t, b.Log), b.head.Tree.Root()
	for _, test := range []struct {
		hash chain.Hash
		want string
	}{
		{hashes[0], "it is entry 0"}, {hashes[2], "it is entry 2"}, {hashes[4], "at manifest 1, 5 entries"}, {hashes[8], "it is entry 8"},
		{root, "at manifest 2, 10 entries"}, {b.head.PreviousManifest, "at manifest 2, 10 entries"}, {first, "at manifest 0, 0 entries"},
	} {
		if _, _, text := expect(t, b.Log, VerifyOptions{Now: b.at}, kept(t, test.hash.String())); text != test.want {
			t.Errorf("%s, want %s", text, test.want)
		}
	}
	// Entry 0 continues the genesis, which is no entry.
	delete(b.m.objects, b.Layout.Manifest(0))
	if severity, _, text := expect(t, b.Log, VerifyOptions{Now: b.at}, kept(t, first.String())); severity != Unchecked {
		t.Errorf("the genesis is gone: %s", text)
	}
}

// TestHashNotFound: that a hash is not in the log is certain only if all of the log was read.
func TestHashNotFound(t *testing.T) {
	for name, test := range map[string]struct {
		change  func(b *builder, f *faulty, keys []string, opts *VerifyOptions)
		certain bool
	}{
		"all read":           {func(*builder, *faulty, []string, *VerifyOptions) {}, true},
		"all drawn":          {func(_ *builder, _ *faulty, _ []string, opts *VerifyOptions) { opts.Sample = 4 }, true},
		"not all drawn":      {func(_ *builder, _ *faulty, _ []string, opts *VerifyOptions) { opts.Sample = 3 }, false},
		"not all chosen":     {func(_ *builder, _ *faulty, _ []string, opts *VerifyOptions) { opts.Range.FirstSeq = 3 }, false},
		"one cannot be read": {func(_ *builder, f *faulty, keys []string, _ *VerifyOptions) { f.open = at(keys[2]) }, false},
		"one breaks off":     {func(_ *builder, f *faulty, keys []string, _ *VerifyOptions) { f.read = at(keys[2]) }, false},
		"one was changed": {func(b *builder, _ *faulty, keys []string, _ *VerifyOptions) {
			b.m.objects[keys[2]][0].data[10] ^= 1
		}, false},
		"one expired": {func(b *builder, _ *faulty, keys []string, opts *VerifyOptions) {
			delete(b.m.objects, keys[2])
			opts.Now = b.at.AddDate(9, 0, 0)
		}, false},
		"a manifest gone": {func(b *builder, _ *faulty, _ []string, _ *VerifyOptions) { delete(b.m.objects, b.Layout.Manifest(2)) }, false},
		"the genesis gone": {func(b *builder, _ *faulty, _ []string, _ *VerifyOptions) {
			delete(b.m.objects, b.Layout.Manifest(0))
		}, false},
		"gone on": {func(b *builder, _ *faulty, _ []string, opts *VerifyOptions) {
			since := b.head
			opts.Since = &since
			b.segment(3)
		}, false},
	} {
		b, f, keys := four(t)
		opts := VerifyOptions{Now: b.at}
		test.change(b, f, keys, &opts)
		severity, code, text := expect(t, b.Log, opts, kept(t, chain.Sum([]byte("of another log")).String()))
		if test.certain && (severity != Tampered || code != HeadNotFound) || !test.certain && (severity != Unchecked || code != Unreadable) {
			t.Errorf("%s: %s %s: %s", name, severity, code, text)
		}
	}
}

// TestOlderHead: what lies before the head that is gone on from is not read again, and neither found nor missed.
func TestOlderHead(t *testing.T) {
	b := build(t, "audit.example.com/older")
	empty := kept(t, b.head.Checkpoint)
	b.segment(3)
	first, hash := kept(t, b.head.Checkpoint), kept(t, b.head.Entry.String())
	b.segment(3)
	since := verify(t, b.Log, VerifyOptions{Now: b.at}).Proven
	b.segment(3)
	for _, test := range []struct {
		head KeptHead
		want string
	}{{empty, "at manifest 0, 0 entries"}, {first, "at manifest 1, 3 entries"}, {hash, "at manifest 1, 3 entries"}} {
		if _, _, text := expect(t, b.Log, VerifyOptions{Now: b.at}, test.head); text != test.want {
			t.Errorf("%s, want %s", text, test.want)
		}
		if severity, code, text := expect(t, b.Log, VerifyOptions{Now: b.at, Since: since}, test.head); severity != Unchecked || code != Unreadable {
			t.Errorf("%s, gone on: %s %s: %s", test.want, severity, code, text)
		}
	}
	if _, _, text := expect(t, b.Log, VerifyOptions{Now: b.at, Since: since}, b.kept(t)); text != "at manifest 3, 9 entries" {
		t.Error(text)
	}
}

// TestHeadAndGap: a head that may have been where manifests are missing is neither found nor missed; others are.
func TestHeadAndGap(t *testing.T) {
	other := chain.Sum([]byte("another root"))
	size := func(n uint64) KeptHead { return KeptHead{Name: "kept", Size: n, Root: &other} }
	for _, test := range []struct {
		name    string
		gone    []uint64
		expired bool
		head    func(heads []KeptHead) KeptHead // after each manifest: of 0, 0, 5, 10 and 15 entries

		severity Severity
		code     Code
		text     string // if it is found
	}{
		{"before a gap", []uint64{3}, false, func(heads []KeptHead) KeptHead { return heads[2] }, "", "", "at manifest 2, 5 entries"},
		{"in a gap", []uint64{3}, false, func(heads []KeptHead) KeptHead { return heads[3] }, Unchecked, Unreadable, ""},
		{"behind a gap", []uint64{2}, false, func(heads []KeptHead) KeptHead { return heads[3] }, "", "", "at manifest 3, 10 entries"},
		{"behind a gap, another", []uint64{2}, false, func([]KeptHead) KeptHead { return size(15) }, Tampered, HeadNotFound, ""},
		{"right behind a gap, another", []uint64{2}, false, func([]KeptHead) KeptHead { return size(10) }, Tampered, HeadNotFound, ""},
		{"cut off behind a gap", []uint64{2, 4}, false, func(heads []KeptHead) KeptHead { return heads[4] }, Tampered, RolledBack, ""},
		{"of no entries, in a gap", []uint64{0}, false, func(heads []KeptHead) KeptHead { return heads[0] }, Unchecked, Unreadable, ""},

		{"in an expired beginning", []uint64{0, 1, 2}, true, func(heads []KeptHead) KeptHead { return heads[2] }, Unchecked, Unreadable, ""},
		{"in an expired beginning, any", []uint64{0, 1, 2}, true, func([]KeptHead) KeptHead { return size(3) }, Unchecked, Unreadable, ""},
		{"of no entries, in an expired beginning", []uint64{0}, true, func(heads []KeptHead) KeptHead { return heads[0] }, Unchecked, Unreadable, ""},
		{"behind an expired beginning", []uint64{0, 1, 2}, true, func(heads []KeptHead) KeptHead { return heads[4] }, "", "", "at manifest 4, 15 entries"},
		{"behind an expired beginning, another", []uint64{0, 1, 2}, true, func([]KeptHead) KeptHead { return size(15) }, Tampered, HeadNotFound, ""},
		{"cut off behind an expired beginning", []uint64{0, 1, 4}, true, func(heads []KeptHead) KeptHead { return heads[4] }, Tampered, RolledBack, ""},
	} {
		b := build(t, "audit.example.com/gap")
		heads := []KeptHead{b.kept(t)}
		b.heartbeat(func(*chain.Manifest) {})
		heads = append(heads, b.kept(t))
		for range 3 {
			b.segment(5)
			heads = append(heads, b.kept(t))
		}
		opts := VerifyOptions{Now: b.at}
		if test.expired {
			opts.Now = b.at.AddDate(9, 0, 0)
		}
		for _, n := range test.gone {
			delete(b.m.objects, b.Layout.Manifest(n))
		}
		severity, code, text := expect(t, b.Log, opts, test.head(heads))
		if severity != test.severity || code != test.code || severity == "" && text != test.text {
			t.Errorf("%s: %s %s: %s", test.name, severity, code, text)
		}
		if r := verify(t, b.Log, opts); test.expired != (r.Verdict == "intact") {
			t.Errorf("%s, without a head: %+v", test.name, r)
		}
	}
}

// TestHeadInterrupted: what was not reached is not missed.
func TestHeadInterrupted(t *testing.T) {
	b, _, _ := four(t)
	k := b.kept(t)
	ctx, cancel := context.WithCancel(t.Context())
	b.m.before = func(string) { cancel() }
	r, err := b.Verify(ctx, VerifyOptions{Now: b.at, Expect: []KeptHead{k}})
	if err != nil || r.Verdict != "unchecked" || !says(found(r, Unchecked, Unreadable), "kept: it was not met before this verification was interrupted") {
		t.Errorf("%+v, %v", r, err)
	}
}
