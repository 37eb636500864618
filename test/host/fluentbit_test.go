package host_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/host"
)

// TestFluentBit is what only the real one can show: that it finds the metrics, that lines of background goroutines
// reach its log_file, hot reload, and that it still stops when it is told to.
//
// There are no workers in its configuration: Fluent Bit 5.1.1 starts the workers of Go plugins twice and forgets the
// first ones, which crash it after a hot reload, whatever the plugin does.
func TestFluentBit(t *testing.T) {
	program, err := fluentbit.Find()
	if err != nil {
		t.Skip(err)
	}
	plugin, p, dir := host.Plugin(t), newPlace(t), t.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().(*net.TCPAddr)
	listener.Close()
	logFile := filepath.Join(dir, "log")
	config := filepath.Join(dir, "fluent-bit.yaml")
	var keys strings.Builder
	for key := range strings.FieldsSeq(p.keys) {
		name, value, _ := strings.Cut(key, "=")
		fmt.Fprintf(&keys, "      %s: %s\n", name, value)
	}
	write(t, config, fmt.Sprintf(`
service:
  flush: 0.1
  http_server: on
  http_listen: 127.0.0.1
  http_port: %d
  hot_reload: on
  log_file: %s
plugins:
  - %s
pipeline:
  inputs:
    - name: dummy
      tag: t
      rate: 20
  outputs:
    - name: auditchain
      alias: my audit
      match: '*'
      chain: test.example.com/real
      upload_timeout: 1s
      retry_limit: no_limits
%s`, address.Port, logFile, plugin, keys.String()))
	cmd := exec.Command(program, "-c", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		if log, err := os.ReadFile(logFile); t.Failed() && err == nil {
			t.Logf("log of Fluent Bit:\n%s", log)
		}
	})

	metric := func(name, value string) {
		t.Helper()
		re := regexp.MustCompile(`(?m)^fluentbit_auditchain_` + name + `\{name="my audit"\} ` + value + `$`)
		waitFor(t, re.String(), func() bool {
			answer, err := http.Get(fmt.Sprintf("http://%s/api/v2/metrics/prometheus", address))
			if err != nil {
				return false
			}
			defer answer.Body.Close()
			text, err := io.ReadAll(answer.Body)
			return err == nil && re.Match(text)
		})
	}
	logged := func(want string) {
		t.Helper()
		re := regexp.MustCompile(`(?m)^\[[\d/]+ [\d:.]+\] \[[a-z ]{5}\] \[output:auditchain:my audit\] .*` + want)
		waitFor(t, re.String(), func() bool {
			log, err := os.ReadFile(logFile)
			return err == nil && re.Match(log)
		})
	}
	logged("next entry 0$")
	metric("records_total", `[1-9]\d*`)
	metric("segments_total", `[1-9]\d*`)
	if err := os.Rename(p.bucket, p.bucket+".away"); err != nil {
		t.Fatal(err)
	}
	logged("no such bucket")
	metric("upload_failures_total", `[1-9]\d*`)
	if err := os.Rename(p.bucket+".away", p.bucket); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	logged("next entry [1-9]")
	metric("records_total", `[1-9]\d*`)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("Fluent Bit does not stop")
	}
}

func waitFor(t *testing.T, what string, there func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !there(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
