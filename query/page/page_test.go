package page

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/test/browser/logs"
)

// vectorEvidence is the evidence of an entry of the format's test vectors.
func vectorEvidence(t testing.TB, seq uint64) (*chain.Evidence, chain.PublicKey) {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("..", "..", "chain", "testdata", "vectors", filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	key, err := chain.ParsePublicKey(read("pub.pem"))
	if err != nil {
		t.Fatal(err)
	}
	stored := read("manifests/000000000003.sigstore.json")
	m, _, err := chain.OpenManifest(stored, key)
	if err != nil {
		t.Fatal(err)
	}
	d, err := zstd.NewReader(bytes.NewReader(read(m.Segment.Key)))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var lines bytes.Buffer
	if _, err := lines.ReadFrom(d); err != nil {
		t.Fatal(err)
	}
	var s chain.Subtrees
	s.AddManifest(m)
	var hashes []chain.Hash
	var line []byte
	for l := range bytes.Lines(lines.Bytes()) {
		l = bytes.TrimSuffix(l, []byte("\n"))
		if m.FirstSeq+uint64(len(hashes)) == seq {
			line = l
		}
		hashes = append(hashes, chain.Sum(l))
	}
	s.AddEntries(m.FirstSeq, hashes)
	proof, err := s.Inclusion(seq, m.NextSeq)
	if err != nil {
		t.Fatal(err)
	}
	e := chain.NewEvidence(line, chain.InclusionProof{Index: seq, Hashes: proof, Checkpoint: m.Checkpoint}, stored,
		[][]byte{read("manifests/000000000000.sigstore.json")}, m.Chain)
	e.Made.At = m.SealedAt
	return e, key
}

func render(t testing.TB, e *chain.Evidence) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Render(&b, e); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	fromVectors, key := vectorEvidence(t, 7006)
	if r := fromVectors.Verify(key.Fingerprint()); !r.OK {
		t.Fatalf("the evidence from the vectors does not verify: %+v", r.Checks)
	}
	l := logs.New(t, "audit.example.com/prod-eu1", logs.P256(t, "a"))
	l.Rotate(logs.Ed25519(t, "b"))
	l.Segment(`"time":"2026-11-23T07:25:01.000000123Z","record":{"request_id":"</script><!--<script>"}}`)
	strange := *l.Evidence(0)
	strange.Made.By = "</script>\u2028\u2029\u202e\x00\x7f\U0001f600\ufeff"
	for name, e := range map[string]*chain.Evidence{
		"vectors": fromVectors, "rotated": l.Evidence(0), "strange": &strange, "empty": chain.NewEvidence(nil, chain.InclusionProof{}, nil, nil, ""),
	} {
		html := render(t, e)
		if again := render(t, e); !bytes.Equal(html, again) {
			t.Errorf("%s: rendered twice, two pages", name)
		}
		got, ours, err := Extract(html)
		if err != nil || !ours {
			t.Errorf("%s: a page of ours is not taken for one: %v", name, err)
		}
		if !reflect.DeepEqual(got, e) {
			t.Errorf("%s: read back as %+v, want %+v", name, got, e)
		}
	}
}

// TestShell looks for what a browser would write out otherwise than it read it, and for what could end the script early.
func TestShell(t *testing.T) {
	e, _ := vectorEvidence(t, 7005)
	html := string(render(t, e))
	for i, c := range html {
		if c >= 0x7f || c < ' ' && c != '\n' {
			t.Fatalf("byte %d of the page is %q", i, c)
		}
	}
	for text, want := range map[string]int{
		"<script": 2, "</script>": 2, "<style": 1, "</style>": 1, "<!--": 0, "{{": 0, "innerHTML": 0, "http-equiv": 1,
	} {
		if got := strings.Count(html, text); got != want {
			t.Errorf("the page has %d times %q, want %d", got, text, want)
		}
	}
	if html := part("page.html"); strings.ContainsAny(html, "&\t\r") || strings.Contains(html, "=''") || strings.Contains(html, "/>") {
		t.Error("the HTML is not in the spelling that browsers write")
	}
	policy := regexp.MustCompile(`content="(default-src 'none'; script-src 'sha256-[A-Za-z0-9+/=]{44}'; style-src 'sha256-[A-Za-z0-9+/=]{44}'; base-uri 'none'; form-action 'none')"`)
	if !policy.MatchString(html) {
		t.Error("the page has no policy")
	}
	for _, name := range scripts {
		if lines := strings.Count(part(name+".js"), "\n"); lines > 250 {
			t.Errorf("%s.js has %d lines", name, lines)
		}
	}
}

