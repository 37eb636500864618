package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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

// TestRotationBehindWhatWaits: the old key signs what was on its way, and nothing else; also when the store is away at the start.
func TestRotationBehindWhatWaits(t *testing.T) {
	signedName := filepath.Base((&Log{}).signedPath(2))
	for _, failing := range []string{".zst", signedName[len(pendingPrefix):]} { // a draft waits, a signed manifest waits
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, away=%t", failing, away), func(t *testing.T) {
				r := newRig(t)
				r.cfg.TotalFileSize = 2000
				n := 0
				sealed(1)(r, &n)
				r.stuck(&n, failing)
				r.rotate()
				plain := r.bucket
				if away {
					r.bucket = unreachable{plain}
				}
				l := r.mustOpen()
				mustAppend(t, l, testChunk(n, 1, 300))
				n++
				if away {
					crash(l)
					r.bucket = plain
					l = r.mustOpen()
				}
				mustAppend(t, l, testChunk(n, 1, 300))
				n++
				r.mustClose(l)
				all, _ := r.follow()
				if got := kinds(all); !strings.HasPrefix(got, "gss") || !strings.Contains(got, "rhs") || strings.Count(got, "h") != 1 {
					t.Errorf("manifests %s", got)
				}
				if got := all[2].Writer.Instance; got == l.writer.Instance {
					t.Error("what the earlier life had drafted was made anew")
				}
				r.wantRotated(n)
			})
		}
	}
}

// stuck has a life end while a segment is on its way, of which what has the suffix does not get into the bucket.
func (r *rig) stuck(n *int, suffix string) {
	r.t.Helper()
	plain := r.bucket
	b := &failing{Bucket: plain, suffix: suffix}
	r.bucket = b
	l := r.mustOpen()
	for range 8 {
		mustAppend(r.t, l, testChunk(*n, 1, 300))
		*n++
	}
	b.wait(r.t.(*testing.T))
	crash(l)
	r.bucket = plain
}

// leaving is a bucket that nobody reaches after so many checks.
type leaving struct {
	storage.Bucket
	after int64
	n     atomic.Int64
}

func (b *leaving) Check(ctx context.Context) error {
	if b.n.Add(1) > b.after {
		return unreachable{}.Check(ctx)
	}
	return b.Bucket.Check(ctx)
}

func (b *leaving) Create(ctx context.Context, key string, body io.ReadSeeker, opts storage.CreateOptions) (storage.Version, error) {
	return "", fmt.Errorf("injected: %w", storage.ErrUnreachable)
}

// TestRotationGivenUp: until it is signed, the operator may think better of it.
func TestRotationGivenUp(t *testing.T) {
	r := newRig(t)
	n := 0
	sealed(1)(r, &n)
	old, plain := r.cfg.SigningKey, r.bucket
	drafted := func() {
		t.Helper()
		r.rotate()
		r.bucket = &leaving{Bucket: plain, after: 1} // it was there when the log was opened
		l := r.mustOpen()
		mustAppend(t, l, testChunk(n, 1, 10))
		n++
		l.writing.Lock()
		l.rotate()
		l.writing.Unlock()
		all, _ := r.follow()
		rotation := uint64(len(all))
		path := l.pendingPath(rotation + 1)
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			if _, err := os.Stat(path); err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("it is never drafted")
			}
		}
		crash(l)
		if err := os.Remove(l.signedPath(rotation)); err != nil && !errors.Is(err, os.ErrNotExist) { // the crash may have come later
			t.Fatal(err)
		}
		r.bucket = plain
	}
	drafted()
	r.cfg.SigningKey, r.cfg.PreviousKey = old, ""
	sealed(1)(r, &n)
	r.wantRotated(n) // not at all
	drafted()
	r.cfg.SigningKey = newKey(t) // to another key than was drafted
	sealed(1)(r, &n)
	r.wantRotated(n)
	all, _ := r.follow()
	if got := kinds(all); strings.Count(got, "r") != 1 {
		t.Errorf("manifests %s", got)
	}
}

// cut has a life end when manifest n is signed and not in the bucket.
func (r *rig) cut(n uint64) {
	r.t.Helper()
	plain := r.bucket
	b := &failing{Bucket: plain, suffix: filepath.Base(chain.Layout{Chain: r.cfg.Chain}.Manifest(n))}
	r.bucket = b
	l := r.mustOpen()
	b.wait(r.t.(*testing.T))
	crash(l)
	r.bucket = plain
}

