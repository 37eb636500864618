package standard

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/chain"
)

// copied is a copy of a log that an attacker changes. Whatever fails in the changing fails the test.
type copied struct {
	t   testing.TB
	dir string
}

func manifestName(n uint64) string { return fmt.Sprintf("manifests/%012d.sigstore.json", n) }

// clone copies the copy, for one attack.
func (c *copied) clone(t testing.TB) *copied {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(c.dir)); err != nil {
		t.Fatal(err)
	}
	return &copied{t, dir}
}

func (c *copied) path(name string) string { return filepath.Join(c.dir, filepath.FromSlash(name)) }

func (c *copied) read(name string) []byte {
	c.t.Helper()
	data, err := os.ReadFile(c.path(name))
	if err != nil {
		c.t.Fatal(err)
	}
	return data
}

func (c *copied) write(name string, data []byte) {
	c.t.Helper()
	if err := os.WriteFile(c.path(name), data, 0o644); err != nil {
		c.t.Fatal(err)
	}
}

func (c *copied) remove(name string) {
	c.t.Helper()
	if err := os.Remove(c.path(name)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *copied) swap(a, b string) {
	c.t.Helper()
	first, second := c.read(a), c.read(b)
	c.write(a, second)
	c.write(b, first)
}

// flip turns a bit of the byte at this part of the file, 0 to 1.
func (c *copied) flip(name string, part float64) {
	c.t.Helper()
	data := c.read(name)
	data[int(part*float64(len(data)-1))] ^= 4
	c.write(name, data)
}

// count is how many manifests there are.
func (c *copied) count() uint64 {
	c.t.Helper()
	names, err := filepath.Glob(c.path("manifests/*"))
	if err != nil || len(names) == 0 {
		c.t.Fatal("no manifests", err)
	}
	return uint64(len(names))
}

func (c *copied) manifest(n uint64) *chain.Manifest {
	c.t.Helper()
	m, err := chain.PeekManifest(c.read(manifestName(n)))
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// segment returns the manifest of the nth segment, from 0.
func (c *copied) segment(n int) *chain.Manifest {
	c.t.Helper()
	for i := range c.count() {
		if m := c.manifest(i); m.Segment != nil {
			if n == 0 {
				return m
			}
			n--
		}
	}
	c.t.Fatal("there are not so many segments")
	return nil
}

// envelope changes what stands in a manifest's bundle, and does not sign it anew.
func (c *copied) envelope(n uint64, change func(payload, sig []byte) (newPayload, newSig []byte)) {
	c.t.Helper()
	var bundle struct {
		DSSEEnvelope struct {
			Payload    []byte
			Signatures []struct{ Sig []byte }
		}
	}
	data := c.read(manifestName(n))
	if err := json.Unmarshal(data, &bundle); err != nil {
		c.t.Fatal(err)
	}
	e := bundle.DSSEEnvelope
	payload, sig := change(bytes.Clone(e.Payload), bytes.Clone(e.Signatures[0].Sig))
	b64 := base64.StdEncoding.EncodeToString
	text := strings.Replace(string(data), b64(e.Payload), b64(payload), 1)
	c.write(manifestName(n), []byte(strings.Replace(text, b64(e.Signatures[0].Sig), b64(sig), 1)))
}

// lines are the entries of a segment.
func (c *copied) lines(m *chain.Manifest) [][]byte {
	c.t.Helper()
	raw, err := exec.Command("zstd", "-dcq", c.path(m.Segment.Key)).Output()
	if err != nil {
		c.t.Fatal(err)
	}
	return bytes.Split(bytes.TrimSuffix(raw, []byte("\n")), []byte("\n"))
}

// editRecord changes what a record in the middle says of its user.
func editRecord(t testing.TB, lines [][]byte) {
	t.Helper()
	for i := len(lines) / 2; i < len(lines); i++ {
		if edited := bytes.Replace(lines[i], []byte(`"status":200`), []byte(`"status":500`), 1); !bytes.Equal(edited, lines[i]) {
			lines[i] = edited
			return
		}
	}
	t.Fatal("there is no record to edit")
}

// rechain makes each line name the one before, from prev on, and returns where that leads.
func rechain(prev chain.Hash, lines [][]byte) {
	for i, line := range lines {
		begin := bytes.Index(line, []byte(`"prev":"`)) + len(`"prev":"`)
		lines[i] = append(append(bytes.Clone(line[:begin]), prev.String()...), line[begin+64:]...)
		prev = chain.Sum(lines[i])
	}
}

// writeLines compresses lines as the segment of m, and returns what a manifest says of it.
func (c *copied) writeLines(m *chain.Manifest, lines [][]byte) chain.Segment {
	c.t.Helper()
	compressor, err := chain.NewCompressor(chain.LevelFastest)
	if err != nil {
		c.t.Fatal(err)
	}
	var object bytes.Buffer
	w := chain.NewSegmentWriter(&object, compressor)
	if _, err := w.Write(append(bytes.Join(lines, []byte("\n")), '\n')); err != nil {
		c.t.Fatal(err)
	}
	s, _, err := w.Close()
	if err != nil {
		c.t.Fatal(err)
	}
	s.Key, s.VersionID = m.Segment.Key, m.Segment.VersionID
	c.write(s.Key, object.Bytes())
	return s
}

// resign writes manifest m, changed, as the holder of key would, and leaves those after it alone.
func (c *copied) resign(m *chain.Manifest, key *chain.SigningKey) {
	c.t.Helper()
	data, _, err := m.Sign(key)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(manifestName(m.N), data)
}

// rewrite writes the segment of m anew, with one record edited and all lines chained, and its manifest with the tree, the head and
// the checkpoint that follow, signed with key.
func (c *copied) rewrite(m *chain.Manifest, key *chain.SigningKey) {
	c.t.Helper()
	lines := c.lines(m)
	editRecord(c.t, lines)
	rechain(*m.PreviousHead, lines)
	s := c.writeLines(m, lines)
	m.Segment = &s
	tree, err := chain.NewTree(m.FirstSeq, m.TreeBefore)
	if err != nil {
		c.t.Fatal(err)
	}
	head := chain.Head{NextSeq: m.FirstSeq, Entry: *m.PreviousHead, Tree: tree}
	for _, line := range lines {
		head.Append(chain.Sum(line))
	}
	m.Head, m.TreeAfter = &head.Entry, head.Tree.Compact()
	if m.Checkpoint, err = key.SignCheckpoint(chain.Checkpoint{Origin: m.Chain, Size: m.NextSeq, Root: head.Tree.Root()}); err != nil {
		c.t.Fatal(err)
	}
	c.resign(m, key)
}

// append appends a manifest of the kind to the log, as the holder of key would; fill may change it. The head is that of the log so far.
func (c *copied) append(head *chain.Head, kind chain.Kind, key *chain.SigningKey, fill func(*chain.Manifest)) {
	c.t.Helper()
	m, err := head.Next(kind, head, key)
	if err != nil {
		c.t.Fatal(err)
	}
	last := c.manifest(head.NextN - 1)
	m.SealedAt, m.Lock, m.Writer = last.SealedAt, last.Lock, last.Writer
	if fill != nil {
		fill(m)
	}
	c.resign(m, key)
	_, payload, err := m.Sign(key)
	if err != nil {
		c.t.Fatal(err)
	}
	head.PreviousManifest, head.NextN = payload, m.N+1
}

// keysOf are what a rotation announces.
func keysOf(t testing.TB, key *chain.SigningKey) *chain.NewKeys {
	t.Helper()
	vkey, err := key.CheckpointKey(chainName)
	if err != nil {
		t.Fatal(err)
	}
	return &chain.NewKeys{ManifestKey: string(key.Public().PEM()), CheckpointKey: vkey}
}

func newKey(t testing.TB) *chain.SigningKey {
	t.Helper()
	text, err := chain.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := chain.ParseSigningKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
