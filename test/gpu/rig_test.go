package gpu

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/auditchain/auditchain/test/servers"
)

// patience is how long a test waits for what must happen; usually it does within a second.
const patience = 60 * time.Second

// hmacKey is AUDITCHAIN_HMAC_KEY of all tests.
const hmacKey = "0123456789abcdef0123456789abcdef"

// fallbackModel is AUDITCHAIN_MODEL_ID of all tests, for requests that name no model.
const fallbackModel = "fallback"

// rig is a stub with the middleware, and the directory of its records.
type rig struct {
	*Stub
	dir     string // AUDITCHAIN_DIR
	options Options
	address atomic.Value // of the server that runs now; for those that call while it is started anew
}

// need skips the test where the stub cannot run, or fails it if AUDITCHAIN_REQUIRE_PROGRAMS=1.
func need(t testing.TB) {
	t.Helper()
	servers.Programs(t, Python())
	if err := CanRun(); err != nil {
		if os.Getenv("AUDITCHAIN_REQUIRE_PROGRAMS") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// newRig starts a stub with the middleware, whose records go into a directory of their own unless env names one.
func newRig(t *testing.T, o Options, env ...string) *rig {
	t.Helper()
	need(t)
	r := &rig{dir: filepath.Join(t.TempDir(), "records"), options: o}
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	o.Audit, o.Dir = true, t.TempDir()
	o.Env = append([]string{
		"AUDITCHAIN_DIR=" + r.dir, "AUDITCHAIN_HMAC_KEY=" + hmacKey, "AUDITCHAIN_MODEL_ID=" + fallbackModel,
	}, env...)
	for _, variable := range env {
		if dir, ok := strings.CutPrefix(variable, "AUDITCHAIN_DIR="); ok {
			r.dir = dir
		}
	}
	r.options = o
	r.start(t)
	t.Cleanup(func() {
		r.Kill()
		if t.Failed() {
			t.Logf("the end of the stub's log:\n%s", tail(r.Log()))
		}
	})
	return r
}

// start starts the stub, again where it has ended, with the same settings.
func (r *rig) start(t *testing.T) {
	t.Helper()
	s, err := Start(r.options)
	if err != nil {
		t.Fatal(err)
	}
	r.Stub = s
	r.address.Store(s.URL)
}

func (r *rig) url() string { return r.address.Load().(string) }

func tail(text string) string { return text[max(0, len(text)-4096):] }

// stop ends the stub in order.
func (r *rig) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// records waits until there are as many requests' records, and returns all.
func (r *rig) records(t *testing.T, requests int) *Records {
	t.Helper()
	return r.await(t, fmt.Sprintf("%d records", requests), func(all *Records) error {
		if n := len(all.Requests); n < requests {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
}

// await reads the records until they are as they should be.
func (r *rig) await(t *testing.T, what string, check func(*Records) error) *Records {
	t.Helper()
	var all *Records
	eventually(t, what, func() error {
		var err error
		if all, err = ReadRecords(r.dir); err != nil {
			t.Fatal(err)
		}
		return check(all)
	})
	return all
}

// eventually waits until check has nothing to complain about.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	eventuallyEvery(t, pollInterval, what, check)
}

// eventuallyEvery is eventually for a check that costs much: it has a pause of its own.
func eventuallyEvery(t *testing.T, pause time.Duration, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in %s: %v", what, patience, err)
		}
	}
}

// events are those of a name.
func (r *Records) events(name string) []Event {
	var all []Event
	for _, e := range r.Events {
		if e.SourceEvent == name {
			all = append(all, e)
		}
	}
	return all
}

func plain(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func keyed(data []byte) string {
	mac := hmac.New(sha256.New, []byte(hmacKey))
	mac.Write(data)
	return "hmac-sha256:" + hex.EncodeToString(mac.Sum(nil))
}

// modelDir makes a model's directory and returns it and its checksum, computed by the command in docs/RECORDS.md.
func modelDir(t *testing.T, files map[string]string) (dir, checksum string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, modelChecksum(t, dir)
}

func modelChecksum(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(servers.Root(), "docs", "RECORDS.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, command, _ := strings.Cut(string(text), "```\ncd DIR && ")
	command, _, found := strings.Cut(command, "```")
	if !found {
		t.Fatal("docs/RECORDS.md has no command for a model's checksum")
	}
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	sum, _, _ := strings.Cut(string(out), " ")
	return "sha256:" + sum
}
