package standard

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/test/servers"
)

// python runs docs/verify.py and returns its exit code: 0 intact, 1 a definite no, 2 could not tell.
func python(t testing.TB, env []string, dir string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command("python3", append([]string{filepath.Join(servers.Root(), "docs", "verify.py")}, args...)...)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// intact checks that a copy is intact by every command of the page.
func intact(t *testing.T, env []string, dir string, p256 bool) {
	begin, blocks := doc(t)
	for _, b := range blocks {
		if b.kind == "aws" || b.kind == "evidence" || b.kind == "p256" && !p256 {
			continue
		}
		if out, err := b.run(env, begin, dir); err != nil {
			t.Errorf("%s: %v\n%s\n%s", b.name, err, b.script, out)
		}
	}
	heads, err := filepath.Glob(filepath.Join(dir, "manifests", "*"))
	if err != nil {
		t.Fatal(err)
	}
	v := startVerifier(t, env)
	for _, head := range append(heads, "kept.head", "kept.checkpoint") {
		if code, out := v.verify(t, dir, "audit.pub.pem", head); code != 0 || !strings.HasPrefix(out, "intact: 1543 entries ") {
			t.Errorf("verify.py with the head %s: %d %s", head, code, out)
		}
	}
}

// TestDirectory verifies a log that was written into a directory, signed with Ed25519.
func TestDirectory(t *testing.T) {
	t.Parallel()
	env := environment(t)
	w := newWriter(t, nil)
	w.ed25519("key.pem")
	w.life()
	dir := t.TempDir()
	w.copyDir(dir)
	given(t, dir, w.public("key.pem"))
	if c := (&copied{t, dir}); len(c.segment(0).Segment.Frames) < 2 {
		t.Error("the first segment has one frame")
	}
	intact(t, env, dir, false)
}

// TestServer verifies a log that was written to an S3 server, signed with P-256, in a copy by versions: the newest ones are forged or
// deleted. Where there is a client of AWS, it makes another copy as the page says.
func TestServer(t *testing.T) {
	t.Parallel()
	env := environment(t)
	server := servers.Versitygw(t)
	server.MakeLockedBucket(t, "audit")
	w := newWriter(t, map[string]string{"bucket": "audit", "endpoint": server.Endpoint, "access_key": server.AccessKey, "secret_key": server.SecretKey})
	w.p256("key.pem")
	w.life()
	dir := t.TempDir()
	w.copyVersions(server, "audit", dir)
	given(t, dir, w.public("key.pem"))
	intact(t, env, dir, true)
	w.copyWithAWS(server, env, dir)
}

// TestRotation verifies a log whose key was rotated twice, from Ed25519 to P-256 and to another of those.
func TestRotation(t *testing.T) {
	t.Parallel()
	env := environment(t)
	w := newWriter(t, nil)
	w.ed25519("first.pem")
	w.live(1500, 0)
	w.p256("second.pem")
	w.live(3, 0)
	w.p256("third.pem")
	w.live(40, 1)
	dir := t.TempDir()
	w.copyDir(dir)
	given(t, dir, w.public("first.pem"))
	rotations := 0
	for c, n := (&copied{t, dir}), uint64(0); n < c.count(); n++ {
		if c.manifest(n).Rotation != nil {
			rotations++
		}
	}
	if rotations != 2 {
		t.Errorf("there are %d rotations, want 2", rotations)
	}
	intact(t, env, dir, false)
}

// attack is a way to forge a log, and the commands of the page that fail then. docs/verify.py must always notice.
type attack struct {
	name   string
	do     func(c *copied)
	fail   []string // names of blocks
	unseen bool     // without the kept head nobody can tell: verify.py says intact, and so do we
}

// TestAttacks forges a copy in many ways.
func TestAttacks(t *testing.T) {
	t.Parallel()
	env := environment(t)
	w := newWriter(t, nil)
	w.ed25519("key.pem")
	w.life()
	dir := t.TempDir()
	w.copyDir(dir)
	given(t, dir, w.public("key.pem"))
	whole := &copied{t, dir}
	mine, other := signingKey(t, filepath.Join(w.dir, "key.pem")), newKey(t)
	trusted := mine.Public()
	head := func(c *copied) *chain.Head {
		h, err := follow(c.dir, trusted)
		if err != nil {
			c.t.Fatal(err)
		}
		return &h
	}
	const (
		key, py, pyHead            = "The key 1", "All of it, in Python 1", "All of it, in Python 2"
		cosign, cosignLines        = "One segment: cosign 1", "One segment: cosign 2"
		manifest, checkpoint       = "One manifest: openssl 1", "One manifest: openssl 3"
		line, lines, segmentHashes = "The hash chain: zstd and sha256sum 1", "The hash chain: zstd and sha256sum 2", "The hash chain: zstd and sha256sum 3"
		links, signatures, kept    = "All manifests, and rotated keys 1", "All manifests, and rotated keys 2", "All manifests, and rotated keys 3"
	)
	attacks := []attack{
		{name: "a bit of a segment", do: func(c *copied) { c.flip(c.segment(0).Segment.Key, 0.4) },
			fail: []string{cosign, lines, segmentHashes}},
		{name: "a bit of a segment's last bytes", do: func(c *copied) { c.flip(c.segment(0).Segment.Key, 1) },
			fail: []string{cosign, cosignLines, segmentHashes}},
		{name: "a bit of a payload", do: func(c *copied) {
			c.envelope(1, func(payload, sig []byte) ([]byte, []byte) {
				payload[len(payload)-20] ^= 1
				return payload, sig
			})
		}, fail: []string{py, cosign, cosignLines, manifest, links, signatures}},
		{name: "a bit of a signature", do: func(c *copied) {
			c.envelope(1, func(payload, sig []byte) ([]byte, []byte) { sig[40] ^= 1; return payload, sig })
		}, fail: []string{cosign, manifest, signatures}},
		{name: "a bit of a checkpoint's signature", do: func(c *copied) {
			c.envelope(1, func(payload, sig []byte) ([]byte, []byte) {
				at := bytes.Index(payload, []byte("— ")) + 60
				payload[at] = map[bool]byte{true: 'B', false: 'A'}[payload[at] == 'A']
				return payload, sig
			})
		}, fail: []string{checkpoint, manifest, signatures}},
		{name: "a checkpoint's size, by who has the key of the manifests", do: func(c *copied) {
			m := c.manifest(1)
			m.Checkpoint = strings.Replace(m.Checkpoint, "\n1500\n", "\n1501\n", 1)
			c.resign(m, mine)
		}, fail: []string{checkpoint, links}},
		{name: "an edited record", do: func(c *copied) {
			m := c.segment(0)
			all := c.lines(m)
			editRecord(c.t, all)
			c.writeLines(m, all)
		}, fail: []string{cosign, cosignLines, lines, segmentHashes}},
		{name: "an edited record, and all after it chained anew", do: func(c *copied) {
			m := c.segment(0)
			all := c.lines(m)
			editRecord(c.t, all)
			rechain(*m.PreviousHead, all)
			c.writeLines(m, all)
		}, fail: []string{cosign, cosignLines, lines, segmentHashes}},
		{name: "a segment and its manifest, written anew with another key", do: func(c *copied) { c.rewrite(c.segment(0), other) },
			fail: []string{cosign, cosignLines, manifest, checkpoint, links, signatures}},
		{name: "a segment and its manifest, written anew with the stolen key", do: func(c *copied) { c.rewrite(c.segment(0), mine) },
			fail: []string{links}},
		{name: "a removed record", do: func(c *copied) {
			m := c.segment(0)
			all := c.lines(m)
			c.writeLines(m, append(all[:700], all[701:]...))
		}, fail: []string{cosign, lines, segmentHashes}},
		{name: "two records swapped", do: func(c *copied) {
			m := c.segment(0)
			all := c.lines(m)
			all[7], all[8] = all[8], all[7]
			c.writeLines(m, all)
		}, fail: []string{cosign, lines, segmentHashes}},
		{name: "the first record", do: func(c *copied) {
			m := c.segment(0)
			all := c.lines(m)
			all[0] = bytes.Replace(all[0], []byte(`"seq":0`), []byte(`"seq":1`), 1)
			c.writeLines(m, all)
		}, fail: []string{cosign, line, lines, segmentHashes}},
		{name: "a dropped manifest", do: func(c *copied) { c.remove(manifestName(2)) }, fail: []string{links}},
		{name: "no genesis", do: func(c *copied) { c.remove(manifestName(0)) }, fail: []string{key, links}},
		{name: "a dropped segment", do: func(c *copied) { c.remove(c.segment(0).Segment.Key) }, fail: []string{cosign, lines, segmentHashes}},
		{name: "two manifests swapped", do: func(c *copied) { c.swap(manifestName(2), manifestName(3)) }, fail: []string{links}},
		{name: "two segments swapped", do: func(c *copied) { c.swap(c.segment(0).Segment.Key, c.segment(1).Segment.Key) },
			fail: []string{cosign, cosignLines, lines, segmentHashes}},
		{name: "another key trusted", do: func(c *copied) { c.write("audit.pub.pem", other.Public().PEM()) },
			fail: []string{key, pyHead, cosign, manifest, signatures}},
		{name: "all of another log", do: func(c *copied) {
			forger := newWriter(c.t, nil)
			forger.ed25519("key.pem")
			forger.live(1500, 0)
			for _, folder := range []string{"manifests", "segments"} {
				if err := os.RemoveAll(c.path(folder)); err != nil {
					c.t.Fatal(err)
				}
			}
			forger.copyDir(c.dir)
		}, fail: []string{key, pyHead, cosign, manifest, signatures, kept}},
		{name: "the end cut off", do: func(c *copied) {
			for n, last := c.count()-1, c.segment(2).N; n >= last; n-- {
				c.remove(manifestName(n))
			}
		}, fail: []string{pyHead, kept}, unseen: true},
		{name: "a manifest of a key that nothing announces", do: func(c *copied) { c.append(head(c), chain.KindHeartbeat, other, nil) },
			fail: []string{signatures}},
		{name: "a rotation to a new key that signs itself", do: func(c *copied) {
			c.append(head(c), chain.KindRotation, other, func(m *chain.Manifest) { m.Rotation = keysOf(c.t, other) })
		}, fail: []string{signatures}},
		{name: "the old key after a rotation", do: func(c *copied) {
			h := head(c)
			c.append(h, chain.KindRotation, mine, func(m *chain.Manifest) { m.Rotation = keysOf(c.t, other) })
			c.append(h, chain.KindHeartbeat, mine, nil)
		}, fail: []string{signatures}},
		{name: "a rotation to the same key", do: func(c *copied) {
			c.append(head(c), chain.KindRotation, mine, func(m *chain.Manifest) { m.Rotation = keysOf(c.t, mine) })
		}},
		{name: "a manifest twice", do: func(c *copied) { c.write(manifestName(c.count()), c.read(manifestName(c.count()-1))) }, fail: []string{links}},
	}

	begin, blocks := doc(t)
	v := startVerifier(t, env)
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			c := whole.clone(t)
			a.do(c)
			code, out := v.verify(t, c.dir, "audit.pub.pem")
			if want := map[bool]int{false: 1, true: 0}[a.unseen]; code != want {
				t.Errorf("verify.py ends with %d, want %d: %s", code, want, out)
			}
			auditors, err := chain.ParsePublicKey(c.read("audit.pub.pem"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := follow(c.dir, auditors); (err == nil) != a.unseen {
				t.Errorf("package chain says %v, verify.py %s", err, out)
			}
			for _, head := range []string{"kept.head", "kept.checkpoint"} {
				if code, out := v.verify(t, c.dir, "audit.pub.pem", head); code != 1 {
					t.Errorf("verify.py with %s ends with %d: %s", head, code, out)
				}
			}
			for _, name := range a.fail {
				i := slices.IndexFunc(blocks, func(b block) bool { return b.name == name })
				if i < 0 {
					t.Fatalf("docs/VERIFYING.md has no block %q", name)
				}
				if out, err := blocks[i].run(env, begin, c.dir); err == nil {
					t.Errorf("%s did not notice:\n%s\n%s", name, blocks[i].script, out)
				}
			}
		})
	}
}

