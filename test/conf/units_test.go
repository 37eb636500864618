package conf

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/auditchain/auditchain/test/servers"
)

// unit is a systemd unit or drop-in: the values of each key, in their order.
type unit map[string][]string

func parseUnit(t *testing.T, text string) unit {
	t.Helper()
	u := make(unit)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == '[' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			t.Fatalf("%q is not a key and a value", line)
		}
		u[key] = append(u[key], value)
	}
	return u
}

func (u unit) last(key string) string {
	if values := u[key]; len(values) > 0 {
		return values[len(values)-1]
	}
	return ""
}

// option is the value of a command line's option.
func (u unit) option(t *testing.T, name string) string {
	t.Helper()
	args := strings.Fields(u.last("ExecStart"))
	i := slices.Index(args, name)
	if i < 0 || i+1 == len(args) {
		t.Fatalf("%q has no %s", args, name)
	}
	return args[i+1]
}

// Directories and files of the units are those of the configurations.
func TestUnitsFitConfigurations(t *testing.T) {
	for _, s := range []struct {
		dir    string
		config config
	}{
		{"conf/aggregator/", all(t)[0].config},
		{"conf/gpu-node/", onGPU(t)[0].config},
	} {
		u := parseUnit(t, read(t, s.dir+"fluent-bit.service.d/auditchain.conf"))
		if got := u.option(t, "-c"); got != "/etc/auditchain/fluent-bit.yaml" {
			t.Errorf("%s: runs with %s", s.dir, got)
		}
		state := path.Join("/var/lib", u.last("StateDirectory"))
		kept := []string{s.config.Service["storage.path"], s.config.input(t)["db"], s.config.output(t)["store_dir"]}
		for _, file := range kept {
			if file != "" && !strings.HasPrefix(file, state+"/") {
				t.Errorf("%s: %s is not below %s, and nothing else can be written", s.dir, file, state)
			}
		}
		if u.last("Restart") != "always" || u.last("StartLimitIntervalSec") != "0" || u.last("DynamicUser") != "no" {
			t.Errorf("%s: %v", s.dir, u)
		}
	}
	node := onGPU(t)[0].config
	records := path.Dir(strings.NewReplacer("${AUDITCHAIN_DIR:-", "", "}", "").Replace(node.input(t)["path"]))
	vllm := parseUnit(t, read(t, "conf/gpu-node/vllm.service.d/auditchain.conf"))
	if got := path.Join("/var/log", vllm.last("LogsDirectory")); got != records {
		t.Errorf("vLLM writes to %s, Fluent Bit reads %s", got, records)
	}
	if !slices.Contains(vllm["Environment"], "AUDITCHAIN_DIR=%L/"+vllm.last("LogsDirectory")) {
		t.Errorf("vLLM's environment is %q", vllm["Environment"])
	}
	name, _, _ := strings.Cut(vllm.last("LoadCredential"), ":")
	if !slices.Contains(vllm["Environment"], "AUDITCHAIN_HMAC_KEY=file:%d/"+name) {
		t.Errorf("the credential is %s, the environment %q", name, vllm["Environment"])
	}
	shipped := parseUnit(t, read(t, "conf/gpu-node/auditchain-shipped.service"))
	writable := strings.Fields(shipped.last("ReadWritePaths"))
	for option, want := range map[string]string{"--dir": records, "--db": node.input(t)["db"], "--storage": node.Service["storage.path"]} {
		if got := shipped.option(t, option); got != want {
			t.Errorf("%s is %s, not %s", option, got, want)
		}
	}
	for _, dir := range []string{records, path.Dir(node.input(t)["db"])} {
		if !slices.Contains(writable, "-"+dir) {
			t.Errorf("%s may not be written", dir)
		}
	}
}

// systemd knows all keys and values, in the units of Fluent Bit's packages and of a vLLM like one that a user has.
func TestUnitsVerify(t *testing.T) {
	servers.Programs(t, "systemd-analyze")
	for _, host := range []string{"aggregator", "gpu-node"} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(servers.Root(), "conf", host))); err != nil {
			t.Fatal(err)
		}
		// The programs are not installed here.
		dropIn := filepath.Join(dir, "fluent-bit.service.d", "auditchain.conf")
		write(t, dropIn, strings.ReplaceAll(read(t, filepath.Join("conf", host, "fluent-bit.service.d", "auditchain.conf")), "/opt/fluent-bit/bin/fluent-bit", "/bin/true"))
		write(t, filepath.Join(dir, "fluent-bit.service"),
			"[Unit]\nRequires=network.target\n[Service]\nEnvironmentFile=-/etc/default/fluent-bit\nExecStart=/bin/true -c /etc/fluent-bit/fluent-bit.conf\nRestart=always\n")
		write(t, filepath.Join(dir, "vllm.service"), "[Service]\nExecStart=/bin/true\n")
		verify := func() string {
			var said strings.Builder
			for _, pattern := range []string{"*.service", "*.timer"} {
				units, err := filepath.Glob(filepath.Join(dir, pattern))
				if err != nil {
					t.Fatal(err)
				}
				for _, u := range units {
					cmd := exec.Command("systemd-analyze", "verify", "--man=no", u)
					cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
					out, err := cmd.CombinedOutput()
					if said.Write(out); err != nil {
						said.WriteString(filepath.Base(u) + ": " + err.Error())
					}
				}
			}
			return said.String()
		}
		if said := verify(); said != "" {
			t.Errorf("%s: %s", host, said)
		}
		text := read(t, filepath.Join("conf", host, "fluent-bit.service.d", "auditchain.conf"))
		write(t, dropIn, strings.Replace(text, "StateDirectory=", "StateDirectori=", 1))
		if !strings.Contains(verify(), "StateDirectori") {
			t.Errorf("%s: a wrong key is accepted", host)
		}
	}
}
