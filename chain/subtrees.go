package chain

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/transparency-dev/merkle/proof"
)

// Subtrees is what a prover knows of a log's tree: compact ranges, which stand in manifests, and runs of entry hashes, from
// segments. From them it makes the proofs of RFC 6962, section 2.1. A proof within a segment's own manifest needs that
// manifest and that segment; one to a later head needs, besides the head's manifest, about one segment more for each
// doubling of the log from there to the head. What is missing is asked for by [UnknownEntryError]. The zero value knows nothing.
//
// What was added is taken on its word: a proof made of something wrong does not verify.
type Subtrees struct {
	sizes []uint64 // of the trees that are known, ascending
	trees map[uint64][]Hash
	runs  []entryRun
}

type entryRun struct {
	first  uint64
	leaves []Hash // leaf hashes
}

func (r *entryRun) end() uint64 { return r.first + uint64(len(r.leaves)) }

// UnknownEntryError says that a proof needs the segment that holds entry Seq, and the trees before and after it.
type UnknownEntryError struct{ Seq uint64 }

func (e *UnknownEntryError) Error() string {
	return fmt.Sprintf("the segment of entry %d is needed", e.Seq)
}

// AddManifest takes in the trees that m knows.
func (s *Subtrees) AddManifest(m *Manifest) {
	s.addTree(m.FirstSeq, m.TreeBefore)
	s.addTree(m.NextSeq, m.TreeAfter)
}

// AddTree takes in a tree.
func (s *Subtrees) AddTree(t *Tree) { s.addTree(t.size, t.Compact()) }

func (s *Subtrees) addTree(size uint64, compact []Hash) {
	if s.trees == nil {
		s.trees = make(map[uint64][]Hash)
	}
	if s.trees[size] == nil && len(compact) == bits.OnesCount64(size) {
		s.trees[size] = compact
		i, _ := slices.BinarySearch(s.sizes, size)
		s.sizes = slices.Insert(s.sizes, i, size)
	}
}

// AddEntries takes in the entry hashes of the entries from first on.
func (s *Subtrees) AddEntries(first uint64, entries []Hash) {
	run := entryRun{first: first, leaves: make([]Hash, len(entries))}
	for i, e := range entries {
		run.leaves[i] = hashLeaf(&e)
	}
	s.runs = append(s.runs, run)
}

// Inclusion returns the hashes that prove entry index in the tree of the given size, the leaf's sibling first.
func (s *Subtrees) Inclusion(index, size uint64) ([]Hash, error) {
	if index >= size {
		return nil, fmt.Errorf("entry %d is not in a tree of size %d", index, size)
	}
	nodes, err := proof.Inclusion(index, size)
	if err != nil {
		return nil, err
	}
	return s.rehash(nodes)
}

// Consistency returns the hashes that prove that the tree of size to begins with the tree of size from.
func (s *Subtrees) Consistency(from, to uint64) ([]Hash, error) {
	if from > to {
		return nil, fmt.Errorf("a tree of size %d does not come before one of size %d", from, to)
	}
	if from == 0 {
		return nil, nil // RFC 6962 proves nothing of the empty tree; every tree begins with it
	}
	nodes, err := proof.Consistency(from, to)
	if err != nil {
		return nil, err
	}
	return s.rehash(nodes)
}

func (s *Subtrees) rehash(nodes proof.Nodes) ([]Hash, error) {
	hashes := make([][]byte, len(nodes.IDs))
	for i, id := range nodes.IDs {
		h, err := s.node(id.Level, id.Index)
		if err != nil {
			return nil, err
		}
		hashes[i] = h[:]
	}
	hashes, err := nodes.Rehash(hashes, func(left, right []byte) []byte {
		l, r := Hash(left), Hash(right)
		h := hashChildren(&l, &r)
		return h[:]
	})
	if err != nil {
		return nil, err
	}
	all := make([]Hash, len(hashes))
	for i, h := range hashes {
		all[i] = Hash(h)
	}
	return all, nil
}

// node returns the root of the perfect subtree over the leaves from index<<level to (index+1)<<level - 1.
func (s *Subtrees) node(level uint, index uint64) (Hash, error) {
	begin, end := index<<level, (index+1)<<level
	// It stands in the compact range of a tree that ends in it or, if it is a left child, before its sibling does.
	if i, _ := slices.BinarySearch(s.sizes, end); i < len(s.sizes) && index&1 == 0 && s.sizes[i]-end < 1<<level {
		size := s.sizes[i]
		return s.trees[size][bits.OnesCount64(size>>(level+1))], nil
	}
	for i := range s.runs {
		if r := &s.runs[i]; r.first <= begin && end <= r.end() {
			return perfectRoot(r.leaves[begin-r.first : end-r.first]), nil
		}
	}
	if level == 0 {
		return Hash{}, &UnknownEntryError{begin}
	}
	// The right child first: the segment of its last leaf is the one that helps for the left child, too.
	right, err := s.node(level-1, 2*index+1)
	if err != nil {
		return Hash{}, err
	}
	left, err := s.node(level-1, 2*index)
	if err != nil {
		return Hash{}, err
	}
	return hashChildren(&left, &right), nil
}

// perfectRoot returns the root over leaf hashes whose number is a power of two.
func perfectRoot(leaves []Hash) Hash {
	if len(leaves) == 1 {
		return leaves[0]
	}
	half := len(leaves) / 2
	left, right := perfectRoot(leaves[:half]), perfectRoot(leaves[half:])
	return hashChildren(&left, &right)
}
