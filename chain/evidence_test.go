package chain

import (
	"bytes"
	"encoding/json"
	mathrand "math/rand/v2"
	"strings"
	"testing"
)

// vectorEvidence is the evidence of the test vectors, and the fingerprint of their first key.
func vectorEvidence(t testing.TB) (*Evidence, Hash) {
	k, _ := vectorKey(t)
	e, err := ParseEvidence(rotated(t)["evidence.json"])
	if err != nil {
		t.Fatal(err)
	}
	return e, k.Public().Fingerprint()
}

func TestEvidence(t *testing.T) {
	e, trusted := vectorEvidence(t)
	r := e.Verify(trusted)
	if !r.OK || len(r.Checks) != 6 || r.Seq != 9 || r.Manifest != 6 || r.TreeSize != 11 || r.Fingerprint != trusted {
		t.Errorf("%+v", r)
	}
	for _, c := range r.Checks {
		if !c.OK {
			t.Errorf("%s: %s", c.Code, c.Text)
		}
	}
}

// TestTamperedEvidence: each change fails the check that is about it.
func TestTamperedEvidence(t *testing.T) {
	forger, _ := vectorKeyOf(t, 9)
	resign := func(data []byte, change func(*Manifest)) []byte {
		m, err := PeekManifest(data)
		if err != nil {
			t.Fatal(err)
		}
		change(m)
		again, _, err := m.Sign(forger)
		if err != nil {
			t.Fatal(err)
		}
		return again
	}
	tests := []struct {
		name   string
		change func(e *Evidence)
		code   string // the first check that fails
	}{
		{"another status", func(e *Evidence) { e.Entry = bytes.Replace(e.Entry, []byte(`"status":200`), []byte(`"status":500`), 1) }, "inclusion"},
		{"a control character", func(e *Evidence) { e.Entry = bytes.Replace(e.Entry, []byte("llama"), []byte("lla\x01a"), 1) }, "entry"},
		{"not UTF-8", func(e *Evidence) { e.Entry = bytes.Replace(e.Entry, []byte("llama"), []byte("lla\xffa"), 1) }, "entry"},
		{"a comma in a time", func(e *Evidence) { e.Entry = bytes.Replace(e.Entry, []byte("01."), []byte("01,"), 1) }, "entry"},
		{"no entry", func(e *Evidence) { e.Entry = []byte("{}") }, "entry"},
		{"another number", func(e *Evidence) { e.Entry = bytes.Replace(e.Entry, []byte(`{"seq":9`), []byte(`{"seq":8`), 1) }, "inclusion"},
		{"another index", func(e *Evidence) { e.Proof = strings.Replace(e.Proof, "index 9", "index 8", 1) }, "inclusion"},
		{"a hash of the proof", func(e *Evidence) {
			e.Proof = strings.Replace(e.Proof, "index 9\n", "index 9\n"+strings.Repeat("A", 43)+"=\n", 1)
		}, "inclusion"},
		{"the checkpoint's size", func(e *Evidence) { e.Proof = strings.Replace(e.Proof, "\n11\n", "\n12\n", 1) }, "checkpoint"},
		{"the checkpoint's signature", func(e *Evidence) { e.Proof = e.Proof[:len(e.Proof)-8] + "AAAAAA=\n" }, "checkpoint"},
		{"the manifest's signature", func(e *Evidence) {
			e.Manifest = resign(e.Manifest, func(*Manifest) {})
		}, "manifest"},
		{"another manifest", func(e *Evidence) { e.Manifest = e.Keys[2] }, "manifest"},
		{"a rotation left out", func(e *Evidence) { e.Keys = append(e.Keys[:1:1], e.Keys[2]) }, "checkpoint"},
		{"the last rotation left out", func(e *Evidence) { e.Keys = e.Keys[:2] }, "checkpoint"},
		{"rotations exchanged", func(e *Evidence) { e.Keys[1], e.Keys[2] = e.Keys[2], e.Keys[1] }, "checkpoint"},
		{"no keys", func(e *Evidence) { e.Keys = nil }, "checkpoint"},
		{"a forged rotation", func(e *Evidence) { e.Keys[2] = resign(e.Keys[2], func(*Manifest) {}) }, "checkpoint"},
		{"another genesis", func(e *Evidence) {
			e.Keys[0] = resign(e.Keys[0], func(m *Manifest) { m.Genesis.ManifestKey = string(forger.Public().PEM()) })
		}, "checkpoint"},
		{"another chain", func(e *Evidence) { e.Chain = "audit.example.com/other" }, "checkpoint"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e, trusted := vectorEvidence(t)
			test.change(e)
			r := e.Verify(trusted)
			for _, c := range r.Checks {
				if !c.OK {
					if c.Code != test.code {
						t.Errorf("the first that fails is %s: %s", c.Code, c.Text)
					}
					break
				}
			}
			if r.OK {
				t.Error("it verifies")
			}
		})
	}
	// Made whole by a forger, with keys of his own: all holds but the fingerprint.
	v := newVectorLog(t, "audit.example.com/rotated")
	m := v.segment(time1, []string{`"event":"x","detail":{}}`})
	hashes, err := v.tree.Inclusion(0, 1)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := bytes.Cut(v.files[strings.TrimSuffix(m.Segment.Key, ".zst")], []byte{'\n'})
	e := NewEvidence(line, InclusionProof{0, hashes, m.Checkpoint}, v.files["manifests/000000000001.sigstore.json"],
		[][]byte{v.files["manifests/000000000000.sigstore.json"]}, m.Chain)
	for _, trusted := range []Hash{forger.Public().Fingerprint(), v.k.Public().Fingerprint()} {
		r := e.Verify(trusted)
		for _, c := range r.Checks {
			if want := c.Code != "trust" || trusted == v.k.Public().Fingerprint(); c.OK != want {
				t.Errorf("%s is %v: %s", c.Code, c.OK, c.Text)
			}
		}
	}
}

