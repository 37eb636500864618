package query

import (
	"iter"
	"maps"
	"slices"
)

// objects goes through the listing of the segments beside the walk over the manifests. Both are in the order of the
// segments' keys, unless a clock was set back: so little is held, however many there are.
type objects struct {
	next    func() (stored, error, bool)
	stop    func()
	current stored
	ended   bool
	err     error
	passed  map[string]stored // that no manifest has named yet
	dropped bool              // passed had no room for all: whoever may write can make any number
}

// maxPassed is how many objects are held that no manifest has named yet.
const maxPassed = 100_000

func newObjects(seq iter.Seq2[stored, error]) *objects {
	next, stop := iter.Pull2(seq)
	o := &objects{next: next, stop: stop, passed: make(map[string]stored)}
	o.advance()
	return o
}

func (o *objects) advance() {
	if o.ended {
		return
	}
	s, err, ok := o.next()
	if !ok || err != nil {
		o.ended, o.err = true, err
		return
	}
	o.current = s
}

// take returns what is stored at key, which is then named.
func (o *objects) take(key string) (stored, bool) {
	for !o.ended && o.current.key < key {
		if len(o.passed) < maxPassed {
			o.passed[o.current.key] = o.current
		} else {
			o.dropped = true
		}
		o.advance()
	}
	if !o.ended && o.current.key == key {
		s := o.current
		o.advance()
		return s, true
	}
	s, ok := o.passed[key]
	delete(o.passed, key)
	return s, ok
}

// rest calls visit with all that was not taken.
func (o *objects) rest(visit func(stored)) {
	for _, key := range slices.Sorted(maps.Keys(o.passed)) {
		visit(o.passed[key])
	}
	for ; !o.ended; o.advance() {
		visit(o.current)
	}
}
