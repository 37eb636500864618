// Package logs makes small logs, and evidence from them, for tests.
package logs

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
)

// Start is when the logs begin.
var Start = time.Date(2026, 11, 23, 7, 25, 0, 0, time.UTC)

// Ed25519 makes a signing key, always the same of one seed.
func Ed25519(t testing.TB, seed string) *chain.SigningKey {
	sum := sha256.Sum256([]byte(seed))
	return signingKey(t, ed25519.NewKeyFromSeed(sum[:]))
}

// P256 is the same for ECDSA.
func P256(t testing.TB, seed string) *chain.SigningKey {
	sum := sha256.Sum256([]byte(seed))
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signingKey(t, key)
}

func signingKey(t testing.TB, key any) *chain.SigningKey {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := chain.ParseSigningKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Log is a log in memory.
type Log struct {
	Head chain.Head

	t         testing.TB
	key       *chain.SigningKey
	keys      [][]byte // the stored genesis and rotations
	segments  []segment
	subtrees  chain.Subtrees
	manifests int
}

type segment struct {
	manifest *chain.Manifest
	stored   []byte
	lines    [][]byte
	keys     [][]byte
}

// New begins a log.
func New(t testing.TB, name string, k *chain.SigningKey) *Log {
	l := &Log{t: t, key: k, Head: chain.Head{Chain: name, Key: k.Public()}}
	stored := l.commit(chain.KindGenesis, &l.Head, func(m *chain.Manifest) {
		m.Genesis = &chain.GenesisInfo{
			Created: m.SealedAt, ManifestKey: string(k.Public().PEM()), CheckpointKey: l.checkpointKey(k),
			Policy: chain.Policy{Retention: "7y", LockMode: "COMPLIANCE", HeartbeatInterval: 3600},
		}
	})
	l.keys = append(l.keys, stored)
	return l
}

// Rotate replaces the log's key by k.
func (l *Log) Rotate(k *chain.SigningKey) {
	stored := l.commit(chain.KindRotation, &l.Head, func(m *chain.Manifest) {
		m.Rotation = &chain.NewKeys{ManifestKey: string(k.Public().PEM()), CheckpointKey: l.checkpointKey(k)}
	})
	l.keys = append(l.keys, stored)
	l.key = k
}

// Key is the key that signs what comes next.
func (l *Log) Key() *chain.SigningKey { return l.key }

// Keys are the stored genesis and rotations.
func (l *Log) Keys() [][]byte { return l.keys }

// Jump makes the log go on as if it had size entries: nobody who verifies evidence sees those before.
func (l *Log) Jump(size uint64) {
	var compact []chain.Hash
	for n := size; n > 0; n &= n - 1 {
		compact = append(compact, chain.Sum(fmt.Appendf(nil, "subtree %d", n)))
	}
	tree, err := chain.NewTree(size, compact)
	if err != nil {
		l.t.Fatal(err)
	}
	l.Head.Tree, l.Head.NextSeq = tree, size
}

// Segment adds entries, each given by what stands in its line from "time": or "event": on, with the last brace.
func (l *Log) Segment(bodies ...string) {
	end := l.Head
	s := segment{keys: append([][]byte(nil), l.keys...)}
	received := Start.Add(time.Duration(l.manifests) * time.Minute)
	middle := chain.AppendMiddle(nil, received, []byte("vllm.audit"))
	marker := &chain.ChunkMarker{SHA256: chain.Sum(nil), Entries: uint64(len(bodies))}
	var sum chain.Summary
	var raw []byte
	var hashes []chain.Hash
	for _, body := range bodies {
		line := chain.AppendEntry(nil, end.NextSeq, end.Entry, middle, marker, false, false, []byte(body))
		marker = nil
		e, err := chain.ParseEntry(line)
		if err != nil {
			l.t.Fatalf("%s: %v", line, err)
		}
		end.Append(chain.Sum(line))
		hashes = append(hashes, chain.Sum(line))
		sum.Add(e.Facts())
		sum.Receive(received)
		s.lines = append(s.lines, line)
		raw = append(append(raw, line...), '\n')
	}
	s.stored = l.commit(chain.KindSegment, &end, func(m *chain.Manifest) {
		s.manifest = m
		counts := sum.Counts()
		m.Counts, m.EventTime, m.Received = &counts, sum.EventTimes(), sum.ReceivedTimes()
		m.Sources, m.SourcesOmitted = sum.SourceRanges()
		skew := int64(-12)
		m.ClockSkew = &skew
		size := int64(len(raw)) // the object itself is no part of evidence
		m.Segment = &chain.Segment{
			Key: chain.SegmentName(m.N, m.SealedAt.Time), VersionID: "3sL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY",
			Size: size, SHA256: chain.Sum(raw), RawSize: size, RawSHA256: chain.Sum(raw),
			Frames: []chain.Frame{{Size: size, RawSize: size, Entries: uint64(len(bodies)), SHA256: chain.Sum(raw)}},
		}
	})
	l.subtrees.AddManifest(s.manifest)
	l.subtrees.AddEntries(s.manifest.FirstSeq, hashes)
	l.segments = append(l.segments, s)
}

// Evidence returns the evidence of an entry of one of the segments.
func (l *Log) Evidence(seq uint64) *chain.Evidence {
	for _, s := range l.segments {
		m := s.manifest
		if seq < m.FirstSeq || seq >= m.NextSeq {
			continue
		}
		hashes, err := l.subtrees.Inclusion(seq, m.NextSeq)
		if err != nil {
			l.t.Fatal(err)
		}
		proof := chain.InclusionProof{Index: seq, Hashes: hashes, Checkpoint: m.Checkpoint}
		e := chain.NewEvidence(s.lines[seq-m.FirstSeq], proof, s.stored, s.keys, m.Chain)
		until := m.Lock.RetainUntil.Format(time.RFC3339)
		e.Objects = []chain.StoredObject{
			{What: "segment", Key: m.Chain + "/" + m.Segment.Key, VersionID: m.Segment.VersionID, LockMode: "COMPLIANCE", RetainUntil: until},
			{What: "manifest", Key: fmt.Sprintf("%s/manifests/%012d.sigstore.json", m.Chain, m.N), VersionID: "null", LockMode: "COMPLIANCE", RetainUntil: until},
		}
		e.Made = chain.Made{At: chain.Time{Time: Start.Add(48 * time.Hour)}, By: "auditchain 1.2.0", From: "https://minio.example.com:9000/audit"}
		return e
	}
	l.t.Fatalf("no segment has entry %d", seq)
	return nil
}

// commit makes and signs a manifest and moves the log past it.
func (l *Log) commit(kind chain.Kind, end *chain.Head, fill func(*chain.Manifest)) []byte {
	m, err := l.Head.Next(kind, end, l.key)
	if err != nil {
		l.t.Fatal(err)
	}
	at := Start.Add(time.Duration(l.manifests) * time.Minute)
	m.SealedAt = chain.Time{Time: at}
	m.Lock = chain.Lock{Mode: "COMPLIANCE", RetainUntil: chain.Time{Time: at.AddDate(7, 0, 0)}}
	m.Writer = chain.Writer{Version: "1.2.0", Host: "aggregator-1", Instance: "0011223344556677"}
	fill(m)
	stored, payload, err := m.Sign(l.key)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := l.Head.Advance(m, payload); err != nil {
		l.t.Fatal(err)
	}
	l.manifests++
	return stored
}

func (l *Log) checkpointKey(k *chain.SigningKey) string {
	vkey, err := k.CheckpointKey(l.Head.Chain)
	if err != nil {
		l.t.Fatal(err)
	}
	return vkey
}
