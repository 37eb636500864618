package gpu

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/test/servers"
)

// seen is what the official client made of a call.
type seen struct {
	Name  string   `json:"name"`
	Sent  []string `json:"sent"` // bodies, several where it tried again
	ID    string   `json:"id"`
	Text  *string  `json:"text"`
	Usage *struct {
		In  int64 `json:"in"`
		Out int64 `json:"out"`
	} `json:"usage"`
	Error  string `json:"error"`
	Status int    `json:"status"`
}

// The official client sees the same with the middleware as without, and the records say what it saw: the hash of the
// content is that of the text which the client put together.
func TestOfficialClient(t *testing.T) {
	t.Parallel()
	dir := officialClient(t)
	r := newRig(t, Options{APIKeys: []string{"sk-official"}}, "AUDITCHAIN_HASH=content")
	calls := official(t, dir, r.URL)
	requests := 0
	for _, c := range calls {
		requests += len(c.Sent)
	}
	all := r.records(t, requests)
	if _, err := all.Sources(); err != nil {
		t.Fatal(err)
	}
	bySeq := make([]*Record, requests)
	for i := range all.Requests {
		bySeq[all.Requests[i].Source.Seq] = &all.Requests[i]
	}
	expected := map[string]struct {
		status, err string // of the record
		clientError string
	}{
		"abort":         {status: "client_abort"},
		"abortBefore":   {status: "client_abort", clientError: "APIConnectionTimeoutError"},
		"noSuchModel":   {status: "404", clientError: "NotFoundError"},
		"refused":       {status: "422", clientError: "UnprocessableEntityError"},
		"unauthorized":  {status: "401", clientError: "AuthenticationError"},
		"failed":        {status: "500", clientError: "InternalServerError"},
		"raised":        {status: "500", clientError: "InternalServerError"},
		"errorInStream": {status: "500", clientError: "APIError"},
	}
	for _, c := range calls {
		records := bySeq[:len(c.Sent)]
		bySeq = bySeq[len(c.Sent):]
		t.Run(c.Name, func(t *testing.T) {
			want := expected[c.Name]
			if want.status == "" {
				want.status = "200"
			}
			if c.Error != want.clientError {
				t.Errorf("the client threw %q, not %q", c.Error, want.clientError)
			}
			if c.Name == "failed" && len(c.Sent) != 3 {
				t.Errorf("the client sent %d requests, not one and two more", len(c.Sent))
			}
			for i, record := range records {
				if record.Status != want.status {
					t.Errorf("status is %s, not %s", record.Status, want.status)
				}
				if c.Name == "unauthorized" {
					continue // refused unread
				}
				if in := contentOf(t, c.Sent[i]); record.InputHash == nil || *record.InputHash != plain(in) {
					t.Errorf("input_hash is not that of %s", in)
				}
				if record.UserID == nil || *record.UserID != "key:"+keyed([]byte("sk-official")) {
					t.Errorf("user_id is %v", record.UserID)
				}
			}
			record := records[len(records)-1]
			if c.ID != "" && (record.ResponseID != c.ID || !strings.HasSuffix(c.ID, record.RequestID)) {
				t.Errorf("the client has the id %s, the record %s of request %s", c.ID, record.ResponseID, record.RequestID)
			}
			if c.Usage != nil && (record.InputTokens == nil || *record.InputTokens != c.Usage.In || record.OutputTokens == nil || *record.OutputTokens != c.Usage.Out) {
				t.Errorf("the client counts %+v tokens, the record %v and %v", *c.Usage, record.InputTokens, record.OutputTokens)
			}
			if c.Text != nil && want.status == "200" && (record.OutputHash == nil || *record.OutputHash != plain([]byte(*c.Text))) {
				t.Errorf("output_hash is not that of %.100q", *c.Text)
			}
		})
	}
}

// contentOf is the content of a request, as docs/RECORDS.md has it hashed.
func contentOf(t *testing.T, body string) []byte {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal([]byte(body), &all); err != nil {
		t.Fatal(err)
	}
	content := make(map[string]any)
	for _, name := range []string{"messages", "prompt", "input"} {
		if value, ok := all[name]; ok {
			content[name] = value
		}
	}
	return canonical(t, content)
}

// official runs the client against a server.
func official(t *testing.T, dir, url string) []seen {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", filepath.Join(dir, "client.mjs"), url+"/v1", Model)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var calls []seen
	for line := range bytes.Lines(out) {
		var c seen
		if err := json.Unmarshal(line, &c); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		calls = append(calls, c)
	}
	if len(calls) == 0 {
		t.Fatal("the client made no calls")
	}
	return calls
}

// officialClient is a directory with the client installed, which is kept for the next time. Without npm or its registry the test is
// skipped.
func officialClient(t *testing.T) string {
	t.Helper()
	servers.Programs(t, "node", "npm")
	source := filepath.Join(servers.Root(), "test", "gpu", "openai")
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	files := make(map[string][]byte)
	for _, name := range []string{"package.json", "package-lock.json", "client.mjs"} {
		text, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = text
		sum.Write(text)
	}
	dir := filepath.Join(cache, "auditchain-test", "openai-"+hex.EncodeToString(sum.Sum(nil)[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "installing-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(fresh, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "npm", "ci", "--no-audit", "--no-fund")
	cmd.Dir = fresh
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("the client cannot be installed: %v\n%s", err, out)
	}
	// Another test may have been as quick.
	if err := os.Rename(fresh, dir); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	return dir
}
