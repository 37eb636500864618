package torchwood

import (
	"encoding/base64"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/auditchain/auditchain/chain"
)

// TestCheckpoints has x/mod and torchwood open our checkpoints, and refuse them, as we do, with any byte changed.
func TestCheckpoints(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 0))
	l, other := newLog(t, random, 3, 1, 66), newLog(t, random, 3)
	verifier, err := note.NewVerifier(l.vkey)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := note.NewVerifier(other.vkey)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range l.manifests {
		opened, err := note.Open([]byte(m.Checkpoint), note.VerifierList(verifier))
		if err != nil {
			t.Fatalf("x/mod: %v", err)
		}
		c, _, err := torchwood.VerifyCheckpoint([]byte(m.Checkpoint), l.policy)
		if err != nil {
			t.Fatalf("torchwood: %v", err)
		}
		root, err := tlog.TreeHash(int64(m.NextSeq), l)
		if err != nil {
			t.Fatal(err)
		}
		if c.Origin != name || c.N != int64(m.NextSeq) || c.Hash != root || c.Extension != "" || c.String() != opened.Text {
			t.Errorf("torchwood reads %+v, want %s, %d, %v", c, name, m.NextSeq, root)
		}
		if _, err := note.Open([]byte(m.Checkpoint), note.VerifierList(foreign)); err == nil {
			t.Error("x/mod takes it for another key's")
		}
		if _, _, err := torchwood.VerifyCheckpoint([]byte(m.Checkpoint), other.policy); err == nil {
			t.Error("torchwood takes it for another key's")
		}
	}
	text := l.manifests[2].Checkpoint
	for i := range text {
		for bit := range 8 {
			changed := []byte(text)
			changed[i] ^= 1 << bit
			if saysTheSame(text, string(changed), i) {
				continue
			}
			if _, err := note.Open(changed, note.VerifierList(verifier)); err == nil {
				t.Errorf("x/mod: bit %d of byte %d was turned unnoticed", bit, i)
			}
			if _, _, err := torchwood.VerifyCheckpoint(changed, l.policy); err == nil {
				t.Errorf("torchwood: bit %d of byte %d was turned unnoticed", bit, i)
			}
			if _, err := chain.OpenCheckpoint(string(changed), l.vkey); err == nil {
				t.Errorf("ours: bit %d of byte %d was turned unnoticed", bit, i)
			}
		}
	}
}

// TestTheirCheckpoints has us open what x/mod signs.
func TestTheirCheckpoints(t *testing.T) {
	secret, vkey, err := note.GenerateKey(nil, name)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	want := torchwood.Checkpoint{Origin: name, Tree: tlog.Tree{N: 12, Hash: tlog.RecordHash([]byte("root"))}}
	signed, err := note.Sign(&note.Note{Text: want.String()}, signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := chain.OpenCheckpoint(string(signed), vkey)
	if err != nil || c.Origin != want.Origin || c.Size != 12 || c.Root != chain.Hash(want.Hash) {
		t.Errorf("we read %+v, %v", c, err)
	}
}

// shapes are logs: each of 1 to 70 entries, cut into segments at random, and larger ones.
func shapes(random *rand.Rand) [][]int {
	var all [][]int
	for n := 1; n <= 70; n++ {
		var segments []int
		for rest := n; rest > 0; rest -= segments[len(segments)-1] {
			segments = append(segments, 1+random.IntN(min(rest, 20)))
		}
		all = append(all, segments)
	}
	large := make([]int, 40)
	for i := range large {
		large[i] = 1 + random.IntN(1000)
	}
	return append(all, large, []int{1 << 12, 1 << 12, 1}, []int{4095, 2, 4095})
}

// TestInclusion proves entries against the heads of their own segments and later ones. The tlog-proofs are those that the peers
// would write, they verify with each, and with anything changed they do not.
func TestInclusion(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 0))
	proofs := 0
	for _, segments := range shapes(random) {
		l := newLog(t, random, segments...)
		entries := make([]int, len(l.entries))
		for i := range entries {
			entries[i] = i
		}
		if len(entries) > 70 {
			random.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
			entries = append(entries[:60], 0, len(l.entries)-1)
		}
		for _, seq := range entries {
			own := slices.Index(l.manifests, l.holding(uint64(seq)))
			heads := []int{own, own + random.IntN(len(l.manifests)-own), len(l.manifests) - 1}
			for _, h := range slices.Compact(heads) {
				l.checkInclusion(t, random, uint64(seq), l.manifests[h])
				proofs++
			}
		}
	}
	t.Logf("%d proofs", proofs)
}

