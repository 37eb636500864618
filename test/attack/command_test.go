package attack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/test/servers"
)

// maxMemory is what the command may take, in bytes, whatever lies in the bucket.
const maxMemory = 300 << 20

// command is the built program, made anew if it is older than its source.
var command = sync.OnceValues(func() (string, error) {
	build := exec.Command("make", "-s", "build/auditchain")
	build.Dir = servers.Root()
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make build/auditchain: %w: %s", err, out)
	}
	return filepath.Join(servers.Root(), "build", "auditchain"), nil
})

// TestCommand runs the built command against some of the attacks: exit code, what it prints, and that it takes no more memory than
// it may.
func TestCommand(t *testing.T) {
	type run struct {
		args []string
		exit int
		says []string // each in one of the lines, where … stands for anything
	}
	kept := func(a *arena, form string) string {
		for _, h := range a.kept {
			if h.form == form {
				file := filepath.Join(a.dir, form)
				a.check(os.WriteFile(file, h.data, 0o644))
				return file
			}
		}
		a.Fatalf("no kept %s", form)
		return ""
	}
	for _, test := range []struct {
		name string
		do   func(*arena) []run
	}{
		{"record edited", func(a *arena) []run {
			a.rewrite("segment 2", func([]byte) []byte {
				lines := a.lines(2)
				lines[4] = bytes.Replace(lines[4], []byte(`"status":200`), []byte(`"status":500`), 1)
				object, _ := pack(a.T, rechain(a.left[2], lines))
				return object
			})
			return []run{{exit: 1, says: []string{
				"^TAMPERED  audit.example.com/prod$",
				"^tampered: the segment of entries 10 to 19 is not what was written: frame 0: it does not have the SHA-256 that its manifest says$",
				"^  entries  10 to 19$",
				"^  entries    20 proven: 20 records …",
			}}}
		}},
		{"bombs on the disk", func(a *arena) []run {
			for n := 1; n <= 3; n++ {
				a.rewrite(fmt.Sprint("segment ", n), func([]byte) []byte { return bomb(bombSize, bombSize) })
			}
			return []run{{exit: 1, says: []string{"^tampered: the segment of entries 0 to 9 is not what was written: …"}}}
		}},
		{"bombs signed with the key", func(a *arena) []run {
			for i := range 9 {
				a.segment(time.Now(), 10, func(d *draft) { signedBomb(d, bomb(bombSize, []int64{0, 100, bombSize}[i%3])) })
			}
			return []run{{exit: 1, says: []string{"^tampered: the segment of entries 110 to 119 is not what was written: …"}}}
		}},
		{"long junk where the next manifests belong", func(a *arena) []run {
			junk := make([]byte, chain.MaxManifest)
			for n := range uint64(24) {
				a.put(a.layout.Manifest(4+n), junk)
			}
			return []run{{exit: 1, says: []string{"^tampered: manifest 4 is not what the holder of the key wrote: it is no Sigstore bundle: …"}}}
		}},
		{"manifest of brackets", func(a *arena) []run {
			a.rewrite("manifest 2", func([]byte) []byte { return bytes.Repeat([]byte{'['}, chain.MaxManifest) })
			return []run{{exit: 1, says: []string{"^tampered: manifest 2 is not what the holder of the key wrote: it is no Sigstore bundle: …"}}}
		}},
		{"end cut off", func(a *arena) []run {
			a.keep()
			removed("manifest 3", "segment 3")(a)
			var runs []run
			runs = append(runs, run{exit: 0, says: []string{"^INTACT    audit.example.com/prod$", "…compare it with a head kept elsewhere (--expect-head)$"}})
			for _, form := range []string{"head", "manifest", "checkpoint"} {
				file := kept(a, form)
				runs = append(runs, run{[]string{"--expect-head", file}, 1, []string{"^tampered: " + file + ": it has 30 entries, the log has 20$"}})
			}
			return append(runs, run{[]string{"--since-head", kept(a, "head")}, 1, []string{"^tampered: manifest 3, of which a head was kept, is not there, and nothing after it$"}})
		}},
		{"name that is more than one line", func(a *arena) []run {
			a.put(a.layout.Manifests()+"x\nINTACT\u202e", []byte("forged"))
			return []run{{exit: 0, says: []string{`^  object   audit.example.com/prod/manifests/x\u000aINTACT\u202e$`}}}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newArena(t, versitygw)
			writer(a)
			for _, r := range test.do(a) {
				out := a.run(r.exit, maxMemory, r.args...)
				for _, pattern := range r.says {
					if !anyLine(pattern, out) {
						t.Errorf("no line is like %q in\n%s", pattern, out)
					}
				}
			}
		})
	}
}

// run verifies with the built command.
func (a *arena) run(exit int, memory int64, args ...string) string {
	a.Helper()
	program, err := command()
	a.check(err)
	public := filepath.Join(a.dir, "pub.pem")
	a.check(os.WriteFile(public, a.trusted.PEM(), 0o644))
	ctx, cancel := context.WithTimeout(a.Context(), time.Minute)
	defer cancel()
	usage := filepath.Join(a.dir, "usage")
	cmd := exec.CommandContext(ctx, os.Args[0], append([]string{program, "verify", "--endpoint", a.server.Endpoint, "--bucket", a.name, "--chain", chainName, "--key", public}, args...)...)
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+a.reader.AccessKey, "AWS_SECRET_ACCESS_KEY="+a.reader.SecretKey, "AWS_REGION="+a.server.Region, "GOMAXPROCS=2", measureEnv+"="+usage)
	out, err := cmd.CombinedOutput()
	if failed := new(exec.ExitError); err != nil && !errors.As(err, &failed) {
		a.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != exit {
		a.Errorf("%q ends with exit code %d, want %d:\n%s", args, got, exit, out)
	}
	if strings.Contains(string(out), "panic") || strings.Contains(string(out), "goroutine ") {
		a.Errorf("it crashed:\n%s", out)
	}
	text, err := os.ReadFile(usage)
	a.check(err)
	peak, err := strconv.ParseInt(string(text), 10, 64)
	a.check(err)
	a.Logf("%q: at most %d MiB", args, peak>>20)
	if peak > memory {
		a.Errorf("it took %d MiB, more than the %d allowed", peak>>20, memory>>20)
	}
	return string(out)
}

// measureEnv has this test's program run the program of its arguments, and write into the file that it names how much memory that
// took, in bytes. A process begins with the peak of the one that started it, and a test may have had much.
const measureEnv = "AUDITCHAIN_ATTACK_MEASURE"

func measure() int {
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = os.Stdout, os.Stderr, servers.DieWithParent()
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		return 125
	}
	peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10 // KiB on Linux
	if err := os.WriteFile(os.Getenv(measureEnv), strconv.AppendInt(nil, peak, 10), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 125
	}
	return cmd.ProcessState.ExitCode()
}

// anyLine reports whether a line of out is like pattern, in which ^ and $ stand for its ends and … for anything.
func anyLine(pattern, out string) bool {
	for line := range strings.Lines(out) {
		line = "^" + strings.TrimSuffix(line, "\n") + "$"
		if says(pattern, line) {
			return true
		}
	}
	return false
}
