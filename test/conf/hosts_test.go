package conf

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/host"
)

// aggregator is a log aggregation server with a configuration that we ship, below a directory of its own.
type aggregator struct {
	*process
	port, httpPort string

	file   string // its configuration
	env    []string
	bucket storage.Config
	chain  string
	key    chain.PublicKey
}

// newAggregator lays out the server, with the certificate in the directory tls. It does not run yet.
func newAggregator(t *testing.T, s shipped, tls string, bucket storage.Config) *aggregator {
	t.Helper()
	dir := t.TempDir()
	a := &aggregator{port: freePort(t), httpPort: freePort(t), bucket: bucket, chain: "audit.example.com/test"}
	a.key = makeKey(t, filepath.Join(dir, "etc", "keys", "auditchain.pem"))
	copyTLS(t, tls, filepath.Join(dir, "etc", "tls"))
	local := strings.NewReplacer("24224", a.port, "2020", a.httpPort, "0.0.0.0", "127.0.0.1")
	write(t, filepath.Join(dir, "etc", "plugins.conf"), fluentbit.Relocate(read(t, "conf/aggregator/plugins.conf"), dir, host.Plugin(t)))
	a.file = write(t, filepath.Join(dir, "etc", "fluent-bit"+s.suffix), fluentbit.Relocate(local.Replace(s.text), dir, host.Plugin(t)))
	a.env = []string{
		"AUDITCHAIN_CHAIN=" + a.chain, "AUDITCHAIN_BUCKET=" + bucket.Bucket, "AUDITCHAIN_RETENTION=1d",
		"AUDITCHAIN_ENDPOINT=" + bucket.Endpoint, "AUDITCHAIN_REGION=" + bucket.Region,
		"AWS_ACCESS_KEY_ID=" + bucket.AccessKey, "AWS_SECRET_ACCESS_KEY=" + bucket.SecretKey,
	}
	return a
}

// start runs it, again after a kill too, and waits until it takes records.
func (a *aggregator) start(t *testing.T) {
	t.Helper()
	a.process = start(t, "aggregator", a.env, "-c", a.file)
	waitFor(t, "the aggregator is healthy", func() bool { return get(a.httpPort, "/api/v2/health") != "" })
}

// log is what it has written into the bucket.
func (a *aggregator) log(t *testing.T) *query.Log {
	t.Helper()
	bucket, err := storage.Open(a.bucket)
	if err != nil {
		t.Fatal(err)
	}
	return &query.Log{Bucket: bucket, Layout: chain.Layout{Chain: a.chain}, Key: a.key}
}

// entries returns those of the log that hold records. The aggregator must have ended.
func (a *aggregator) entries(t *testing.T) []chain.Entry {
	t.Helper()
	var all []chain.Entry
	err := a.log(t).Walk(t.Context(), func(e *chain.Entry, _ []byte) error {
		if e.Record != nil {
			all = append(all, chain.Entry{Time: e.Time, Received: e.Received, Redelivered: e.Redelivered, Conflict: e.Conflict, Record: bytes.Clone(e.Record)})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// gpuNode is Fluent Bit on a GPU server with a configuration that we ship, below a directory of its own.
type gpuNode struct {
	*process
	httpPort string
	records  string // the directory that the middleware would write into

	file string // its configuration
	env  []string
}

// newGPUNode lays out the server, with the certificate in the directory tls, and without the settings in leaveOut. It does not run
// yet.
func newGPUNode(t *testing.T, s shipped, tls, aggregator, port string, leaveOut ...string) *gpuNode {
	t.Helper()
	dir := t.TempDir()
	n := &gpuNode{httpPort: freePort(t), records: filepath.Join(dir, "records")}
	if err := os.Mkdir(n.records, 0o755); err != nil {
		t.Fatal(err)
	}
	copyTLS(t, tls, filepath.Join(dir, "etc", "tls"))
	local := strings.NewReplacer("24224", port, "2021", n.httpPort)
	write(t, filepath.Join(dir, "etc", "parsers.conf"), read(t, "conf/gpu-node/parsers.conf"))
	n.file = write(t, filepath.Join(dir, "etc", "fluent-bit"+s.suffix), fluentbit.Relocate(local.Replace(without(s.text, leaveOut...)), dir, ""))
	n.env = []string{"AUDITCHAIN_AGGREGATOR=" + aggregator, "AUDITCHAIN_DIR=" + n.records}
	return n
}

// start runs it, again after a kill too.
func (n *gpuNode) start(t *testing.T) {
	t.Helper()
	n.process = start(t, "gpu", n.env, "-c", n.file)
}

// append adds to a file of records, in one write, as the middleware does.
func (n *gpuNode) append(t *testing.T, name, text string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(n.records, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// without leaves out the lines of a configuration that set these keys.
func without(text string, keys ...string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) > 0 && slices.Contains(keys, strings.TrimSuffix(fields[0], ":")) {
			continue
		}
		b.WriteString(line)
	}
	return b.String()
}

// copyTLS copies what certificates.sh made for a host to where that host looks for it.
func copyTLS(t *testing.T, from, to string) {
	t.Helper()
	for _, name := range []string{"ca.crt", "tls.crt", "tls.key"} {
		text, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(to, name), string(text))
	}
}
