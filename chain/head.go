package chain

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Head is where a chain stands: after the entries up to NextSeq, and after the manifests up to NextN. The zero value
// stands before the genesis, and takes any for it; with Key set, only the one of that key.
type Head struct {
	Chain            string
	NextN            uint64 // number of the next manifest
	PreviousManifest Hash   // SHA-256 of the payload of manifest NextN-1
	NextSeq          uint64 // number of the next entry
	Entry            Hash   // entry hash of entry NextSeq-1; before entry 0, the genesis payload's SHA-256
	Tree             Tree   // over the entry hashes of entries 0 to NextSeq-1

	Key           PublicKey // of the manifests from NextN on
	KeySince      uint64    // number of the rotation that announced Key; 0: the genesis did
	CheckpointKey string    // of the checkpoints from NextN on, as a verifier key of C2SP signed notes; "": not known, and not checked
	Checkpoint    string    // signed note, of manifest NextN-1
	SealedAt      time.Time // of manifest NextN-1
	RetainUntil   time.Time // of manifest NextN-1
}

// Follow checks that data, a stored manifest, is signed with the head's key and continues the chain in every number and
// hash, and moves h past it. The error wraps [ErrSignature] if only the signature is wrong. It does not look into the
// segment: see [VerifySegment]. Where it fails h is unchanged.
func (h *Head) Follow(data []byte) (*Manifest, error) {
	m, payload, err := OpenManifest(data, h.Key)
	if err == nil {
		err = h.Advance(m, payload)
	}
	return m, err
}

// Append takes the next entry's hash into the head.
func (h *Head) Append(entry Hash) {
	h.Entry = entry
	h.Tree.Append(entry)
	h.NextSeq++
}

// Next returns the manifest that follows h, of the given kind, with all that h knows filled in. For a segment, end is
// where the chain stands after the segment's entries; otherwise it is h itself.
func (h *Head) Next(kind Kind, end *Head, k *SigningKey) (*Manifest, error) {
	m := &Manifest{
		Format: Version, Chain: h.Chain, N: h.NextN, Kind: kind,
		FirstSeq: h.NextSeq, NextSeq: end.NextSeq,
		TreeBefore: h.Tree.Compact(), TreeAfter: end.Tree.Compact(), KeySince: h.KeySince,
	}
	if kind != KindGenesis {
		previous, before, after := h.PreviousManifest, h.Entry, end.Entry
		m.PreviousManifest, m.PreviousHead, m.Head = &previous, &before, &after
	}
	var err error
	m.Checkpoint, err = k.SignCheckpoint(Checkpoint{Origin: h.Chain, Size: end.NextSeq, Root: end.Tree.Root()})
	return m, err
}

