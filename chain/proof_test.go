package chain

import (
	"errors"
	mathrand "math/rand/v2"
	"strings"
	"testing"
)

// growing is a log of entry hashes in segments of random lengths.
type growing struct {
	entries []Hash
	trees   []Tree   // by size
	ends    []uint64 // of the segments
}

func newGrowing(rng *mathrand.Rand, size, longest int) *growing {
	g := &growing{trees: make([]Tree, 1)}
	for len(g.entries) < size {
		for range min(1+rng.IntN(longest), size-len(g.entries)) {
			g.entries = append(g.entries, Sum([]byte{byte(len(g.entries)), byte(len(g.entries) >> 8)}))
			t := g.trees[len(g.trees)-1]
			t.Append(g.entries[len(g.entries)-1])
			g.trees = append(g.trees, t)
		}
		g.ends = append(g.ends, uint64(len(g.entries)))
	}
	return g
}

// load takes in the segment that holds the entry.
func (g *growing) load(s *Subtrees, seq uint64) {
	first := uint64(0)
	for _, end := range g.ends {
		if seq < end {
			s.AddEntries(first, g.entries[first:end])
			s.AddTree(&g.trees[first])
			s.AddTree(&g.trees[end])
			return
		}
		first = end
	}
}

// prove calls make until nothing is unknown, and returns how many segments it needed.
func (g *growing) prove(t *testing.T, s *Subtrees, make func() ([]Hash, error)) (hashes []Hash, segments int) {
	t.Helper()
	for {
		hashes, err := make()
		var unknown *UnknownEntryError
		if !errors.As(err, &unknown) {
			if err != nil {
				t.Fatal(err)
			}
			return hashes, segments
		}
		g.load(s, unknown.Seq)
		if segments++; segments > len(g.ends) {
			t.Fatal("the same segment is asked for again and again")
		}
	}
}

func (g *growing) checkpoint(t *testing.T, k *SigningKey, size uint64) Checkpoint {
	return Checkpoint{"audit.example.com/growing", size, g.trees[size].Root()}
}

// TestProofs proves every entry in every head of small logs, and every head from every earlier one, by what a reader of
// manifests and segments has; each proof holds, and none does for another entry, head or order.
func TestProofs(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(5, 6))
	k, _ := vectorKey(t)
	vkey, err := k.CheckpointKey("audit.example.com/growing")
	if err != nil {
		t.Fatal(err)
	}
	sizes := []int{1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 40}
	for _, size := range sizes {
		g := newGrowing(rng, size, 1+size/3)
		signed := make(map[uint64]string)
		for _, end := range g.ends {
			if signed[end], err = k.SignCheckpoint(g.checkpoint(t, k, end)); err != nil {
				t.Fatal(err)
			}
		}
		for _, end := range g.ends {
			for index := range end {
				var s Subtrees
				s.AddTree(&g.trees[end])
				hashes, _ := g.prove(t, &s, func() ([]Hash, error) { return s.Inclusion(index, end) })
				p, err := ParseInclusionProof(InclusionProof{index, hashes, signed[end]}.String())
				if err != nil {
					t.Fatal(err)
				}
				if c, err := p.Verify(g.entries[index], vkey); err != nil || c.Size != end {
					t.Fatalf("entry %d in %d: %v", index, end, err)
				}
				if _, err := p.Verify(g.entries[(index+1)%end], vkey); err == nil && end > 1 {
					t.Fatalf("entry %d in %d: another entry is proven", index, end)
				}
				if len(p.Hashes) > 0 {
					p.Hashes[rng.IntN(len(p.Hashes))][3] ^= 1
					if _, err := p.Verify(g.entries[index], vkey); err == nil {
						t.Fatalf("entry %d in %d: a changed proof holds", index, end)
					}
				}
			}
			for _, old := range append([]uint64{0}, g.ends...) {
				var s Subtrees
				s.AddTree(&g.trees[end])
				s.AddTree(&g.trees[old])
				if old > end {
					if _, err := s.Consistency(old, end); err == nil {
						t.Fatalf("%d is proven to come before %d", old, end)
					}
					continue
				}
				hashes, _ := g.prove(t, &s, func() ([]Hash, error) { return s.Consistency(old, end) })
				p, err := ParseConsistencyProof(ConsistencyProof{old, hashes, signed[end]}.String())
				if err != nil {
					t.Fatal(err)
				}
				before := g.checkpoint(t, k, old)
				if _, err := p.Verify(before, vkey); err != nil {
					t.Fatalf("from %d to %d: %v", old, end, err)
				}
				before.Root[5] ^= 1
				if _, err := p.Verify(before, vkey); err == nil {
					t.Fatalf("from %d to %d: another history is proven", old, end)
				}
			}
		}
	}
}

