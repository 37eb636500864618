// Package browser tests evidence pages in a real browser.
package browser

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/query/page"
	"github.com/auditchain/auditchain/test/browser/logs"
)

const name = "audit.example.com/prod-eu1"

// complete is a record as an inference server logs it.
const complete = `"time":"2026-11-23T07:25:01.000000123Z","record":{"request_id":"req-8f31","timestamp":"2026-11-23T07:25:01Z","model_id":"llama-3-70b-instruct","model_checksum":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","input_hash":"60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752","output_hash":"fd61a03af4f77d870fc21e05e7e80678095c92d808cfb3b5c279ee04c74aca13","user_id":"clinic-17/nurse-204","input_tokens":342,"output_tokens":156,"latency_ms":1240.5,"status":200,"payload":{"prompt":"A patient of 61 takes warfarin and asks for ibuprofen.\n\nIs that safe?","response":"No. Ibuprofen with warfarin raises the risk of bleeding.\nParacetamol is the usual choice; please ask the prescribing doctor."},"source":{"id":"gpu-1/5f0c","seq":7002}}}`

func render(t testing.TB, e *chain.Evidence) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := page.Render(&b, e); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// report is what a page says.
type report struct {
	State string            `json:"state"`
	Text  string            `json:"text"`
	Steps map[string]string `json:"steps"` // ok, bad or open
}

// readReport waits for the verdict. Where the script did not run there is none to wait for.
const readReport = `
const done = arguments[arguments.length - 1];
(function look() {
  const v = document.getElementById("verdict");
  if (v && v.dataset.state === "checking") return setTimeout(look, 2);
  const steps = {};
  for (const li of document.querySelectorAll("[data-step]")) steps[li.dataset.step] = li.dataset.state;
  done({ state: v ? v.dataset.state || "" : "", text: v ? v.innerText : "", steps });
})();`

// tab is a browser that shows pages from files.
type tab struct {
	*browser
	dir string
}

func newTab(t testing.TB, args ...string) *tab {
	return &tab{startBrowser(t, args...), t.TempDir()}
}

// in is the same tab for a subtest.
func (b *tab) in(t testing.TB) *tab {
	same := *b.browser
	same.t = t
	return &tab{&same, b.dir}
}

