package query

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
)

// TestManifestTooLong: what is longer than any manifest may be is no manifest, and that is certain.
func TestManifestTooLong(t *testing.T) {
	l, m := vectors(t)
	m.put(l.Layout.Manifest(4), "m", make([]byte, chain.MaxManifest+1), now)
	r, err := l.Verify(t.Context(), VerifyOptions{Now: now})
	if err != nil || r.Verdict != "tampered" || len(r.Findings) != 2 || r.Findings[0].Code != ManifestForged || !strings.HasSuffix(r.Findings[0].Text, "too long: it has more than the 16777216 bytes allowed") {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestCutOffWithoutEntries: manifests 2 and 3, a rotation and a heartbeat, hold no entries, and the tree is the same without them.
func TestCutOffWithoutEntries(t *testing.T) {
	l, m := load(t, "rotated")
	for _, n := range []uint64{4, 5, 6} {
		delete(m.objects, l.Layout.Manifest(n))
	}
	r, err := l.Verify(t.Context(), VerifyOptions{Now: soon})
	if err != nil || r.Proven == nil {
		t.Fatalf("%+v, %v", r, err)
	}
	head, err := r.Proven.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	kept := map[string][]byte{"head": head, "manifest": m.objects[l.Layout.Manifest(3)][0].data}
	for name, data := range kept {
		k, _, err := ParseKeptHead(name, data)
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Verify(t.Context(), VerifyOptions{Now: soon, Expect: []KeptHead{k}})
		if err != nil || r.Verdict != "intact" || len(r.Found) != 1 || !strings.Contains(r.Found[0], "at manifest 3, 3 entries") {
			t.Errorf("%s, all there: %+v, %v", name, r, err)
		}
	}
	three := m.objects[l.Layout.Manifest(3)]
	delete(m.objects, l.Layout.Manifest(3))
	two := m.objects[l.Layout.Manifest(2)]
	for name, data := range kept {
		k, _, err := ParseKeptHead(name, data)
		if err != nil {
			t.Fatal(err)
		}
		m.objects[l.Layout.Manifest(2)] = two
		r, err := l.Verify(t.Context(), VerifyOptions{Now: soon, Expect: []KeptHead{k}})
		if err != nil || r.Verdict != "tampered" || r.Findings[0].Code != RolledBack || r.Findings[0].Text != fmt.Sprintf("%s: it is of manifest 3, the log ends with manifest 2", name) {
			t.Errorf("%s, the heartbeat cut off: %+v, %v", name, r, err)
		}
		delete(m.objects, l.Layout.Manifest(2))
		if r, err = l.Verify(t.Context(), VerifyOptions{Now: soon, Expect: []KeptHead{k}}); err != nil || r.Verdict != "tampered" || r.Findings[0].Code != RolledBack {
			t.Errorf("%s, the rotation cut off: %+v, %v", name, r, err)
		}
	}
	// A genesis has no entries either.
	genesis, _, err := ParseKeptHead("genesis", m.objects[l.Layout.Manifest(0)][0].data)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := vectors(t)
	if _, err := other.Verify(t.Context(), VerifyOptions{Now: now, Expect: []KeptHead{genesis}}); err == nil || !strings.Contains(err.Error(), "genesis is of chain audit.example.com/rotated") {
		t.Errorf("a head of another chain: %v", err)
	}
	// What lies before the head that is gone on from is not looked for.
	l, _ = load(t, "rotated")
	m.objects[l.Layout.Manifest(2)], m.objects[l.Layout.Manifest(3)] = two, three
	r, err = l.Verify(t.Context(), VerifyOptions{Now: soon, Since: r.Proven, Expect: []KeptHead{genesis}})
	if err != nil || r.Verdict != "unchecked" || len(r.Findings) != 1 || r.Findings[0].Text != "genesis: it lies before the head that this verification goes on from" {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestForked: two manifests in one place are two histories only if both are signed with the chain's key.
func TestForked(t *testing.T) {
	genuine := func(m *memory) []byte { return m.objects[manifest2][0].data }
	for name, test := range map[string]struct {
		tamper func(m *memory)
		text   string
	}{
		"junk below the genuine one": {func(m *memory) {
			data := genuine(m)
			m.objects[manifest2] = nil
			m.put(manifest2, "older", []byte("forged"), now)
			m.put(manifest2, "m", data, now)
		}, "was laid over manifest 2 on 0001-01-01T00:00:00Z; that one is signed with the chain's key"},
		"the genuine one twice": {func(m *memory) { m.put(manifest2, "again", genuine(m), now) }, "was laid over manifest 2 on 0001-01-01T00:00:00Z"},
	} {
		l, m := vectors(t)
		test.tamper(m)
		r, err := l.Verify(t.Context(), VerifyOptions{Now: now})
		if err != nil || r.Verdict != "tampered" {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Code == OverlaidVersion }); i < 0 || !strings.HasSuffix(r.Findings[i].Text, test.text) {
			t.Errorf("%s: %+v", name, r.Findings)
		}
		if slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Code == Forked }) {
			t.Errorf("%s: a fork: %+v", name, r.Findings)
		}
	}
}

// TestFetchAhead: no more bytes are held ahead than one manifest may have, and all manifests come, in their order.
func TestFetchAhead(t *testing.T) {
	for _, test := range []struct {
		size, ahead int64
		manifests   uint64
	}{{1000, parallel, 20}, {chain.MaxManifest / 4, 3, 8}, {1 << 40, 0, 4}} {
		l, m := vectors(t)
		for n := range test.manifests {
			key := l.Layout.Manifest(n)
			delete(m.objects, key)
			m.put(key, "m", []byte("x"), now)
			m.objects[key][0].info.Size = test.size // as the store lists it
		}
		want := uint64(0)
		for manifest, err := range l.manifests(t.Context(), 0, nil) {
			if err != nil || manifest.n != want {
				t.Fatalf("manifest %d, %v; want %d", manifest.n, err, want)
			}
			want++
			ahead := func() int64 { return m.opened.Load() - int64(want) }
			for end := time.Now().Add(10 * time.Second); want == 2 && ahead() < test.ahead && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			// One more may have been let go of, and one is on its way into the queue.
			if n := ahead(); n > test.ahead+2 || want == 2 && n < test.ahead {
				t.Errorf("of %d bytes each, %d are fetched ahead, want %d", test.size, n, test.ahead)
			}
		}
		if want != test.manifests {
			t.Errorf("%d manifests came", want)
		}
	}
}

// TestClockSetBackSince: a segment whose key comes long before the kept head's is looked at all the same.
func TestClockSetBackSince(t *testing.T) {
	b := build(t, "audit.example.com/back")
	b.at = b.at.AddDate(0, 1, 0)
	b.segment(3)
	r, err := b.Verify(t.Context(), VerifyOptions{Now: b.at})
	if err != nil || r.Proven == nil {
		t.Fatalf("%+v, %v", r, err)
	}
	b.at = b.at.AddDate(0, 0, -20)
	key := b.segment(3)
	b.m.put(key, "x", []byte("forged"), now)
	r, err = b.Verify(t.Context(), VerifyOptions{Now: b.at.AddDate(0, 0, 20), Since: r.Proven})
	if err != nil || r.Verdict != "tampered" || r.Findings[0].Code != OverlaidVersion || r.Findings[0].Object != key {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestManyFindings: however many there are, they are counted, and no more than some are kept.
func TestManyFindings(t *testing.T) {
	var f findings
	for range maxFindings + 7 {
		f.add(Finding{Severity: Tampered, Code: LockMissing})
		f.add(Finding{Severity: Notice, Code: Stranger})
	}
	all, omitted := f.sorted()
	if len(all) != maxFindings+maxNotices || omitted[LockMissing] != 7 || omitted[Stranger] != maxFindings+7-maxNotices || !f.bad() {
		t.Errorf("%d are kept, left out are %v", len(all), omitted)
	}
}

// FuzzParseKeptHead: whatever a file holds, it is a head or an error.
func FuzzParseKeptHead(f *testing.F) {
	l, m := load(f, "rotated")
	manifest := m.objects[l.Layout.Manifest(3)][0].data
	f.Add(manifest)
	parsed, err := chain.PeekManifest(manifest)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(parsed.Checkpoint))
	f.Add([]byte(strings.Repeat("0", 64) + "\n"))
	r, err := l.Verify(f.Context(), VerifyOptions{Now: soon})
	if err != nil {
		f.Fatal(err)
	}
	head, err := r.Proven.MarshalJSON()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(head)
	f.Fuzz(func(t *testing.T, data []byte) {
		kept, head, err := ParseKeptHead("file", data)
		if err != nil {
			return
		}
		if kept.Hash == nil && kept.Root == nil {
			t.Error("a head of nothing")
		}
		kept.matches(&chain.Head{})
		if head != nil && !kept.matches(head) {
			t.Error("a head that does not match itself")
		}
	})
}
