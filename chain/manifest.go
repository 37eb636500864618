package chain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"time"
)

// Kind says what a manifest is for.
type Kind string

// The kinds of manifests.
const (
	KindGenesis   Kind = "genesis"   // n = 0: names the chain, its keys and its policy
	KindSegment   Kind = "segment"   // commits one segment
	KindHeartbeat Kind = "heartbeat" // nothing came in: proof of silence, and of a live writer
	KindRotation  Kind = "rotation"  // announces a new key, signed by the old one
)

// PredicateType of the in-toto statement in a manifest.
const PredicateType = "urn:auditchain:chain-head:v1"

const statementType = "https://in-toto.io/Statement/v1"

// Time is a [time.Time] whose JSON has exactly nine fraction digits, in UTC.
type Time struct{ time.Time }

// MarshalJSON writes t as [AppendTime] does.
func (t Time) MarshalJSON() ([]byte, error) { return append(AppendTime([]byte{'"'}, t.Time), '"'), nil }

// UnmarshalJSON reads what MarshalJSON writes.
func (t *Time) UnmarshalJSON(data []byte) error {
	if len(data) < 2 || data[0] != '"' {
		return errors.New("a time must be a string")
	}
	parsed, err := ParseTime(data[1 : len(data)-1])
	t.Time = parsed
	return err
}

// Manifest is the signed chain head: the predicate of an in-toto statement. There is one per segment, numbered densely
// from 0, and each names the one before by the SHA-256 of its payload.
type Manifest struct {
	Format           int    `json:"format"` // 1
	Chain            string `json:"chain"`
	N                uint64 `json:"n"`
	Kind             Kind   `json:"kind"`
	PreviousManifest *Hash  `json:"previous_manifest"` // SHA-256 of the payload of manifest n-1; null for the genesis
	// KeySince is the number of the rotation that announced the key which signs this manifest; 0: it is the genesis's key.
	KeySince uint64 `json:"key_since,omitempty"`

	FirstSeq     uint64 `json:"first_seq"`     // the first entry's number, if there is one
	NextSeq      uint64 `json:"next_seq"`      // first_seq + the number of entries
	PreviousHead *Hash  `json:"previous_head"` // entry hash of entry first_seq - 1; null for the genesis
	Head         *Hash  `json:"head"`          // entry hash of entry next_seq - 1; null for the genesis
	Checkpoint   string `json:"checkpoint"`    // a signed note: C2SP tlog-checkpoint over the tree of size next_seq
	TreeBefore   []Hash `json:"tree_before"`   // compact range of the tree of size first_seq
	TreeAfter    []Hash `json:"tree_after"`    // compact range of the tree of size next_seq

	Counts    *Counts  `json:"counts,omitempty"`     // segments only
	Segment   *Segment `json:"segment,omitempty"`    // segments only
	EventTime *Span    `json:"event_time,omitempty"` // earliest and latest time of a record
	Received  *Span    `json:"received,omitempty"`   // earliest and latest time at which an entry was received
	Sources   []Source `json:"sources,omitempty"`    // ascending by id
	// SourcesOmitted is how many sources there were, where they are too many to list.
	SourcesOmitted uint64 `json:"sources_omitted,omitempty"`

	SealedAt Time   `json:"sealed_at"`
	Lock     Lock   `json:"lock"`
	Writer   Writer `json:"writer"`
	// ClockSkew is the store's clock minus the writer's, in milliseconds, as of the store's last answer.
	ClockSkew *int64       `json:"clock_skew_ms,omitempty"`
	Genesis   *GenesisInfo `json:"genesis,omitempty"`  // genesis only
	Rotation  *NewKeys     `json:"rotation,omitempty"` // rotation only
}

// Segment describes a stored segment object.
type Segment struct {
	Key       string  `json:"key"`        // below the chain's root
	VersionID string  `json:"version_id"` // the store's id of the version that was written; empty if the store has none
	Size      int64   `json:"size"`       // of the object, bytes
	SHA256    Hash    `json:"sha256"`     // of the object
	RawSize   int64   `json:"raw_size"`   // of the entry lines with their newlines, bytes
	RawSHA256 Hash    `json:"raw_sha256"` // of the entry lines with their newlines
	Frames    []Frame `json:"frames"`     // in the order of the object's bytes, covering all of it
}

// Frame describes one zstd frame (RFC 8878) of a segment: it holds whole lines.
type Frame struct {
	Size    int64  `json:"size"`     // bytes in the object
	RawSize int64  `json:"raw_size"` // bytes of lines
	Entries uint64 `json:"entries"`
	SHA256  Hash   `json:"sha256"` // of the frame's bytes in the object
}

