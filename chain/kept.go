package chain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// MaxKeptHead is how long the JSON of a head may be, in bytes.
const MaxKeptHead = 64 << 10

// keptHead is the JSON of a [Head], as an auditor keeps it outside of the store: docs/FORMAT.md, "Kept heads".
type keptHead struct {
	Format        int    `json:"auditchain_head"` // 1
	Chain         string `json:"chain"`
	Manifest      uint64 `json:"manifest"` // number of the last manifest
	PayloadSHA256 Hash   `json:"payload_sha256"`
	NextSeq       uint64 `json:"next_seq"`
	Head          Hash   `json:"head"`
	Tree          []Hash `json:"tree"` // compact range
	Checkpoint    string `json:"checkpoint"`
	ManifestKey   string `json:"manifest_key"` // PEM, of the manifests that follow
	CheckpointKey string `json:"checkpoint_key"`
	KeySince      uint64 `json:"key_since"`
	SealedAt      Time   `json:"sealed_at"`
	RetainUntil   Time   `json:"retain_until"`
}

// MarshalJSON writes the head so that it can be kept, and gone on from. A head before the genesis cannot be.
func (h *Head) MarshalJSON() ([]byte, error) {
	if h.NextN == 0 || h.Key.key == nil {
		return nil, errors.New("a chain that has not begun has no head to keep")
	}
	return json.Marshal(keptHead{
		1, h.Chain, h.NextN - 1, h.PreviousManifest, h.NextSeq, h.Entry, h.Tree.Compact(), h.Checkpoint,
		string(h.Key.PEM()), h.CheckpointKey, h.KeySince, Time{h.SealedAt}, Time{h.RetainUntil},
	})
}

// UnmarshalJSON reads what MarshalJSON wrote. It is taken on its word, but its checkpoint must be of its tree.
func (h *Head) UnmarshalJSON(data []byte) error {
	if len(data) > MaxKeptHead {
		return fmt.Errorf("a head has %d bytes, more than the %d allowed", len(data), MaxKeptHead)
	}
	var k keptHead
	if err := strictJSON(data, &k); err != nil {
		return fmt.Errorf("it is no head: %w", err)
	}
	if again, err := json.Marshal(k); err != nil || !bytes.Equal(again, bytes.TrimSpace(data)) {
		return errors.New("head: it is not spelled as it was written")
	}
	if k.Manifest == math.MaxUint64 {
		return errors.New("head: no chain has so many manifests")
	}
	if k.Format != 1 {
		return fmt.Errorf("it is a head of format %d; this program knows format 1", k.Format)
	}
	next := Head{
		Chain: k.Chain, NextN: k.Manifest + 1, PreviousManifest: k.PayloadSHA256, NextSeq: k.NextSeq, Entry: k.Head,
		Checkpoint: k.Checkpoint, CheckpointKey: k.CheckpointKey, KeySince: k.KeySince,
		SealedAt: k.SealedAt.UTC(), RetainUntil: k.RetainUntil.UTC(),
	}
	var err error
	if next.Key, err = ParsePublicKey([]byte(k.ManifestKey)); err != nil {
		return fmt.Errorf("head: manifest_key: %w", err)
	}
	if next.Tree, err = NewTree(k.NextSeq, k.Tree); err != nil {
		return fmt.Errorf("head: %w", err)
	}
	c, err := PeekCheckpoint(k.Checkpoint)
	if err != nil {
		return fmt.Errorf("head: %w", err)
	}
	if want := (Checkpoint{k.Chain, k.NextSeq, next.Tree.Root()}); c != want {
		return errors.New("head: its checkpoint is not of its tree")
	}
	*h = next
	return nil
}
