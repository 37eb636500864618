package chain

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/bits"
	mathrand "math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
)

// TestTreeAgainstMerkle compares the tree with an implementation of RFC 6962 that others wrote.
func TestTreeAgainstMerkle(t *testing.T) {
	factory := compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
	theirs := factory.NewEmptyRange(0)
	var ours Tree
	for i := range uint64(1100) {
		root, err := theirs.GetRootHash(nil)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			root = rfc6962.DefaultHasher.EmptyRoot()
		}
		if got := ours.Root(); !bytes.Equal(got[:], root) {
			t.Fatalf("root of %d leaves is %s, want %x", i, got, root)
		}
		compact := ours.Compact()
		if len(compact) != len(theirs.Hashes()) {
			t.Fatalf("compact range of %d leaves has %d hashes, want %d", i, len(compact), len(theirs.Hashes()))
		}
		for j, h := range theirs.Hashes() {
			if !bytes.Equal(compact[j][:], h) {
				t.Fatalf("hash %d of the compact range of %d leaves is %s, want %x", j, i, compact[j], h)
			}
		}
		again, err := NewTree(i, compact)
		if err != nil || !again.Equal(&ours) {
			t.Fatalf("tree of size %d from its compact range: %v", i, err)
		}
		leaf := Sum([]byte{byte(i), byte(i >> 8)})
		ours.Append(leaf)
		if err := theirs.Append(rfc6962.DefaultHasher.HashLeaf(leaf[:]), nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := NewTree(3, make([]Hash, 3)); err == nil {
		t.Error("a compact range that does not fit was taken")
	}
}

// TestRanges compares the set with a plain map.
func TestRanges(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(1, 2))
	for range 200 {
		var r Ranges
		have := make(map[uint64]bool)
		for range 60 {
			first := rng.Uint64N(40)
			last := first + rng.Uint64N(4)
			known := uint64(0)
			for n := first; n <= last; n++ {
				if have[n] {
					known++
				}
				have[n] = true
			}
			if got := r.AddRange(Range{first, last}); got != known {
				t.Fatalf("adding %d to %d: %d known, want %d (%v)", first, last, got, known, r.runs)
			}
		}
		for range 20 {
			n := rng.Uint64N(45)
			r.Remove(n)
			delete(have, n)
		}
		total := 0
		for i, run := range r.Runs() {
			total += int(run.Last - run.First + 1)
			if i > 0 && r.Runs()[i-1].Last+1 >= run.First {
				t.Fatalf("runs touch: %v", r.Runs())
			}
			for n := run.First; n <= run.Last; n++ {
				if !have[n] {
					t.Fatalf("%d was never added", n)
				}
			}
		}
		if total != len(have) {
			t.Fatalf("%d numbers, want %d", total, len(have))
		}
	}
	var r Ranges
	for _, n := range []uint64{^uint64(0), 0, ^uint64(0) - 1} {
		if !r.Add(n) || r.Add(n) {
			t.Errorf("adding %d twice", n)
		}
	}
	if len(r.Runs()) != 2 {
		t.Errorf("runs %v", r.Runs())
	}
}

