// Package torchwood lets packages that others wrote for transparency logs, golang.org/x/mod/sumdb and filippo.io/torchwood,
// verify our checkpoints and proofs, and lets ours verify theirs. It is a module of its own, so that nobody who imports
// auditchain gets these along.
package torchwood

import (
	"errors"
	"math/rand/v2"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/auditchain/auditchain/chain"
)

const name = "audit.example.com/peers"

// log is one chain, as we hold it and as x/mod does.
type log struct {
	manifests []*chain.Manifest // of segments
	entries   []chain.Hash
	stored    []tlog.Hash // of all nodes of the tree, in the order of x/mod

	key    *chain.SigningKey
	vkey   string
	policy torchwood.Policy
}

// newLog makes a log with segments of the given numbers of entries. An entry is nothing but its hash here.
func newLog(t testing.TB, random *rand.Rand, segments ...int) *log {
	t.Helper()
	l := &log{key: newKey(t)}
	var err error
	if l.vkey, err = l.key.CheckpointKey(name); err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(l.vkey)
	if err != nil {
		t.Fatal(err)
	}
	l.policy = torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(name), torchwood.SingleVerifierPolicy(verifier))

	head := chain.Head{Chain: name, Key: l.key.Public(), NextN: 1}
	for _, n := range segments {
		end := head
		for range n {
			var e chain.Hash
			for i := range e {
				e[i] = byte(random.Uint32())
			}
			end.Append(e)
			hashes, err := tlog.StoredHashesForRecordHash(int64(len(l.entries)), tlog.RecordHash(e[:]), l)
			if err != nil {
				t.Fatal(err)
			}
			l.stored = append(l.stored, hashes...)
			l.entries = append(l.entries, e)
		}
		m, err := head.Next(chain.KindSegment, &end, l.key)
		if err != nil {
			t.Fatal(err)
		}
		l.manifests = append(l.manifests, m)
		head = end
		head.NextN++
	}
	return l
}

// ReadHashes makes log the tlog.HashReader of the peers' provers.
func (l *log) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= int64(len(l.stored)) {
			return nil, errors.New("no such node")
		}
		hashes[i] = l.stored[index]
	}
	return hashes, nil
}

// ask gives prove what a prover reads from the bucket: the manifest of the head, and those segments that it asks for.
func (l *log) ask(t testing.TB, head *chain.Manifest, prove func(*chain.Subtrees) ([]chain.Hash, error)) (hashes []chain.Hash, segments int) {
	t.Helper()
	var s chain.Subtrees
	s.AddManifest(head)
	for {
		hashes, err := prove(&s)
		unknown := new(chain.UnknownEntryError)
		if err == nil {
			return hashes, segments
		} else if !errors.As(err, &unknown) {
			t.Fatal(err)
		}
		m := l.holding(unknown.Seq)
		s.AddManifest(m)
		s.AddEntries(m.FirstSeq, l.entries[m.FirstSeq:m.NextSeq])
		if segments++; segments > len(l.manifests) {
			t.Fatalf("entry %d is asked for again and again", unknown.Seq)
		}
	}
}

// holding returns the manifest of the segment with entry seq.
func (l *log) holding(seq uint64) *chain.Manifest {
	for _, m := range l.manifests {
		if m.FirstSeq <= seq && seq < m.NextSeq {
			return m
		}
	}
	return nil
}

// theirs converts hashes to the type of x/mod.
func theirs(hashes []chain.Hash) []tlog.Hash {
	all := make([]tlog.Hash, len(hashes))
	for i, h := range hashes {
		all[i] = tlog.Hash(h)
	}
	return all
}

// ours converts hashes to ours.
func ours(hashes []tlog.Hash) []chain.Hash {
	all := make([]chain.Hash, len(hashes))
	for i, h := range hashes {
		all[i] = chain.Hash(h)
	}
	return all
}
