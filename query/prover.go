package query

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/auditchain/auditchain/chain"
)

// Prover makes proofs between places in a log. It reads the manifests once, and of the segments those that a proof needs.
type Prover struct {
	log  *Log
	tree chain.Subtrees
	runs []run
	last *chain.Manifest

	Keys [][]byte // the stored genesis and rotations

	checkpointKeys []string // in their order
}

// run is the entries of a manifest.
type run struct {
	n, first, next uint64
	payload        chain.Hash
}

// NewProver reads the manifests of the log, which must follow each other from the genesis on.
func (l *Log) NewProver(ctx context.Context) (*Prover, error) {
	p := &Prover{log: l}
	head := chain.Head{Key: l.Key}
	for stored, err := range l.manifests(ctx, 0, nil) {
		if err == nil {
			err = stored.err
		}
		if err != nil {
			return nil, err
		}
		if stored.n != head.NextN {
			return nil, errors.New(notThere(head.NextN, stored.n-1) + ": nothing is proven across a gap")
		}
		before := head.CheckpointKey
		m, err := head.Follow(stored.data)
		if err != nil {
			return nil, fmt.Errorf("manifest %d: %w", stored.n, err)
		}
		if m.Chain != l.Layout.Chain {
			return nil, fmt.Errorf("manifest %d is of chain %s", stored.n, m.Chain)
		}
		if m.Segment != nil {
			p.runs = append(p.runs, run{m.N, m.FirstSeq, m.NextSeq, head.PreviousManifest})
		}
		if m.Genesis != nil || m.Rotation != nil {
			p.Keys = append(p.Keys, stored.data)
		}
		if p.last = m; head.CheckpointKey != before {
			p.checkpointKeys = append(p.checkpointKeys, head.CheckpointKey)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if p.last == nil {
		return nil, fmt.Errorf("%w: %q in %s", ErrNoChain, l.Layout.Chain, l.Bucket)
	}
	p.tree.AddManifest(p.last)
	return p, nil
}

// Checkpoint returns the log's last checkpoint.
func (p *Prover) Checkpoint() string { return p.last.Checkpoint }

// CheckpointKey returns the verifier key of the chain that verifies the signed checkpoint; false if none does.
func (p *Prover) CheckpointKey(checkpoint string) (string, bool) {
	for _, vkey := range p.checkpointKeys {
		if _, err := chain.OpenCheckpoint(checkpoint, vkey); err == nil {
			return vkey, true
		}
	}
	return "", false
}

// Place returns where the entry of the given number is; false if the log has none.
func (p *Prover) Place(seq uint64) (Place, bool) {
	r, ok := p.runOf(seq)
	return Place{seq, r.n}, ok
}

// runOf returns the run that holds the entry.
func (p *Prover) runOf(seq uint64) (run, bool) {
	i, _ := slices.BinarySearchFunc(p.runs, seq, func(r run, seq uint64) int {
		if r.next <= seq {
			return -1
		}
		return 1
	})
	if i == len(p.runs) || seq < p.runs[i].first {
		return run{}, false
	}
	return p.runs[i], true
}

// Inclusion proves entry seq in the tree of the given signed checkpoint.
func (p *Prover) Inclusion(ctx context.Context, seq uint64, checkpoint string) (chain.InclusionProof, error) {
	c, err := p.at(ctx, checkpoint)
	if err != nil {
		return chain.InclusionProof{}, err
	}
	if seq >= c.Size {
		return chain.InclusionProof{}, notProven(fmt.Sprintf("entry %d in a head of %d entries", seq, c.Size))
	}
	hashes, err := p.prove(ctx, func() ([]chain.Hash, error) { return p.tree.Inclusion(seq, c.Size) })
	return chain.InclusionProof{Index: seq, Hashes: hashes, Checkpoint: checkpoint}, err
}

// Consistency proves that the tree of the later signed checkpoint begins with that of the earlier one.
func (p *Prover) Consistency(ctx context.Context, earlier chain.Checkpoint, later string) (chain.ConsistencyProof, error) {
	c, err := p.at(ctx, later)
	if err == nil {
		_, err = p.boundary(ctx, earlier)
	}
	if err != nil {
		return chain.ConsistencyProof{}, err
	}
	if earlier.Size > c.Size {
		return chain.ConsistencyProof{}, notProven(fmt.Sprintf("the earlier head has %d entries, the later one %d", earlier.Size, c.Size))
	}
	hashes, err := p.prove(ctx, func() ([]chain.Hash, error) { return p.tree.Consistency(earlier.Size, c.Size) })
	return chain.ConsistencyProof{Old: earlier.Size, Hashes: hashes, Checkpoint: later}, err
}

// ErrNotProven says that what was to be proven is not so: the log does not contain the head, or the head not the entry.
var ErrNotProven = errors.New("not proven")

// notProven is an ErrNotProven that says why.
type notProven string

func (e notProven) Error() string        { return string(e) }
func (e notProven) Is(target error) bool { return target == ErrNotProven }

// at takes in the tree of a checkpoint, which must be one of the log's.
func (p *Prover) at(ctx context.Context, checkpoint string) (chain.Checkpoint, error) {
	c, err := chain.PeekCheckpoint(checkpoint)
	if err != nil {
		return c, err
	}
	if _, ok := p.CheckpointKey(checkpoint); !ok {
		return c, notProven("the head is not signed with a key of the log")
	}
	return p.boundary(ctx, c)
}

func (p *Prover) boundary(ctx context.Context, c chain.Checkpoint) (chain.Checkpoint, error) {
	if c.Origin != p.log.Layout.Chain {
		return c, notProven(fmt.Sprintf("the head is of %q", c.Origin))
	}
	m := p.last
	if c.Size != m.NextSeq {
		if c.Size == 0 {
			return c, nil
		}
		r, ok := p.runOf(c.Size - 1)
		if !ok || r.next != c.Size {
			return c, notProven(fmt.Sprintf("the log does not contain this head: no manifest ends with %d entries", c.Size))
		}
		var err error
		if m, err = p.manifest(ctx, r); err != nil {
			return c, err
		}
	}
	tree, err := chain.NewTree(m.NextSeq, m.TreeAfter)
	if err != nil {
		return c, err
	}
	if tree.Root() != c.Root {
		return c, notProven(fmt.Sprintf("the log does not contain this head: with %d entries its root is %s, not %s", c.Size, tree.Root(), c.Root))
	}
	p.tree.AddManifest(m)
	return c, nil
}

func (p *Prover) manifest(ctx context.Context, r run) (*chain.Manifest, error) {
	stored, err := p.log.manifest(ctx, r.n)
	if err != nil {
		return nil, err
	}
	if payload, err := chain.BundlePayloadHash(stored.data); err != nil || payload != r.payload {
		return nil, fmt.Errorf("manifest %d has changed since it was read", r.n)
	}
	return chain.PeekManifest(stored.data)
}

// prove calls make until it has all segments that it needs.
func (p *Prover) prove(ctx context.Context, make func() ([]chain.Hash, error)) ([]chain.Hash, error) {
	for {
		hashes, err := make()
		unknown, ok := errors.AsType[*chain.UnknownEntryError](err)
		if !ok {
			return hashes, err
		}
		r, ok := p.runOf(unknown.Seq)
		if !ok {
			return nil, err
		}
		m, err := p.manifest(ctx, r)
		if err != nil {
			return nil, err
		}
		p.tree.AddManifest(m)
		if _, err := p.log.addSegment(ctx, m, &p.tree, func(*chain.Entry, []byte) {}); err != nil {
			return nil, err
		}
	}
}