func TestParseEntry(t *testing.T) {
	prev := Sum(nil).String()
	head := `{"seq":7,"prev":"` + prev + `","received":"2026-11-23T07:25:01.000000001Z","tag":"t"`
	record := `,"time":"2026-11-23T07:25:01.000000001Z","record":{"a":1}}`
	good := []string{
		head + record,
		head + `,"chunk":{"sha256":"` + prev + `","entries":3}` + record,
		head + `,"time":"2026-11-23T07:25:01.000000001Z","meta":{"x":[]},"group":{"y":{}},"record":{}}`,
		head + `,"event":"quarantine","detail":{"data":"a\\\"b"}}`,
		head + `,"redelivered":true` + record,
		head + `,"redelivered":true,"conflict":true` + record,
		head + `,"chunk":{"sha256":"` + prev + `","entries":3},"redelivered":true,"conflict":true` + record,
		strings.Replace(head, `"t"`, `{"$str":"/w=="}`, 1) + record,
		head + `,"time":"2026-11-23T07:25:01.000000001Z","record":{"a":[1,-2.5e+3,true,false,null,"\"",{"b":[[],{}]}]}}`,
	}
	for _, line := range good {
		if _, err := ParseEntry([]byte(line)); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	bad := []string{
		"", "{}", head, head + "}", head + record + " ", head + record[:len(record)-1],
		strings.Replace(head, ":7", ":07", 1) + record,
		strings.Replace(head, ":7", ":-7", 1) + record,
		strings.Replace(head, ":7", ":18446744073709551616", 1) + record,
		strings.Replace(head, `"seq":7`, `"seq": 7`, 1) + record,
		strings.Replace(head, prev, strings.ToUpper(prev), 1) + record,
		strings.Replace(head, "001Z", "01Z", 1) + record,
		strings.Replace(head, "11-23", "13-23", 1) + record,
		head + `,"conflict":true` + record,
		head + `,"conflict":true,"redelivered":true` + record,
		head + `,"redelivered":true,"conflict":false` + record,
		head + `,"redelivered":true,"conflict":true,"conflict":true` + record,
		head + `,"redelivered":true,"conflict":true,"event":"quarantine","detail":{}}`,
		head + `,"record":{"a":1}}`,
		head + `,"time":"2026-11-23T07:25:01.000000001Z","record":[1]}`,
		head + `,"time":"2026-11-23T07:25:01.000000001Z","record":{"a":1,}}`,
		head + `,"time":"2026-11-23T07:25:01.000000001Z","record":{"a"}}`,
		head + `,"time":"2026-11-23T07:25:01.000000001Z","record":{"a":[1}]}}`,
		head + `,"time":"2026-11-23T07:25:01.000000001Z","record":{"a":nul}}`,
		head + `,"time":"2026-11-23T07:25:01.000000001Z","record":{"a":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}}`,
	}
	for _, line := range bad {
		if e, err := ParseEntry([]byte(line)); err == nil {
			t.Errorf("%s: taken as %+v", line, e)
		}
	}
}

func TestFacts(t *testing.T) {
	line := func(rest string) []byte {
		return []byte(`{"seq":7,"prev":"` + Sum(nil).String() + `","received":"2026-11-23T07:25:01.000000001Z","tag":"t","time":"2026-11-23T07:25:01.000000001Z",` + rest + `}`)
	}
	tests := []struct {
		rest    string
		present FieldSet
		source  string
		seq     uint64
	}{
		{`"record":{}`, 0, "", 0},
		{`"record":{"request_id":"a","status":0,"user_id":"","model_id":null}`, 1<<RequestID | 1<<Status, "", 0},
		{`"meta":{"otlp":{"attributes":{"gen_ai.request.model":"m"}}},"record":{"gen_ai.response.id":"r"}`, 1<<ModelID | 1<<RequestID, "", 0},
		{`"meta":{"attributes":{"gen_ai.request.model":"m"}},"record":{"x":{"status":1}}`, 0, "", 0},
		{`"record":{"source":{"id":"a\"b","seq":12}}`, 0, `a"b`, 12},
		{`"record":{"source":{"seq":12}}`, 0, "", 0},
		{`"record":{"source":{"id":"a","seq":-1}}`, 0, "", 0},
		{`"record":{"source":{"id":"a","seq":1.0}}`, 0, "", 0},
		{`"record":{"source":"a"}`, 0, "", 0},
		{`"record":{"source":{"id":"` + strings.Repeat("x", 257) + `","seq":1}}`, 0, "", 0},
		{`"record":{"source_event":"start"}`, 0, "", 0},
		{`"record":{"source_event":"start","source":{"id":"a","seq":1.0}}`, 0, "", 0},
		{`"record":{"source_event":"","source":{"id":"a","seq":3}}`, 0, "a", 3},
		{`"record":{"source_event":null,"source":{"id":"a","seq":3}}`, 0, "a", 3},
		{`"record":{"source_event":{"$str":"/w=="},"source":{"id":"a","seq":3}}`, 0, "a", 3},
		{`"meta":{"otlp":{"attributes":{"source_event":"start"}}},"record":{"source":{"id":"a","seq":3}}`, 0, "a", 3},
	}
	for _, test := range tests {
		e, err := ParseEntry(line(test.rest))
		if err != nil {
			t.Errorf("%s: %v", test.rest, err)
			continue
		}
		f := e.Facts()
		if f.Missing != AllFields&^test.present || string(f.SourceID) != test.source || f.SourceSeq != test.seq {
			t.Errorf("%s: missing %b, source %q %d", test.rest, f.Missing, f.SourceID, f.SourceSeq)
		}
		if f.SourceEvent {
			t.Errorf("%s: taken as a source event", test.rest)
		}
	}
	for _, rest := range []string{
		`"record":{"source_event":"start","source":{"id":"a","seq":3}}`,
		`"record":{"source":{"id":"a","seq":3},"source_event":"\"","status":200}`,
	} {
		e, err := ParseEntry(line(rest))
		if f := e.Facts(); err != nil || !f.SourceEvent || f.Missing != 0 || string(f.SourceID) != "a" || f.SourceSeq != 3 {
			t.Errorf("%s: %+v, %v", rest, f, err)
		}
	}
}

// TestCounts: every record is counted once, and each count is added up.
func TestCounts(t *testing.T) {
	var s Summary
	for _, f := range []Facts{
		{Event: true}, {}, {Missing: 1<<Status | 1<<UserID}, {SourceID: []byte("a/events"), SourceEvent: true},
		{SourceID: []byte("a"), Redelivered: true}, {SourceID: []byte("a"), Redelivered: true, Conflict: true, Missing: 1 << Status},
	} {
		s.Add(f)
	}
	c := s.Counts()
	want := Counts{Entries: 6, Records: 5, Events: 1, Complete: 2, Incomplete: 2, SourceEvents: 1,
		Missing: map[string]uint64{"status": 2, "user_id": 1}, Redelivered: 2, Conflicts: 1}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v, want %+v", c, want)
	}
	c.Add(&want)
	want = Counts{Entries: 12, Records: 10, Events: 2, Complete: 4, Incomplete: 4, SourceEvents: 2,
		Missing: map[string]uint64{"status": 4, "user_id": 2}, Redelivered: 4, Conflicts: 2}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("added up: %+v, want %+v", c, want)
	}
}

