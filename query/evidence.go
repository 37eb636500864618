package query

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// Place is where an entry is: its number, and that of the manifest whose segment holds it.
type Place struct {
	Seq, Manifest uint64
}

// Evidence collects what proves one entry, from two objects: its manifest and its segment. keys are the stored genesis and
// rotations, as [FindResult.Keys] has them. What it returns has been verified against the log's key.
func (l *Log) Evidence(ctx context.Context, at Place, keys [][]byte, made chain.Made) (*chain.Evidence, error) {
	stored, err := l.manifest(ctx, at.Manifest)
	if err != nil {
		return nil, err
	}
	m, err := chain.PeekManifest(stored.data) // what it says is verified at the end
	if err != nil {
		return nil, fmt.Errorf("manifest %d: %w", at.Manifest, err)
	}
	if m.Segment == nil || at.Seq < m.FirstSeq || at.Seq >= m.NextSeq {
		return nil, fmt.Errorf("manifest %d does not hold entry %d", at.Manifest, at.Seq)
	}
	var tree chain.Subtrees
	tree.AddManifest(m)
	var line []byte
	info, err := l.addSegment(ctx, m, &tree, func(e *chain.Entry, l []byte) {
		if e.Seq == at.Seq {
			line = bytes.Clone(l)
		}
	})
	if err != nil {
		return nil, err
	}
	hashes, err := tree.Inclusion(at.Seq, m.NextSeq)
	if err != nil {
		return nil, fmt.Errorf("proving entry %d: %w", at.Seq, err)
	}
	proof := chain.InclusionProof{Index: at.Seq, Hashes: hashes, Checkpoint: m.Checkpoint}
	e := chain.NewEvidence(line, proof, stored.data, keysUpTo(keys, m.KeySince), l.Layout.Chain)
	e.Made = made
	e.Objects = []chain.StoredObject{
		storedObject("segment", l.Layout.Root()+m.Segment.Key, m.Segment.VersionID, info),
		storedObject("manifest", stored.stored.key, stored.info.Version, stored.info),
	}
	report := e.Verify(l.Key.Fingerprint())
	for _, c := range report.Checks {
		if !c.OK {
			return nil, fmt.Errorf("what was collected is no evidence: %s", c.Text)
		}
	}
	return e, nil
}

// keysUpTo returns the genesis and the rotations up to number last.
func keysUpTo(keys [][]byte, last uint64) [][]byte {
	var some [][]byte
	for _, data := range keys {
		if m, err := chain.PeekManifest(data); err == nil && m.N <= last {
			some = append(some, data)
		}
	}
	return some
}

func storedObject(what, key, version string, info storage.Info) chain.StoredObject {
	o := chain.StoredObject{What: what, Key: key, VersionID: version, LockMode: info.LockMode}
	if !info.RetainUntil.IsZero() {
		o.RetainUntil = info.RetainUntil.UTC().Format(time.RFC3339)
	}
	return o
}

// addSegment reads the segment of m, checks it, takes its entries into tree, and shows them to visit.
func (l *Log) addSegment(ctx context.Context, m *chain.Manifest, tree *chain.Subtrees, visit func(e *chain.Entry, line []byte)) (storage.Info, error) {
	r, info, err := l.open(ctx, l.Layout.Root()+m.Segment.Key, m.Segment.VersionID)
	if err != nil {
		return info, err
	}
	defer r.Close()
	entries := make([]chain.Hash, 0, min(m.NextSeq-m.FirstSeq, 1<<16))
	err = chain.VerifySegment(m, r, func(e *chain.Entry, line []byte) error {
		if e.Seq > m.FirstSeq {
			entries = append(entries, e.Prev)
		}
		visit(e, line)
		return nil
	})
	if err != nil {
		return info, fmt.Errorf("the segment of entries %d to %d does not verify: %w", m.FirstSeq, m.NextSeq-1, err)
	}
	tree.AddEntries(m.FirstSeq, append(entries, *m.Head))
	return info, nil
}
