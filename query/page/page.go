// Package page writes evidence as one HTML file that checks itself: whoever gets it opens it in a browser, without a network
// and without installing anything, and sees the record and whether it is genuine.
//
// The page's script verifies the evidence anew, by docs/FORMAT.md alone, and shares no code with package chain. A policy in
// the page (CSP) lets exactly that script and that style run. Until the script has come to its end the page says NOT VERIFIED;
// that is also what is left if the script does not run, or is not ours any more by a byte. The script compares all of the
// document with a digest that was written into it, so that an altered byte shows wherever it is. What the page cannot do is
// vouch for its own script: whoever can alter the data can put another script there. [Extract] tells.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/auditchain/auditchain/chain"
)

//go:embed shell
var files embed.FS

// scripts are the parts of the page's script, in their order.
var scripts = []string{"bytes", "json", "values", "entry", "keys", "note", "manifest", "evidence", "show", "record", "details", "layout", "main"}

// shell is the page around the evidence. Its HTML stands in the spelling in which a browser writes a document out again
// (HTML standard, "Serialising HTML fragments"), since the script compares the two.
type shell struct {
	doctype string // which is no part of what a browser writes out
	before  []byte // from <html> to the evidence
	between []byte // from there to the digest
	after   []byte // from there to the end
}

var theShell = newShell()

func newShell() shell {
	var script strings.Builder
	script.WriteString("(() => {\n\"use strict\";\n")
	for _, name := range scripts {
		script.WriteString(part(name + ".js"))
	}
	script.WriteString("})();\n")
	style := part("page.css")
	policy := fmt.Sprintf("default-src 'none'; script-src '%s'; style-src '%s'; base-uri 'none'; form-action 'none'",
		source(script.String()), source(style))

	html := strings.TrimSuffix(part("page.html"), "\n") // a browser moves what stands behind </html>
	// Each mark is looked for once, in the HTML alone.
	html = strings.Replace(html, "{{policy}}", policy, 1)
	html, rest, _ := strings.Cut(html, "{{style}}")
	middle, rest, _ := strings.Cut(rest, "{{evidence}}")
	between, rest, _ := strings.Cut(rest, "{{digest}}")
	afterDigest, end, _ := strings.Cut(rest, "{{script}}")
	doctype, html, _ := strings.Cut(html, ">")
	return shell{
		doctype: doctype + ">",
		before:  []byte(html + style + middle),
		between: []byte(between),
		after:   []byte(afterDigest + script.String() + end),
	}
}

func part(name string) string {
	data, err := files.ReadFile("shell/" + name)
	if err != nil {
		panic(err) // the file was there when the program was built
	}
	return string(data)
}

// source names an inline script or style in a content security policy.
func source(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// Render writes the page of e. The same evidence gives the same bytes. It does not verify e: the page does.
func Render(w io.Writer, e *chain.Evidence) error {
	data, err := e.JSON()
	if err != nil {
		return fmt.Errorf("writing an evidence page: %w", err)
	}
	data = ascii(data)
	if len(data) > chain.MaxEvidence {
		return fmt.Errorf("writing an evidence page: the evidence has %d bytes, more than the %d allowed", len(data), chain.MaxEvidence)
	}
	s := &theShell
	digest := sha256.New()
	for _, part := range [][]byte{s.before, data, s.between, s.after} {
		digest.Write(part)
	}
	for _, part := range [][]byte{[]byte(s.doctype), s.before, data, s.between, fmt.Appendf(nil, "%x", digest.Sum(nil)), s.after} {
		if _, err := w.Write(part); err != nil {
			return fmt.Errorf("writing an evidence page: %w", err)
		}
	}
	return nil
}

// ascii escapes what is not ASCII in JSON. A page of ASCII alone is read the same in whatever encoding a browser takes it for.
// encoding/json has escaped what could end a script element: no "<" is left.
func ascii(data []byte) []byte {
	var out []byte
	for {
		i := bytes.IndexFunc(data, func(r rune) bool { return r >= 0x7f })
		if i < 0 {
			return append(out, data...)
		}
		r, size := utf8.DecodeRune(data[i:])
		out = append(out, data[:i]...)
		for _, unit := range utf16.AppendRune(nil, r) {
			out = fmt.Appendf(out, `\u%04x`, unit)
		}
		data = data[i+size:]
	}
}

// maxPage bounds a page that is read: the evidence, and a shell that may be another version's.
const maxPage = chain.MaxEvidence + 1<<20

const (
	dataBegin = `<script type="application/json" id="evidence">`
	dataEnd   = `</script>`
)

// Extract reads the evidence out of a page. ours says whether the page is, byte for byte, what Render writes of it, so that
// its script and its words are this program's. A page of another version of the program is not. The evidence is not
// verified here.
func Extract(html []byte) (e *chain.Evidence, ours bool, err error) {
	if len(html) > maxPage {
		return nil, false, fmt.Errorf("the page has %d bytes, more than the %d allowed", len(html), maxPage)
	}
	_, rest, ok := bytes.Cut(html, []byte(dataBegin))
	data, rest, closed := bytes.Cut(rest, []byte(dataEnd))
	if !ok || !closed {
		return nil, false, errors.New("the page holds no evidence")
	}
	if bytes.Contains(rest, []byte(dataBegin)) {
		return nil, false, errors.New("the page holds more than one evidence")
	}
	if e, err = chain.ParseEvidence(data); err != nil {
		return nil, false, err
	}
	var again bytes.Buffer
	if err := Render(&again, e); err != nil {
		return nil, false, err
	}
	return e, bytes.Equal(again.Bytes(), html), nil
}