func TestSourcesAreBounded(t *testing.T) {
	var s Summary
	for i := range uint64(maxSourceRanges + 1) {
		s.Add(Facts{SourceID: []byte("s"), SourceSeq: 2 * i})
	}
	if sources, omitted := s.SourceRanges(); sources != nil || omitted != 1 {
		t.Errorf("%d sources listed, %d omitted", len(sources), omitted)
	}
}

func TestKeys(t *testing.T) {
	edPEM, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	sec1, _ := x509.MarshalECPrivateKey(p256)
	for name, text := range map[string][]byte{
		"Ed25519": edPEM, "P-256": pkcs8(p256), "P-256 SEC 1": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}),
	} {
		k, err := ParseSigningKey(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		public, err := ParsePublicKey(k.Public().PEM())
		if err != nil || !public.Equal(k.Public()) {
			t.Errorf("%s: public key: %v", name, err)
		}
		sig, err := k.Sign([]byte("message"))
		if err != nil || !public.Verify([]byte("message"), sig) || public.Verify([]byte("massage"), sig) {
			t.Errorf("%s: signature: %v", name, err)
		}
		signed, err := k.SignCheckpoint(Checkpoint{"example.com/log", 3, Sum(nil)})
		if err != nil {
			t.Fatal(err)
		}
		vkey, _ := k.CheckpointKey("example.com/log")
		c, err := OpenCheckpoint(signed, vkey)
		if err != nil || c.Size != 3 || c.Root != Sum(nil) {
			t.Errorf("%s: checkpoint %+v: %v", name, c, err)
		}
		if _, err := OpenCheckpoint(strings.Replace(signed, "\n3\n", "\n4\n", 1), vkey); err == nil {
			t.Errorf("%s: forged checkpoint accepted", name)
		}
	}
	for name, text := range map[string][]byte{
		"nothing": nil, "text": []byte("hello"), "P-384": pkcs8(p384), "a certificate": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: sec1}),
	} {
		if _, err := ParseSigningKey(text); err == nil {
			t.Errorf("%s was taken as a signing key", name)
		}
	}
}

