package browser

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/test/browser/logs"
)

type tampering struct {
	name     string
	evidence *chain.Evidence
}

// tamperings are ways to alter evidence. Most are fatal; some are not, and both verifiers have to see that, too.
func tamperings(t testing.TB, s *specimen) []tampering {
	var all []tampering
	add := func(name string, change func(e *chain.Evidence)) {
		e := s.evidence()
		copied := *e
		copied.Entry, copied.Manifest, copied.Keys = bytes.Clone(e.Entry), bytes.Clone(e.Manifest), nil
		for _, k := range e.Keys {
			copied.Keys = append(copied.Keys, bytes.Clone(k))
		}
		change(&copied)
		all = append(all, tampering{name, &copied})
	}
	last := len(s.evidence().Keys) - 1
	attacker := logs.Ed25519(t, "attacker")
	current := s.log.Key()

	add("nothing", func(e *chain.Evidence) {})
	add("what the store said", func(e *chain.Evidence) {
		e.Objects[0].LockMode = "constructor"
		e.Made.By = "<\u2028\u202e\x00\U0001f600>"
	})
	add("no objects", func(e *chain.Evidence) { e.Objects = nil })
	add("another chain", func(e *chain.Evidence) { e.Chain += "x" })

	replaceIn := func(field string, text func(e *chain.Evidence) []byte, set func(e *chain.Evidence, b []byte), cases [][2]string) {
		for _, c := range cases {
			e := s.evidence()
			if before := text(e); !bytes.Contains(before, []byte(c[0])) {
				t.Fatalf("%s has no %q: %.300s", field, c[0], before)
			}
			add(field+": "+c[0]+" to "+c[1], func(e *chain.Evidence) { set(e, bytes.Replace(text(e), []byte(c[0]), []byte(c[1]), 1)) })
		}
	}
	replaceIn("entry", func(e *chain.Evidence) []byte { return e.Entry }, func(e *chain.Evidence, b []byte) { e.Entry = b }, [][2]string{
		{"req-", "raq-"}, {`"seq":`, `"seq":0`}, {`"seq":`, `"seq": `}, {`,"tag"`, `,"tab"`}, {"2026-11-23T", "2026-02-30T"}, {"}}", "}} "},
		{"}}}", "}}"}, {`"time":`, `"event":`}, {"1240.5", "1240.50"}, {`"seq":`, `"seq":9999999999999999999`},
		{`,"time"`, `,"redelivered":true,"time"`}, {`,"time"`, `,"conflict":true,"time"`}, {`,"time"`, `,"redelivered":true,"conflict":true,"time"`},
		{`,"time"`, `,"conflict":true,"redelivered":true,"time"`}, {"req-", "req-\xff"},
	})
	add("entry: none", func(e *chain.Evidence) { e.Entry = nil })

	proof := func(e *chain.Evidence) []byte { return []byte(e.Proof) }
	setProof := func(e *chain.Evidence, b []byte) { e.Proof = string(b) }
	replaceIn("proof", proof, setProof, [][2]string{
		{"index ", "index 0"}, {"index ", "index 1"}, {"index ", "extra AAAA\nindex "}, {"@v1", "@v2"}, {"index ", "\nindex "},
		{"\n\n", "\n"}, {"\n\n", "\n\n\n"}, {"\n\n" + name + "\n", "\n\n" + name + "x\n"}, {"\n\n" + name + "\n", "\n\n" + name + "\n1"},
		{"\n\n" + name + "\n", "\n\n" + name + "\n0"}, {"\n\u2014 ", "\n- "}, {"\n\u2014 ", "\nextension\n\n\u2014 "},
	})
	lines := func(change func(hashes []chain.Hash) []chain.Hash) func(e *chain.Evidence) {
		return func(e *chain.Evidence) {
			p, err := chain.ParseInclusionProof(e.Proof)
			if err != nil {
				t.Fatal(err)
			}
			p.Hashes = change(p.Hashes)
			e.Proof = p.String()
		}
	}
	add("proof: a bit of the first hash", lines(func(h []chain.Hash) []chain.Hash { h[0][31] ^= 1; return h }))
	add("proof: a bit of the last hash", lines(func(h []chain.Hash) []chain.Hash { h[len(h)-1][0] ^= 0x80; return h }))
	add("proof: a hash less", lines(func(h []chain.Hash) []chain.Hash { return h[1:] }))
	add("proof: a hash more", lines(func(h []chain.Hash) []chain.Hash { return append(h, h[0]) }))
	add("proof: 70 hashes", lines(func(h []chain.Hash) []chain.Hash {
		for len(h) < 70 {
			h = append(h, h[0])
		}
		return h
	}))
	add("proof: none", func(e *chain.Evidence) { e.Proof = "" })
	add("checkpoint: cut", func(e *chain.Evidence) { e.Proof = e.Proof[:len(e.Proof)-1] })
	add("checkpoint: the end of the signature", func(e *chain.Evidence) { e.Proof = turn(e.Proof, len(e.Proof)-10) })
	add("checkpoint: stray bits", func(e *chain.Evidence) { e.Proof = stray(t, e.Proof) })
	add("checkpoint: a witness", func(e *chain.Evidence) {
		e.Proof += "\u2014 witness.example " + base64.StdEncoding.EncodeToString(make([]byte, 68)) + "\n"
	})
	add("checkpoint: a witness without a name", func(e *chain.Evidence) { e.Proof += "\u2014  AAAAAAAA\n" })
	add("checkpoint: signed twice", func(e *chain.Evidence) { e.Proof += e.Proof[strings.LastIndex(e.Proof, "\u2014 "):] })
	add("checkpoint: signed by an attacker", func(e *chain.Evidence) {
		p, err := chain.ParseInclusionProof(e.Proof)
		if err != nil {
			t.Fatal(err)
		}
		c, err := chain.PeekCheckpoint(p.Checkpoint)
		if err != nil {
			t.Fatal(err)
		}
		if p.Checkpoint, err = attacker.SignCheckpoint(c); err != nil {
			t.Fatal(err)
		}
		e.Proof = p.String()
	})

	manifest := func(e *chain.Evidence) []byte { return e.Manifest }
	setManifest := func(e *chain.Evidence, b []byte) { e.Manifest = b }
	replaceIn("bundle", manifest, setManifest, [][2]string{
		{"v0.3", "v0.2"}, {`{"mediaType"`, `{ "mediaType"`}, {`{"mediaType"`, `{"mediaType":"x","mediaType"`}, {`{"mediaType"`, `{"MediaType"`},
		{`"hint":"`, `"hint":"x`}, {`"hint":"`, `"hint":"<`}, {`"payload":"`, `"payload":"AAAA`}, {`"signatures":[`, `"signatures":[{"sig":"AAAA"},`},
		{`"sig":"`, `"sig":"AAAA`}, {`"payloadType":"application/vnd.in-toto`, `"payloadType":"application/vnd.in-tote`}, {"]}}", "]}}\n"},
		{`"payloadType":"a`, `"payloadType":"\u0061`},
	})
	hint := func(key chain.PublicKey) []byte {
		sum := key.Fingerprint()
		return []byte(`"hint":"` + base64.StdEncoding.EncodeToString(sum[:]) + `"`)
	}
	rehint := func(stored []byte, from, to chain.PublicKey) []byte {
		if !bytes.Contains(stored, hint(from)) {
			t.Fatalf("no hint %s in %.300s", hint(from), stored)
		}
		return bytes.Replace(stored, hint(from), hint(to), 1)
	}
	add("manifest: the hint of another key", func(e *chain.Evidence) { e.Manifest = rehint(e.Manifest, current.Public(), attacker.Public()) })
	add("keys: the first one with the hint of another key", func(e *chain.Evidence) { e.Keys[0] = rehint(e.Keys[0], s.key.Public(), attacker.Public()) })
	add("manifest: no hint", func(e *chain.Evidence) {
		e.Manifest = bytes.Replace(e.Manifest, hint(current.Public()), []byte(`"hint":""`), 1)
	})
	add("manifest: none", func(e *chain.Evidence) { e.Manifest = nil })
	add("manifest: the genesis", func(e *chain.Evidence) { e.Manifest = e.Keys[0] })
	add("manifest: of another segment", func(e *chain.Evidence) { e.Manifest = s.log.Evidence(0).Manifest })
	add("manifest: signed by an attacker", func(e *chain.Evidence) { e.Manifest = sign(t, attacker, payloadOf(t, e.Manifest)) })
	add("manifest: signed by the first key", func(e *chain.Evidence) { e.Manifest = sign(t, s.key, payloadOf(t, e.Manifest)) })
	for i, change := range signatures(t) {
		add("manifest: signature "+change.name, func(e *chain.Evidence) { e.Manifest = changeSignature(t, e.Manifest, signatures(t)[i].change) })
	}
	// What the log's own key has signed has to be refused, too, if it is not what the format says.
	replaceIn("signed", func(e *chain.Evidence) []byte { return payloadOf(t, e.Manifest) },
		func(e *chain.Evidence, b []byte) { e.Manifest = sign(t, current, b) }, [][2]string{
			{`"format":1`, `"format":2`}, {`"format":1`, `"format":1.0`}, {`"format":1`, `"format":01`}, {`"format":1`, `"Format":1`},
			{`"format":1`, `"format":1,"format":1`}, {`"format":1`, `"format":1,"more":1`}, {`"format":1,`, ``}, {`"format":1`, ` "format":1`},
			{`"kind":"segment"`, `"kind":"heartbeat"`}, {`"kind":"segment"`, `"kind":"segmen\u0074"`}, {`"kind":"segment"`, `"kind":"other"`},
			{`"n":`, `"n":0`}, {`"n":`, `"n":1`}, {`"n":`, `"n":-`}, {`"previous_manifest":"`, `"previous_manifest":"A`}, {`"first_seq":`, `"first_seq":1`},
			{`"next_seq":`, `"next_seq":1`}, {`"next_seq":`, `"next_seq":99999999999999999999`}, {`"tree_after":["`, `"tree_after":["` + chain.Sum(nil).String() + `","`},
			{`"complete":`, `"complete":1`}, {`"events":0`, `"events":0,"missing":{}`}, {`"incomplete":0`, `"incomplete":0,"missing":{}`},
			{`"incomplete":0`, `"incomplete":0,"missing":{"a":1,"b":2}`}, {`"incomplete":0`, `"incomplete":0,"missing":{"b":1,"a":2}`},
			{`"incomplete":0`, `"incomplete":0,"missing":{"a":1,"a":1}`}, {`"incomplete":0`, `"incomplete":0,"missing":{"\uffff":1,"` + "\U0001f600" + `":2}`},
			{`"incomplete":0`, `"incomplete":0,"source_events":1`}, {`"incomplete":0`, `"source_events":1,"incomplete":0`}, {`"incomplete":0`, `"incomplete":0,"source_events":0`},
			{`"incomplete":0`, `"incomplete":0,"redelivered":3,"conflicts":2`}, {`"incomplete":0`, `"incomplete":0,"conflicts":2,"redelivered":3`},
			{`"incomplete":0`, `"incomplete":0,"conflicts":0`}, {`"incomplete":0`, `"incomplete":0,"redelivered":0`}, {`"incomplete":0`, `"incomplete":0,"redelivered":3`},
			{`"version_id":"`, `"version_id":"<`}, {`"version_id":"`, `"version_id":"\u003c`}, {`"version_id":"`, `"version_id":"\u003C`},
			{`"version_id":"`, `"version_id":"` + "\u2028"}, {`"version_id":"`, `"version_id":"\u2028\b\f\n\r\t\u0001\"\\` + "\x7f\u00a0"}, {`"version_id":"`, `"version_id":"\/`},
			{`"version_id":"`, `"version_id":"\ud800`}, {`"version_id":"`, `"version_id":"\ufffd`}, {`"version_id":"`, `"version_id":"` + "\ufffd"},
			{`"version_id":"`, `"version_id":"` + "\xff"}, {`"version_id":"`, `"version_id":"` + "\ufeff"}, {`"version_id":"`, `"version_id":"\u0008`},
			{`"frames":[{"size":`, `"frames":[{"size":1`}, {`"frames":[{"size":`, `"frames":[{"size":-`}, {`"frames":[{`, `"frames":[],"frames":[{`},
			{`"sources":[{"id":"`, `"sources":[{"id":"x`}, {`"ranges":[[`, `"ranges":[[1,`}, {`"ranges":[[7002,7002]]`, `"ranges":null`}, {`"ranges":[[7002,7002]]`, `"ranges":[]`},
			{`"sealed_at":"2026-11-23T`, `"sealed_at":"2026-11-31T`}, {`"sealed_at":"2026-11-23T`, `"sealed_at":"2024-02-29T`}, {`"sealed_at":"2026-11-23T`, `"sealed_at":"2100-02-29T`},
			{`"sealed_at":"2026-11-23T`, `"sealed_at":"2026-11-23t`}, {`"sealed_at":"2026-11-23T07`, `"sealed_at":"2026-11-23T24`}, {`"clock_skew_ms":-12`, `"clock_skew_ms":-0`},
			{`"clock_skew_ms":-12`, `"clock_skew_ms":0`}, {`"clock_skew_ms":-12`, `"clock_skew_ms":9223372036854775808`}, {`"clock_skew_ms":-12`, `"clock_skew_ms":-9223372036854775808`},
			{`,"clock_skew_ms":-12`, ``}, {`"clock_skew_ms":-12`, `"clock_skew_ms":null`}, {`"mode":"COMPLIANCE"`, `"mode":"NONE"`}, {`"mode":"COMPLIANCE"`, `"mode":null`},
			{`"subject":[{"name":"`, `"subject":[{"name":"x`}, {`"subject":[`, `"subject":[{"name":"x","digest":{"sha256":"` + chain.Sum(nil).String() + `"}},`},
			{`"digest":{"sha256":"`, `"digest":{"sha512":"x","sha256":"`}, {`"predicateType":"urn:auditchain`, `"predicateType":"urn:auditchaim`}, {`Statement/v1`, `Statement/v2`},
			{`"chain":"a`, `"chain":"b`}, {`"checkpoint":"`, `"checkpoint":"x`}, {`-12}}`, `-12}} `},
		})

	// A segment's lines cannot be more than their bytes.
	sizes := regexp.MustCompile(`"(size|raw_size)":\d+`)
	for _, bytes := range []string{"4", "5"} { // of the five entries of the first log's second segment
		add("signed: lines of "+bytes+" bytes", func(e *chain.Evidence) {
			e.Manifest = sign(t, current, sizes.ReplaceAll(payloadOf(t, e.Manifest), []byte(`"$1":`+bytes)))
		})
	}

	add("keys: none", func(e *chain.Evidence) { e.Keys = nil })
	add("keys: one of no bytes", func(e *chain.Evidence) { e.Keys[0] = nil })
	add("keys: the genesis twice", func(e *chain.Evidence) { e.Keys = append(e.Keys[:1:1], e.Keys...) })
	add("keys: the last one dropped", func(e *chain.Evidence) { e.Keys = e.Keys[:last] })
	add("keys: the first one dropped", func(e *chain.Evidence) { e.Keys = e.Keys[1:] })
	add("keys: reversed", func(e *chain.Evidence) {
		for i, j := 0, last; i < j; i, j = i+1, j-1 {
			e.Keys[i], e.Keys[j] = e.Keys[j], e.Keys[i]
		}
	})
	add("keys: a segment among them", func(e *chain.Evidence) { e.Keys = append(e.Keys, e.Manifest) })
	add("keys: the last one again", func(e *chain.Evidence) { e.Keys = append(e.Keys, e.Keys[last]) })
	add("keys: the last one signed by an attacker", func(e *chain.Evidence) { e.Keys[last] = sign(t, attacker, payloadOf(t, e.Keys[last])) })
	add("keys: a genesis that names a point off the curve", func(e *chain.Evidence) {
		der := append([]byte("\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04"), bytes.Repeat([]byte{1}, 64)...)
		text, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
		if err != nil {
			t.Fatal(err)
		}
		own, err := json.Marshal(string(s.key.Public().PEM()))
		if err != nil {
			t.Fatal(err)
		}
		e.Keys[0] = sign(t, s.key, bytes.Replace(payloadOf(t, e.Keys[0]), own, text, 1))
	})
	add("keys: a genesis that names another key", func(e *chain.Evidence) {
		other := logs.New(t, name, attacker)
		e.Keys[0] = sign(t, s.key, payloadOf(t, other.Keys()[0]))
	})
	if last > 1 {
		add("keys: one in the middle dropped", func(e *chain.Evidence) { e.Keys = append(e.Keys[:1:1], e.Keys[2:]...) })
		add("keys: two swapped", func(e *chain.Evidence) { e.Keys[1], e.Keys[2] = e.Keys[2], e.Keys[1] })
		add("keys: a rotation signed by the key it announces", func(e *chain.Evidence) {
			e.Keys[2] = sign(t, logs.Ed25519(t, "third"), payloadOf(t, e.Keys[2]))
		})
		replaceIn("rotation", func(e *chain.Evidence) []byte { return payloadOf(t, e.Keys[1]) },
			func(e *chain.Evidence, b []byte) { e.Keys[1] = sign(t, s.key, b) }, [][2]string{
				{`"kind":"rotation"`, `"kind":"heartbeat"`}, {`"checkpoint_key":"audit`, `"checkpoint_key":"aubit`}, {`-----BEGIN PUBLIC KEY`, `-----BEGIN PRIVATE KEY`},
				{`"n":2`, `"n":2,"key_since":1`}, {`"n":2`, `"n":3`}, {`"rotation":{`, `"rotation":{"x":1,`},
			})
	}
	replaceIn("genesis", func(e *chain.Evidence) []byte { return payloadOf(t, e.Keys[0]) },
		func(e *chain.Evidence, b []byte) { e.Keys[0] = sign(t, s.key, b) }, [][2]string{
			{`"tree_before":[]`, `"tree_before":null`}, {`"tree_after":[]`, `"tree_after":["` + chain.Sum(nil).String() + `"]`}, {`"n":0`, `"n":0,"key_since":0`},
			{`"checkpoint_key":"audit`, `"checkpoint_key":"aubit`}, {`"retention":"7y"`, `"retention":"1d"`}, {`"retention":"7y"`, `"retention":7`},
			{`\nM`, `\n\nM`}, {`-----END PUBLIC`, `-----END PRIVATE`}, {`"genesis":{`, `"rotation":{`}, {`\n0\n`, `\n00\n`}, {`\n0\n`, `\n1\n`},
			{`"head":null`, `"head":"` + chain.Sum(nil).String() + `"`},
		})
	add("an attacker's own log", func(e *chain.Evidence) {
		other := logs.New(t, name, attacker)
		other.Segment(complete, complete, complete, complete, complete, complete)
		*e = *other.Evidence(s.seq % 6)
	})
	return all
}

