package attack

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/test/servers"
)

// page is what a regulator's expert reads.
var page = filepath.Join(servers.Root(), "docs", "SECURITY.md")

// TestTable compares the tables of attacks in docs/SECURITY.md with those that are tried, row by row, in both directions.
func TestTable(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var written []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.Count(line, " | ") == 5 && !strings.HasPrefix(line, "| attack |") {
			written = append(written, line)
		}
	}
	var tried []string
	for _, attack := range attacks() {
		tried = append(tried, attack.row())
	}
	for i, row := range tried {
		if !slices.Contains(written, row) {
			t.Errorf("the page lacks, or says otherwise:\n%s", row)
		}
		if slices.Index(tried, row) != i {
			t.Errorf("twice: %s", row)
		}
	}
	for _, row := range written {
		if !slices.Contains(tried, row) {
			t.Errorf("no test is like the page's\n%s", row)
		}
	}
}

// row is the attack's row on the page.
func (k *attack) row() string {
	var on, codes, texts []string
	for _, s := range k.on {
		on = append(on, map[string]string{"minio": "MinIO", "versitygw": "versitygw"}[s.program])
	}
	for _, h := range k.hits {
		if code := "`" + string(h.code) + "`"; !slices.Contains(codes, code) {
			codes, texts = append(codes, code), append(texts, h.says)
		}
	}
	if k.kept != nil {
		texts = append(texts, "with a kept "+k.kept.says)
	}
	if k.note != "" {
		texts = append(texts, k.note)
	}
	found := k.verdict
	if len(codes) > 0 {
		found += ": " + strings.Join(codes, ", ")
	}
	needed := "no"
	if k.helpless {
		needed = "does not help"
	}
	if k.kept != nil {
		needed = fmt.Sprintf("yes: `%s`", k.kept.code)
		if k.kept.since != "" {
			needed += fmt.Sprintf(" or `%s`", k.kept.since)
		}
		if k.kept.blind {
			needed += "; a bare checkpoint does not do"
		}
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s |", k.name, k.who, strings.Join(on, ", "), found, strings.Join(texts, "<br>"), needed)
}

// TestEveryCode: every kind of finding that verification knows is found by some attack.
func TestEveryCode(t *testing.T) {
	known := []query.Code{query.NeverLocked} // a log in a directory: no attack
	for _, attack := range attacks() {
		for _, h := range attack.hits {
			known = append(known, h.code)
		}
		if attack.kept != nil {
			known = append(known, attack.kept.code)
		}
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(servers.Root(), "query", "finding.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); !ok || kind.Name != "Code" {
			return true
		}
		for _, value := range spec.Values {
			code, _ := strconv.Unquote(value.(*ast.BasicLit).Value)
			if codes++; !slices.Contains(known, query.Code(code)) {
				t.Errorf("no attack is found as %s", code)
			}
		}
		return true
	})
	if codes < 20 {
		t.Errorf("only %d codes were read", codes)
	}
}