// Span is a range of times, both ends included.
type Span struct {
	First Time `json:"first"`
	Last  Time `json:"last"`
}

// Source says which of a source's records a segment holds.
type Source struct {
	ID     string      `json:"id"`
	Ranges [][2]uint64 `json:"ranges"` // ascending runs of numbers, both ends included
}

// Lock is the object lock that was asked for, of the manifest and of its segment.
type Lock struct {
	Mode        string `json:"mode"`         // COMPLIANCE, GOVERNANCE, or NONE where the store cannot lock
	RetainUntil Time   `json:"retain_until"` // whole seconds
}

// Writer says which program wrote the manifest.
type Writer struct {
	Version  string `json:"version"`
	Host     string `json:"host"`
	Instance string `json:"instance"` // changes with every start
}

// GenesisInfo is what the first manifest fixes for the chain.
type GenesisInfo struct {
	Created       Time   `json:"created"`
	ManifestKey   string `json:"manifest_key"`   // PEM (PKIX)
	CheckpointKey string `json:"checkpoint_key"` // verifier key of C2SP signed notes
	Policy        Policy `json:"policy"`
}

// NewKeys are the keys that sign whatever comes after the rotation that announces them.
type NewKeys struct {
	ManifestKey   string `json:"manifest_key"`   // PEM (PKIX)
	CheckpointKey string `json:"checkpoint_key"` // verifier key of C2SP signed notes
}

// Policy is what the operator promised when the chain began.
type Policy struct {
	Retention         string `json:"retention"` // as [ParseRetention] reads it
	LockMode          string `json:"lock_mode"`
	HeartbeatInterval int64  `json:"heartbeat_interval_s"` // seconds
}

type statement struct {
	Type          string    `json:"_type"`
	Subject       []subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     Manifest  `json:"predicate"`
}

type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// subjects are what an attestation verifier compares a file with: the segment object and its lines, or, where there is
// no segment, the checkpoint.
func (m *Manifest) subjects() []subject {
	if m.Segment == nil {
		return []subject{{"checkpoint", map[string]string{"sha256": Sum([]byte(m.Checkpoint)).String()}}}
	}
	raw := m.Segment.Key
	if n := len(raw) - len(".zst"); n > 0 {
		raw = raw[:n]
	}
	return []subject{
		{m.Segment.Key, map[string]string{"sha256": m.Segment.SHA256.String()}},
		{raw, map[string]string{"sha256": m.Segment.RawSHA256.String()}},
	}
}

// Sign returns the manifest as it is stored, and the SHA-256 of its payload.
func (m *Manifest) Sign(k *SigningKey) (data []byte, payloadHash Hash, err error) {
	if err := m.check(); err != nil {
		return nil, Hash{}, fmt.Errorf("manifest %d: %w", m.N, err)
	}
	payload, err := json.Marshal(statement{statementType, m.subjects(), PredicateType, *m})
	if err != nil {
		return nil, Hash{}, fmt.Errorf("manifest %d: %w", m.N, err)
	}
	data, err = SignBundle(k, payload)
	if err != nil {
		return nil, Hash{}, err
	}
	if len(data) > MaxManifest {
		return nil, Hash{}, fmt.Errorf("manifest %d has %d bytes, more than the %d allowed", m.N, len(data), MaxManifest)
	}
	return data, Sum(payload), nil
}

// OpenManifest checks a stored manifest's signature against key and its content for what can be seen without any other,
// and returns it with the SHA-256 of its payload. The error wraps [ErrSignature] if only the signature is wrong.
func OpenManifest(data []byte, key PublicKey) (*Manifest, Hash, error) {
	b, err := openBundle(data)
	if err != nil {
		return nil, Hash{}, err
	}
	payload := b.Envelope.Payload
	if !key.Verify(pae(payload), b.Envelope.Signatures[0].Sig) {
		return nil, Hash{}, ErrSignature
	}
	if b.VerificationMaterial.PublicKey.Hint != key.hint() {
		return nil, Hash{}, errors.New("its hint names another key than the one that signed it")
	}
	m, err := parseStatement(payload)
	return m, Sum(payload), err
}

// PeekManifest reads a manifest without checking its signature: to tell what it claims, never to believe it.
func PeekManifest(data []byte) (*Manifest, error) {
	b, err := openBundle(data)
	if err != nil {
		return nil, err
	}
	return parseStatement(b.Envelope.Payload)
}

