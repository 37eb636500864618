package query

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// TestPolicy: the genesis promises seven years of COMPLIANCE, and no manifest may promise less than the one before it.
func TestPolicy(t *testing.T) {
	for _, test := range []struct {
		name string
		mode string
		keep [2]int // years and months
		text string // "": it is as it should be
	}{
		{"as before", storage.Compliance, [2]int{8, 0}, ""},
		{"longer", storage.Compliance, [2]int{9, 0}, ""},
		{"weaker", storage.Governance, [2]int{8, 0}, "were to be locked GOVERNANCE; the genesis promised COMPLIANCE"},
		{"not at all", lockNone, [2]int{8, 0}, "were to be locked NONE; the genesis promised COMPLIANCE"},
		{"shorter than promised", storage.Compliance, [2]int{6, 11}, "were to be kept until 2033-10-23T07:25:00Z; the genesis promised 7y, until 2033-11-23T07:25:00Z"},
		{"going back", storage.Compliance, [2]int{7, 11}, "were to be kept until 2034-10-23T07:25:00Z, less long than what comes before it, until 2034-11-23T07:25:00Z"},
	} {
		b := build(t, "audit.example.com/policy")
		b.heartbeat(func(m *chain.Manifest) {
			m.Lock = chain.Lock{Mode: test.mode, RetainUntil: chain.Time{Time: b.at.AddDate(test.keep[0], test.keep[1], 0)}}
		})
		r := verify(t, b.Log, VerifyOptions{Now: b.at})
		texts := found(r, Tampered, BelowPolicy)
		if test.text == "" && (r.Verdict != "intact" || r.Proven == nil) || test.text != "" && (len(texts) != 1 || !strings.HasSuffix(texts[0], test.text) || r.Proven != nil) {
			t.Errorf("%s: %+v", test.name, r)
		}
	}
	// What goes back goes back from the longest, not only from the last.
	b := build(t, "audit.example.com/policy")
	for _, months := range []int{6, 0, 3} {
		b.heartbeat(func(m *chain.Manifest) { m.Lock.RetainUntil.Time = b.at.AddDate(8, months, 0) })
	}
	if texts := found(verify(t, b.Log, VerifyOptions{Now: b.at}), Tampered, BelowPolicy); len(texts) != 2 || !says(texts, "manifest 2 ") || !says(texts, "manifest 3 ") {
		t.Errorf("%q", texts)
	}
}

const (
	noPolicy = "what the chain promised when it began"
	noNotes  = "signatures of the checkpoints"
)

// TestSinceGenesis: the genesis says whose the chain is that is gone on with.
func TestSinceGenesis(t *testing.T) {
	for _, test := range []struct {
		name     string
		change   func(versions []version) []version
		severity Severity
		code     Code
	}{
		{"gone", func([]version) []version { return nil }, Unchecked, ManifestMissing},
		{"forged", func(v []version) []version { v[0].data[900] ^= 1; return v }, Tampered, ManifestForged},
	} {
		b := build(t, "audit.example.com/since")
		b.segment(3)
		since := verify(t, b.Log, VerifyOptions{Now: b.at}).Proven
		b.segment(3)
		key := b.Layout.Manifest(0)
		b.m.objects[key] = test.change(b.m.objects[key])
		r := verify(t, b.Log, VerifyOptions{Now: b.at, Since: since})
		if r.Verdict != string(test.severity) || len(r.Findings) != 1 || len(found(r, test.severity, test.code)) != 1 || r.Proven != nil || !says(r.NotChecked, noPolicy) {
			t.Errorf("%s: %+v", test.name, r)
		}
		r = verify(t, b.Log, VerifyOptions{Now: b.at})
		if r.Verdict != "tampered" || !says(r.NotChecked, noPolicy) || !says(r.NotChecked, noNotes) {
			t.Errorf("%s, without a head: %+v", test.name, r)
		}
	}
	b := build(t, "audit.example.com/since")
	since := verify(t, b.Log, VerifyOptions{Now: b.at}).Proven
	if r := verify(t, b.Log, VerifyOptions{Now: b.at}); says(r.NotChecked, noPolicy) || says(r.NotChecked, noNotes) {
		t.Errorf("%q", r.NotChecked)
	}
	// What it promised holds for what comes after the head, and so does what came before the head.
	b.heartbeat(func(m *chain.Manifest) { m.Lock.Mode = storage.Governance })
	b.heartbeat(func(m *chain.Manifest) { m.Lock.RetainUntil.Time = b.at.AddDate(7, 6, 0) })
	if texts := found(verify(t, b.Log, VerifyOptions{Now: b.at, Since: since}), Tampered, BelowPolicy); len(texts) != 2 || !says(texts, "manifest 1 ") || !says(texts, "manifest 2 ") {
		t.Errorf("%q", texts)
	}
	since.Chain = "audit.example.com/other"
	if _, err := b.Verify(t.Context(), VerifyOptions{Now: b.at, Since: since}); err == nil || !strings.Contains(err.Error(), "is of chain audit.example.com/other") {
		t.Error(err)
	}
}