// load opens a page from a file.
func (b *tab) load(html []byte) report {
	b.t.Helper()
	path := filepath.Join(b.dir, "evidence.html")
	if err := os.WriteFile(path, html, 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.open("file://" + path)
	return b.report()
}

func (b *tab) report() (r report) {
	b.t.Helper()
	b.run(readReport, &r)
	return r
}

// give puts text where the fingerprint is to be typed.
func (b *tab) give(text string) report {
	b.t.Helper()
	b.run(`
const typed = document.getElementById("typed");
typed.value = arguments[0];
typed.dispatchEvent(new Event("input"));
setTimeout(arguments[1], 5, null);`, nil, text)
	return b.report()
}

// textOf is the text that is seen below an element.
func (b *tab) textOf(selector string) (text string) {
	b.t.Helper()
	b.run(`const e = document.querySelector(arguments[0]); arguments[1](e && e.checkVisibility() ? e.innerText : "")`, &text, selector)
	return text
}

// specimen is a log with an entry to prove.
type specimen struct {
	name string
	key  *chain.SigningKey // the genesis's
	log  *logs.Log
	seq  uint64
	text []string // what the page has to show of the record
}

func (s *specimen) evidence() *chain.Evidence { return s.log.Evidence(s.seq) }

func (s *specimen) fingerprint() chain.Hash { return s.key.Public().Fingerprint() }

// nasty is a record of what may go wrong on the way to a reader's eyes.
const nasty = `"time":"2026-11-23T07:25:01.000000000Z","meta":{"otlp":{"attributes":{"gen_ai.request.model":"m","gen_ai.custom":"c","gen_ai.usage.input_tokens":18446744073709551615}}},"group":{"record":{"a":1}},"record":{"request_id":"</script><script>document.body.remove()</script><!--","model_id":"` + "\u202egnp.exe\u200b" + `","user_id":"<img src=x onerror=alert(1)>","status":1.0,"latency_ms":-0.0,"output_tokens":9007199254740993,"big":1e+400,"sep":"a` + "\u2028" + `b","nul":"\u0000\u001b[2J","bin":{"$bin":"W47/"},"$$dup":1,"prompt":"line\n\tone` + "\u202e" + `two","a":[],"o":{},"n":null,"$dup":[["status",2.50]]}}`

func specimens(t testing.TB) []*specimen {
	first := logs.Ed25519(t, "first")
	plain := logs.New(t, name, first)
	plain.Segment(complete)
	plain.Segment(complete, complete, complete, complete, complete)
	plain.Segment(`"event":"quarantine","detail":{"reason":"truncated","offset":15,"size":4,"sha256":"`+chain.Sum(nil).String()+`","data":"gaFiAg=="}}`, nasty)
	plain.Segment(fmt.Sprintf(`"time":"2026-11-23T07:25:01.000000000Z","record":{"request_id":"long","prompt":"%s","list":[0%s]}}`,
		strings.Repeat("Zażółć gęślą jaźń. ", 150_000), strings.Repeat(",1", 400_000)))
	second := logs.P256(t, "second")
	p256 := logs.New(t, name, second)
	p256.Segment(complete, complete, complete)
	rotated := logs.New(t, name, first)
	rotated.Segment(complete)
	rotated.Rotate(second)
	rotated.Segment(complete, complete)
	rotated.Rotate(logs.Ed25519(t, "third"))
	rotated.Segment(complete, complete, complete, complete)
	again := logs.New(t, name, first)
	again.Segment(complete, `"redelivered":true,`+complete, `"redelivered":true,"conflict":true,`+complete,
		`"time":"2026-11-23T07:25:01.000000000Z","record":{"source_event":"stop","source":{"id":"gpu-1/5f0c/events","seq":9}}}`)
	huge := logs.New(t, name, first)
	huge.Jump(1<<53 + 1<<40 + 12345)
	huge.Segment(complete, complete, complete, complete, complete)
	return []*specimen{
		{"only entry", first, plain, 0, []string{"req-8f31", "clinic-17/nurse-204", "1240.5", "asks for ibuprofen.\n\nIs that safe?"}},
		{"ed25519", first, plain, 4, nil},
		{"event", first, plain, 6, []string{"quarantine", "gaFiAg=="}},
		{"nasty", first, plain, 7, []string{
			"</script><script>document.body.remove()</script><!--", "U+202Egnp.exeU+200B", `\u0000\u001b[2J`, "aU+2028b", "18446744073709551615",
			"9007199254740993", "1.0", "2.50", "1e+400", "-0.0", "gen_ai.custom", `"$bin": "W47/"`, "line\n\toneU+202Etwo", "repeats a key",
		}},
		{"long", first, plain, 8, []string{"Zażółć gęślą", "more characters are not shown"}},
		{"p256", second, p256, 2, nil},
		{"not yet rotated", first, rotated, 0, nil},
		{"rotated once", first, rotated, 1, nil},
		{"rotated twice", first, rotated, 5, nil},
		{"huge", first, huge, 1<<53 + 1<<40 + 12345 + 2, []string{"9008298766381115"}},
		{"redelivered", first, again, 1, []string{"Delivered again"}},
		{"conflict", first, again, 2, []string{"Conflict", "another record of this source and number"}},
		{"source event", first, again, 3, []string{"gpu-1/5f0c/events", `"source_event": "stop"`}},
	}
}

// agree compares what a page says with what package chain says of the same evidence.
func (b *tab) agree(e *chain.Evidence, trusted chain.Hash) {
	b.t.Helper()
	want := e.Verify(trusted)
	first := b.load(render(b.t, e))
	all := true
	for _, c := range want.Checks {
		if c.Code == "trust" {
			continue
		}
		all = all && c.OK
		if c.Code == "manifest" && !want.Checks[0].OK {
			continue // whether the manifest holds the entry is not known then; the page says no
		}
		if got := first.Steps[c.Code]; got != map[bool]string{true: "ok", false: "bad"}[c.OK] {
			b.t.Errorf("%s: the page says %q, package chain %v: %s", c.Code, got, c.OK, c.Text)
		}
	}
	if first.Steps["page"] != "ok" {
		b.t.Errorf("the page takes itself for changed: %s", first.Text)
	}
	if (first.State == "genuine") != all || (first.State == "changed") == all {
		b.t.Errorf("before a fingerprint is given the page says %q, with steps %v", first.State, first.Steps)
	}
	state := first.State
	if state == "genuine" { // else there is nothing to type into
		state = b.give(trusted.String()).State
	}
	if (state == "verified") != want.OK {
		b.t.Errorf("with the fingerprint the page says %q, package chain %v", state, want.OK)
	}
}

func TestPage(t *testing.T) {
	b := newTab(t)
	all := specimens(t)
	t.Run("intact", func(t *testing.T) {
		for _, s := range all {
			t.Run(s.name, func(t *testing.T) { testIntact(b.in(t), s) })
		}
	})
	t.Run("fingerprint", func(t *testing.T) { testFingerprint(b.in(t), all[1]) })
	t.Run("quiet", func(t *testing.T) { testQuiet(b.in(t), all[1]) })
	t.Run("save", func(t *testing.T) { testSave(b.in(t), all[3]) })
	t.Run("print", func(t *testing.T) { testPrint(b.in(t), all[1]) })
	t.Run("tampered", func(t *testing.T) {
		for _, s := range []*specimen{all[1], all[5], all[8]} {
			for _, c := range tamperings(t, s) {
				// The long tables are the same for every log.
				kind, _, _ := strings.Cut(c.name, ":")
				if s != all[1] && (kind == "signed" || kind == "entry" || kind == "bundle" || kind == "genesis" || kind == "proof") {
					continue
				}
				t.Run(s.name+"/"+c.name, func(t *testing.T) { b.in(t).agree(c.evidence, s.fingerprint()) })
			}
		}
	})
	t.Run("bytes", func(t *testing.T) { testBytes(b.in(t), all[1]) })
}

func testIntact(b *tab, s *specimen) {
	e := s.evidence()
	if r := e.Verify(s.fingerprint()); !r.OK {
		b.t.Fatalf("package chain does not take the specimen: %+v", r.Checks)
	}
	b.agree(e, s.fingerprint())
	record := b.textOf("#record")
	for _, want := range s.text {
		if !strings.Contains(record, want) {
			b.t.Errorf("the record is shown without %q: %.3000s", want, record)
		}
	}
	// What a stolen key could have made is said, with what tells.
	payload := chain.Sum(payloadOf(b.t, e.Manifest)).String()
	if limits := b.textOf("#limits"); !strings.Contains(limits, "that never was in the log") || !strings.Contains(limits, "payload is "+payload) ||
		!strings.Contains(limits, "auditchain verify ... --expect-head "+payload) {
		b.t.Errorf("it is not said what a stolen key could have made: %s", limits)
	}
	if r := b.give(chain.Sum([]byte("another")).String()); r.State != "otherkey" || r.Steps["trust"] != "bad" {
		b.t.Errorf("with another fingerprint the page says %q", r.State)
	}
	if record := b.textOf("#record"); record != "" {
		b.t.Errorf("under another key the record is still shown: %.100s", record)
	}
}

// testFingerprint types it as people do.
func testFingerprint(b *tab, s *specimen) {
	b.load(render(b.t, s.evidence()))
	digits := s.fingerprint().String()
	spaced := strings.ToUpper(digits[:7]) + " " + digits[7:30] + ":" + digits[30:]
	for _, c := range []struct{ text, state string }{
		{"", "genuine"},
		{digits[:63], "genuine"},
		{digits + "0", "genuine"},
		{digits[:63] + "g", "genuine"},
		{"the red fox", "genuine"},
		{spaced, "verified"},
		{"SHA256:" + digits, "verified"},
		{digits[:63] + flip(digits[63:]), "otherkey"},
		{string(s.key.Public().PEM()), "verified"},
		{strings.ReplaceAll(string(s.key.Public().PEM()), "\n", " "), "verified"},
		{string(logs.Ed25519(b.t, "another").Public().PEM()), "otherkey"},
		{"-----BEGIN PUBLIC KEY-----!-----END PUBLIC KEY-----", "genuine"},
	} {
		if r := b.give(c.text); r.State != c.state {
			b.t.Errorf("%q makes the page say %q, want %q", c.text, r.State, c.state)
		}
	}
	b.give("")
	b.typeInto("#typed", spaced)
	if r := b.report(); r.State != "verified" {
		b.t.Errorf("typed on the keyboard it makes the page say %q", r.State)
	}
}

func flip(digit string) string {
	if digit == "0" {
		return "1"
	}
	return "0"
}

// testQuiet looks for requests of the page, and whether it could make any.
func testQuiet(b *tab, s *specimen) {
	asked := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	defer server.Close()
	b.load(render(b.t, s.evidence()))
	b.give(s.fingerprint().String())
	var seen []string
	b.run(`arguments[0](performance.getEntriesByType("resource").map((e) => e.name))`, &seen)
	if len(seen) > 0 {
		b.t.Errorf("the page has asked for %q", seen)
	}
	var outcome string
	b.run(`
const [url, done] = arguments;
const image = new Image();
image.src = url + "/image";
fetch(url + "/fetch").then(() => done("fetched"), () => setTimeout(done, 100, "refused"));`, &outcome, server.URL)
	if len(asked) > 0 || outcome != "refused" {
		b.t.Errorf("the page's policy lets %d requests pass, %s", len(asked), outcome)
	}
}

// testSave saves the entry's line.
func testSave(b *tab, s *specimen) {
	dir := b.t.TempDir()
	b.devtools("Browser.setDownloadBehavior", map[string]any{"behavior": "allow", "downloadPath": dir})
	e := s.evidence()
	b.load(render(b.t, e))
	b.run(`document.querySelector("button").click(); arguments[0](null)`, nil)
	path := filepath.Join(dir, fmt.Sprintf("entry-%d.json", s.seq))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		data, err := os.ReadFile(path)
		if err == nil && bytes.Equal(data, e.Entry) {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("what is saved is not the line: %v, %.200q", err, data)
		}
	}
}

