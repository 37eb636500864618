package query

import (
	"slices"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/chain"
)

// TestManifestGone: where a manifest is missing a record may have been, and nobody may say that there is none.
func TestManifestGone(t *testing.T) {
	for _, test := range []struct {
		gone    []uint64
		problem string
	}{
		{[]uint64{2}, "manifest 2 is not there"},
		{[]uint64{1, 2}, "manifests 1 to 2 are not there"},
		{[]uint64{0}, "manifest 0 is not there"},
	} {
		b := build(t, "audit.example.com/gone")
		for range 3 {
			b.segment(3)
		}
		for _, n := range test.gone {
			delete(b.m.objects, b.Layout.Manifest(n))
		}
		result, err := b.Find(t.Context(), "req-4", nil)
		if err != nil || !slices.Equal(result.Problems, []string{test.problem}) {
			t.Errorf("%+v, %v", result, err)
		}
		if err := b.Walk(t.Context(), func(*chain.Entry, []byte) error { return nil }); err == nil || err.Error() != test.problem {
			t.Errorf("walking: %v, want %s", err, test.problem)
		}
	}
}

// TestFindReadsNoOtherChain: a manifest signed with the chain's key counts in its place, and with the key of its place, only.
func TestFindReadsNoOtherChain(t *testing.T) {
	b := build(t, "audit.example.com/find")
	first := *b.k
	b.segment(3)
	b.rotate(key(t))
	b.rotate(&first)
	b.segment(3) // manifest 4, signed with the first key, by its second announcement
	for name, test := range map[string]struct {
		change  func()
		problem string
	}{
		"the key's announcements gone": {func() { delete(b.m.objects, b.Layout.Manifest(2)); delete(b.m.objects, b.Layout.Manifest(3)) },
			"manifest 4 says that its key came with manifest 3, but 0 announced it"},
		"in another place": {func() { b.m.put(b.Layout.Manifest(5), "m", b.m.objects[b.Layout.Manifest(4)][0].data, now) },
			"manifest 5 says that it is number 4 of chain audit.example.com/find"},
	} {
		test.change()
		result, err := b.Find(t.Context(), "req-4", nil)
		if err != nil || !slices.Contains(result.Problems, test.problem) {
			t.Errorf("%s: %q, %v", name, result.Problems, err)
		}
	}
}

// TestSignedBy: a record's manifest is signed with the key of its time.
func TestSignedBy(t *testing.T) {
	l, _ := load(t, "rotated")
	r := verify(t, l, VerifyOptions{Now: soon})
	for id, want := range map[string]chain.Hash{
		"req-0": l.Key.Fingerprint(), "req-5": r.Rotations[0].Fingerprint, "req-10": r.Rotations[1].Fingerprint,
	} {
		result, err := l.Find(t.Context(), id, nil)
		if err != nil || len(result.Matches) != 1 || result.Matches[0].SignedBy != want {
			t.Errorf("%s: %+v, %v; want the key %s", id, result, err, want)
		}
	}
}

// verify verifies l, of which there must be something to say.
func verify(t *testing.T, l *Log, opts VerifyOptions) *Report {
	t.Helper()
	r, err := l.Verify(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// found returns the texts of a report's findings of a kind.
func found(r *Report, severity Severity, code Code) (texts []string) {
	for _, f := range r.Findings {
		if f.Severity == severity && f.Code == code {
			texts = append(texts, f.Text)
		}
	}
	return texts
}

// says reports whether one of the texts contains what.
func says(texts []string, what string) bool {
	return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(text, what) })
}

func key(t testing.TB) *chain.SigningKey {
	text, err := chain.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	k, err := chain.ParseSigningKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// heartbeat commits a manifest without entries.
func (b *builder) heartbeat(fill func(*chain.Manifest)) []byte {
	return b.commit(chain.KindHeartbeat, &b.head, fill)
}

// rotate goes over to another key.
func (b *builder) rotate(k *chain.SigningKey) {
	b.commit(chain.KindRotation, &b.head, func(next *chain.Manifest) {
		vkey, err := k.CheckpointKey(b.Layout.Chain)
		if err != nil {
			b.Fatal(err)
		}
		next.Rotation = &chain.NewKeys{ManifestKey: string(k.Public().PEM()), CheckpointKey: vkey}
	})
	b.k = k
}