// Advance moves h past manifest m, whose payload has the given hash, if m follows h in every number and hash; otherwise h
// is unchanged and the error says what does not fit. It does not look into the segment.
func (h *Head) Advance(m *Manifest, payload Hash) error {
	next := *h
	if m.Kind == KindGenesis {
		if h.NextN != 0 {
			return fmt.Errorf("manifest %d is a second genesis", h.NextN)
		}
		key, err := ParsePublicKey([]byte(m.Genesis.ManifestKey))
		if err != nil {
			return fmt.Errorf("genesis: manifest_key: %w", err)
		}
		if h.Key.key != nil && !key.Equal(h.Key) {
			return fmt.Errorf("%w: the genesis names the key %s, trusted is %s", ErrOtherKey, key.Fingerprint(), h.Key.Fingerprint())
		}
		if err := checkCheckpointKey(m.Genesis.CheckpointKey, m.Chain); err != nil {
			return fmt.Errorf("genesis: %w", err)
		}
		next.Chain, next.Key, next.CheckpointKey = m.Chain, key, m.Genesis.CheckpointKey
		next.Entry = payload
	}
	switch {
	case m.N != h.NextN:
		return fmt.Errorf("manifest says that it is number %d, want %d", m.N, h.NextN)
	case m.Chain != next.Chain:
		return fmt.Errorf("manifest %d is of chain %q, want %q", m.N, m.Chain, next.Chain)
	case m.PreviousManifest != nil && *m.PreviousManifest != h.PreviousManifest:
		return fmt.Errorf("manifest %d follows another manifest %d than the one that is there", m.N, m.N-1)
	case m.KeySince != h.KeySince:
		return fmt.Errorf("manifest %d says that its key came with manifest %d, but %d announced it", m.N, m.KeySince, h.KeySince)
	case m.FirstSeq != h.NextSeq:
		return fmt.Errorf("manifest %d begins at entry %d, want %d", m.N, m.FirstSeq, h.NextSeq)
	case m.PreviousHead != nil && *m.PreviousHead != h.Entry:
		return fmt.Errorf("manifest %d continues another entry %d than the one before it", m.N, m.FirstSeq-1)
	}
	before, err := NewTree(m.FirstSeq, m.TreeBefore)
	if err != nil {
		return fmt.Errorf("manifest %d: %w", m.N, err)
	}
	if !before.Equal(&h.Tree) {
		return fmt.Errorf("manifest %d continues another tree than that of the manifest before it", m.N)
	}
	if next.Tree, err = NewTree(m.NextSeq, m.TreeAfter); err != nil {
		return fmt.Errorf("manifest %d: %w", m.N, err)
	}
	if m.NextSeq == m.FirstSeq && (!next.Tree.Equal(&h.Tree) || m.Head != nil && *m.Head != h.Entry) {
		return fmt.Errorf("manifest %d holds no entries but moves the head", m.N)
	}
	if next.CheckpointKey != "" || m.Kind == KindGenesis {
		if _, err := OpenCheckpoint(m.Checkpoint, next.CheckpointKey); err != nil {
			return fmt.Errorf("manifest %d: %w", m.N, err)
		}
	}
	text := Checkpoint{Origin: m.Chain, Size: m.NextSeq, Root: next.Tree.Root()}.text()
	if !strings.HasPrefix(m.Checkpoint, text+"\n") {
		return fmt.Errorf("manifest %d: its checkpoint is not of its tree", m.N)
	}
	if m.Segment != nil {
		next.NextSeq, next.Entry = m.NextSeq, *m.Head
	}
	if err := next.rotate(m); err != nil {
		return err
	}
	next.NextN, next.PreviousManifest, next.RetainUntil = m.N+1, payload, m.Lock.RetainUntil.Time
	next.Checkpoint, next.SealedAt = m.Checkpoint, m.SealedAt.Time
	*h = next
	return nil
}

// rotate takes the keys that m announces, if it announces any.
func (h *Head) rotate(m *Manifest) error {
	if m.Rotation == nil {
		return nil
	}
	key, err := ParsePublicKey([]byte(m.Rotation.ManifestKey))
	if err != nil {
		return fmt.Errorf("manifest %d: manifest_key: %w", m.N, err)
	}
	if key.Equal(h.Key) || m.Rotation.CheckpointKey == h.CheckpointKey {
		return fmt.Errorf("manifest %d announces a key that the chain has already", m.N)
	}
	if err := checkCheckpointKey(m.Rotation.CheckpointKey, m.Chain); err != nil {
		return fmt.Errorf("manifest %d: %w", m.N, err)
	}
	h.Key, h.CheckpointKey, h.KeySince = key, m.Rotation.CheckpointKey, m.N
	return nil
}

// ErrOtherKey says that a chain's genesis is of another key than the one that is trusted.
var ErrOtherKey = errors.New("the chain is of another key")

// HeadOf returns where the chain stands after m, which is signed with key, taken on m's word: for a writer that resumes from
// its own manifest, and for a verifier that was given a manifest to begin from. The checkpoint key is known only where m
// announces it; elsewhere it is the caller's to set.
func HeadOf(m *Manifest, payload Hash, key PublicKey) (Head, error) {
	h := Head{
		Chain: m.Chain, NextN: m.N + 1, PreviousManifest: payload, NextSeq: m.NextSeq, Key: key, KeySince: m.KeySince,
		Checkpoint: m.Checkpoint, SealedAt: m.SealedAt.Time, RetainUntil: m.Lock.RetainUntil.Time,
	}
	if h.Entry = payload; m.Head != nil {
		h.Entry = *m.Head
	}
	if m.Genesis != nil {
		h.CheckpointKey = m.Genesis.CheckpointKey
	}
	var err error
	if h.Tree, err = NewTree(m.NextSeq, m.TreeAfter); err != nil {
		return h, err
	}
	return h, h.rotate(m)
}

