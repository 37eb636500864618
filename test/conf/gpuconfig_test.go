package conf

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/test/fluentbit"
)

// gpuEnvironment is what the configurations of the GPU server want to find there.
var gpuEnvironment = []string{"AUDITCHAIN_AGGREGATOR=aggregator.example.com", "AUDITCHAIN_DIR=/var/log/auditchain"}

func TestGPUFormatsAgree(t *testing.T) {
	s := onGPU(t)
	want, got := s[0].config, s[1].config
	same(t, "service", got.Service, want.Service)
	same(t, "input", got.input(t), want.input(t))
	same(t, "output", got.output(t), want.output(t))
	if len(got.Parsers) != 1 || len(want.Parsers) != 1 {
		t.Fatalf("%d and %d parsers, not one", len(got.Parsers), len(want.Parsers))
	}
	same(t, "parser", got.Parsers[0], want.Parsers[0])
}

func TestGPUPromises(t *testing.T) {
	for _, s := range onGPU(t) {
		t.Run(s.name, func(t *testing.T) {
			for _, section := range []struct {
				name      string
				got, want properties
			}{
				{"service", s.config.Service, properties{
					"flush": "1", "storage.sync": "full", "storage.checksum": "off", "storage.keep.rejected": "on", "scheduler.cap": "30",
				}},
				{"input", s.config.input(t), properties{
					"name": "tail", "read_from_head": "on", "refresh_interval": "1", "skip_long_lines": "off", "storage.type": "filesystem",
					"storage.pause_on_chunks_overlimit": "on", "db.compare_filename": "on", "parser": s.config.Parsers[0]["name"],
					"threaded": "", // lines would be marked as read while they are in memory
				}},
				{"output", s.config.output(t), properties{
					"name": "forward", "require_ack_response": "on", "retry_limit": "no_limits", "storage.total_limit_size": "",
					"tls": "on", "tls.verify": "on", "tls.verify_hostname": "on", "net.io_timeout": "60s", "compress": "gzip",
				}},
				{"parser", s.config.Parsers[0], properties{"format": "json", "time_key": "timestamp", "time_keep": "on"}},
			} {
				for key, want := range section.want {
					if got := section.got[key]; got != want {
						t.Errorf("%s: %s is %q, not %q", section.name, key, got, want)
					}
				}
			}
			known := slices.Concat(serviceKeys, []string{"storage.max_chunks_up"})
			for key := range s.config.Service {
				if !slices.Contains(known, key) {
					t.Errorf("service: Fluent Bit does not know %s", key)
				}
			}
			if got, want := s.config.output(t)["match"], s.config.input(t)["tag"]; got != want {
				t.Errorf("the output takes %s, the input makes %s", got, want)
			}
		})
	}
}

// What one end sends the other takes.
func TestEndsFit(t *testing.T) {
	for _, gpu := range onGPU(t) {
		input, output := gpu.config.input(t), gpu.config.output(t)
		const chunk = 2_048_000 // what Fluent Bit fills a chunk up to before the last append
		longest := megabytes(t, input["buffer_max_size"]) + chunk
		for _, s := range all(t) {
			if takes := megabytes(t, s.config.input(t)["buffer_max_size"]); takes < longest {
				t.Errorf("%s takes %d bytes, the GPU server sends %d", s.name, takes, longest)
			}
			if port := s.config.input(t)["port"]; port != output["port"] {
				t.Errorf("%s listens on %s, the GPU server calls %s", s.name, port, output["port"])
			}
			if s.config.Service["http_port"] == gpu.config.Service["http_port"] {
				t.Errorf("%s has the GPU server's http_port", s.name)
			}
			if s.config.Service["storage.path"] == gpu.config.Service["storage.path"] {
				t.Errorf("%s has the GPU server's storage.path", s.name)
			}
			if s.name == "compose" {
				continue // without TLS
			}
			for _, key := range []string{"tls.ca_file", "tls.crt_file", "tls.key_file"} {
				if got, want := output[key], s.config.input(t)[key]; got != want {
					t.Errorf("%s: %s, where %s has %s", key, got, s.name, want)
				}
			}
		}
	}
}

func megabytes(t *testing.T, size string) int {
	t.Helper()
	number, ok := strings.CutSuffix(size, "M")
	n, err := strconv.Atoi(number)
	if !ok || err != nil {
		t.Fatalf("%q is no size in M", size)
	}
	return n * 1_000_000
}

func TestGPUDryRun(t *testing.T) {
	program := fluentBit(t)
	for _, s := range onGPU(t) {
		t.Run(s.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "etc", "parsers.conf"), read(t, "conf/gpu-node/parsers.conf"))
			path := filepath.Join(dir, "etc", "fluent-bit"+s.suffix)
			text := fluentbit.Relocate(s.text, dir, "")
			if out, ok := dryRun(program, write(t, path, text), gpuEnvironment...); !ok {
				t.Errorf("refused:\n%s", out)
			}
			for key := range maps.Keys(s.config.input(t)) {
				if key == "name" || strings.HasPrefix(key, "storage.") || key == "tag" || key == "alias" {
					continue // any plugin's: not checked
				}
				wrong := regexp.MustCompile(`(?m)^(\s+)`+regexp.QuoteMeta(key)+`(:?\s)`).ReplaceAllString(text, "${1}wrong_"+key+"${2}")
				if out, ok := dryRun(program, write(t, path, wrong), gpuEnvironment...); ok {
					t.Errorf("wrong_%s is accepted:\n%s", key, out)
				}
			}
		})
	}
}

// The environment that fluent-bit.yaml's first lines describe is the one that it uses.
func TestGPUEnvironmentIsDescribed(t *testing.T) {
	text := read(t, "conf/gpu-node/fluent-bit.yaml")
	c := parseYAML(t, text)
	var used []string
	for _, section := range []properties{c.input(t), c.output(t)} {
		for _, value := range section {
			os.Expand(value, func(name string) string {
				name, _, _ = strings.Cut(name, ":")
				used = append(used, name)
				return ""
			})
		}
	}
	slices.Sort(used)
	if !slices.Equal(used, []string{"AUDITCHAIN_AGGREGATOR", "AUDITCHAIN_DIR"}) {
		t.Errorf("uses %v", used)
	}
	for _, name := range used {
		if !strings.Contains(text, "\n#   "+name+" ") {
			t.Errorf("%s is not described", name)
		}
	}
}