// TestCouldNotTell looks at what verify.py says where it cannot know.
func TestCouldNotTell(t *testing.T) {
	t.Parallel()
	env := environment(t)
	vectors := filepath.Join(servers.Root(), "chain", "testdata", "vectors")
	pub := filepath.Join(vectors, "pub.pem")
	empty := t.TempDir()
	if err := os.Mkdir(filepath.Join(empty, "manifests"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{}, {vectors}, {vectors, "nowhere.pem"}, {"nowhere", pub}, {empty, pub}, {vectors, pub, "nowhere"},
		{vectors, filepath.Join(vectors, "key.pem")}, {vectors, pub, pub},
	} {
		if code, out := python(t, env, ".", args...); code != 2 {
			t.Errorf("%q: exit code %d: %s", args, code, out)
		}
	}
	real, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output() // what a wrapper on PATH runs
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(strings.TrimSpace(string(real)), filepath.Join(servers.Root(), "docs", "verify.py"), vectors, pub)
	cmd.Env = []string{"PATH=" + empty}
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(string(out), "unchecked: manifest 1: ") {
		t.Errorf("without zstd: exit code %d: %s", code, out)
	}
}

// TestShort holds verify.py to what the page says of its length.
func TestShort(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(servers.Root(), "docs", "verify.py"))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(text, []byte("\n")); n != 161 {
		t.Errorf("docs/verify.py has %d lines; docs/VERIFYING.md says 161", n)
	}
}