// TestRotationCutInTheMiddle: the rotation is in the bucket, and nothing of the new key. The next start sees to that, though nothing
// comes in.
func TestRotationCutInTheMiddle(t *testing.T) {
	for _, made := range []bool{true, false} { // the heartbeat, but for its way into the bucket
		r := newRig(t)
		n := 0
		sealed(1)(r, &n)
		r.rotate()
		r.cut(3)
		for _, path := range []string{(&Log{dir: r.dir()}).signedPath(3), (&Log{dir: r.dir()}).pendingPath(3)} {
			if made {
				break
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		if r.log.has("was rotated") {
			t.Errorf("log %q", r.log.lines)
		}
		sealed(0)(r, &n)
		if all, _ := r.follow(); kinds(all) != "gsrh" || !r.log.has("was rotated with manifest 2") {
			t.Errorf("manifests %s, log %q", kinds(all), r.log.lines)
		}
		r.wantRotated(n)
	}
}

// TestRotationSignedAndTurnedBack: once it is signed, it may be in the bucket.
func TestRotationSignedAndTurnedBack(t *testing.T) {
	r := newRig(t)
	n := 0
	sealed(1)(r, &n)
	old := r.cfg.SigningKey
	r.rotate()
	r.cut(2)
	next := r.cfg
	r.cfg.SigningKey, r.cfg.PreviousKey = old, ""
	if _, err := r.open(); err == nil || !strings.Contains(err.Error(), "set previous_signing_key to the file of the key before") {
		t.Errorf("opened: %v", err)
	}
	r.cfg = next
	r.cfg.PreviousKey = publicFile(t, old) // it has done its work
	sealed(1)(r, &n)
	r.wantRotated(n)
}

func TestRefusedKeys(t *testing.T) {
	r := newRig(t)
	n := 0
	sealed(1)(r, &n)
	first := r.cfg.SigningKey
	r.rotate()
	sealed(1)(r, &n)
	r.cfg.PreviousKey = ""
	chained, other, third := r.cfg.SigningKey, newKey(t), newKey(t)
	nonsense := filepath.Join(t.TempDir(), "nonsense.pem")
	if err := os.WriteFile(nonsense, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	fingerprint := func(path string) string { return publicKey(t, path).Fingerprint().String() }
	for _, test := range []struct {
		name, signing, previous string
		want                    []string // in the error
	}{
		{"not the chain's", other, "", []string{"signing_key: ", fingerprint(other), fingerprint(chained), "set previous_signing_key"}},
		{"neither the chain's", other, third, []string{"previous_signing_key: ", fingerprint(other), fingerprint(chained), fingerprint(third)}},
		{"both the same", chained, chained, []string{"previous_signing_key: it is the same key as signing_key"}},
		{"both the same, one public", chained, publicFile(t, chained), []string{"previous_signing_key: it is the same key as signing_key"}},
		{"the public key alone", other, publicFile(t, chained), []string{"previous_signing_key: ", "private one is still needed"}},
		{"back to a retired key", first, chained, []string{"signing_key", "must not be used again"}},
		{"the retired key alone", first, "", []string{"signing_key: ", fingerprint(first), fingerprint(chained), "set previous_signing_key"}},
		{"no such file", other, "/nowhere/key.pem", []string{"previous_signing_key: ", "/nowhere/key.pem", "take previous_signing_key away"}},
		{"no key", other, nonsense, []string{"previous_signing_key: ", nonsense}},
	} {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, lost=%t", test.name, lost), func(t *testing.T) {
				other := *r
				other.t = t
				other.cfg.SigningKey, other.cfg.PreviousKey = test.signing, test.previous
				other.cfg.StoreDir = filepath.Join(t.TempDir(), "store")
				if !lost {
					copyDir(t, r.cfg.StoreDir, other.cfg.StoreDir)
				}
				l, err := other.open()
				if err == nil {
					crash(l)
					t.Fatal("opened")
				}
				for _, want := range test.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%v: no %q", err, want)
					}
				}
				if strings.Contains(err.Error(), "\n") {
					t.Errorf("more than a line: %v", err)
				}
			})
		}
	}
	// And nothing of it has harmed anything.
	sealed(1)(r, &n)
	r.wantRotated(n)
}

// TestUselessPreviousKey: of a chain that was begun with signing_key.
func TestUselessPreviousKey(t *testing.T) {
	r := newRig(t)
	r.cfg.PreviousKey = newKey(t)
	n := 0
	sealed(1)(r, &n)
	sealed(1)(r, &n)
	if !r.log.has("previous_signing_key is of no use") {
		t.Errorf("log %q", r.log.lines)
	}
	r.wantRotated(n)
}

