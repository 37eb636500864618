package query

import (
	"strings"
	"testing"

	"github.com/auditchain/auditchain/chain"
)

// TestCompletenessTampered: what is needed and not what was written keeps from saying anything; it never makes a log complete.
func TestCompletenessTampered(t *testing.T) {
	fresh := func(t *testing.T) (*builder, []string) {
		b := build(t, "audit.example.com/tampered")
		return b, []string{
			b.records("07:30:00", reqs(0, 3, "06:10:00")...),
			b.records("08:30:00", append(reqs(4, 9, "08:10:00"), say(0, "start", "05:59:00", 0, ""))...),
			b.records("12:00:00", append(reqs(10, 12, "11:10:00"), stop(1, "11:40:00", 13))...),
		}
	}
	flip := func(b *builder, key string) { b.m.objects[key][0].data[20] ^= 1 }
	for name, test := range map[string]struct {
		change  func(b *builder, segments []string)
		want    string
		problem string
	}{
		"nothing":                    {func(*builder, []string) {}, "met: 6 of 6", ""},
		"a segment of the period":    {func(b *builder, s []string) { flip(b, s[1]) }, "unknown", "segment of manifest 2: it does not verify: "},
		"a segment after it":         {func(b *builder, s []string) { flip(b, s[2]) }, "unknown", "segment of manifest 3: it does not verify: "},
		"a segment that nobody asks": {func(b *builder, s []string) { flip(b, s[0]) }, "met: 6 of 6", ""},
		"a segment gone":             {func(b *builder, s []string) { delete(b.m.objects, s[1]) }, "unknown", "segment of manifest 2: "},
		"a manifest gone":            {func(b *builder, _ []string) { delete(b.m.objects, b.Layout.Manifest(1)) }, "unknown", "manifest 1 is not there"},
		"the genesis gone":           {func(b *builder, _ []string) { delete(b.m.objects, b.Layout.Manifest(0)) }, "unknown", "manifest 0 is not there"},
		"a manifest forged":          {func(b *builder, _ []string) { flip(b, b.Layout.Manifest(3)) }, "unknown", "manifest 3: "},
		"a manifest gone when it is read again": {func(b *builder, s []string) {
			reads := 0
			b.m.before = func(key string) {
				if key == b.Layout.Manifest(2) {
					if reads++; reads == 2 {
						delete(b.m.objects, key)
					}
				}
			}
		}, "unknown", "segment of manifest 2: manifest 2: "},
	} {
		t.Run(name, func(t *testing.T) {
			b, segments := fresh(t)
			test.change(b, segments)
			r := b.complete(nil)
			if !strings.HasPrefix(brief(r), test.want) || (test.problem != "") != (len(r.Problems) > 0) || test.problem != "" && !strings.HasPrefix(r.Problems[0], test.problem) {
				t.Errorf("%s, %q\nwant %s, %s", brief(r), r.Problems, test.want, test.problem)
			}
		})
	}
}

// TestCompletenessExchanged: a segment is read by the manifest that was seen first, not by another one that the key's holder puts there.
func TestCompletenessExchanged(t *testing.T) {
	b := build(t, "audit.example.com/exchanged")
	b.records("08:30:00", append(reqs(0, 3, "08:10:00"), start, stop(1, "08:20:00", 4))...)
	other := build(t, "audit.example.com/exchanged")
	reads := 0
	b.m.before = func(key string) {
		if key == b.Layout.Manifest(1) {
			if reads++; reads == 2 {
				b.m.objects[key][0].data = other.resign(b.k)
			}
		}
	}
	if r := b.complete(nil); r.Verdict != VerdictUnknown || r.Problems[0] != "segment of manifest 1: its manifest is another than a moment ago" {
		t.Errorf("%s, %q", brief(r), r.Problems)
	}
}

// resign makes a manifest 1 signed with k.
func (b *builder) resign(k *chain.SigningKey) []byte {
	b.records("08:31:00", req(0, "08:10:00"))
	m, err := chain.PeekManifest(b.m.objects[b.Layout.Manifest(1)][0].data)
	if err != nil {
		b.Fatal(err)
	}
	data, _, err := m.Sign(k)
	if err != nil {
		b.Fatal(err)
	}
	return data
}
