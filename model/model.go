// Package model computes the checksum of a model as it lies on the disk: the SHA-256 of a manifest of its files' SHA-256.
// docs/RECORDS.md, section 4, says which files count and how the manifest is written.
package model

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// File is one file of a model.
type File struct {
	Path string // relative to the model's directory, with /
	Size int64  // bytes
	Sum  [sha256.Size]byte
}

// Manifest is a model's files, ascending by the bytes of their paths.
type Manifest []File

// Text is what the checksum is computed from, and what sha256sum -c takes in the model's directory.
func (m Manifest) Text() []byte {
	var text []byte
	for _, f := range m {
		text = hex.AppendEncode(text, f.Sum[:])
		text = append(text, "  "...)
		text = append(text, f.Path...)
		text = append(text, '\n')
	}
	return text
}

// Checksum is the model's checksum: sha256: and 64 hex digits.
func (m Manifest) Checksum() string { return fmt.Sprintf("sha256:%x", sha256.Sum256(m.Text())) }

// Size is how many bytes the files have.
func (m Manifest) Size() (n int64) {
	for _, f := range m {
		n += f.Size
	}
	return n
}