// turn changes one character of base64.
func turn(text string, at int) string {
	c := byte('A')
	if text[at] == c {
		c = 'B'
	}
	return text[:at] + string(c) + text[at+1:]
}

// stray sets bits that mean nothing before the padding at the text's end.
func stray(t testing.TB, text string) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	i := strings.LastIndex(text, "=\n") - 1
	if i < 0 || text[i] == '=' {
		t.Fatalf("no single padding in %q", text)
	}
	return text[:i] + string(digits[strings.IndexByte(digits, text[i])|1]) + text[i+1:]
}

func sign(t testing.TB, k *chain.SigningKey, payload []byte) []byte {
	stored, err := chain.SignBundle(k, payload)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

type signatureChange struct {
	name   string
	change func(sig []byte) []byte
}

// signatures are other spellings of an ECDSA signature, only one of which DER allows, and of an Ed25519 signature.
func signatures(t testing.TB) []signatureChange {
	parts := func(sig []byte) (r, s []byte) {
		if sig[0] != 0x30 || len(sig) == 64 {
			return sig[:32], sig[32:]
		}
		n := int(sig[3])
		return sig[4 : 4+n], sig[6+n:]
	}
	build := func(r, s []byte) []byte {
		out := append([]byte{0x30, byte(4 + len(r) + len(s)), 2, byte(len(r))}, r...)
		return append(append(out, 2, byte(len(s))), s...)
	}
	order, _ := new(big.Int).SetString("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)
	group, _ := new(big.Int).SetString("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed", 16)
	return []signatureChange{
		{"with a bit turned", func(sig []byte) []byte { sig[len(sig)-1] ^= 1; return sig }},
		{"with a byte behind it", func(sig []byte) []byte { return append(sig, 0) }},
		{"cut", func(sig []byte) []byte { return sig[:len(sig)-1] }},
		{"of no bytes", func(sig []byte) []byte { return nil }},
		{"of 64 zeros", func(sig []byte) []byte { return make([]byte, 64) }},
		{"with a zero before r", func(sig []byte) []byte { r, s := parts(sig); return build(append([]byte{0}, r...), s) }},
		{"with a zero before s", func(sig []byte) []byte { r, s := parts(sig); return build(r, append([]byte{0}, s...)) }},
		{"with r = 0", func(sig []byte) []byte { _, s := parts(sig); return build([]byte{0}, s) }},
		{"with r of no bytes", func(sig []byte) []byte { _, s := parts(sig); return build(nil, s) }},
		{"with a negative r", func(sig []byte) []byte { _, s := parts(sig); return build(bytes.Repeat([]byte{0xff}, 32), s) }},
		{"with a length in long form", func(sig []byte) []byte { return append([]byte{0x30, 0x81, sig[1]}, sig[2:]...) }},
		{"with s negated", func(sig []byte) []byte { // which ECDSA allows
			r, s := parts(sig)
			n := new(big.Int).Sub(order, new(big.Int).SetBytes(s))
			b := n.Bytes()
			if len(b) > 0 && b[0]&0x80 != 0 {
				b = append([]byte{0}, b...)
			}
			return build(r, b)
		}},
		{"with s beyond the group", func(sig []byte) []byte { // Ed25519, little-endian
			if len(sig) != 64 {
				return sig
			}
			s := bytes.Clone(sig[32:])
			reverse(s)
			b := new(big.Int).Add(group, new(big.Int).SetBytes(s)).FillBytes(make([]byte, 32))
			reverse(b)
			return append(bytes.Clone(sig[:32]), b...)
		}},
	}
}

func reverse(b []byte) {
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
}

func changeSignature(t testing.TB, stored []byte, change func(sig []byte) []byte) []byte {
	var b struct {
		Envelope struct {
			Signatures []struct {
				Sig []byte `json:"sig"`
			} `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(stored, &b); err != nil {
		t.Fatal(err)
	}
	sig := b.Envelope.Signatures[0].Sig
	before := base64.StdEncoding.EncodeToString(sig)
	return bytes.Replace(stored, []byte(before), []byte(base64.StdEncoding.EncodeToString(change(sig))), 1)
}

// testBytes changes single bytes of the file. None may pass, unless the browser reads the same document from the file: then
// nothing has changed but the spelling.
func testBytes(b *tab, s *specimen) {
	html := render(b.t, s.evidence())
	rounds := 40
	if os.Getenv("AUDITCHAIN_LONG") == "1" {
		rounds = 600
	}
	mark := func(text string) int { return bytes.Index(html, []byte(text)) }
	style, data, script := mark("<style>"), mark(`<script type="application/json"`), mark(`<script data-digest`)
	random := rand.New(rand.NewPCG(1, 2))
	states := map[string]int{}
	var passed []string
	for _, part := range []struct{ from, to int }{{0, style}, {mark("</style>"), data}, {data, script}, {style, mark("</style>")}, {script, len(html)}} {
		for range rounds {
			changed := bytes.Clone(html)
			at := part.from + random.IntN(part.to-part.from)
			changed[at] ^= byte(1 + random.IntN(255))
			r := b.load(changed)
			states[r.State]++
			switch r.State {
			case "genuine", "verified":
				passed = append(passed, string(changed))
			case "changed", "unchecked": // red
			default:
				if part.from > 0 { // what says that nothing was verified is whole
					b.t.Errorf("with another byte %d the page says %q: %s", at, r.State, difference(string(html), string(changed)))
				}
			}
		}
	}
	// Another spelling of the same document passes: a tag's name in capitals.
	if spelled := bytes.Replace(html, []byte("<main>"), []byte("<mAin>"), 1); b.load(spelled).State == "genuine" {
		passed = append(passed, string(spelled))
	} else {
		b.t.Error("the same document in another spelling does not pass")
	}
	b.t.Logf("verdicts: %v", states)
	b.open("about:blank")
	for _, p := range passed {
		var same bool
		b.run(`
const read = (html) => { const d = new DOMParser().parseFromString(html, "text/html"); return d.compatMode + d.documentElement.outerHTML; };
arguments[2](read(arguments[0]) === read(arguments[1]));`, &same, string(html), p)
		if !same {
			b.t.Errorf("a page passed whose document is another: %s", difference(string(html), p))
		}
	}
}

func difference(a, b string) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return a[max(0, i-40):i] + ">>>" + b[i:min(len(b), i+40)]
		}
	}
	return "none"
}