// TestEscaping: whatever the evidence holds, nothing of it can end the element that it stands in.
func TestEscaping(t *testing.T) {
	e, _ := vectorEvidence(t, 7005)
	var all strings.Builder
	for c := rune(0); c < 0x3000; c++ {
		all.WriteRune(c)
	}
	e.Proof, e.Made.From = all.String(), "\U0001f600</ScRiPt>"
	html := render(t, e)
	_, rest, _ := bytes.Cut(html, []byte(dataBegin))
	data, _, _ := bytes.Cut(rest, []byte(dataEnd))
	if i := bytes.IndexFunc(data, func(r rune) bool { return r == '<' || r == '>' || r == '&' || r < ' ' || r >= 0x7f }); i >= 0 {
		t.Errorf("byte %d of the evidence is %q", i, data[i])
	}
	var got chain.Evidence
	if err := json.Unmarshal(data, &got); err != nil || got.Proof != e.Proof || got.Made.From != e.Made.From {
		t.Errorf("escaped, the evidence is another: %v", err)
	}
}

func TestExtractDamaged(t *testing.T) {
	e, _ := vectorEvidence(t, 7005)
	html := render(t, e)
	replace := func(old, new string) []byte {
		if !bytes.Contains(html, []byte(old)) {
			t.Fatalf("the page has no %q", old)
		}
		return bytes.Replace(html, []byte(old), []byte(new), 1)
	}
	for name, c := range map[string]struct {
		html []byte
		err  string
	}{
		"nothing":          {nil, "holds no evidence"},
		"cut":              {html[:bytes.Index(html, []byte(dataBegin))+100], "holds no evidence"},
		"other element":    {replace(`id="evidence"`, `id="evidences"`), "holds no evidence"},
		"two":              {replace(dataEnd, dataEnd+dataBegin+"{}"+dataEnd), "more than one"},
		"unknown member":   {replace(`"auditchain_evidence":1`, `"auditchain_evidence":1,"x":1`), "unknown field"},
		"format":           {replace(`"auditchain_evidence":1`, `"auditchain_evidence":2`), "knows format 1"},
		"white space":      {replace(`"auditchain_evidence":1`, `"auditchain_evidence": 1`), ""},
		"script":           {replace(`"use strict";`, `"use strict"; `), ""},
		"digest":           {replace(`data-digest="`, `data-digest="0`), ""},
		"static text":      {replace("NOT VERIFIED", "VERIFIED"), ""},
		"text behind":      {append(bytes.Clone(html), '\n'), ""},
		"made by another":  {replace(`"by":""`, `"by":"x"`), ""},
		"older page's css": {replace("--paper", "--sheet"), ""},
	} {
		got, ours, err := Extract(c.html)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want %q", name, err, c.err)
			}
			continue
		}
		if err != nil || got == nil || ours {
			t.Errorf("%s: %v, ours %v; want the evidence of a page that is not ours", name, err, ours)
		}
	}
}

func TestLimits(t *testing.T) {
	if _, _, err := Extract(make([]byte, maxPage+1)); err == nil {
		t.Error("a page of any size is read")
	}
	e, _ := vectorEvidence(t, 7005)
	e.Entry = make([]byte, chain.MaxEvidence/4*3)
	if err := Render(new(bytes.Buffer), e); err == nil {
		t.Error("evidence is written that cannot be read")
	}
}

func FuzzExtract(f *testing.F) {
	e, key := vectorEvidence(f, 7005)
	html := render(f, e)
	f.Add(html)
	f.Add([]byte(dataBegin + `{"auditchain_evidence":1}` + dataEnd))
	f.Add(bytes.Replace(html, []byte("proof"), []byte("Proof"), 1))
	f.Fuzz(func(t *testing.T, page []byte) {
		e, ours, err := Extract(page)
		if err != nil {
			return
		}
		e.Verify(key.Fingerprint()) // must not crash
		if ours != bytes.Equal(render(t, e), page) {
			t.Errorf("ours is %v", ours)
		}
	})
}
