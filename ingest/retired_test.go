package ingest

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/storage"
)

// thief has a key that the chain had, and may write into the bucket.
type thief struct {
	*rig
	key  *chain.SigningKey
	head chain.Head // after which it goes on
}

func (r *rig) thief(keyFile string) *thief {
	r.t.Helper()
	key, err := readSigningKey(keyFile)
	if err != nil {
		r.t.Fatal(err)
	}
	_, head := r.follow()
	head.KeySince = 0
	return &thief{rig: r, key: key, head: head}
}

// lay puts the next manifest into the bucket, as well as the thief can make it, and returns the path of its object.
func (th *thief) lay(rotation *chain.NewKeys) string {
	th.t.Helper()
	kind := chain.KindHeartbeat
	if rotation != nil {
		kind = chain.KindRotation
	}
	m, err := th.head.Next(kind, &th.head, th.key)
	if err != nil {
		th.t.Fatal(err)
	}
	m.Rotation = rotation
	m.SealedAt, m.Lock = chain.Time{Time: time.Now().UTC()}, chain.Lock{Mode: "NONE", RetainUntil: chain.Time{Time: time.Now().UTC().AddDate(1, 0, 0).Truncate(time.Second)}}
	data, payload, err := m.Sign(th.key)
	if err != nil {
		th.t.Fatal(err)
	}
	key := chain.Layout{Chain: th.cfg.Chain}.Manifest(m.N)
	_, err = th.plainBucket().Create(context.Background(), key, bytes.NewReader(data), storage.CreateOptions{
		Size: int64(len(data)), SHA256: chain.Sum(data), MD5: md5.Sum(data), ContentType: chain.ManifestMediaType,
	})
	if err != nil {
		th.t.Fatal(err)
	}
	th.head.NextN, th.head.PreviousManifest = m.N+1, payload
	return filepath.Join(strings.TrimPrefix(th.cfg.Storage.Bucket, "dir:"), key)
}

// TestRetiredKeyAtTheNextNumber: whoever has the retired key puts a manifest where the next belongs. It stops the chain, as any
// object there would, until it is taken away; it is never followed.
func TestRetiredKeyAtTheNextNumber(t *testing.T) {
	for _, configured := range []bool{true, false} {
		r := newRig(t)
		n := 0
		sealed(2)(r, &n)
		old := r.cfg.SigningKey
		r.rotate()
		sealed(2)(r, &n)
		want := "the chain has gone over to signing_key before"
		if !configured {
			r.cfg.PreviousKey = ""
			want = "no manifest of this chain"
		}
		l := r.mustOpen()
		mustAppend(t, l, testChunk(n, 1, 10))
		n++
		laid := r.thief(old).lay(nil)
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		if err := l.Close(ctx); err == nil || !r.log.has(want) {
			t.Errorf("closed with %v; log %q", err, r.log.lines)
		}
		cancel()
		if l, err := r.open(); err == nil || errors.Is(err, ErrForked) || !strings.Contains(err.Error(), want) {
			t.Errorf("opened: %v %v", l, err)
		}
		if err := os.Remove(laid); err != nil {
			t.Fatal(err)
		}
		sealed(1)(r, &n)
		r.wantRotated(n)
	}
}

// TestRetiredKeyAtTheEnd: the store directory cannot tell whether the chain had gone over, the bucket can.
func TestRetiredKeyAtTheEnd(t *testing.T) {
	for name, lose := range map[string]func(r *rig) error{
		"lost": func(r *rig) error { return os.RemoveAll(r.cfg.StoreDir) },
		"damaged": func(r *rig) error {
			return errors.Join(os.WriteFile(filepath.Join(r.dir(), headFile), []byte("nonsense"), 0o600), os.Remove(filepath.Join(r.dir(), recentFile)))
		},
		"an old copy": func(r *rig) error {
			return errors.Join(os.RemoveAll(r.cfg.StoreDir), os.Rename(r.cfg.StoreDir+".copy", r.cfg.StoreDir))
		},
	} {
		for _, manifests := range []int{1, 30} {
			for _, announced := range []bool{false, true} {
				t.Run(name, func(t *testing.T) {
					r := newRig(t)
					r.t = t
					n := 0
					sealed(2)(r, &n)
					copyDir(t, r.cfg.StoreDir, r.cfg.StoreDir+".copy")
					old := r.cfg.SigningKey
					r.rotate()
					sealed(0)(r, &n)
					before, _ := r.follow()
					th := r.thief(old)
					for range manifests - 1 {
						th.lay(nil)
					}
					var keys *chain.NewKeys
					if announced { // the new key, once more
						keys = before[2].Rotation
					}
					th.lay(keys)
					if err := lose(r); err != nil {
						t.Fatal(err)
					}
					for _, previous := range []string{r.cfg.PreviousKey, publicFile(t, r.cfg.PreviousKey), ""} {
						r.cfg.PreviousKey = previous
						l, err := r.open()
						if err == nil {
							crash(l)
							t.Fatal("it is followed")
						}
						if want := "signing_key already"; previous != "" && !strings.Contains(err.Error(), want) {
							t.Errorf("opened: %v", err)
						}
					}
				})
			}
		}
	}
}