func TestManifestRefusesNonsense(t *testing.T) {
	manifests, _ := storedVectors(t)
	k, _ := vectorKey(t)
	tests := map[string]func(m *Manifest){
		"format":        func(m *Manifest) { m.Format = 2 },
		"chain":         func(m *Manifest) { m.Chain = "../x" },
		"kind":          func(m *Manifest) { m.Kind = "other" },
		"number":        func(m *Manifest) { m.N = 0 },
		"backwards":     func(m *Manifest) { m.NextSeq = m.FirstSeq - 1 },
		"no entries":    func(m *Manifest) { m.NextSeq = m.FirstSeq; m.TreeAfter = m.TreeBefore },
		"tree":          func(m *Manifest) { m.TreeAfter = m.TreeAfter[1:] },
		"counts":        func(m *Manifest) { m.Counts.Complete++ },
		"frames":        func(m *Manifest) { m.Segment.Frames[0].Size++ },
		"no frames":     func(m *Manifest) { m.Segment.Frames = nil },
		"frame bomb":    func(m *Manifest) { m.Segment.Frames[0].RawSize = 1 << 40 },
		"negative":      func(m *Manifest) { m.Segment.Frames[0].Size = -1 },
		"head":          func(m *Manifest) { m.Head = nil },
		"not a segment": func(m *Manifest) { m.Kind = KindHeartbeat },
	}
	for name, change := range tests {
		m, err := PeekManifest(manifests[3])
		if err != nil {
			t.Fatal(err)
		}
		change(m)
		if _, _, err := m.Sign(k); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	other, _ := GenerateKey()
	k2, _ := ParseSigningKey(other)
	if _, _, err := OpenManifest(manifests[3], k2.Public()); !errors.Is(err, ErrSignature) {
		t.Errorf("opened with another key: %v", err)
	}
}

func TestLayout(t *testing.T) {
	for _, name := range []string{"a", "audit.example.com/prod-eu1", "x_1/y.2"} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "/a", "a/", "a//b", "A", "a b", "a/../b", "..", "a+b", "é", strings.Repeat("a", 201)} {
		if CheckName(name) == nil {
			t.Errorf("%q was taken as a name", name)
		}
	}
	l := Layout{"logs", "audit.example.com/prod"}
	key := l.Manifest(42)
	if key != "logs/audit.example.com/prod/manifests/000000000042.sigstore.json" {
		t.Error(key)
	}
	if n, ok := l.ParseManifestKey(key); !ok || n != 42 {
		t.Error(n, ok)
	}
	for _, bad := range []string{"", "x", strings.Replace(key, "0042", "042", 1), strings.Replace(key, ".json", ".xml", 1), "x" + key} {
		if _, ok := l.ParseManifestKey(bad); ok {
			t.Errorf("%q was taken as a manifest's key", bad)
		}
	}
	at := time.Date(2026, 11, 23, 23, 30, 0, 0, time.FixedZone("", -3600))
	if got := l.Segment(7, at); got != "logs/audit.example.com/prod/segments/date=2026-11-24/000000000007.ndjson.zst" {
		t.Error(got)
	}
}

