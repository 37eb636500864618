package kill

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/host"
	"github.com/auditchain/auditchain/test/servers"
)

const (
	chainName  = "audit.example.com/kill"
	bucketName = "audit"
)

// auditLog is the chain: where the plugin writes it, and how it is read back.
type auditLog struct {
	query.Log
	server     *servers.Server
	plugin     string // path
	storeDir   string
	dir        string // the chain's own, in storeDir
	signingKey string // file
}

func newLog(t *testing.T, s *servers.Server) *auditLog {
	t.Helper()
	s.MakeLockedBucket(t, bucketName)
	dir := t.TempDir()
	l := &auditLog{server: s, plugin: host.Plugin(t), storeDir: filepath.Join(dir, "store"), signingKey: filepath.Join(dir, "audit.pem")}
	l.dir = filepath.Join(l.storeDir, strings.ReplaceAll(chainName, "/", "~"))
	text, err := chain.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.signingKey, text, 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := chain.ParseSigningKey(text)
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := storage.Open(storage.Config{
		Bucket: bucketName, Endpoint: s.Endpoint, Region: s.Region, AccessKey: s.AccessKey, SecretKey: s.SecretKey,
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Log = query.Log{Bucket: bucket, Layout: chain.Layout{Chain: chainName}, Key: key.Public()}
	return l
}

// section is the log's output section. Segments are small and made often, so that kills come into the making of them.
func (l *auditLog) section() fluentbit.Section {
	return fluentbit.Section{
		"name": "auditchain", "match": "*", "retry_limit": "no_limits",
		"chain": chainName, "signing_key": l.signingKey, "retention": "40d", "store_dir": l.storeDir,
		"bucket": bucketName, "endpoint": l.server.Endpoint, "region": l.server.Region,
		"access_key": l.server.AccessKey, "secret_key": l.server.SecretKey,
		"upload_timeout": "1s", "total_file_size": "1M",
	}
}

// begun: the chain's first manifest is in the bucket.
func (l *auditLog) begun() bool {
	_, err := os.Stat(filepath.Join(l.dir, headFile))
	return err == nil
}

// files returns the names in the chain's directory. It is empty before the first life has made it.
func (l *auditLog) files() ([]string, error) {
	entries, err := os.ReadDir(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// has reports whether there is a file in the chain's directory that the pattern matches.
func (l *auditLog) has(pattern *regexp.Regexp) bool {
	names, err := l.files()
	return err == nil && slices.ContainsFunc(names, pattern.MatchString)
}

// settled is nil when all that was acknowledged is in the bucket.
func (l *auditLog) settled() error {
	names, err := l.files()
	if err != nil {
		return err
	}
	for _, name := range names {
		if isJournal(name) || strings.HasPrefix(name, pendingPrefix) {
			return fmt.Errorf("%s is still in the store directory", name)
		}
	}
	return nil
}

// verify has the log verified, which must be found intact. While it is written there is a segment now and then whose manifest is
// still to come; when it is settled nothing is to be found.
func (l *auditLog) verify(t *testing.T, settled bool) {
	t.Helper()
	report, err := l.Verify(t.Context(), query.VerifyOptions{Now: time.Now()})
	if err != nil {
		t.Errorf("verifying: %v", err)
		return
	}
	if report.Verdict != "intact" {
		t.Errorf("the log is %s", report.Verdict)
	}
	for _, f := range report.Findings {
		if settled || f.Severity != query.Notice {
			t.Errorf("%s: %s %s", f.Severity, f.Object, f.Text)
		}
	}
	// Nothing was sent twice, and what Fluent Bit delivered again was not taken for it.
	if n := report.Counts.Redelivered; n > 0 {
		t.Errorf("%d records count as redelivered", n)
	}
}