// ErrEntries says that a segment's entries are not what its manifest says.
var ErrEntries = errors.New("entries do not match the manifest")

// VerifySegment reads the object r of the segment that m describes and checks all of it: hashes of the object, frames and
// lines, the chain from entry to entry, the tree, and the counts. visit, if not nil, sees each entry with its line; what
// it is given is valid during the call only. An error that wraps [ErrEntries], or one of the segment's own, is a definite
// no; one that comes from r is not.
func VerifySegment(m *Manifest, r io.Reader, visit func(e *Entry, line []byte) error) error {
	segment, err := NewSegmentReader(r, m.Segment)
	if err != nil {
		return err
	}
	defer segment.Close()
	head, err := headBefore(m)
	if err != nil {
		return err
	}
	var sum Summary
	for {
		lines, err := segment.Frame()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		for len(lines) > 0 {
			n := bytes.IndexByte(lines, '\n')
			line := lines[:n]
			lines = lines[n+1:]
			e, err := ParseEntry(line)
			if err != nil {
				return fmt.Errorf("%w: entry %d: %w", ErrEntries, head.NextSeq, err)
			}
			if e.Seq != head.NextSeq {
				return fmt.Errorf("%w: entry %d stands where %d belongs", ErrEntries, e.Seq, head.NextSeq)
			}
			if e.Prev != head.Entry {
				return fmt.Errorf("%w: entry %d does not continue the entry before it", ErrEntries, e.Seq)
			}
			head.Append(Sum(line))
			sum.Add(e.Facts())
			sum.Receive(e.Received)
			if visit != nil {
				if err := visit(&e, line); err != nil {
					return err
				}
			}
		}
	}
	if head.NextSeq != m.NextSeq || head.Entry != *m.Head {
		return fmt.Errorf("%w: the last entry is not the head that the manifest says", ErrEntries)
	}
	after, err := NewTree(m.NextSeq, m.TreeAfter)
	if err != nil {
		return err
	}
	if !head.Tree.Equal(&after) {
		return fmt.Errorf("%w: the tree over them is another than the manifest says", ErrEntries)
	}
	return sum.matches(m)
}

func headBefore(m *Manifest) (Head, error) {
	h := Head{Chain: m.Chain, NextSeq: m.FirstSeq}
	if m.PreviousHead != nil {
		h.Entry = *m.PreviousHead
	}
	var err error
	h.Tree, err = NewTree(m.FirstSeq, m.TreeBefore)
	return h, err
}

// matches compares what was counted with what the manifest says.
func (s *Summary) matches(m *Manifest) error {
	got, said := s.Counts(), *m.Counts
	same := got.Entries == said.Entries && got.Records == said.Records && got.Events == said.Events &&
		got.Complete == said.Complete && got.Incomplete == said.Incomplete && got.SourceEvents == said.SourceEvents &&
		got.Redelivered == said.Redelivered && got.Conflicts == said.Conflicts && len(got.Missing) == len(said.Missing)
	for name, n := range got.Missing {
		same = same && said.Missing[name] == n
	}
	if !same {
		return fmt.Errorf("%w: its counts are wrong", ErrEntries)
	}
	sources, omitted := s.SourceRanges()
	same = len(sources) == len(m.Sources) && omitted == m.SourcesOmitted
	for i := 0; same && i < len(sources); i++ {
		same = sources[i].ID == m.Sources[i].ID && len(sources[i].Ranges) == len(m.Sources[i].Ranges)
		for j := 0; same && j < len(sources[i].Ranges); j++ {
			same = sources[i].Ranges[j] == m.Sources[i].Ranges[j]
		}
	}
	if !same {
		return fmt.Errorf("%w: its ranges of sources are wrong", ErrEntries)
	}
	if !sameSpan(s.EventTimes(), m.EventTime) || !sameSpan(s.ReceivedTimes(), m.Received) {
		return fmt.Errorf("%w: its ranges of times are wrong", ErrEntries)
	}
	return nil
}

func sameSpan(a, b *Span) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.First.Equal(b.First.Time) && a.Last.Equal(b.Last.Time)
}