func parseStatement(payload []byte) (*Manifest, error) {
	var s statement
	if err := strictJSON(payload, &s); err != nil {
		return nil, fmt.Errorf("its statement cannot be read: %w", err)
	}
	// What is signed has one spelling, so that no two readers take two meanings from it (repeated keys, case of keys).
	if again, err := json.Marshal(s); err != nil || !bytes.Equal(again, payload) {
		return nil, errors.New("its statement is not in its one spelling")
	}
	m := &s.Predicate
	if s.Type != statementType || s.PredicateType != PredicateType {
		return nil, fmt.Errorf("it states a %q with a %q, want a %s with a %s", s.Type, s.PredicateType, statementType, PredicateType)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	want := m.subjects()
	if len(s.Subject) != len(want) {
		return nil, fmt.Errorf("it has %d subjects, want %d", len(s.Subject), len(want))
	}
	for i, w := range want {
		got := s.Subject[i]
		if got.Name != w.Name || len(got.Digest) != 1 || got.Digest["sha256"] != w.Digest["sha256"] {
			return nil, fmt.Errorf("its subject %q is not the %q that it describes", got.Name, w.Name)
		}
	}
	return m, nil
}

// check finds what is wrong with a manifest by itself.
func (m *Manifest) check() error {
	if m.Format != Version {
		return fmt.Errorf("its format is version %d; this program knows version %d", m.Format, Version)
	}
	if err := CheckName(m.Chain); err != nil {
		return err
	}
	isGenesis := m.Kind == KindGenesis
	switch {
	case m.Kind != KindGenesis && m.Kind != KindSegment && m.Kind != KindHeartbeat && m.Kind != KindRotation:
		return fmt.Errorf("its kind is %q", m.Kind)
	case isGenesis != (m.N == 0):
		return fmt.Errorf("a %s cannot be number %d", m.Kind, m.N)
	case isGenesis != (m.Genesis != nil):
		return errors.New("genesis information must stand in the genesis and only there")
	case (m.Kind == KindRotation) != (m.Rotation != nil):
		return errors.New("new keys must stand in a rotation and only there")
	case m.KeySince > 0 && m.KeySince >= m.N:
		return fmt.Errorf("its key cannot have come with manifest %d", m.KeySince)
	case isGenesis != (m.PreviousManifest == nil), isGenesis != (m.PreviousHead == nil), isGenesis != (m.Head == nil):
		return errors.New("previous_manifest, previous_head and head must be null in the genesis and only there")
	case m.NextSeq < m.FirstSeq:
		return fmt.Errorf("next_seq %d is before first_seq %d", m.NextSeq, m.FirstSeq)
	case (m.Kind == KindSegment) != (m.Segment != nil), (m.Kind == KindSegment) != (m.Counts != nil):
		return errors.New("segment and counts must stand in a segment's manifest and only there")
	case m.Kind != KindSegment && m.NextSeq != m.FirstSeq:
		return fmt.Errorf("a %s cannot hold entries", m.Kind)
	case isGenesis && m.NextSeq != 0:
		return errors.New("a genesis must stand before entry 0")
	case len(m.TreeBefore) != bits.OnesCount64(m.FirstSeq), len(m.TreeAfter) != bits.OnesCount64(m.NextSeq):
		return errors.New("its compact ranges do not fit its sequence numbers")
	}
	if m.Segment == nil {
		return nil
	}
	if m.NextSeq == m.FirstSeq {
		return errors.New("its segment holds no entries")
	}
	if m.Counts.Entries != m.NextSeq-m.FirstSeq || m.Counts.Records+m.Counts.Events != m.Counts.Entries ||
		m.Counts.Complete+m.Counts.Incomplete+m.Counts.SourceEvents != m.Counts.Records {
		return errors.New("its counts do not add up")
	}
	return m.Segment.check(m.NextSeq - m.FirstSeq)
}

// check finds a frame table that does not add up, before anybody reads by it.
func (s *Segment) check(entries uint64) error {
	var size, raw int64
	var n uint64
	for i, f := range s.Frames {
		if f.Size <= 0 || f.RawSize <= 0 || f.RawSize > maxFrame || f.Size > maxFrame || f.Entries == 0 || f.Entries > uint64(f.RawSize) {
			return fmt.Errorf("its frame %d has impossible sizes", i)
		}
		size += f.Size
		raw += f.RawSize
		n += f.Entries
		if size > maxSegment || raw > maxSegment || n > entries {
			return fmt.Errorf("its frame table runs over at frame %d", i)
		}
	}
	if size != s.Size || raw != s.RawSize || n != entries {
		return errors.New("its frame table does not add up to its segment")
	}
	return nil
}
