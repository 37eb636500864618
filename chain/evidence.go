package chain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// MaxEvidence is how long the JSON of an [Evidence] may be, in bytes: a line of 64 MiB in base64, and what proves it.
const MaxEvidence = 128 << 20

const evidenceFormat = 1

// Bounds on what evidence may have.
const (
	maxKeys    = 10_000
	maxObjects = 100
)

// Evidence is one record with everything that proves it, for whoever has nothing but the fingerprint of the chain's first key:
// docs/FORMAT.md, "Evidence". It needs no bucket and no network to check.
type Evidence struct {
	Format   int      `json:"auditchain_evidence"` // 1
	Chain    string   `json:"chain"`
	Entry    []byte   `json:"entry"`    // the entry's line, without its newline
	Proof    string   `json:"proof"`    // tlog-proof of the entry in the manifest's checkpoint
	Manifest []byte   `json:"manifest"` // the stored manifest whose segment holds the entry
	Keys     [][]byte `json:"keys"`     // the stored genesis, and the stored rotations up to the manifest's key, in their order

	// What nothing here proves: what the store said of the objects, and who made this.
	Objects []StoredObject `json:"objects"`
	Made    Made           `json:"made"`
}

// StoredObject is what the store said of an object when the evidence was made.
type StoredObject struct {
	What        string `json:"what"` // segment or manifest
	Key         string `json:"key"`
	VersionID   string `json:"version_id"`
	LockMode    string `json:"lock_mode"`    // COMPLIANCE, GOVERNANCE, "" for none, or "unknown"
	RetainUntil string `json:"retain_until"` // RFC 3339, or ""
}

// Made says when, by what and from where evidence was made.
type Made struct {
	At   Time   `json:"at"`
	By   string `json:"by"`
	From string `json:"from"`
}

// ParseEvidence reads the JSON of an Evidence.
func ParseEvidence(data []byte) (*Evidence, error) {
	if len(data) > MaxEvidence {
		return nil, fmt.Errorf("evidence has %d bytes, more than the %d allowed", len(data), MaxEvidence)
	}
	// What has very many parts is none, and would take many times its size in memory.
	if bytes.Count(data, []byte{','}) > 2*maxKeys {
		return nil, errors.New("evidence cannot be read: it has too many parts")
	}
	e := new(Evidence)
	if err := strictJSON(data, e); err != nil {
		return nil, fmt.Errorf("evidence cannot be read: %w", err)
	}
	if e.Format != evidenceFormat {
		return nil, fmt.Errorf("evidence has format %d; this program knows format %d", e.Format, evidenceFormat)
	}
	if len(e.Keys) > maxKeys || len(e.Objects) > maxObjects {
		return nil, fmt.Errorf("evidence has %d keys and %d objects, more than the %d and %d allowed", len(e.Keys), len(e.Objects), maxKeys, maxObjects)
	}
	return e, nil
}

// NewEvidence puts together the evidence of an entry. It is not checked here.
func NewEvidence(line []byte, proof InclusionProof, manifest []byte, keys [][]byte, chain string) *Evidence {
	return &Evidence{Format: evidenceFormat, Chain: chain, Entry: line, Proof: proof.String(), Manifest: manifest, Keys: keys}
}

// Check is one step of verifying evidence.
type Check struct {
	Code string `json:"code"` // entry, inclusion, checkpoint, manifest, keys, trust
	OK   bool   `json:"ok"`
	Text string `json:"text"` // what is proven, or what is wrong
}

// EvidenceReport is what verifying evidence tells.
type EvidenceReport struct {
	Checks      []Check   `json:"checks"`
	OK          bool      `json:"ok"` // all of them are
	Seq         uint64    `json:"seq"`
	EntryHash   Hash      `json:"entry_hash"`
	Manifest    uint64    `json:"manifest"`
	Payload     Hash      `json:"manifest_payload_sha256"` // by it the log can be asked whether it has the manifest
	SealedAt    time.Time `json:"sealed_at"`
	TreeSize    uint64    `json:"tree_size"`
	Root        Hash      `json:"root"`
	Fingerprint Hash      `json:"key_fingerprint"` // of the genesis's key
}