// TestFewSegmentsForAProof: a proof of an old entry in a late head needs few segments, a proof within a segment's own manifest that one.
func TestFewSegmentsForAProof(t *testing.T) {
	g := newGrowing(mathrand.New(mathrand.NewPCG(7, 8)), 20_000, 40) // about 1000 segments
	last := uint64(len(g.entries))
	most := 0
	for index := uint64(0); index < last; index += 997 {
		var own Subtrees
		end := g.ends[0]
		for _, e := range g.ends {
			if end = e; index < e {
				break
			}
		}
		own.AddTree(&g.trees[end])
		if _, n := g.prove(t, &own, func() ([]Hash, error) { return own.Inclusion(index, end) }); n > 1 {
			t.Errorf("entry %d needs %d segments in its own manifest's tree", index, n)
		}
		var s Subtrees
		s.AddTree(&g.trees[last])
		_, n := g.prove(t, &s, func() ([]Hash, error) { return s.Inclusion(index, last) })
		most = max(most, n)
	}
	if most > 15 {
		t.Errorf("a proof needed %d of %d segments", most, len(g.ends))
	}
	t.Logf("at most %d of %d segments", most, len(g.ends))
}

func TestBadProofTexts(t *testing.T) {
	files := rotated(t)
	inclusion, consistency := string(files["entry-4.tlog-proof"]), string(files["consistency-3-11.proof"])
	if p, err := ParseInclusionProof(inclusion); err != nil || p.String() != inclusion {
		t.Fatal(err)
	}
	if p, err := ParseInclusionProof(strings.Replace(inclusion, "\nindex", "\nextra AAAA\nindex", 1)); err != nil || p.String() != inclusion {
		t.Errorf("a proof with extra data: %v", err)
	}
	if p, err := ParseConsistencyProof(consistency); err != nil || p.String() != consistency {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing": "", "another version": strings.Replace(inclusion, "@v1", "@v2", 1), "leading zero": strings.Replace(inclusion, "index 4", "index 04", 1),
		"sign": strings.Replace(inclusion, "index 4", "index +4", 1), "no checkpoint": inclusion[:strings.Index(inclusion, "\n\n")+1],
		"short hash": strings.Replace(inclusion, "\nindex 4\n", "\nindex 4\nAAAA\n", 1), "not a proof": consistency,
		"carriage return": strings.Replace(inclusion, "=\n", "=\r\n", 1), "stray bits": strings.Replace(inclusion, "=\n", "=\n"+strings.Repeat("A", 42)+"B=\n", 1),
		"too many": strings.Replace(inclusion, "\nindex 4\n", "\nindex 4\n"+strings.Repeat(strings.Repeat("A", 43)+"=\n", 65), 1),
		"too long": inclusion + strings.Repeat("x", MaxProofText),
	} {
		if _, err := ParseInclusionProof(text); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	if _, err := ParseConsistencyProof(inclusion); err == nil {
		t.Error("an inclusion proof was taken for a consistency proof")
	}
}

func FuzzProofs(f *testing.F) {
	files := rotated(f)
	f.Add(string(files["entry-4.tlog-proof"]))
	f.Add(string(files["consistency-3-11.proof"]))
	f.Add("c2sp.org/tlog-proof@v1\nextra \nindex 0\n\n")
	k, _ := vectorKeyOf(f, 3)
	vkey, err := k.CheckpointKey("audit.example.com/rotated")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := ParseInclusionProof(text); err == nil {
			if again, err := ParseInclusionProof(p.String()); err != nil || again.String() != p.String() {
				t.Errorf("%q is read as %q: %v", p.String(), again.String(), err)
			}
			_, _ = p.Verify(Hash{}, vkey)
		}
		if p, err := ParseConsistencyProof(text); err == nil {
			if p.String() != text {
				t.Errorf("%q becomes %q", text, p.String())
			}
			_, _ = p.Verify(Checkpoint{}, vkey)
		}
	})
}

