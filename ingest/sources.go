package ingest

import (
	"maps"
	"slices"

	"github.com/auditchain/auditchain/chain"
)

// Bounds of what is remembered for telling redeliveries, whatever producers send.
const (
	maxSources   = 10_000 // sources
	maxRuns      = 1_000  // runs of numbers of one source
	maxSavedRuns = 20_000 // runs of all sources together that outlive a restart
)

// sources remembers which records of which sources have been taken.
type sources struct {
	ranges map[string]*chain.Ranges
}

// add reports whether the record is new as far as is remembered.
func (s *sources) add(id []byte, seq uint64) bool {
	r := s.ranges[string(id)]
	if r == nil || len(r.Runs()) > maxRuns {
		r = s.put(string(id)) // so many gaps are no numbering: forget it
	}
	return r.Add(seq)
}

// remove takes back an add.
func (s *sources) remove(id []byte, seq uint64) {
	if r := s.ranges[string(id)]; r != nil {
		r.Remove(seq)
	}
}

func (s *sources) put(id string) *chain.Ranges {
	if s.ranges == nil {
		s.ranges = make(map[string]*chain.Ranges)
	}
	for other := range s.ranges { // any other
		if len(s.ranges) < maxSources {
			break
		}
		delete(s.ranges, other)
	}
	r := new(chain.Ranges)
	s.ranges[id] = r
	return r
}

// remember takes in what a manifest, a journal or a file of state says of sources.
func (s *sources) remember(all []chain.Source) {
	for _, source := range all {
		r := s.ranges[source.ID]
		if r == nil || len(r.Runs()) > maxRuns {
			r = s.put(source.ID)
		}
		for _, run := range source.Ranges {
			r.AddRange(chain.Range{First: run[0], Last: run[1]})
		}
	}
}

// list returns what is remembered, ascending by id, of as many sources as there is room for.
func (s *sources) list() []chain.Source {
	var all []chain.Source
	runs := 0
	for _, id := range slices.Sorted(maps.Keys(s.ranges)) {
		source := chain.Source{ID: id}
		for _, run := range s.ranges[id].Runs() {
			source.Ranges = append(source.Ranges, [2]uint64{run.First, run.Last})
		}
		if runs += len(source.Ranges); runs > maxSavedRuns {
			break
		}
		if len(source.Ranges) > 0 {
			all = append(all, source)
		}
	}
	return all
}
