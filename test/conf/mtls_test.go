package conf

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/storage"
	"github.com/auditchain/auditchain/test/host"
	"github.com/auditchain/auditchain/test/servers"
)

// Two Fluent Bits, the aggregator with the configuration that we ship: what a GPU server with a certificate sends is in
// the log; what others send is not.
func TestMutualTLS(t *testing.T) {
	fluentBit(t)
	host.Plugin(t)
	for _, s := range all(t) {
		var bucket func(t *testing.T) storage.Config
		switch s.name {
		case "yaml":
			bucket = lockedBucket
		case "classic":
			bucket = func(t *testing.T) storage.Config { return storage.Config{Bucket: "dir:" + t.TempDir()} }
		default:
			continue // differs from them in nothing that counts here: TestFormatsAgree
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			testMutualTLS(t, s, bucket(t))
		})
	}
}

func lockedBucket(t *testing.T) storage.Config {
	server := servers.Versitygw(t)
	server.MakeLockedBucket(t, "audit")
	return storage.Config{Bucket: "audit", Endpoint: server.Endpoint, Region: server.Region, AccessKey: server.AccessKey, SecretKey: server.SecretKey}
}

func testMutualTLS(t *testing.T, s shipped, bucket storage.Config) {
	const records = 200
	dir := t.TempDir()
	ca := makeCA(t, filepath.Join(dir, "tls"))
	issue(t, ca, filepath.Join(dir, "tls", "tls"), "localhost")
	issue(t, ca, filepath.Join(dir, "gpu"), "gpu-01.example.com")
	issue(t, makeCA(t, filepath.Join(dir, "elsewhere")), filepath.Join(dir, "stranger"), "gpu-01.example.com")
	aggregator := newAggregator(t, s, filepath.Join(dir, "tls"), bucket)
	aggregator.start(t)
	if !aggregator.said("sync=full, checksum=off") {
		t.Error("the service section does not take effect")
	}

	send := func(sender string, properties ...string) *process {
		args := []string{"-f", "0.5", "-i", "dummy", "-t", sender, "-p", "rate=100", "-p", "samples=" + strconv.Itoa(records),
			"-o", "forward", "-m", "*", "-p", "retry_limit=no_limits", "-p", "require_ack_response=on"}
		for _, p := range append([]string{"host=localhost", "port=" + aggregator.port}, properties...) {
			args = append(args, "-p", p)
		}
		return start(t, sender, nil, args...)
	}
	server := []string{"tls=on", "tls.verify=on", "tls.verify_hostname=on", "tls.ca_file=" + ca.File}
	refused := []*process{
		send("without_tls"),
		send("without_certificate", server...),
		send("certificate_of_another_ca", append(certificate(filepath.Join(dir, "stranger")), server...)...),
	}
	for _, p := range refused {
		waitFor(t, filepath.Base(p.path)+": a failed delivery", func() bool { return p.said("failed to flush chunk") })
	}
	if n := metric(aggregator.httpPort, "fluentbit_input_records_total", "gpu"); n > 0 {
		t.Errorf("%d records, before anybody with a certificate came", n)
	}
	for _, p := range refused {
		p.cmd.Process.Kill()
	}
	gpu := send("gpu", append(certificate(filepath.Join(dir, "gpu")), server...)...)
	waitFor(t, "all records are acknowledged", func() bool {
		return metric(aggregator.httpPort, "fluentbit_output_proc_records_total", "audit") >= records
	})
	gpu.stop(t)
	aggregator.stop(t)
	aggregator.verify(t, records)
}

// verify checks that the log is intact and has so many records. The aggregator must have ended.
func (a *aggregator) verify(t *testing.T, records uint64) {
	t.Helper()
	report, err := a.log(t).Verify(t.Context(), query.VerifyOptions{Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if report.Verdict != "intact" || report.Counts.Records != records {
		t.Errorf("%s with %d records, not intact with %d: %+v", report.Verdict, report.Counts.Records, records, report.Findings)
	}
}

func makeCA(t *testing.T, dir string) *servers.CA {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ca, err := servers.NewCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// issue writes base.crt and base.key.
func issue(t *testing.T, ca *servers.CA, base, name string) {
	t.Helper()
	if err := ca.Issue(base+".crt", base+".key", name); err != nil {
		t.Fatal(err)
	}
}

func certificate(base string) []string {
	return []string{"tls.crt_file=" + base + ".crt", "tls.key_file=" + base + ".key"}
}

// makeKey writes a signing key and returns its public half.
func makeKey(t *testing.T, path string) chain.PublicKey {
	t.Helper()
	text, err := chain.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(text))
	key, err := chain.ParseSigningKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return key.Public()
}
