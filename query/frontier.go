package query

import (
	"slices"
	"sync"

	"github.com/auditchain/auditchain/chain"
)

// frontier is how far the log is proven without a gap, while segments are checked beside each other: where a verification that is
// interrupted can be gone on from.
type frontier struct {
	mu     sync.Mutex
	marks  []*mark // behind the proven ones, in the order of the manifests
	closed bool    // something behind the last mark is not proven
	proven chain.Head
}

// mark is a place after a manifest.
type mark struct {
	head    chain.Head
	reached bool
}

// add puts the place after the next manifest.
func (f *frontier) add(head *chain.Head) *mark {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := new(mark)
	if !f.closed {
		m.head = *head
		f.marks = append(f.marks, m)
	}
	return m
}

// reach says that all between the mark before m and m was checked; if it is not good, nothing from there on is proven without a gap.
func (f *frontier) reach(m *mark, good bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.Index(f.marks, m); i >= 0 && !good {
		f.marks, f.closed = f.marks[:i], true
	}
	m.reached = good // means nothing for a mark that is not in the list any more
	for len(f.marks) > 0 && f.marks[0].reached {
		f.proven, f.marks = f.marks[0].head, f.marks[1:]
	}
}

// close says that what comes next is not proven.
func (f *frontier) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}
