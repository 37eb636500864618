package disktest

import (
	"maps"
	"math/rand/v2"
	"path"
	"slices"
)

// node is a file or a directory.
type node struct {
	// A file: the content that processes see, the content that is durable, and what since then made one out of the other.
	seen    []byte
	kept    []byte
	pending []change
	lock    *Process // who holds it, or held it when it died

	// A directory (names is not nil): the names that processes see, those that are durable, and what since then made one out of the other.
	names     map[string]*node
	keptNames map[string]*node
	renames   []rename
}

// change is a write, or a change of the size.
type change struct {
	kind changeKind
	at   int64 // where it begins, or the size
	data []byte
}

type changeKind int

const (
	write    changeKind = iota
	truncate            // the size is at
	grow                // the size is at or more: what Allocate does, and what is left of a write whose Sync failed
)

// end is the least size of a file after the change.
func (c change) end() int64 { return c.at + int64(len(c.data)) }

// apply returns the content after a change of it.
func (c change) apply(content []byte) []byte {
	if c.kind == truncate && c.at < int64(len(content)) {
		return content[:c.at]
	}
	if more := c.end() - int64(len(content)); more > 0 {
		content = append(content, make([]byte, more)...)
	}
	copy(content[c.at:], c.data)
	return content
}

// rename is one step of a directory's: a name is given to a file, taken away, or both.
type rename struct {
	remove string // "" is none
	set    string // "" is none
	node   *node
}

func (r rename) apply(names map[string]*node) {
	if r.remove != "" {
		delete(names, r.remove)
	}
	if r.set != "" {
		names[r.set] = r.node
	}
}

func newDir() *node {
	return &node{names: make(map[string]*node), keptNames: make(map[string]*node)}
}

// change makes a change that processes see.
func (n *node) change(c change) {
	n.seen = c.apply(n.seen)
	n.pending = append(n.pending, c)
}

// sync makes the content durable.
func (n *node) sync() {
	for _, c := range n.pending {
		n.kept = c.apply(n.kept)
	}
	n.pending = nil
}

// lose is a sync that failed: what was written is taken for clean, so that no later sync looks at it.
func (n *node) lose() {
	for i, c := range n.pending {
		if c.kind == write {
			n.pending[i] = change{kind: grow, at: c.end()}
		}
	}
}

func (n *node) rename(r rename) {
	r.apply(n.names)
	n.renames = append(n.renames, r)
}

func (n *node) set(name string, to *node) { n.rename(rename{set: name, node: to}) }

// commit makes the names durable.
func (n *node) commit() {
	for _, r := range n.renames {
		r.apply(n.keptNames)
	}
	n.renames = nil
}

// powerCut turns what is below n into what is left of it.
func (n *node) powerCut(rng *rand.Rand, reorder bool) {
	if n.names == nil {
		n.seen = slices.Clone(n.left(rng, reorder))
		n.kept, n.pending, n.lock = slices.Clone(n.seen), nil, nil
		return
	}
	if rng != nil {
		n.renames = n.renames[:rng.IntN(len(n.renames)+1)]
		n.commit()
	}
	n.names, n.renames = maps.Clone(n.keptNames), nil
	for _, name := range sorted(n.names) {
		n.names[name].powerCut(rng, reorder)
	}
}

const pageSize = 4096

// left is what a power cut leaves of a file's content.
func (n *node) left(rng *rand.Rand, reorder bool) []byte {
	if rng == nil || len(n.pending) == 0 {
		return n.kept
	}
	choices := 4
	if reorder {
		choices++
	}
	content := n.kept
	switch rng.IntN(choices) {
	case 0: // nothing
	case 1: // all
		for _, c := range n.pending {
			content = c.apply(content)
		}
	case 2:
		content = n.cut(rng, false)
	case 3:
		content = n.cut(rng, true)
	case 4:
		content = n.pages(rng)
	}
	return content
}

// cut is the content with what was written up to some byte, and with zero bytes for what came after it if its room was taken.
func (n *node) cut(rng *rand.Rand, taken bool) []byte {
	written := 0
	for _, c := range n.pending {
		written += len(c.data)
	}
	rest := rng.IntN(written + 1)
	content := n.kept
	for _, c := range n.pending {
		switch {
		case c.kind == truncate && rng.IntN(2) == 0:
		case c.kind != write || len(c.data) <= rest:
			content = c.apply(content)
			rest -= len(c.data)
		case taken:
			content = change{write, c.at, c.data[:rest]}.apply(content)
			content = change{kind: grow, at: c.end()}.apply(content)
			rest = 0
		default:
			return change{write, c.at, c.data[:rest]}.apply(content)
		}
	}
	return content
}

// pages is the content with all room taken, but any of the pages of what was written.
func (n *node) pages(rng *rand.Rand) []byte {
	content := n.kept
	for _, c := range n.pending {
		if c.kind != write {
			content = c.apply(content)
			continue
		}
		content = change{kind: grow, at: c.end()}.apply(content)
		for at := c.at; at < c.end(); {
			to := min(c.end(), at-at%pageSize+pageSize)
			if rng.IntN(2) == 0 {
				content = change{write, at, c.data[at-c.at : to-c.at]}.apply(content)
			}
			at = to
		}
	}
	return content
}

// total is the sum of the sizes of the files below n.
func (n *node) total() int64 {
	sum := int64(len(n.seen))
	for _, child := range n.names {
		sum += child.total()
	}
	return sum
}

// files are the paths of the files below n, which has the path at.
func (n *node) files(at string) []string {
	if n.names == nil {
		return []string{at}
	}
	var out []string
	for _, name := range sorted(n.names) {
		out = append(out, n.names[name].files(path.Join(at, name))...)
	}
	return out
}

// clone copies n and all that it names, each once. Nobody holds the copies' locks.
func (n *node) clone(done map[*node]*node) *node {
	if n == nil {
		return nil
	}
	if c, ok := done[n]; ok {
		return c
	}
	c := &node{seen: slices.Clone(n.seen), kept: slices.Clone(n.kept), pending: slices.Clone(n.pending), renames: slices.Clone(n.renames)}
	done[n] = c
	if n.names == nil {
		return c
	}
	c.names, c.keptNames = make(map[string]*node), make(map[string]*node)
	for name, child := range n.names {
		c.names[name] = child.clone(done)
	}
	for name, child := range n.keptNames {
		c.keptNames[name] = child.clone(done)
	}
	for i, r := range c.renames {
		c.renames[i].node = r.node.clone(done)
	}
	return c
}