func (l *log) checkInclusion(t *testing.T, random *rand.Rand, seq uint64, head *chain.Manifest) {
	t.Helper()
	hashes, _ := l.ask(t, head, func(s *chain.Subtrees) ([]chain.Hash, error) { return s.Inclusion(seq, head.NextSeq) })
	p := chain.InclusionProof{Index: seq, Hashes: hashes, Checkpoint: head.Checkpoint}
	entry := l.entries[seq]
	leaf := tlog.RecordHash(entry[:])
	root, err := tlog.TreeHash(int64(head.NextSeq), l)
	if err != nil {
		t.Fatal(err)
	}

	peers, err := tlog.ProveRecord(int64(head.NextSeq), int64(seq), l)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(torchwood.FormatProof(int64(seq), peers, []byte(head.Checkpoint))); text != p.String() {
		t.Fatalf("entry %d in %d: we write\n%s\nthey write\n%s", seq, head.NextSeq, p, text)
	}
	if err := torchwood.VerifyProof(l.policy, leaf, []byte(p.String())); err != nil {
		t.Fatalf("entry %d in %d: torchwood: %v", seq, head.NextSeq, err)
	}
	if err := tlog.CheckRecord(theirs(hashes), int64(head.NextSeq), root, int64(seq), leaf); err != nil {
		t.Fatalf("entry %d in %d: x/mod: %v", seq, head.NextSeq, err)
	}
	read, err := chain.ParseInclusionProof(p.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read.Verify(entry, l.vkey); err != nil {
		t.Fatalf("entry %d in %d: ours: %v", seq, head.NextSeq, err)
	}

	refused := func(what string, p chain.InclusionProof, entry chain.Hash) {
		t.Helper()
		if _, err := p.Verify(entry, l.vkey); err == nil {
			t.Errorf("entry %d in %d: we take %s", seq, head.NextSeq, what)
		}
		if err := torchwood.VerifyProof(l.policy, tlog.RecordHash(entry[:]), []byte(p.String())); err == nil {
			t.Errorf("entry %d in %d: torchwood takes %s", seq, head.NextSeq, what)
		}
		if err := tlog.CheckRecord(theirs(p.Hashes), int64(head.NextSeq), root, int64(p.Index), tlog.RecordHash(entry[:])); err == nil {
			t.Errorf("entry %d in %d: x/mod takes %s", seq, head.NextSeq, what)
		}
	}
	flip := func(h *chain.Hash) { h[random.IntN(len(h))] ^= 1 << random.IntN(8) }
	other := entry
	flip(&other)
	refused("another entry", p, other)
	longer := p
	longer.Hashes = append(slices.Clone(hashes), other)
	refused("a longer proof", longer, entry)
	if head.NextSeq > 1 {
		moved := p
		moved.Index = (seq + 1 + random.Uint64N(head.NextSeq-1)) % head.NextSeq
		refused("another place", moved, entry)
		shorter := p
		shorter.Hashes = hashes[:len(hashes)-1]
		refused("a shorter proof", shorter, entry)
		flipped := p
		flipped.Hashes = slices.Clone(hashes)
		flip(&flipped.Hashes[random.IntN(len(hashes))])
		refused("a changed hash", flipped, entry)
	}
}

// TestConsistency proves that each head of a log begins with each head before it, and that nothing else does.
func TestConsistency(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 0))
	proofs := 0
	for _, segments := range shapes(random) {
		l := newLog(t, random, segments...)
		for i, old := range l.manifests {
			for _, head := range l.manifests[i:] {
				l.checkConsistency(t, random, old, head)
				proofs++
			}
		}
	}
	t.Logf("%d proofs", proofs)
}

