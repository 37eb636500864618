package query

import (
	"fmt"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/chain"
)

// TestManifestTooLong: what is longer than any manifest may be is no manifest, and that is certain.
func TestManifestTooLong(t *testing.T) {
	l, m := vectors(t)
	m.put(l.Layout.Manifest(4), "m", make([]byte, chain.MaxManifest+1), now)
	r, err := l.Verify(t.Context(), VerifyOptions{Now: now})
	if err != nil || r.Verdict != "tampered" || len(r.Findings) != 1 || r.Findings[0].Code != ManifestForged || !strings.HasSuffix(r.Findings[0].Text, "too long: it has more than the 16777216 bytes allowed") {
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
	// A genesis has no entries either: another one is another log.
	genesis, _, err := ParseKeptHead("genesis", m.objects[l.Layout.Manifest(0)][0].data)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := vectors(t)
	if r, err := other.Verify(t.Context(), VerifyOptions{Now: now, Expect: []KeptHead{genesis}}); err != nil || r.Verdict != "tampered" || r.Findings[0].Code != HeadNotFound {
		t.Errorf("%+v, %v", r, err)
	}
	// What lies before the head that is gone on from is not looked for.
	l, _ = load(t, "rotated")
	m.objects[l.Layout.Manifest(2)], m.objects[l.Layout.Manifest(3)] = two, three
	r, err = l.Verify(t.Context(), VerifyOptions{Now: soon, Since: r.Proven, Expect: []KeptHead{genesis}})
	if err != nil || r.Verdict != "unchecked" || len(r.Findings) != 1 || r.Findings[0].Text != "genesis: it lies before the head that this verification goes on from" {
		t.Errorf("%+v, %v", r, err)
	}
}
