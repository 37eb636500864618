package chain

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Checkpoint is what a signed tree head commits to (C2SP tlog-checkpoint).
type Checkpoint struct {
	Origin string // the chain's name
	Size   uint64 // leaves, that is, the next sequence number
	Root   Hash   // RFC 6962 root over that many entry hashes
}

func (c Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// SignCheckpoint returns c as a signed note, with the key that belongs to k and the origin as the key's name.
func (k *SigningKey) SignCheckpoint(c Checkpoint) (string, error) {
	vkey, err := k.CheckpointKey(c.Origin)
	if err != nil {
		return "", fmt.Errorf("checkpoint key: %w", err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return "", fmt.Errorf("checkpoint key: %w", err)
	}
	signed, err := note.Sign(&note.Note{Text: c.text()}, noteSigner{verifier, k.checkpoint})
	return string(signed), err
}

type noteSigner struct {
	note.Verifier // for its name and key hash
	key           ed25519.PrivateKey
}

func (s noteSigner) Sign(message []byte) ([]byte, error) { return ed25519.Sign(s.key, message), nil }

// OpenCheckpoint checks a signed note against the verifier key vkey and returns what it commits to. The note may carry
// further signatures, of witnesses for instance; its text may have no extension lines.
func OpenCheckpoint(signed, vkey string) (Checkpoint, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint key: %w", err)
	}
	n, err := note.Open([]byte(signed), note.VerifierList(verifier))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	return parseCheckpoint(n.Text)
}

// PeekCheckpoint reads a signed note without checking its signatures: to tell what it claims, never to believe it.
func PeekCheckpoint(signed string) (Checkpoint, error) {
	text, _, ok := strings.Cut(signed, "\n\n")
	if !ok {
		return Checkpoint{}, errors.New("checkpoint: it is no signed note")
	}
	return parseCheckpoint(text + "\n")
}

func parseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return Checkpoint{}, fmt.Errorf("checkpoint has %d lines, want origin, size and root", len(lines)-1)
	}
	size, err := strconv.ParseUint(lines[1], 10, 64)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: size %q is not a number", lines[1])
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != HashSize {
		return Checkpoint{}, fmt.Errorf("checkpoint: root %q is not a hash", lines[2])
	}
	c := Checkpoint{Origin: lines[0], Size: size, Root: Hash(root)}
	if c.text() != text {
		return Checkpoint{}, fmt.Errorf("checkpoint %q is not in its one spelling", text)
	}
	return c, nil
}

// checkCheckpointKey reports why vkey cannot verify the chain's checkpoints: their key has the chain's name, and is Ed25519.
func checkCheckpointKey(vkey, chain string) error {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return fmt.Errorf("checkpoint key: %w", err)
	}
	if verifier.Name() != chain {
		return fmt.Errorf("checkpoint key has the name %q, not the chain's", verifier.Name())
	}
	return nil
}