// TestKeyChangedBeforeTheGenesis: a start that was cut off had another key, and began nothing.
func TestKeyChangedBeforeTheGenesis(t *testing.T) {
	r := newRig(t)
	plain := r.bucket
	r.bucket = &failing{Bucket: plain, suffix: ".json"}
	if l, err := r.open(); err == nil {
		crash(l)
		t.Fatal("opened")
	}
	r.bucket = plain
	r.cfg.SigningKey = newKey(t)
	r.trusted = publicKey(t, r.cfg.SigningKey)
	n := 0
	sealed(1)(r, &n)
	r.wantRotated(n)
}

// TestLostAroundARotation: the store directory, or a file of it, is lost before, within and after.
func TestLostAroundARotation(t *testing.T) {
	everything := func(r *rig) string { return r.cfg.StoreDir }
	head := func(r *rig) string { return filepath.Join(r.dir(), headFile) }
	chunks := func(r *rig) string { return filepath.Join(r.dir(), recentFile) }
	private := func(t *testing.T, r *rig) {}
	public := func(t *testing.T, r *rig) { r.cfg.PreviousKey = publicFile(t, r.cfg.PreviousKey) }
	none := func(t *testing.T, r *rig) { r.cfg.PreviousKey = "" }
	before := func(r *rig, n *int) { sealed(2)(r, n); r.rotate() }
	within := func(r *rig, n *int) { before(r, n); r.cut(3) }
	after := func(r *rig, n *int) { before(r, n); sealed(2)(r, n) }
	twice := func(r *rig, n *int) { after(r, n); r.rotate(); sealed(2)(r, n) }
	for _, test := range []struct {
		name   string
		life   func(r *rig, n *int)
		lost   func(r *rig) string
		config func(t *testing.T, r *rig)
		want   string // in the error; "": it goes on
	}{
		{"all, before", before, everything, private, ""},
		{"all, before, with the public key", before, everything, public, "private one is still needed"},
		{"head, before", before, head, private, ""},
		{"chunks, before", before, chunks, private, ""},
		{"all, within", within, everything, private, ""},
		{"all, within, with the public key", within, everything, public, ""},
		{"all, within, without the key", within, everything, none, "set previous_signing_key"},
		{"head, within", within, head, private, ""},
		{"chunks, within", within, chunks, public, ""},
		{"all, after", after, everything, private, ""},
		{"all, after, with the public key", after, everything, public, ""},
		{"all, after, without the key", after, everything, none, ""},
		{"head, after, without the key", after, head, none, ""},
		{"chunks, after, without the key", after, chunks, none, ""},
		{"chunks, twice, without the key", twice, chunks, none, ""},
		{"all, twice, without the key", twice, everything, none, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.t = t
			n := 0
			test.life(r, &n)
			if err := os.RemoveAll(test.lost(r)); err != nil {
				t.Fatal(err)
			}
			test.config(t, r)
			l, err := r.open()
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("opened: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				mustAppend(t, l, testChunk(i, 1, 10)) // delivered again, and known
			}
			mustAppend(t, l, testChunk(n, 1, 10))
			r.mustClose(l)
			r.wantRotated(n + 1)
		})
	}
}

// TestOldDirectoryBehindRotations restores a store directory with a journal from before the key was rotated. Nothing that was signed with
// the keys since retired is needed to find in the bucket what the journal holds.
func TestOldDirectoryBehindRotations(t *testing.T) {
	none := func(r *rig) { r.cfg.PreviousKey = "" }
	last := func(r *rig) {}
	for _, test := range []struct {
		name      string
		after     func(r *rig, n *int) // what the journal has become when the key is rotated
		rotations int
		previous  func(r *rig)
		head      bool // the directory's is there
		kept      int
	}{
		{"sealed as it was", sealed(0), 1, none, true, 3},
		{"sealed as it was, with the key before", sealed(0), 1, last, true, 3},
		{"sealed as it was, without the head", sealed(0), 1, none, false, 3},
		{"sealed as it was, twice", sealed(0), 2, none, true, 3},
		{"sealed as it was, twice, with the key before", sealed(0), 2, last, true, 3},
		{"sealed with more entries", more(4), 1, none, true, 7},
		{"sealed with more entries, twice", more(4), 2, none, true, 7},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			n := 0
			sealed(1)(r, &n)
			journaled(2)(r, &n)
			copied := r.cfg.StoreDir + ".copy"
			copyDir(t, r.cfg.StoreDir, copied)
			test.after(r, &n)
			for range 3 {
				sealed(1)(r, &n)
			}
			for range test.rotations {
				r.rotate()
				for range 3 {
					sealed(1)(r, &n)
				}
			}
			if err := errors.Join(os.RemoveAll(r.cfg.StoreDir), os.Rename(copied, r.cfg.StoreDir)); err != nil {
				t.Fatal(err)
			}
			if !test.head {
				if err := os.Remove(filepath.Join(r.dir(), headFile)); err != nil {
					t.Fatal(err)
				}
			}
			test.previous(r)
			r.log.lines = nil
			l := r.mustOpen()
			if r.log.has("set previous_signing_key") {
				t.Errorf("log %q", r.log.lines)
			}
			mustAppend(t, l, testChunk(n-1, 1, 10)) // delivered again
			mustAppend(t, l, testChunk(n, 1, 10))
			r.mustClose(l)
			r.wantRotated(n + 1)
			if _, events := r.verify(); !slices.Contains(events, chain.EventJournalLost) {
				t.Errorf("events %v", events)
			}
		})
	}
}