// verifier is one python3 that runs docs/verify.py on one copy after the other, as many starts would take too long.
type verifier struct {
	in  io.Writer
	out *bufio.Reader
}

func startVerifier(t testing.TB, env []string) *verifier {
	t.Helper()
	const program = `
import contextlib, io, os, sys
sys.path.insert(0, sys.argv[1])
import verify
for line in sys.stdin:
    said, (dir, *args) = io.StringIO(), line.rstrip("\n").split("\t")
    os.chdir(dir)
    with contextlib.redirect_stdout(said):
        try: code = verify.main(".", *args)
        except Exception as error: code, _ = 2, print(error)
    print(code, said.getvalue().replace("\n", "; "), flush=True)
`
	cmd := exec.Command("python3", "-B", "-c", program, filepath.Join(servers.Root(), "docs"))
	cmd.Env, cmd.Stderr = env, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return &verifier{in, bufio.NewReader(out)}
}

func (v *verifier) verify(t testing.TB, dir string, args ...string) (int, string) {
	t.Helper()
	if _, err := fmt.Fprintln(v.in, strings.Join(append([]string{dir}, args...), "\t")); err != nil {
		t.Fatal(err)
	}
	line, err := v.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	first, said, _ := strings.Cut(line, " ")
	code, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(line)
	}
	return code, said
}

