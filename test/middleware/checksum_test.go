// Package middleware tests what the middleware on the GPU server and the rest have to agree on.
package middleware

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/model"
	"github.com/auditchain/auditchain/test/servers"
)

// pythonManifest prints the manifest of each path that it reads, after its length; -1 if it is refused.
const pythonManifest = `
import os, sys, tempfile, pathlib
from auditchain_asgi import checksum, sums
with tempfile.TemporaryDirectory() as cache, sums.Sums(pathlib.Path(cache)) as kept:
    out = sys.stdout.buffer
    try:
        manifest = checksum.manifest(os.fsencode(sys.argv[1]), kept)
    except (OSError, checksum.ModelError):
        sys.exit(3)
    out.write(manifest)
    print(checksum.checksum(sys.argv[1], kept), file=sys.stderr)
`

// TestModelChecksum reads odd directories with the command's package, the middleware's module, and the shell line of docs/RECORDS.md.
func TestModelChecksum(t *testing.T) {
	servers.Programs(t, "python3", "bash", "find", "sort", "xargs", "sha256sum")
	for _, name := range []string{"checksum.py", "sums.py"} { // so that a change of them outdates what go test remembers of this test
		if _, err := os.Stat(filepath.Join(servers.Root(), "middleware", "auditchain_asgi", name)); err != nil {
			t.Fatal(err)
		}
	}
	line := shellLine(t)
	const refused = "refused"
	for name, c := range map[string]struct {
		files []string // a path, and after a space its content; "-> " begins a link's target; "/" ends a directory
		want  string   // paths in order; "" for none is never right
	}{
		"plain":               {[]string{"config.json {}", "model.safetensors w", "tokenizer.json t"}, "config.json model.safetensors tokenizer.json"},
		"order is of bytes":   {[]string{"a/b 1", "a-b 2", "a.b 3", "aB 4", "ab 5", "A 6", "ä 7", "z 8", "a0/b 9"}, "A a-b a.b a/b a0/b aB ab z ä"},
		"documents":           {[]string{"README r", "readme.txt r", "ReadMe.bin r", "LICENSE-MIT l", "License l", "NOTICE n", "notices n", "x.md m", "x.MD m", "x.Pdf p", "x.png p", "x.jpg p", "x.JPEG p", "x.gif p", "x.svg p", "x.webp p", "keep k"}, "keep"},
		"almost documents":    {[]string{"aREADME r", "READM r", "x.mdx m", "md m", "x.pdf.bin p", ".md.bin m", "jpg p"}, "READM aREADME jpg md x.mdx x.pdf.bin"},
		"only a name's bytes": {[]string{"LİCENSE l", "LICENſE l", "NOTıCE n", "x.mḋ m"}, "LICENſE LİCENSE NOTıCE x.mḋ"},
		"document directory":  {[]string{"README/config.json c", "x.md/weights w", "a.png/b.png p"}, "README/config.json x.md/weights"},
		"hidden":              {[]string{".a h", "a/.b h", ".c/d h", "a/.e/f/g h", "a/b. k", "a/..b h", "...c h"}, "a/b."},
		"hidden links":        {[]string{"a k", ".gone -> nowhere", ".loop -> .", ".to -> ./a"}, "a"},
		"links":               {[]string{".blobs/1 w", "model.bin -> .blobs/1", "sub/again -> ../model.bin"}, "model.bin sub/again"},
		"linked directories":  {[]string{"a/f x", "b -> a", "c/d -> ../a"}, "a/f b/f c/d/f"},
		"a link's own name":   {[]string{".x/README.md w", "weights -> .x/README.md", "notice -> weights", "w/README -> ../.x"}, "weights"},
		"not UTF-8":           {[]string{"\xff\xfe w", "\xff.md w", "caf\xe9/x.bin w"}, "caf\xe9/x.bin \xff\xfe"},
		"minus":               {[]string{"-b 1", "--help 2", "d/- 3", "-/x 4"}, "--help -/x -b d/-"},
		"quotes":              {[]string{"'a' 1", `"b" 2`, "$(c) 3", "*d 4", "e\tf 5", "g;h 6", "\x01 7"}, "\x01 \"b\" $(c) 'a' *d e\tf g;h"},
		"empty files":         {[]string{"a ", "b/ "}, "a"},
		"nothing":             {[]string{"b/ "}, refused},
		"documents alone":     {[]string{"README.md r"}, refused},
		"newline":             {[]string{"a\nb x"}, refused},
		"carriage return":     {[]string{"a\rb x"}, refused},
		"backslash":           {[]string{`a\b x`}, refused},
		"minus alone":         {[]string{"- x", "a x"}, refused},
		"document newline":    {[]string{"README\nb x", "a x"}, "a"},
		"loop":                {[]string{"a x", "b/c -> .."}, refused},
		"dangling":            {[]string{"a x", "b -> nowhere"}, refused},
		"many":                {many(), strings.Join(manyNames(), " ")},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "the 'model'")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, file := range c.files {
				path, content, _ := strings.Cut(file, " ")
				put(t, dir+"/"+path, content)
			}

			manifest, err := model.Read(t.Context(), dir, nil)
			goText, goSum := string(manifest.Text()), manifest.Checksum()
			if err != nil {
				goText, goSum = refused, refused
			}

			cmd := exec.Command("python3", "-c", pythonManifest, dir)
			cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(servers.Root(), "middleware"), "PYTHONDONTWRITEBYTECODE=1")
			var said strings.Builder
			cmd.Stderr = &said
			out, err := cmd.Output()
			pythonText, pythonSum := string(out), strings.TrimSpace(said.String())
			if err != nil && cmd.ProcessState.ExitCode() == 3 {
				pythonText, pythonSum = refused, refused
			} else if err != nil {
				t.Fatal(err, said.String())
			}

			if goText != pythonText || goSum != pythonSum {
				t.Fatalf("Go %s\n%s\nPython %s\n%s", goSum, goText, pythonSum, pythonText)
			}
			var paths []string
			for _, f := range manifest {
				paths = append(paths, f.Path)
			}
			if got := strings.Join(paths, " "); got != c.want && goText != refused || goText == refused && c.want != refused {
				t.Fatalf("%q (%v), want %q", got, err, c.want)
			}
			if c.want == refused {
				return
			}
			shell := exec.Command("bash", "-c", line)
			shell.Env = append(os.Environ(), "DIR="+dir)
			out, err = shell.Output()
			if err != nil {
				t.Fatal(err)
			}
			if got := "sha256:" + strings.TrimSuffix(string(out), "  -\n"); got != goSum {
				t.Errorf("the shell prints %s, Go and Python %s of\n%s", got, goSum, goText)
			}
		})
	}
}