func (l *log) checkConsistency(t *testing.T, random *rand.Rand, old, head *chain.Manifest) {
	t.Helper()
	hashes, _ := l.ask(t, head, func(s *chain.Subtrees) ([]chain.Hash, error) { return s.Consistency(old.NextSeq, head.NextSeq) })
	earlier, err := chain.OpenCheckpoint(old.Checkpoint, l.vkey)
	if err != nil {
		t.Fatal(err)
	}
	p := chain.ConsistencyProof{Old: old.NextSeq, Hashes: hashes, Checkpoint: head.Checkpoint}
	root, err := tlog.TreeHash(int64(head.NextSeq), l)
	if err != nil {
		t.Fatal(err)
	}
	peers, err := tlog.ProveTree(int64(head.NextSeq), int64(old.NextSeq), l)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(ours(peers), hashes) {
		t.Fatalf("%d to %d: we prove it by %v, they by %v", old.NextSeq, head.NextSeq, hashes, peers)
	}
	verify := func(p chain.ConsistencyProof, earlier chain.Checkpoint) (mine, their error) {
		_, mine = p.Verify(earlier, l.vkey)
		return mine, tlog.CheckTree(theirs(p.Hashes), int64(head.NextSeq), root, int64(earlier.Size), tlog.Hash(earlier.Root))
	}
	read, err := chain.ParseConsistencyProof(p.String())
	if err != nil {
		t.Fatal(err)
	}
	if mine, their := verify(read, earlier); mine != nil || their != nil {
		t.Fatalf("%d to %d: ours: %v; x/mod: %v", old.NextSeq, head.NextSeq, mine, their)
	}
	refused := func(what string, p chain.ConsistencyProof, earlier chain.Checkpoint) {
		t.Helper()
		if mine, their := verify(p, earlier); mine == nil || their == nil {
			t.Errorf("%d to %d: %s: ours: %v; x/mod: %v", old.NextSeq, head.NextSeq, what, mine, their)
		}
	}
	other := earlier
	other.Root[random.IntN(chain.HashSize)] ^= 1 << random.IntN(8)
	refused("another earlier tree", p, other)
	longer := p
	longer.Hashes = append(slices.Clone(hashes), other.Root)
	refused("a longer proof", longer, earlier)
	if len(hashes) > 0 {
		shorter, flipped := p, p
		shorter.Hashes = hashes[:len(hashes)-1]
		refused("a shorter proof", shorter, earlier)
		flipped.Hashes = slices.Clone(hashes)
		flipped.Hashes[random.IntN(len(hashes))][random.IntN(chain.HashSize)] ^= 1 << random.IntN(8)
		refused("a changed hash", flipped, earlier)
	}
}

// TestTamperedProofText turns every bit of one tlog-proof.
func TestTamperedProofText(t *testing.T) {
	l := newLog(t, rand.New(rand.NewPCG(4, 0)), 5, 9, 23)
	head, seq := l.manifests[2], uint64(7)
	hashes, _ := l.ask(t, head, func(s *chain.Subtrees) ([]chain.Hash, error) { return s.Inclusion(seq, head.NextSeq) })
	text := chain.InclusionProof{Index: seq, Hashes: hashes, Checkpoint: head.Checkpoint}.String()
	leaf := tlog.RecordHash(l.entries[seq][:])
	for i := range text {
		for bit := range 8 {
			changed := []byte(text)
			changed[i] ^= 1 << bit
			if saysTheSame(text, string(changed), i) {
				continue
			}
			if p, err := chain.ParseInclusionProof(string(changed)); err == nil {
				if _, err := p.Verify(l.entries[seq], l.vkey); err == nil {
					t.Errorf("ours: bit %d of byte %d was turned unnoticed", bit, i)
				}
			}
			if torchwood.VerifyProof(l.policy, leaf, changed) == nil {
				t.Errorf("torchwood: bit %d of byte %d was turned unnoticed", bit, i)
			}
		}
	}
}

// saysTheSame says whether two texts that differ in byte i hold the same bytes there in base64, which x/mod and torchwood read
// leniently: bits of the last digit that stand for nothing may be anything.
func saysTheSame(a, b string, i int) bool {
	word := func(s string) string {
		begin, end := strings.LastIndexAny(s[:i], " \n")+1, strings.IndexByte(s[i:], '\n')
		data, err := base64.StdEncoding.DecodeString(s[begin : i+max(end, 0)])
		if end < 0 || err != nil {
			return s
		}
		return string(data)
	}
	return word(a) == word(b)
}