// TestRotation: the chain goes over to a key that the one before it announced, and to no other.
func TestRotation(t *testing.T) {
	k1, _ := vectorKeyOf(t, 1)
	k2, _ := vectorKeyOf(t, 2)
	k3, _ := vectorKeyOf(t, 3)
	prepare := func() *vectorLog {
		v := newVectorLog(t, "audit.example.com/rotation")
		v.segment(time1, []string{`"event":"x","detail":{}}`})
		return v
	}
	manifest := func(v *vectorLog, kind Kind, k *SigningKey, fill func(*Manifest)) []byte {
		m, err := v.head.Next(kind, &v.head, k)
		if err != nil {
			t.Fatal(err)
		}
		m.SealedAt, m.Lock = Time{v.start.Add(time1)}, Lock{"COMPLIANCE", Time{v.start.AddDate(7, 0, 0)}}
		if fill != nil {
			fill(m)
		}
		data, _, err := m.Sign(k)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	to := func(v *vectorLog, k *SigningKey) func(*Manifest) {
		return func(m *Manifest) { m.Rotation = &NewKeys{string(k.Public().PEM()), v.checkpointKey(k)} }
	}
	tests := []struct {
		name string
		next func(v *vectorLog) []byte
		want string // "": it is followed
	}{
		{"announced", func(v *vectorLog) []byte { return manifest(v, KindRotation, k1, to(v, k2)) }, ""},
		{"announced by itself", func(v *vectorLog) []byte { return manifest(v, KindRotation, k2, to(v, k2)) }, "signature does not verify"},
		{"never announced", func(v *vectorLog) []byte { return manifest(v, KindHeartbeat, k2, nil) }, "signature does not verify"},
		{"old key afterwards", func(v *vectorLog) []byte { v.rotate(time1, 2); return manifest(v, KindHeartbeat, k1, nil) }, "signature does not verify"},
		{"old key announces afterwards", func(v *vectorLog) []byte { v.rotate(time1, 2); return manifest(v, KindRotation, k1, to(v, k3)) }, "signature does not verify"},
		{"old checkpoint key afterwards", func(v *vectorLog) []byte {
			v.rotate(time1, 2)
			return manifest(v, KindHeartbeat, k2, func(m *Manifest) {
				m.Checkpoint, _ = k1.SignCheckpoint(Checkpoint{m.Chain, m.NextSeq, v.head.Tree.Root()})
			})
		}, "manifest 3: checkpoint: note has no verifiable signatures"},
		{"new key afterwards", func(v *vectorLog) []byte { v.rotate(time1, 2); return manifest(v, KindHeartbeat, k2, nil) }, ""},
		{"the same key", func(v *vectorLog) []byte { return manifest(v, KindRotation, k1, to(v, k1)) }, "manifest 2 announces a key that the chain has already"},
		{"the same checkpoint key", func(v *vectorLog) []byte {
			return manifest(v, KindRotation, k1, func(m *Manifest) { m.Rotation = &NewKeys{string(k2.Public().PEM()), v.checkpointKey(k1)} })
		}, "manifest 2 announces a key that the chain has already"},
		{"another chain's checkpoint key", func(v *vectorLog) []byte {
			vkey, _ := k2.CheckpointKey("audit.example.com/other")
			return manifest(v, KindRotation, k1, func(m *Manifest) { m.Rotation = &NewKeys{string(k2.Public().PEM()), vkey} })
		}, `manifest 2: checkpoint key has the name "audit.example.com/other", not the chain's`},
		{"no key", func(v *vectorLog) []byte {
			return manifest(v, KindRotation, k1, func(m *Manifest) { m.Rotation = &NewKeys{"none", v.checkpointKey(k2)} })
		}, "manifest 2: manifest_key: no PEM block in it"},
		{"wrong key_since", func(v *vectorLog) []byte {
			v.rotate(time1, 2)
			return manifest(v, KindHeartbeat, k2, func(m *Manifest) { m.KeySince = 1 })
		}, "manifest 3 says that its key came with manifest 1, but 2 announced it"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := prepare()
			data := test.next(v)
			before := v.head
			_, err := v.head.Follow(data)
			if test.want == "" {
				if err != nil || v.head.NextN != before.NextN+1 {
					t.Error(err)
				}
				return
			}
			if err == nil || err.Error() != test.want {
				t.Errorf("it says %q, want %q", err, test.want)
			}
			if v.head.NextN != before.NextN || !v.head.Key.Equal(before.Key) || v.head.CheckpointKey != before.CheckpointKey {
				t.Error("the head has moved")
			}
		})
	}
	for name, m := range map[string]*Manifest{
		"rotation without keys": {Kind: KindRotation, N: 1, FirstSeq: 1}, "keys in a heartbeat": {Kind: KindHeartbeat, N: 1, Rotation: &NewKeys{}},
		"key from later": {Kind: KindHeartbeat, N: 1, KeySince: 1},
	} {
		m.Format, m.Chain = 1, "c"
		m.PreviousManifest, m.PreviousHead, m.Head = new(Hash), new(Hash), new(Hash)
		m.FirstSeq, m.NextSeq = 0, 0
		if err := m.check(); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
}

const time1 = 60e9

// TestGenesisOfAnotherKey: a head with a key takes no other key's genesis.
func TestGenesisOfAnotherKey(t *testing.T) {
	files := rotated(t)
	other, _ := vectorKeyOf(t, 2)
	k, _ := vectorKey(t)
	m, payload, err := OpenManifest(files["manifests/000000000000.sigstore.json"], k.Public())
	if err != nil {
		t.Fatal(err)
	}
	head := Head{Key: other.Public()}
	if err := head.Advance(m, payload); !errors.Is(err, ErrOtherKey) {
		t.Error(err)
	}
}