// Verify checks the evidence step by step, against the fingerprint of the genesis's key that the caller has from elsewhere.
// What is checked says what is proven: of all the rest in e nothing is.
func (e *Evidence) Verify(trusted Hash) *EvidenceReport {
	r := &EvidenceReport{EntryHash: Sum(e.Entry)}
	step := func(code string, err error, format string, args ...any) bool {
		c := Check{Code: code, OK: err == nil, Text: fmt.Sprintf(format, args...)}
		if err != nil {
			c.Text = err.Error()
		}
		r.Checks = append(r.Checks, c)
		return err == nil
	}
	entry, entryErr := ParseEntry(e.Entry)
	r.Seq = entry.Seq
	step("entry", entryErr, "the entry is number %d of the log; its SHA-256 is %s", entry.Seq, r.EntryHash)

	head, keysErr := e.followKeys()
	var first PublicKey
	if keysErr == nil {
		first, keysErr = e.firstKey()
	}
	m, payload, err := OpenManifest(e.Manifest, head.Key)
	if keysErr != nil {
		m, err = nil, errors.New("its key is not known")
	}
	var c Checkpoint
	proof, proofErr := ParseInclusionProof(e.Proof)
	if proofErr == nil {
		c, proofErr = PeekCheckpoint(proof.Checkpoint)
	}
	if proofErr == nil && entryErr != nil {
		proofErr = errors.New("the entry's number is not known")
	}
	if proofErr == nil && proof.Index != entry.Seq {
		proofErr = fmt.Errorf("the proof is of entry %d, this is entry %d", proof.Index, entry.Seq)
	}
	if proofErr == nil {
		proofErr = proof.verify(r.EntryHash, c)
	}
	r.TreeSize, r.Root = c.Size, c.Root
	step("inclusion", proofErr, "%d hashes lead from it to the root of the tree of %d entries, %s", len(proof.Hashes), c.Size, c.Root)

	var checkpointErr error
	if keysErr != nil {
		checkpointErr = errors.New("the key of the checkpoint is not known")
	} else if c, checkpointErr = OpenCheckpoint(proof.Checkpoint, head.CheckpointKey); checkpointErr == nil && c.Origin != e.Chain {
		checkpointErr = fmt.Errorf("the checkpoint is of %q, not of %q", c.Origin, e.Chain)
	}
	step("checkpoint", checkpointErr, "that root is signed with the chain's checkpoint key, for %s", e.Chain)

	if err == nil && entryErr != nil {
		err = errors.New("the entry's number is not known")
	}
	if err == nil {
		err = e.fits(m, &entry, head.KeySince)
	}
	if err == nil && m.Checkpoint != proof.Checkpoint {
		err = errors.New("the proof leads to another checkpoint than the manifest's")
	}
	if m != nil {
		r.Manifest, r.SealedAt, r.Payload = m.N, m.SealedAt.Time, payload
	}
	step("manifest", err, "manifest %d, sealed %s, is signed with the chain's key, and states that checkpoint and entries %s",
		r.Manifest, r.SealedAt.Format(time.RFC3339), spanOf(m))

	text := "the key is that of the genesis"
	if n := len(e.Keys) - 1; n == 1 {
		text = "the key was announced by a manifest that is signed with the genesis's key"
	} else if n > 1 {
		text = fmt.Sprintf("the key was announced in %d steps, each signed with the key before, from the genesis's key on", n)
	}
	step("keys", keysErr, "%s", text)

	var trustErr error
	r.Fingerprint = Hash{}
	if keysErr != nil {
		trustErr = errors.New("the genesis's key is not known")
	} else if r.Fingerprint = first.Fingerprint(); r.Fingerprint != trusted {
		trustErr = fmt.Errorf("the genesis's key has the fingerprint %s, trusted is %s", r.Fingerprint, trusted)
	}
	step("trust", trustErr, "the genesis's key is the one that is trusted: %s", trusted)

	r.OK = true
	for _, c := range r.Checks {
		r.OK = r.OK && c.OK
	}
	return r
}

func spanOf(m *Manifest) string {
	if m == nil || m.NextSeq == m.FirstSeq {
		return "none"
	}
	return fmt.Sprintf("%d to %d", m.FirstSeq, m.NextSeq-1)
}

// fits reports why the manifest cannot be the one that holds the entry.
func (e *Evidence) fits(m *Manifest, entry *Entry, keySince uint64) error {
	switch {
	case m.Chain != e.Chain:
		return fmt.Errorf("the manifest is of %q, not of %q", m.Chain, e.Chain)
	case m.KeySince != keySince:
		return fmt.Errorf("the manifest's key came with manifest %d, the last one here is %d", m.KeySince, keySince)
	case entry.Seq < m.FirstSeq || entry.Seq >= m.NextSeq:
		return fmt.Errorf("the manifest holds entries %s, not %d", spanOf(m), entry.Seq)
	}
	return nil
}

// followKeys goes from the genesis over the rotations. Only the head's keys mean anything: what lies between is not here.
func (e *Evidence) followKeys() (head Head, err error) {
	if head.Key, err = e.firstKey(); err != nil {
		return head, err
	}
	for i, data := range e.Keys {
		m, payload, err := OpenManifest(data, head.Key)
		switch {
		case err != nil:
			return head, fmt.Errorf("key %d of the evidence: %w", i, err)
		case m.Chain != e.Chain:
			return head, fmt.Errorf("key %d of the evidence is of %q, not of %q", i, m.Chain, e.Chain)
		case (i == 0) != (m.Kind == KindGenesis), i > 0 && m.Kind != KindRotation:
			return head, fmt.Errorf("key %d of the evidence is a %s", i, m.Kind)
		case i > 0 && m.KeySince != head.KeySince:
			return head, fmt.Errorf("key %d of the evidence does not follow the one before it", i)
		}
		if i == 0 {
			if err := head.Advance(m, payload); err != nil {
				return head, err
			}
		} else {
			if _, err := OpenCheckpoint(m.Checkpoint, head.CheckpointKey); err != nil {
				return head, fmt.Errorf("key %d of the evidence: %w", i, err)
			}
			if err := head.rotate(m); err != nil {
				return head, err
			}
		}
	}
	return head, nil
}

// firstKey is the key that the genesis names, whoever signed it.
func (e *Evidence) firstKey() (PublicKey, error) {
	if len(e.Keys) == 0 {
		return PublicKey{}, errors.New("the evidence has no genesis")
	}
	m, err := PeekManifest(e.Keys[0])
	if err != nil {
		return PublicKey{}, fmt.Errorf("the evidence's genesis: %w", err)
	}
	if m.Genesis == nil {
		return PublicKey{}, fmt.Errorf("the first key of the evidence is a %s, not the genesis", m.Kind)
	}
	return ParsePublicKey([]byte(m.Genesis.ManifestKey))
}

// JSON returns the evidence as [ParseEvidence] reads it.
func (e *Evidence) JSON() ([]byte, error) { return json.Marshal(e) }