// TestForkedDirectoryBehindRotations: what a journal from before the rotations holds is not in the bucket. It is kept, and if whoever has
// the first key, and may write where nothing is locked, lays there what would show otherwise.
func TestForkedDirectoryBehindRotations(t *testing.T) {
	for _, rotations := range []int{1, 2} {
		for _, forged := range []bool{false, true} {
			t.Run(fmt.Sprintf("rotations=%d, forged=%t", rotations, forged), func(t *testing.T) {
				r := newRig(t)
				r.t = t
				n := 0
				sealed(1)(r, &n)
				bucket := strings.TrimPrefix(r.cfg.Storage.Bucket, "dir:")
				fork := *r
				fork.cfg.StoreDir, fork.cfg.Storage.Bucket = r.cfg.StoreDir+".fork", r.cfg.Storage.Bucket+".fork"
				copyDir(t, r.cfg.StoreDir, fork.cfg.StoreDir)
				copyDir(t, bucket, bucket+".fork")
				fork.bucket = fork.plainBucket()
				own := 100
				journaled(2)(&fork, &own)
				old := fork.cfg.StoreDir + ".old"
				copyDir(t, fork.cfg.StoreDir, old)
				sealed(0)(&fork, &own)

				sealed(3)(r, &n) // more than the fork has in that place
				for range rotations {
					r.rotate()
					sealed(1)(r, &n)
				}
				for range rebuildSegments { // so that a start which knows nothing does not look further back
					if forged {
						sealed(1)(r, &n)
					}
				}
				if forged { // manifest 2, with its segment
					manifest := chain.Layout{Chain: r.cfg.Chain}.Manifest(2)
					data, err := os.ReadFile(filepath.Join(bucket+".fork", manifest))
					if err != nil {
						t.Fatal(err)
					}
					m, err := chain.PeekManifest(data)
					if err != nil {
						t.Fatal(err)
					}
					for _, key := range []string{manifest, chain.Layout{Chain: r.cfg.Chain}.Root() + m.Segment.Key} {
						copyDir(t, filepath.Join(bucket+".fork", key), filepath.Join(bucket, key))
					}
				}
				if err := errors.Join(os.RemoveAll(r.cfg.StoreDir), os.Rename(old, r.cfg.StoreDir)); err != nil {
					t.Fatal(err)
				}
				for _, r.cfg.PreviousKey = range []string{r.cfg.PreviousKey, ""} {
					l, err := r.open()
					if err == nil {
						crash(l)
						t.Fatal("opened")
					}
					if forged {
						for _, want := range []string{"manifest 2 in ", "is not the one that the manifest after it continues", "they are kept", "to go on from the bucket without them move " + r.dir() + " away"} {
							if !strings.Contains(err.Error(), want) {
								t.Errorf("%v: no %q", err, want)
							}
						}
					} else if !errors.Is(err, ErrForked) || !strings.Contains(err.Error(), "holds entries that are not in it") {
						t.Errorf("opened: %v", err)
					}
					if journals, err := listJournals(r.fs, r.dir()); err != nil || len(journals) != 1 {
						t.Errorf("the journal is not kept: %v, %v", journals, err)
					}
				}
				// What the message says.
				if err := os.Rename(r.dir(), r.dir()+".away"); err != nil {
					t.Fatal(err)
				}
				if l, err := r.open(); err != nil {
					t.Errorf("moved away: %v", err)
				} else {
					crash(l)
				}
			})
		}
	}
}
