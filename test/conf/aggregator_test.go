package conf

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/ingest"
	"github.com/auditchain/auditchain/test/fluentbit"
	"github.com/auditchain/auditchain/test/host"
)

// environment is what the configurations want to find there.
var environment = map[string]string{
	"AUDITCHAIN_CHAIN":     "audit.example.com/prod-eu1",
	"AUDITCHAIN_BUCKET":    "audit",
	"AUDITCHAIN_RETENTION": "400d",
	"AUDITCHAIN_ENDPOINT":  "https://s3.example.com:9000",
	"AUDITCHAIN_REGION":    "eu-west-1",
}

func TestFormatsAgree(t *testing.T) {
	configs := make(map[string]config)
	for _, s := range all(t) {
		configs[s.name] = s.config
	}
	want := configs["yaml"]
	for name, allowed := range map[string]map[string]string{
		"classic":    nil,
		"kubernetes": {"http_listen": "0.0.0.0"}, // the kubelet's probes come from outside of the pod
	} {
		t.Run(name, func(t *testing.T) {
			got := configs[name]
			service := maps.Clone(want.Service)
			maps.Copy(service, allowed)
			same(t, "service", got.Service, service)
			same(t, "input", got.input(t), want.input(t))
			same(t, "output", got.output(t), want.output(t))
			if !slices.Equal(got.Plugins, want.Plugins) {
				t.Errorf("plugins %v, not %v", got.Plugins, want.Plugins)
			}
		})
	}
}

func same(t *testing.T, section string, got, want properties) {
	t.Helper()
	for key := range want {
		if got[key] != want[key] {
			t.Errorf("%s: %s is %q, not %q", section, key, got[key], want[key])
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			t.Errorf("%s: %s is not in fluent-bit.yaml", section, key)
		}
	}
}

// serviceKeys are those that Fluent Bit knows of the ones that we use: it ignores others without a word.
var serviceKeys = []string{
	"flush", "grace", "log_level", "coro_stack_size", "scheduler.base", "scheduler.cap",
	"storage.path", "storage.sync", "storage.checksum", "storage.keep.rejected",
	"http_server", "http_listen", "http_port", "health_check", "hot_reload",
}

// promised are the settings without which records get lost, or the plugin does not work.
var promised = struct{ service, input, tls, output properties }{
	service: properties{"storage.sync": "full", "storage.checksum": "off", "storage.keep.rejected": "on", "coro_stack_size": "65536"},
	input:   properties{"name": "forward", "storage.type": "filesystem", "workers": "1"},
	tls:     properties{"tls": "on", "tls.verify_client_cert": "on", "net.accept_timeout": "2s"}, // see fluent-bit.yaml
	output:  properties{"name": "auditchain", "match": "*", "retry_limit": "no_limits", "workers": "1", "storage.total_limit_size": ""},
}

func TestPromises(t *testing.T) {
	for _, s := range all(t) {
		t.Run(s.name, func(t *testing.T) {
			for _, section := range []struct {
				name      string
				got, want properties
			}{
				{"service", s.config.Service, promised.service},
				{"input", s.config.input(t), promised.input},
				{"output", s.config.output(t), promised.output},
			} {
				for key, want := range section.want {
					if got := section.got[key]; got != want {
						t.Errorf("%s: %s is %q, not %q", section.name, key, got, want)
					}
				}
			}
			for key := range s.config.Service {
				if !slices.Contains(serviceKeys, key) {
					t.Errorf("service: Fluent Bit does not know %s", key)
				}
			}
			base, _ := strconv.Atoi(s.config.Service["scheduler.base"])
			limit, _ := strconv.Atoi(s.config.Service["scheduler.cap"])
			if base < 1 || limit <= base {
				t.Errorf("scheduler.base %d, scheduler.cap %d", base, limit)
			}
			if s.name == "compose" {
				return // without TLS, and said so
			}
			for key, want := range promised.tls {
				if got := s.config.input(t)[key]; got != want {
					t.Errorf("input: %s is %q, not %q", key, got, want)
				}
			}
		})
	}
}

// coreKeys of an output are Fluent Bit's own; the plugin does not see them.
var coreKeys = []string{"name", "alias", "match", "workers", "retry_limit"}

func TestOutputKeys(t *testing.T) {
	asked := make(map[string]bool)
	ingest.ParseConfig(func(key string) string { asked[key] = true; return "" })
	for _, s := range all(t) {
		t.Run(s.name, func(t *testing.T) {
			output := s.config.output(t)
			for key := range output {
				if !asked[key] && !slices.Contains(coreKeys, key) {
					t.Errorf("the plugin does not know %s", key)
				}
			}
			get := func(key string) string {
				return os.Expand(output[key], func(name string) string { return environment[name] })
			}
			if _, err := ingest.ParseConfig(get); err != nil {
				t.Error(err)
			}
			if ignored := ingest.Ignored(get); len(ignored) > 0 {
				t.Error(ignored)
			}
		})
	}
}

// Fluent Bit checks the properties of its own plugins, and loads ours without starting it.
func TestDryRun(t *testing.T) {
	program, plugin := fluentBit(t), host.Plugin(t)
	var set []string
	for name, value := range environment {
		set = append(set, name+"="+value)
	}
	for _, s := range all(t) {
		t.Run(s.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "etc", "plugins.conf"), fluentbit.Relocate(read(t, "conf/aggregator/plugins.conf"), dir, plugin))
			path := filepath.Join(dir, "etc", "fluent-bit"+s.suffix)
			text := fluentbit.Relocate(s.text, dir, plugin)
			if out, ok := dryRun(program, write(t, path, text), set...); !ok {
				t.Errorf("refused:\n%s", out)
			}
			wrong := strings.Replace(text, "buffer_max_size", "bufer_max_size", 1)
			if out, ok := dryRun(program, write(t, path, wrong), set...); ok {
				t.Errorf("a wrong key is accepted:\n%s", out)
			}
		})
	}
}

// dryRun says whether Fluent Bit, with env added to the environment, takes the configuration without a warning.
func dryRun(program, path string, env ...string) (output string, ok bool) {
	cmd := exec.Command(program, "--dry-run", "-c", path)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	output = string(out)
	return output, err == nil && strings.Contains(output, "configuration test is successful") && !strings.Contains(output, "[ warn]")
}

// The environment that fluent-bit.yaml's first lines describe is the one that it uses.
func TestEnvironmentIsDescribed(t *testing.T) {
	text := read(t, "conf/aggregator/fluent-bit.yaml")
	used := make(map[string]string)
	for _, value := range parseYAML(t, text).output(t) {
		os.Expand(value, func(name string) string { used[name] = environment[name]; return "" })
	}
	if !reflect.DeepEqual(used, environment) {
		t.Errorf("uses %v", slices.Sorted(maps.Keys(used)))
	}
	for name := range used {
		if !strings.Contains(text, "\n#   "+name+" ") {
			t.Errorf("%s is not described", name)
		}
	}
}