// put makes a file, a directory or a link.
func put(t *testing.T, path, content string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	target, isLink := strings.CutPrefix(content, "-> ")
	switch {
	case err != nil:
	case strings.HasSuffix(path, "/"):
		err = os.MkdirAll(path, 0o755)
	case isLink:
		err = os.Symlink(target, path)
	default:
		err = os.WriteFile(path, []byte(content), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// manyNames are as many as xargs gives to more than one sha256sum.
func manyNames() (names []string) {
	long := strings.Repeat("x", 200)
	for i := 'a'; i < 'a'+26; i++ {
		for j := 'a'; j < 'a'+26; j++ {
			names = append(names, string(i)+string(j)+long)
		}
	}
	return names
}

func many() (files []string) {
	for _, name := range manyNames() {
		files = append(files, name+" x")
	}
	return files
}

// shellLine is the command of docs/RECORDS.md, for the directory $DIR.
func shellLine(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join(servers.Root(), "docs", "RECORDS.md"))
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile("```\n(cd DIR && LC_ALL=C find [^`]*)```").FindSubmatch(doc)
	if match == nil {
		t.Fatal("docs/RECORDS.md has no command that computes a checksum")
	}
	return strings.Replace(string(match[1]), "cd DIR", `cd "$DIR"`, 1)
}
