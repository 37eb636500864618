package ingest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// rotate configures a new key, as an operator does.
func (r *rig) rotate() {
	r.t.Helper()
	r.cfg.PreviousKey, r.cfg.SigningKey = r.cfg.SigningKey, newKey(r.t)
}

// publicFile is a file of the public key of the signing key in a file.
func publicFile(t testing.TB, path string) string {
	t.Helper()
	public := filepath.Join(t.TempDir(), "pub.pem")
	if err := os.WriteFile(public, publicKey(t, path).PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return public
}

// follow walks the manifests in the bucket from the trusted key on, by package chain alone. It returns them, and where the chain stands.
func (r *rig) follow() (all []*chain.Manifest, head chain.Head) {
	r.t.Helper()
	head.Key = r.trusted
	bucket, layout := r.plainBucket(), chain.Layout{Chain: r.cfg.Chain}
	l := &Log{world: world{bucket: bucket}, layout: layout}
	for n := uint64(0); ; n++ {
		data, _, err := l.oldest(context.Background(), n)
		if errors.Is(err, storage.ErrNotFound) {
			return all, head
		}
		if err != nil {
			r.t.Fatal(err)
		}
		m, err := head.Follow(data)
		if err != nil {
			r.t.Fatalf("manifest %d: %v", n, err)
		}
		all = append(all, m)
	}
}

// kinds are the manifests' kinds, a letter each.
func kinds(all []*chain.Manifest) string {
	var b strings.Builder
	for _, m := range all {
		b.WriteByte(string(m.Kind)[0])
	}
	return b.String()
}

// wantRotated fails unless the chain is whole, has the records 0 to n-1, and stands under signing_key.
func (r *rig) wantRotated(n int) {
	r.t.Helper()
	_, head := r.follow()
	if key := publicKey(r.t, r.cfg.SigningKey); !head.Key.Equal(key) {
		r.t.Errorf("the chain has the key %s, want %s", head.Key.Fingerprint(), key.Fingerprint())
	}
	numbers, _ := r.verify()
	r.wantNumbers(numbers, n)
}

func TestRotation(t *testing.T) {
	r := newRig(t)
	n := 0
	sealed(3)(r, &n)
	first := publicKey(t, r.cfg.SigningKey).Fingerprint()
	for range 2 {
		r.rotate()
		sealed(0)(r, &n)
		sealed(2)(r, &n) // with previous_signing_key still there
		previous := r.cfg.PreviousKey
		for _, r.cfg.PreviousKey = range []string{publicFile(t, previous), ""} {
			sealed(1)(r, &n)
		}
	}
	all, head := r.follow()
	if got := kinds(all); got != "gs"+"rh"+"sss"+"rh"+"sss" {
		t.Errorf("manifests %s", got)
	}
	if head.KeySince != 7 {
		t.Errorf("the key came with manifest %d", head.KeySince)
	}
	r.wantRotated(n)
	for _, want := range []string{"will be rotated", "was rotated with manifest 2: from " + first.String() + " to ", "was rotated with manifest 7: from "} {
		if got := strings.Count(strings.Join(r.log.lines, "\n"), want); got == 0 || strings.HasPrefix(want, "was") && got != 1 {
			t.Errorf("%q was said %d times: %q", want, got, r.log.lines)
		}
	}
}