// TestVectors flips bits at many places of the format's test vectors: verify.py and package chain must notice each, but in the
// hint, which nothing signs.
func TestVectors(t *testing.T) {
	t.Parallel()
	env := environment(t)
	c := (&copied{t, filepath.Join(servers.Root(), "chain", "testdata", "vectors")}).clone(t)
	trusted, err := chain.ParsePublicKey(c.read("pub.pem"))
	if err != nil {
		t.Fatal(err)
	}
	v := startVerifier(t, env)
	if code, said := v.verify(t, c.dir, "pub.pem"); code != 0 || !strings.Contains(said, "7007 entries") {
		t.Fatalf("exit code %d: %s", code, said)
	}
	tried := 0
	for _, name := range []string{manifestName(0), manifestName(1), manifestName(2), manifestName(3),
		"segments/date=2026-11-23/000000000001.ndjson.zst", "segments/date=2026-11-23/000000000003.ndjson.zst"} {
		data := c.read(name)
		begin, end := bytes.Index(data, []byte(`"hint":"`)), bytes.Index(data, []byte(`"}},"dsseEnvelope"`))
		for i := 0; i < len(data); i += max(1, len(data)/13) {
			if begin >= 0 && i > begin+len(`"hint":"`) && i < end {
				continue
			}
			changed := bytes.Clone(data)
			changed[i] ^= 1 << (i % 8)
			c.write(name, changed)
			code, said := v.verify(t, c.dir, "pub.pem")
			_, err := follow(c.dir, trusted)
			if code != 1 || err == nil {
				t.Errorf("%s: bit %d of byte %d: verify.py: %d %s; package chain: %v", name, i%8, i, code, said, err)
			}
			tried++
		}
		c.write(name, data)
	}
	if code, said := v.verify(t, c.dir, "pub.pem"); code != 0 {
		t.Errorf("whole again: exit code %d: %s", code, said)
	}
	t.Logf("%d flips", tried)
}

// TestCounts: whoever has the key cannot say other numbers of records than the lines have. The vectors' last segment has two complete records.
func TestCounts(t *testing.T) {
	t.Parallel()
	env := environment(t)
	c := (&copied{t, filepath.Join(servers.Root(), "chain", "testdata", "vectors")}).clone(t)
	k, err := chain.ParseSigningKey(c.read("key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	v := startVerifier(t, env)
	last := c.read(manifestName(3))
	for _, counts := range []chain.Counts{
		{Entries: 2, Records: 2, Complete: 2},
		{Entries: 2, Records: 1, Events: 1, Complete: 1},
		{Entries: 2, Records: 2, Complete: 1, SourceEvents: 1},
		{Entries: 2, Records: 2, Complete: 2, Redelivered: 1},
		{Entries: 2, Records: 2, Complete: 2, Redelivered: 1, Conflicts: 1},
	} {
		m, _, err := chain.OpenManifest(last, k.Public())
		if err != nil {
			t.Fatal(err)
		}
		m.Counts = &counts
		data, _, err := m.Sign(k)
		if err != nil {
			t.Fatal(err)
		}
		c.write(manifestName(3), data)
		code, said := v.verify(t, c.dir, "pub.pem")
		_, err = follow(c.dir, k.Public())
		if right := counts.Complete == 2 && counts.Redelivered == 0; right != (code == 0) || right != (err == nil) || !right && !strings.Contains(said, "its counts are others") {
			t.Errorf("%+v: verify.py: %d %s; package chain: %v", counts, code, said, err)
		}
	}
}