func testPrint(b *tab, s *specimen) {
	e := s.evidence()
	b.load(render(b.t, e))
	b.give(s.fingerprint().String())
	path := filepath.Join(b.dir, "evidence.pdf")
	if err := os.WriteFile(path, b.pdf(), 0o600); err != nil {
		b.t.Fatal(err)
	}
	pdftotext, err := exec.LookPath("pdftotext")
	if err != nil {
		b.t.Skip("pdftotext is not there")
	}
	out, err := exec.Command(pdftotext, "-layout", path, "-").Output()
	if err != nil {
		b.t.Fatal(err)
	}
	pages := strings.Split(strings.TrimSuffix(string(out), "\f"), "\f")
	if len(pages) < 2 || len(pages) > 8 {
		b.t.Errorf("it is printed on %d pages", len(pages))
	}
	digits := s.fingerprint().String()
	for _, want := range []string{"VERIFIED", digits[:4], digits[60:], "req-8f31", "It is the fingerprint that you gave"} {
		if !strings.Contains(pages[0], want) {
			b.t.Errorf("the first page lacks %q: %s", want, pages[0])
		}
	}
	proof, err := chain.ParseInclusionProof(e.Proof)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, want := range []string{chain.Sum(e.Entry).String(), proof.Hashes[0].String(), "What this does not prove", "COMPLIANCE", "--expect-head"} {
		if !strings.Contains(string(out), want) {
			b.t.Errorf("%q is not printed", want)
		}
	}
}