// TestFlippedEvidence flips a bit of all that is proven, everywhere: it must be noticed.
func TestFlippedEvidence(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(9, 10))
	for range 400 {
		e, trusted := vectorEvidence(t)
		parts := [][]byte{e.Entry, e.Manifest, e.Keys[0], e.Keys[1], e.Keys[2]}
		part := parts[rng.IntN(len(parts))]
		i := rng.IntN(len(part))
		part[i] ^= 1 << rng.IntN(8)
		if e.Verify(trusted).OK {
			t.Errorf("byte %d of %.60q was changed unnoticed", i, part)
		}
	}
}

func FuzzEvidence(f *testing.F) {
	e, trusted := vectorEvidence(f)
	data, err := e.JSON()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"auditchain_evidence":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ParseEvidence(data)
		if err != nil {
			return
		}
		r := e.Verify(trusted)
		again, err := e.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if e, err = ParseEvidence(again); err != nil || e.Verify(trusted).OK != r.OK {
			t.Errorf("written again it is another: %v", err)
		}
	})
}

func TestKeptHead(t *testing.T) {
	text := rotated(t)["head.json"]
	head := new(Head)
	if err := json.Unmarshal(text, head); err != nil {
		t.Fatal(err)
	}
	again, err := head.MarshalJSON()
	if err != nil || string(again)+"\n" != string(text) {
		t.Errorf("it becomes %s, %v", again, err)
	}
	// It can be gone on from.
	v := newVectorLog(t, "audit.example.com/rotated")
	record := func(n int) string {
		return strings.ReplaceAll(`"event":"x","detail":{"n":N}}`, "N", string(rune('0'+n)))
	}
	v.segment(time1, []string{record(1)})
	kept, err := v.head.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	v.rotate(2*time1, 2)
	v.segment(3*time1, []string{record(2), record(3)})
	if err := json.Unmarshal(kept, head); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"manifests/000000000002.sigstore.json", "manifests/000000000003.sigstore.json"} {
		if _, err := head.Follow(v.files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if head.NextSeq != 3 || head.KeySince != 2 || !head.Key.Equal(v.k.Public()) {
		t.Errorf("%+v", head)
	}
	for name, change := range map[string][2]string{
		"tree": {`"tree":["`, `"tree":["00`}, "size": {`"next_seq":11`, `"next_seq":13`}, "checkpoint": {`rotated\n11`, `rotated\n12`},
		"format": {`_head":1`, `_head":2`}, "unknown": {`"chain"`, `"chains"`}, "key": {"PUBLIC", "PUBLICK"},
	} {
		changed := strings.Replace(string(text), change[0], change[1], 1)
		if changed == string(text) {
			t.Fatalf("%s: nothing changes", name)
		}
		if err := new(Head).UnmarshalJSON([]byte(changed)); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	if _, err := new(Head).MarshalJSON(); err == nil {
		t.Error("a head before the genesis was kept")
	}
}

func FuzzKeptHead(f *testing.F) {
	f.Add(rotated(f)["head.json"])
	f.Fuzz(func(t *testing.T, data []byte) {
		head := new(Head)
		if head.UnmarshalJSON(data) != nil {
			return
		}
		text, err := head.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if again := new(Head); again.UnmarshalJSON(text) != nil {
			t.Errorf("%s is not read again", text)
		}
	})
}