func FuzzParseEntry(f *testing.F) {
	_, segments := storedVectors(f)
	_ = segments
	f.Add([]byte(`{"seq":7,"prev":"` + Sum(nil).String() + `","received":"2026-11-23T07:25:01.000000001Z","tag":"t","chunk":{"sha256":"` + Sum(nil).String() + `","entries":3},"time":"2026-11-23T07:25:01.000000001Z","meta":{"otlp":{"attributes":{}}},"group":{"y":{}},"record":{"source":{"id":"a","seq":1}}}`))
	f.Add([]byte(`{"seq":7,"prev":"` + Sum(nil).String() + `","received":"2026-11-23T07:25:01.000000001Z","tag":"t","event":"x","detail":{}}`))
	f.Add([]byte(`{"seq":7,"prev":"` + Sum(nil).String() + `","received":"2026-11-23T07:25:01.000000001Z","tag":"t","redelivered":true,"conflict":true,"time":"2026-11-23T07:25:01.000000001Z","record":{"source_event":"s"}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := ParseEntry(line)
		if err != nil {
			return
		}
		e.Facts()
		// What was read says all that the line says.
		middle := AppendTime([]byte(`","received":"`), e.Received)
		middle = append(append(append(middle, `","tag":`...), e.Tag...), ',')
		var body []byte
		if e.Event != "" {
			body = append(append([]byte(`"event":"`+e.Event+`","detail":`), e.Detail...), '}')
		} else {
			body = append(AppendTime([]byte(`"time":"`), e.Time), '"')
			if e.Meta != nil {
				body = append(append(body, `,"meta":`...), e.Meta...)
			}
			if e.Group != nil {
				body = append(append(body, `,"group":`...), e.Group...)
			}
			body = append(append(append(body, `,"record":`...), e.Record...), '}')
		}
		if again := AppendEntry(nil, e.Seq, e.Prev, middle, e.Chunk, e.Redelivered, e.Conflict, body); !bytes.Equal(again, line) {
			t.Errorf("%q reads back as %q", line, again)
		}
	})
}

func FuzzManifest(f *testing.F) {
	manifests, _ := storedVectors(f)
	for _, m := range manifests {
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := PeekManifest(data)
		if err != nil {
			return
		}
		if err := m.check(); err != nil {
			t.Error(err)
		}
		var h Head
		_ = h.Advance(m, Sum(data))
		if len(m.TreeBefore) != bits.OnesCount64(m.FirstSeq) {
			t.Error("compact range does not fit")
		}
	})
}

func FuzzSegment(f *testing.F) {
	manifests, segments := storedVectors(f)
	m, err := PeekManifest(manifests[3])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(segments[m.Segment.Key])
	f.Fuzz(func(t *testing.T, data []byte) {
		copied := *m
		s := *m.Segment
		// Let the hashes fit, so that what is behind them is reached.
		s.Size, s.SHA256 = int64(len(data)), Sum(data)
		s.Frames = []Frame{{Size: s.Size, RawSize: s.RawSize, Entries: 2, SHA256: s.SHA256}}
		copied.Segment = &s
		err := VerifySegment(&copied, bytes.NewReader(data), nil)
		if err == nil && !bytes.Equal(data, segments[m.Segment.Key]) {
			t.Log("another compression of the same lines") // allowed: the lines are what is chained
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	k, _ := vectorKey(f)
	vkey, _ := k.CheckpointKey("a")
	signed, _ := k.SignCheckpoint(Checkpoint{"a", 3, Sum(nil)})
	f.Add(signed)
	f.Fuzz(func(t *testing.T, note string) {
		if c, err := OpenCheckpoint(note, vkey); err == nil && c.Origin != "a" {
			t.Errorf("%+v", c)
		}
	})
}

// TestParseTime compares the reader of times with the standard library's, on good and on damaged ones.
func TestParseTime(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(3, 4))
	good := 0
	for range 200_000 {
		at := time.Unix(rng.Int64N(1<<38)-1<<35, rng.Int64N(1e9)).UTC()
		if at.Year() < 0 || at.Year() > 9999 {
			continue
		}
		text := AppendTime(nil, at)
		for range rng.IntN(3) {
			text[rng.IntN(len(text))] = "0123456789:-.TZ /\x00\xff"[rng.IntN(19)]
		}
		want, wantErr := time.Parse(timeLayout, string(text))
		got, err := ParseTime(text)
		if (err == nil) != (wantErr == nil) || err == nil && !got.Equal(want) {
			t.Fatalf("%q is %v, %v, want %v, %v", text, got, err, want, wantErr)
		}
		if err == nil {
			good++
		}
	}
	if good < 1000 {
		t.Errorf("only %d times were good", good)
	}
}

// TestKeyID: a manifest's signature names no key.
func TestKeyID(t *testing.T) {
	k, _ := vectorKey(t)
	data := vectors(t)["manifests/000000000000.sigstore.json"]
	named := bytes.Replace(data, []byte(`"}]}}`), []byte(`","keyid":"x"}]}}`), 1)
	if _, _, err := OpenManifest(named, k.Public()); err == nil || !strings.Contains(err.Error(), "keyid") {
		t.Error(err)
	}
}