// TestProven: only from where all was read and nothing was wrong can a verification be gone on from.
func TestProven(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(b *builder, first string, opts *VerifyOptions)
		verdict string
		proven  uint64 // manifests; 0: none is
	}{
		{"all", func(*builder, string, *VerifyOptions) {}, "intact", 3},
		{"a sample", func(_ *builder, _ string, opts *VerifyOptions) { opts.Sample = 2 }, "intact", 0},
		{"a range", func(_ *builder, _ string, opts *VerifyOptions) { opts.Range.NextSeq = 100 }, "intact", 0},
		{"a head without a checkpoint key", func(b *builder, _ string, opts *VerifyOptions) {
			since := b.head
			since.CheckpointKey = ""
			opts.Since = &since
			b.heartbeat(func(*chain.Manifest) {})
		}, "intact", 0},
		{"a segment changed", func(b *builder, first string, _ *VerifyOptions) { b.m.objects[first][0].data[10] ^= 1 }, "tampered", 0},
		{"a lock that may not be asked for", func(b *builder, first string, _ *VerifyOptions) {
			b.m.objects[first][0].info.LockMode = lockUnknown
		}, "unchecked", 0},
		{"a segment expired", func(b *builder, first string, opts *VerifyOptions) {
			delete(b.m.objects, first)
			opts.Now = b.at.AddDate(8, 0, 1)
		}, "intact", 3},
		{"a segment gone too early", func(b *builder, first string, opts *VerifyOptions) {
			delete(b.m.objects, first)
			opts.Now = b.at.AddDate(8, 0, -1)
		}, "tampered", 0},
		{"the beginning expired, a rotation after it", func(b *builder, first string, opts *VerifyOptions) {
			b.rotate(key(t))
			for n := range uint64(2) {
				delete(b.m.objects, b.Layout.Manifest(n))
			}
			opts.Now = b.at.AddDate(8, 0, 1)
		}, "intact", 0},
	} {
		b := build(t, "audit.example.com/proven")
		first := b.segment(3)
		b.segment(3)
		opts := VerifyOptions{Now: b.at}
		test.change(b, first, &opts)
		r := verify(t, b.Log, opts)
		if r.Verdict != test.verdict || (r.Proven != nil) != (test.proven > 0) || r.Proven != nil && r.Proven.NextN != test.proven {
			t.Errorf("%s: %+v", test.name, r)
		}
	}
}

// TestFarManifest: whoever may write can put anything far behind the last manifest. Only what may be one shows that others are missing.
func TestFarManifest(t *testing.T) {
	for _, test := range []struct {
		name string
		data func(b *builder) []byte
		gap  bool
	}{
		{"junk", func(*builder) []byte { return []byte("junk") }, false},
		{"longer than a manifest may be", func(*builder) []byte { return make([]byte, chain.MaxManifest+1) }, false},
		{"a copy of another number", func(b *builder) []byte { return b.m.objects[b.Layout.Manifest(1)][0].data }, false},
		{"another chain's", func(b *builder) []byte { return far(b, b.k, "audit.example.com/other") }, false},
		{"the chain's, by its own word", func(b *builder) []byte { return far(b, key(b.TB), b.Layout.Chain) }, true},
		{"the chain's", func(b *builder) []byte { return far(b, b.k, b.Layout.Chain) }, true},
	} {
		b := build(t, "audit.example.com/far")
		b.segment(3)
		b.m.put(b.Layout.Manifest(999), "m", test.data(b), b.at.AddDate(9, 0, 0))
		r := verify(t, b.Log, VerifyOptions{Now: b.at})
		if texts := found(r, Tampered, ManifestMissing); r.Verdict != "tampered" || test.gap != says(texts, "manifests 2 to 998 are not there") || len(texts) > 1 {
			t.Errorf("%s: %+v", test.name, r.Findings)
		}
	}
}

// far makes a heartbeat of number 999.
func far(b *builder, k *chain.SigningKey, name string) []byte {
	head := b.head
	head.Chain, head.NextN = name, 999
	m, err := head.Next(chain.KindHeartbeat, &head, k)
	if err != nil {
		b.Fatal(err)
	}
	m.SealedAt, m.Lock = chain.Time{Time: b.at}, chain.Lock{Mode: storage.Compliance, RetainUntil: chain.Time{Time: b.at.AddDate(8, 0, 0)}}
	data, _, err := m.Sign(k)
	if err != nil {
		b.Fatal(err)
	}
	return data
}

