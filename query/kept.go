package query

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/auditchain/auditchain/chain"
)

// KeptHead is what somebody kept of a log outside of its store: how many entries it had and the root of the tree over them, or
// only a hash.
type KeptHead struct {
	Name  string      // for messages
	Chain string      // "" if only a hash is known
	Size  uint64      // of the tree; 0 if only a hash is known
	Root  *chain.Hash // of the tree
	Hash  *chain.Hash // an entry hash, a tree's root or a manifest's payload hash; nil if more is known

	// Payload is the payload hash of manifest number N that the head is of, if that is known: manifests without entries do not
	// change the tree, and would be missed by nobody who knows the tree alone.
	Payload *chain.Hash
	N       uint64

	Checkpoint string // signed note; "" if only a hash is known
}

func (k *KeptHead) matches(h *chain.Head) bool {
	root := h.Tree.Root()
	if k.Hash != nil {
		return h.NextSeq > 0 && (*k.Hash == h.Entry || *k.Hash == root) || *k.Hash == h.PreviousManifest
	}
	if k.Payload != nil && (*k.Payload != h.PreviousManifest || k.N+1 != h.NextN) {
		return false
	}
	return k.Size == h.NextSeq && *k.Root == root
}

// before reports whether the kept head is known to lie before h.
func (k *KeptHead) before(h *chain.Head) bool {
	if k.Payload != nil {
		return k.N+1 < h.NextN
	}
	return k.Hash == nil && k.Size < h.NextSeq
}

// MaxHeadFile is how long a file with a kept head may be, in bytes.
const MaxHeadFile = chain.MaxManifest

// ParseKeptHead reads a kept head: the JSON of a [chain.Head], a manifest, a checkpoint, or 64 hex digits. The first is
// returned whole too, to go on from.
func ParseKeptHead(name string, data []byte) (KeptHead, *chain.Head, error) {
	if len(data) > MaxHeadFile {
		return KeptHead{}, nil, fmt.Errorf("%s has %d bytes, more than the %d allowed", name, len(data), MaxHeadFile)
	}
	k := KeptHead{Name: name}
	if hash, err := chain.ParseHash(bytes.TrimSpace(data)); err == nil {
		k.Hash = &hash
		return k, nil, nil
	}
	if m, err := chain.PeekManifest(bytes.TrimSpace(data)); err == nil {
		payload, err := chain.BundlePayloadHash(bytes.TrimSpace(data))
		if err != nil {
			return k, nil, err
		}
		c, err := chain.PeekCheckpoint(m.Checkpoint)
		k.Chain, k.Size, k.Root, k.Checkpoint, k.Payload, k.N = m.Chain, c.Size, &c.Root, m.Checkpoint, &payload, m.N
		return k, nil, err
	}
	head := new(chain.Head)
	err := head.UnmarshalJSON(bytes.TrimSpace(data))
	if err == nil {
		root := head.Tree.Root()
		k.Chain, k.Size, k.Root, k.Checkpoint, k.Payload, k.N = head.Chain, head.NextSeq, &root, head.Checkpoint, &head.PreviousManifest, head.NextN-1
		return k, head, nil
	}
	if c, err := chain.PeekCheckpoint(string(data)); err == nil {
		k.Chain, k.Size, k.Root, k.Checkpoint = c.Origin, c.Size, &c.Root, string(data)
		return k, nil, nil
	}
	if len(data) > 0 && data[0] == '{' {
		return k, nil, fmt.Errorf("%s: %w", name, err)
	}
	return k, nil, errors.New(name + " is no head: want what `auditchain verify --save-head` wrote, a manifest, a checkpoint, or 64 hex digits")
}

// expectation is a kept head and what became of it.
type expectation struct {
	KeptHead
	found bool
}

// meet compares the kept heads with where the chain stands after manifest n.
func (v *verification) meet(head *chain.Head, n uint64) {
	for i := range v.expect {
		if e := &v.expect[i]; e.matches(head) {
			v.met(e, fmt.Sprintf("at manifest %d, %d entries", n, head.NextSeq))
		}
	}
}

// meetEntry compares the hashes that were kept with that of an entry within a segment.
func (v *verification) meetEntry(hash chain.Hash, seq uint64) {
	for i := range v.expect {
		if e := &v.expect[i]; e.Hash != nil && *e.Hash == hash {
			v.met(e, fmt.Sprintf("it is entry %d", seq))
		}
	}
}

func (v *verification) met(e *expectation, where string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !e.found {
		e.found = true
		v.report.Found = append(v.report.Found, fmt.Sprintf("%s: in the log, %s", e.Name, where))
	}
}

// checkExpected reports the kept heads that were not met, once all is read.
func (v *verification) checkExpected(interrupted bool) {
	root := v.head.Tree.Root()
	for _, e := range v.expect {
		f := Finding{Severity: Tampered, Manifest: v.head.NextN}
		unknown := func(why string) {
			f.Severity, f.Code, f.Text = Unchecked, Unreadable, fmt.Sprintf("%s: %s", e.Name, why)
		}
		switch {
		case e.found:
			continue
		case interrupted:
			unknown("it was not met before this verification was interrupted")
		case v.Since != nil && e.before(v.Since):
			unknown("it lies before the head that this verification goes on from")
		case v.known && e.Size > v.head.NextSeq:
			f.Code, f.Text = RolledBack, fmt.Sprintf("%s: it has %d entries, the log has %d", e.Name, e.Size, v.head.NextSeq)
		case v.known && e.Payload != nil && e.N >= v.head.NextN && e.Size == v.head.NextSeq && *e.Root == root:
			f.Code, f.Text = RolledBack, fmt.Sprintf("%s: it is of manifest %d, the log ends with manifest %d", e.Name, e.N, v.head.NextN-1)
		case e.Hash != nil && (v.Since != nil || v.unread.Load() > 0):
			unknown("it was not met, but not all entries were read")
		case !v.known, e.Size < v.gaps:
			unknown("it was not met, but manifests are missing where it may have been")
		default:
			f.Code, f.Text = HeadNotFound, e.Name+": the log does not contain it"
		}
		v.found.add(f)
	}
	if len(v.expect) == 0 && v.Since == nil {
		v.notChecked("whether the end of the chain was cut off, or all of it written anew with its key: compare it with a head kept elsewhere (--expect-head)")
	} else {
		v.notChecked("whether anything that came after the kept head was cut off, or written anew with the chain's key")
	}
}