// TestCannotTell opens a page where the browser offers no cryptography.
func TestCannotTell(t *testing.T) {
	b := newTab(t, "--host-resolver-rules=MAP page.test 127.0.0.1")
	s := specimens(t)[0]
	html := render(t, s.evidence())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Write(html)
	}))
	defer server.Close()
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	b.open("http://page.test:" + at.Port() + "/")
	if r := b.report(); r.State != "cannot" || len(r.Steps) > 0 {
		t.Errorf("the page says %q, with steps %v", r.State, r.Steps)
	}
	if record := b.textOf("#record"); record != "" {
		t.Errorf("it shows a record: %s", record)
	}
}

// TestShots leaves pictures of the page in the directory that $AUDITCHAIN_SHOTS names, to be looked at.
func TestShots(t *testing.T) {
	dir := os.Getenv("AUDITCHAIN_SHOTS")
	if dir == "" {
		t.Skip("AUDITCHAIN_SHOTS is not set")
	}
	b := newTab(t)
	save := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	scheme := func(name string) {
		b.devtools("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": name}}})
	}
	all := specimens(t)
	s := all[1]
	html := render(t, s.evidence())
	save("evidence.html", html) // for other browsers
	b.load(html)
	save("genuine.png", b.screenshot(1400))
	save("genuine-narrow.png", b.screenshot(400))
	b.give(s.fingerprint().String())
	save("verified.png", b.screenshot(1400))
	save("verified.pdf", b.pdf())
	scheme("dark")
	save("verified-dark.png", b.screenshot(1400))
	scheme("light")
	b.give(chain.Sum(nil).String())
	save("otherkey.png", b.screenshot(1400))
	e := s.evidence()
	e.Entry[len(e.Entry)-10] ^= 1
	b.load(render(t, e))
	save("changed.png", b.screenshot(1400))
	b.load(bytes.Replace(html, []byte("use strict"), []byte("use strigt"), 1))
	save("no-script.png", b.screenshot(1000))
	b.load(bytes.Replace(html, []byte("--paper"), []byte("--papez"), 1))
	save("no-style.png", b.screenshot(1000))
	for _, s := range []*specimen{all[3], all[8]} {
		b.load(render(t, s.evidence()))
		b.give(s.fingerprint().String())
		save(strings.ReplaceAll(s.name, " ", "-")+".png", b.screenshot(1000))
	}
}

// payloadOf is what a stored manifest signs.
func payloadOf(t testing.TB, stored []byte) []byte {
	var b struct {
		Envelope struct {
			Payload []byte `json:"payload"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(stored, &b); err != nil {
		t.Fatal(err)
	}
	return b.Envelope.Payload
}