// TestTimesOverGap: what is said of a time says between which manifests that count, and nothing is said of those that are missing.
func TestTimesOverGap(t *testing.T) {
	for _, test := range []struct {
		name  string
		later time.Duration // between manifests 2 and 3
		gone  bool          // manifest 2
		code  Code
		text  string // of the one finding of that code; "": there is none
	}{
		{"silence", 30 * time.Hour, false, Silence, "between manifests 2 and 3 nothing was written for 30h0m0s"},
		{"silence over a gap", 30 * time.Hour, true, Silence, ""},
		{"the clock set back", -time.Hour, false, ClockSetBack, "1h0m0s before manifest 2"},
		{"the clock set back over a gap", -time.Hour, true, ClockSetBack, "1h0m0s before manifest 1"},
	} {
		b := build(t, "audit.example.com/times")
		b.segment(3)
		b.segment(3)
		b.at = b.at.Add(test.later)
		b.segment(3)
		if test.gone {
			delete(b.m.objects, b.Layout.Manifest(2))
		}
		r := verify(t, b.Log, VerifyOptions{Now: b.at})
		if texts := found(r, Warning, test.code); test.text == "" && len(texts) > 0 || test.text != "" && (len(texts) != 1 || !says(texts, test.text)) {
			t.Errorf("%s: %+v", test.name, r.Findings)
		}
	}
}

func TestClockSkew(t *testing.T) {
	b := build(t, "audit.example.com/skew")
	for _, skew := range []int64{math.MinInt64, -60_001, -60_000, 60_000, 60_001, math.MaxInt64} {
		b.heartbeat(func(m *chain.Manifest) { m.ClockSkew = &skew })
	}
	texts := found(verify(t, b.Log, VerifyOptions{Now: b.at}), Warning, ClockSkew)
	for i, want := range []string{"manifest 1: the store's clock was -", "manifest 2: the store's clock was -1m0.001s", "manifest 5: the store's clock was 1m0.001s", "manifest 6: the store's clock was 3"} {
		if len(texts) != 4 || !strings.HasPrefix(texts[i], want) {
			t.Fatalf("%q, want %s", texts, want)
		}
	}
}

// TestDeleteMarkers: what may be deleted may have a delete marker, if it came then.
func TestDeleteMarkers(t *testing.T) {
	for _, test := range []struct {
		name          string
		laid, now     int // days after the retention ended
		verdict, text string
		code          Code
		severity      Severity
	}{
		{"laid before it ended", -1, -1, "tampered", "a delete marker was laid over the segment of entries 0 to 2", DeleteMarker, Tampered},
		{"laid before it ended, seen after", -1, 2, "tampered", "a delete marker was laid over the segment of entries 0 to 2", DeleteMarker, Tampered},
		{"laid after it ended", 1, 2, "intact", "the segment of entries 0 to 2 was deleted on 2034-11-24T07:25:00Z; its retention ended on", Expired, Notice},
		{"laid in the future", 1, -1, "tampered", "a delete marker was laid over the segment of entries 0 to 2", DeleteMarker, Tampered},
	} {
		b := build(t, "audit.example.com/marker")
		key := b.segment(3)
		end := b.at.AddDate(8, 0, 0)
		b.m.objects[key] = append(b.m.objects[key], version{info: storage.Info{Key: key, Version: "d", DeleteMarker: true, LastModified: end.AddDate(0, 0, test.laid)}})
		r := verify(t, b.Log, VerifyOptions{Now: end.AddDate(0, 0, test.now)})
		if texts := found(r, test.severity, test.code); r.Verdict != test.verdict || len(texts) != 1 || !strings.HasPrefix(texts[0], test.text) {
			t.Errorf("%s: %+v", test.name, r)
		}
	}
}

// TestCheckpointKeyOverGap: the checkpoint key holds on over a gap where no rotation can be in it.
func TestCheckpointKeyOverGap(t *testing.T) {
	for name, rotated := range map[string]bool{"no rotation": false, "to another key and back": true} {
		b := build(t, "audit.example.com/gap")
		if first := *b.k; rotated {
			b.rotate(key(t))
			b.rotate(&first)
		} else {
			b.heartbeat(func(*chain.Manifest) {})
			b.heartbeat(func(*chain.Manifest) {})
		}
		b.segment(3)
		delete(b.m.objects, b.Layout.Manifest(1))
		delete(b.m.objects, b.Layout.Manifest(2))
		if r := verify(t, b.Log, VerifyOptions{Now: b.at}); len(r.Findings) != 1 || r.Findings[0].Code != ManifestMissing || r.Segments != 1 || says(r.NotChecked, noNotes) != rotated {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
