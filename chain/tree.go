package chain

import (
	"crypto/sha256"
	"fmt"
	"math/bits"
	"slices"
)

// Tree is the RFC 6962 Merkle tree over the log so far, reduced to its compact range: the roots of the perfect subtrees
// that the leaves fall into, one for each bit set in the size, largest first. That is all that appending and the root
// need: at most 64 hashes. The zero value is the empty tree. Leaf i's data is the entry hash of entry i (32 bytes).
type Tree struct {
	size   uint64
	hashes [64]Hash // the first OnesCount64(size) are in use
}

// NewTree returns the tree with the given compact range. It fails if the range does not fit the size.
func NewTree(size uint64, compact []Hash) (Tree, error) {
	t := Tree{size: size}
	if len(compact) != bits.OnesCount64(size) {
		return t, fmt.Errorf("compact range has %d hashes, a tree of size %d has %d", len(compact), size, bits.OnesCount64(size))
	}
	copy(t.hashes[:], compact)
	return t, nil
}

// Size returns the number of leaves.
func (t *Tree) Size() uint64 { return t.size }

// Compact returns the compact range, largest subtree first.
func (t *Tree) Compact() []Hash {
	return append([]Hash{}, t.hashes[:bits.OnesCount64(t.size)]...)
}

// Equal reports whether both are the same tree.
func (t *Tree) Equal(other *Tree) bool {
	n := bits.OnesCount64(t.size)
	return t.size == other.size && slices.Equal(t.hashes[:n], other.hashes[:n])
}

// Append adds the entry with the given entry hash as the next leaf.
func (t *Tree) Append(entry Hash) {
	h := hashLeaf(&entry)
	n := bits.OnesCount64(t.size)
	for size := t.size; size&1 == 1; size >>= 1 {
		n--
		h = hashChildren(&t.hashes[n], &h)
	}
	t.hashes[n] = h
	t.size++
}

// Root returns the RFC 6962 Merkle tree head; that of the empty tree is the SHA-256 of nothing.
func (t *Tree) Root() Hash {
	n := bits.OnesCount64(t.size)
	if n == 0 {
		return sha256.Sum256(nil)
	}
	root := t.hashes[n-1]
	for i := n - 2; i >= 0; i-- {
		root = hashChildren(&t.hashes[i], &root)
	}
	return root
}

func hashLeaf(entry *Hash) Hash {
	var leaf [1 + HashSize]byte // RFC 6962, 2.1: 0x00 || data
	copy(leaf[1:], entry[:])
	return sha256.Sum256(leaf[:])
}

func hashChildren(left, right *Hash) Hash {
	var node [1 + 2*HashSize]byte // RFC 6962, 2.1: 0x01 || left || right
	node[0] = 1
	copy(node[1:], left[:])
	copy(node[1+HashSize:], right[:])
	return sha256.Sum256(node[:])
}
