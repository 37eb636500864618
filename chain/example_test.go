package chain_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/auditchain/auditchain/chain"
)

// read returns a file of a small chain: in a program of your own, an object in the version that counts.
func read(name string) []byte {
	data, err := os.ReadFile(filepath.Join("testdata", "rotated", filepath.FromSlash(name)))
	if err != nil {
		panic(err)
	}
	return data
}

// A whole log is verified by following its manifests from the genesis on, with the one key that is trusted, and by reading
// the segments that they commit.
func Example() {
	key, err := chain.ParsePublicKey(read("pub.pem"))
	if err != nil {
		panic(err)
	}
	head := chain.Head{Key: key}
	for n := range 7 {
		m, err := head.Follow(read(fmt.Sprintf("manifests/%012d.sigstore.json", n)))
		if err != nil {
			panic(err) // somebody changed something, and err says what
		}
		if m.Segment != nil {
			if err := chain.VerifySegment(m, bytes.NewReader(read(m.Segment.Key)), nil); err != nil {
				panic(err)
			}
		}
		fmt.Printf("manifest %d: %s, %d entries\n", m.N, m.Kind, m.NextSeq-m.FirstSeq)
	}
	fmt.Printf("%s has %d entries, root %s\n", head.Chain, head.NextSeq, head.Tree.Root())
	// Output:
	// manifest 0: genesis, 0 entries
	// manifest 1: segment, 3 entries
	// manifest 2: rotation, 0 entries
	// manifest 3: heartbeat, 0 entries
	// manifest 4: segment, 5 entries
	// manifest 5: rotation, 0 entries
	// manifest 6: segment, 3 entries
	// audit.example.com/rotated has 11 entries, root 4218fe4daf09e4862d92faf45fbde983c79e80c94cc35f3d8fc42dae164a375c
}

// VerifySegment shows each entry that it has checked.
func ExampleVerifySegment() {
	m, err := chain.PeekManifest(read("manifests/000000000001.sigstore.json")) // see Example for how to trust it
	if err != nil {
		panic(err)
	}
	err = chain.VerifySegment(m, bytes.NewReader(read(m.Segment.Key)), func(e *chain.Entry, line []byte) error {
		fmt.Printf("entry %d: %s\n", e.Seq, chain.Member(e.Record, "request_id"))
		return nil
	})
	fmt.Println(err)
	// Output:
	// entry 0: "req-0"
	// entry 1: "req-1"
	// entry 2: "req-2"
	// <nil>
}

// Evidence of one record is verified with nothing but the fingerprint of the log's first key.
func ExampleEvidence_Verify() {
	e, err := chain.ParseEvidence(read("evidence.json"))
	if err != nil {
		panic(err)
	}
	trusted, err := chain.ParseHash([]byte("fd110d301d2f077de1414b8f99f441b1403fab207b2052fbd2c065e4ee8e7dc2"))
	if err != nil {
		panic(err)
	}
	report := e.Verify(trusted)
	for _, c := range report.Checks {
		fmt.Println(c.OK, c.Code)
	}
	fmt.Println("verified:", report.OK)
	// Output:
	// true entry
	// true inclusion
	// true checkpoint
	// true manifest
	// true keys
	// true trust
	// verified: true
}

// A head that an auditor kept proves that what came later continues it.
func ExampleHead_UnmarshalJSON() {
	var head chain.Head
	if err := json.Unmarshal(read("head.json"), &head); err != nil {
		panic(err)
	}
	_, err := head.Follow(read("manifests/000000000006.sigstore.json")) // which the head is of: it does not follow itself
	fmt.Println(head.NextN, head.NextSeq, err)
	// Output:
	// 7 11 manifest says that it is number 6, want 7
}

// A proof needs the checkpoint key, which the genesis or a rotation announces, and the earlier head.
func ExampleConsistencyProof_Verify() {
	proof, err := chain.ParseConsistencyProof(string(read("consistency-3-11.proof")))
	if err != nil {
		panic(err)
	}
	m, err := chain.PeekManifest(read("manifests/000000000001.sigstore.json"))
	if err != nil {
		panic(err)
	}
	old, err := chain.PeekCheckpoint(m.Checkpoint) // as somebody kept it
	if err != nil {
		panic(err)
	}
	rotation, err := chain.PeekManifest(read("manifests/000000000005.sigstore.json"))
	if err != nil {
		panic(err)
	}
	now, err := proof.Verify(old, rotation.Rotation.CheckpointKey)
	fmt.Printf("from %d to %d entries: %v\n", old.Size, now.Size, err)
	// Output:
	// from 3 to 11 entries: <nil>
}
