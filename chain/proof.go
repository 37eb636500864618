package chain

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// maxProof is how many hashes a proof may have: a tree has 64 levels at most.
const maxProof = 64

// MaxProofText is how long the text of a proof may be, in bytes. A checkpoint may carry witnesses' signatures.
const MaxProofText = 64 << 10

// InclusionProof proves that an entry is in a log. Its text is a C2SP tlog-proof (https://c2sp.org/tlog-proof), without
// extra data; the leaf's data, of which a C2SP verifier is to be told, is the entry hash, 32 bytes.
type InclusionProof struct {
	Index      uint64 // the entry's number
	Hashes     []Hash // RFC 6962, 2.1.1, the leaf's sibling first
	Checkpoint string // signed note, of the tree in which the entry is
}

const inclusionMark = "c2sp.org/tlog-proof@v1\n"

// String returns the proof's text.
func (p InclusionProof) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%sindex %d\n", inclusionMark, p.Index)
	return appendProof(&b, p.Hashes, p.Checkpoint)
}

// ParseInclusionProof reads a tlog-proof. Extra data is passed over.
func ParseInclusionProof(text string) (InclusionProof, error) {
	var p InclusionProof
	rest, ok := strings.CutPrefix(text, inclusionMark)
	if !ok || len(text) > MaxProofText {
		return p, errors.New("inclusion proof: it is no C2SP tlog-proof")
	}
	if strings.HasPrefix(rest, "extra ") {
		_, rest, _ = strings.Cut(rest, "\n")
	}
	var err error
	p.Index, p.Hashes, p.Checkpoint, err = parseProof(rest, "index ")
	if err != nil {
		return p, fmt.Errorf("inclusion proof: %w", err)
	}
	return p, nil
}

// Verify checks that the entry with the given hash is in the log whose checkpoints vkey verifies, and returns the
// checkpoint in which it is.
func (p InclusionProof) Verify(entry Hash, vkey string) (Checkpoint, error) {
	c, err := OpenCheckpoint(p.Checkpoint, vkey)
	if err != nil {
		return c, err
	}
	return c, p.verify(entry, c)
}

func (p InclusionProof) verify(entry Hash, c Checkpoint) error {
	if p.Index >= c.Size {
		return fmt.Errorf("inclusion proof: entry %d is not in a tree of size %d", p.Index, c.Size)
	}
	leaf := hashLeaf(&entry)
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, p.Index, c.Size, leaf[:], slicesOf(p.Hashes), c.Root[:]); err != nil {
		return fmt.Errorf("inclusion proof: it does not lead from entry %d to the root of the tree of size %d: %w", p.Index, c.Size, err)
	}
	return nil
}

// ConsistencyProof proves that a log has only been appended to between two checkpoints. Its text is the body of C2SP
// tlog-witness's add-checkpoint request (https://c2sp.org/tlog-witness).
type ConsistencyProof struct {
	Old        uint64 // size of the earlier tree
	Hashes     []Hash // RFC 6962, 2.1.2
	Checkpoint string // signed note, of the later tree
}

// String returns the proof's text.
func (p ConsistencyProof) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "old %d\n", p.Old)
	return appendProof(&b, p.Hashes, p.Checkpoint)
}

// ParseConsistencyProof reads what String returns.
func ParseConsistencyProof(text string) (ConsistencyProof, error) {
	var p ConsistencyProof
	var err error
	if len(text) > MaxProofText {
		return p, errors.New("consistency proof: it is too long")
	}
	p.Old, p.Hashes, p.Checkpoint, err = parseProof(text, "old ")
	if err != nil {
		return p, fmt.Errorf("consistency proof: %w", err)
	}
	return p, nil
}

// Verify checks that the log whose checkpoints vkey verifies contains all of the earlier tree, old, which is taken on the
// caller's word, and returns the later checkpoint.
func (p ConsistencyProof) Verify(old Checkpoint, vkey string) (Checkpoint, error) {
	c, err := OpenCheckpoint(p.Checkpoint, vkey)
	switch {
	case err != nil:
		return c, err
	case old.Origin != c.Origin:
		return c, fmt.Errorf("consistency proof: one head is of %q, the other of %q", old.Origin, c.Origin)
	case old.Size != p.Old:
		return c, fmt.Errorf("consistency proof: it is from size %d on, the earlier head has size %d", p.Old, old.Size)
	case old.Size > c.Size:
		return c, fmt.Errorf("consistency proof: the earlier head has size %d, the later one %d", old.Size, c.Size)
	case old.Size == 0 && (len(p.Hashes) > 0 || old.Root != new(Tree).Root()):
		return c, errors.New("consistency proof: the empty tree has one root, and needs no proof")
	}
	if err := proof.VerifyConsistency(rfc6962.DefaultHasher, old.Size, c.Size, slicesOf(p.Hashes), old.Root[:], c.Root[:]); err != nil {
		return c, fmt.Errorf("consistency proof: the tree of size %d does not begin with the one of size %d: %w", c.Size, old.Size, err)
	}
	return c, nil
}

func slicesOf(hashes []Hash) [][]byte {
	all := make([][]byte, len(hashes))
	for i := range hashes {
		all[i] = hashes[i][:]
	}
	return all
}

func appendProof(b *strings.Builder, hashes []Hash, checkpoint string) string {
	for _, h := range hashes {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]))
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	b.WriteString(checkpoint)
	return b.String()
}

// parseProof reads a line of mark and a number, lines of hashes, an empty line, and a checkpoint.
func parseProof(text, mark string) (n uint64, hashes []Hash, checkpoint string, err error) {
	first, rest, ok := strings.Cut(text, "\n")
	digits, marked := strings.CutPrefix(first, mark)
	n, err = strconv.ParseUint(digits, 10, 64)
	if !ok || !marked || err != nil || digits != strconv.FormatUint(n, 10) {
		return 0, nil, "", fmt.Errorf("its line %.40q is not %q and a number", first, mark)
	}
	for {
		var line string
		if line, rest, ok = strings.Cut(rest, "\n"); !ok {
			return 0, nil, "", errors.New("it ends without a checkpoint")
		}
		if line == "" {
			return n, hashes, rest, nil
		}
		h, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(h) != HashSize || len(hashes) == maxProof || base64.StdEncoding.EncodeToString(h) != line {
			return 0, nil, "", fmt.Errorf("its line %.60q is not the hash of a proof", line)
		}
		hashes = append(hashes, Hash(h))
	}
}
