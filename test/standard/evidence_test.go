package standard

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/storage"
)

// TestEvidence runs the page's commands on evidence of one entry out of a log whose key was rotated, and sees them fail where a file of
// it was changed.
func TestEvidence(t *testing.T) {
	t.Parallel()
	env := environment(t)
	_, blocks := doc(t)
	i := slices.IndexFunc(blocks, func(b block) bool { return b.kind == "evidence" })
	if i < 0 {
		t.Fatal("the page has no block for evidence")
	}
	script := blocks[i].script
	w := newWriter(t, nil)
	w.ed25519("first.pem")
	w.live(30, 0)
	w.p256("second.pem")
	w.live(20, 0)
	w.ed25519("third.pem")
	w.live(7, 0)

	key, err := chain.ParsePublicKey(w.public("first.pem"))
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := storage.Open(storage.Config{Bucket: w.keys["bucket"]})
	if err != nil {
		t.Fatal(err)
	}
	log := &query.Log{Bucket: bucket, Layout: chain.Layout{Chain: chainName}, Key: key}
	prover, err := log.NewProver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	evidence := func(seq uint64) string {
		place, ok := prover.Place(seq)
		if !ok {
			t.Fatalf("there is no entry %d", seq)
		}
		e, err := log.Evidence(t.Context(), place, prover.Keys, chain.Made{By: "test"})
		dir := filepath.Join(t.TempDir(), "case")
		if err == nil {
			err = query.WriteEvidence(dir, e)
		}
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for _, seq := range []uint64{0, 29, 30, 56} {
		out, err := run(env, evidence(seq), script)
		if err != nil || !strings.Contains(out, key.Fingerprint().String()) || !strings.Contains(out, " entries\n") {
			t.Errorf("entry %d: %v\n%s", seq, err, out)
		}
	}
	dir := evidence(41)
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != 8 { // with one rotation
		t.Errorf("there are %d files", len(names))
	}
	for _, name := range names {
		if name.Name() == "README.txt" || name.Name() == "about.json" {
			continue
		}
		for _, part := range []float64{0.3, 0.8} {
			dir := evidence(41)
			file := filepath.Join(dir, name.Name())
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			data[int(part*float64(len(data)))] ^= 4
			if err := os.WriteFile(file, data, 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := run(env, dir, script); err == nil {
				t.Errorf("%s was changed at %.1f of it unnoticed:\n%s", name.Name(), part, out)
			}
		}
	}
}