// TestKeysThatAThiefAnnounces: as long as the old key holds, its thief may have the chain go over to what he likes, but not us with it.
func TestKeysThatAThiefAnnounces(t *testing.T) {
	text, err := chain.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	his, err := chain.ParseSigningKey(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, ours := range []bool{false, true} {
		r := newRig(t)
		n := 0
		sealed(2)(r, &n)
		th := r.thief(r.cfg.SigningKey)
		r.rotate()
		checkpointKey, err := his.CheckpointKey(r.cfg.Chain)
		if err != nil {
			t.Fatal(err)
		}
		keys, want := &chain.NewKeys{ManifestKey: string(his.Public().PEM()), CheckpointKey: checkpointKey}, his.Public().Fingerprint().String()
		if ours {
			keys.ManifestKey, want = string(publicKey(t, r.cfg.SigningKey).PEM()), "checkpoint key"
		}
		th.lay(keys)
		if l, err := r.open(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("opened: %v, %v", l, err)
		}
	}
}

// TestAnotherWriterRotates: a writer that runs on with the old key has lost the chain, and says so.
func TestAnotherWriterRotates(t *testing.T) {
	r := newRig(t)
	l := r.mustOpen()
	other := *r
	other.cfg.StoreDir = r.cfg.StoreDir + ".other"
	other.rotate()
	n := 0
	sealed(1)(&other, &n)
	mustAppend(t, l, testChunk(100, 1, 10))
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if err := l.Close(ctx); err == nil || !r.log.has(ErrForked.Error()) {
		t.Errorf("closed with %v; log %q", err, r.log.lines)
	}
	if l, err := r.open(); err == nil || !strings.Contains(err.Error(), "set previous_signing_key") {
		t.Errorf("opened: %v, %v", l, err)
	}
	r.cfg.PreviousKey, r.cfg.SigningKey = r.cfg.SigningKey, other.cfg.SigningKey
	if l, err := r.open(); !errors.Is(err, ErrForked) {
		t.Errorf("opened: %v, %v", l, err)
	}
	other.leftover = l.layout.Segment(1, time.Now())
	other.wantRotated(n)
}

// TestRetiredKeyBehindTheRotation: where nothing is locked its thief exchanges manifests that came behind the rotation. No journal is
// dropped on their word.
func TestRetiredKeyBehindTheRotation(t *testing.T) {
	r := newRig(t)
	n := 0
	sealed(1)(r, &n)
	old := r.cfg.SigningKey
	th := r.thief(old)
	r.rotate()
	sealed(0)(r, &n)
	journaled(2)(r, &n)
	copied := r.cfg.StoreDir + ".copy"
	copyDir(t, r.cfg.StoreDir, copied)
	for range 5 {
		sealed(1)(r, &n)
	}
	all, _ := r.follow()
	for i := uint64(4); i < uint64(len(all)-1); i++ { // between the rotation, 2, and the last
		path := filepath.Join(strings.TrimPrefix(r.cfg.Storage.Bucket, "dir:"), chain.Layout{Chain: r.cfg.Chain}.Manifest(i))
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		th.head.NextN = i
		th.lay(nil)
	}
	if err := errors.Join(os.RemoveAll(r.cfg.StoreDir), os.Rename(copied, r.cfg.StoreDir), os.Remove(filepath.Join(r.dir(), headFile))); err != nil {
		t.Fatal(err)
	}
	l, err := r.open()
	if err == nil {
		crash(l)
	}
	if err == nil || !strings.Contains(err.Error(), "which was to be signed with the key of manifest") || !strings.Contains(err.Error(), "they are kept") {
		t.Errorf("opened: %v", err)
	}
	if journals, err := listJournals(r.fs, r.dir()); err != nil || len(journals) != 1 {
		t.Errorf("the journal is not kept: %v, %v", journals, err)
	}
}
