package query

import (
	"errors"
	"testing"

	"github.com/auditchain/auditchain/chain"
)

// TestNotProven: what is not so is told from what could not be read.
func TestNotProven(t *testing.T) {
	b := build(t, "audit.example.com/prove")
	var points, keys []string // after each manifest
	take := func() { points, keys = append(points, b.head.Checkpoint), append(keys, b.head.CheckpointKey) }
	take()
	b.segment(3)
	take()
	first := b.head.CheckpointKey
	b.rotate(key(t)) // its checkpoint is signed with the key before
	b.segment(3)
	take()
	p, err := b.NewProver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, point := range points {
		if vkey, ok := p.CheckpointKey(point); !ok || vkey != keys[i] {
			t.Errorf("head %d: verifies with %q, want %q", i, vkey, keys[i])
		}
	}
	if keys[1] != first || keys[2] == first {
		t.Errorf("%q", keys)
	}
	peek := func(signed string) chain.Checkpoint {
		c, err := chain.PeekCheckpoint(signed)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	thief, err := key(t).SignCheckpoint(peek(points[1]))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		prove func() error
		ok    bool
	}{
		"an entry in an older head":         {func() error { _, err := p.Inclusion(t.Context(), 2, points[1]); return err }, true},
		"an entry beyond an older head":     {func() error { _, err := p.Inclusion(t.Context(), 3, points[1]); return err }, false},
		"an entry beyond the log":           {func() error { _, err := p.Inclusion(t.Context(), 6, points[2]); return err }, false},
		"an entry in an empty log":          {func() error { _, err := p.Inclusion(t.Context(), 0, points[0]); return err }, false},
		"an entry in a head of another key": {func() error { _, err := p.Inclusion(t.Context(), 2, thief); return err }, false},
		"from an older head":                {func() error { _, err := p.Consistency(t.Context(), peek(points[1]), points[2]); return err }, true},
		"from the beginning":                {func() error { _, err := p.Consistency(t.Context(), peek(points[0]), points[1]); return err }, true},
		"from a newer head":                 {func() error { _, err := p.Consistency(t.Context(), peek(points[2]), points[1]); return err }, false},
	} {
		if err := test.prove(); (err == nil) != test.ok || !test.ok && !errors.Is(err, ErrNotProven) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A proof that cannot be made is another thing.
	b.Bucket = &faulty{memory: b.m, open: func(string) error { return errReset }}
	if p, err = b.NewProver(t.Context()); !errors.Is(err, errReset) || errors.Is(err, ErrNotProven) {
		t.Errorf("%+v, %v", p, err)
	}
}
