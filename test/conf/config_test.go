// Package conf tests the files in conf and the Dockerfile: that Fluent Bit takes them, that they agree with each other,
// and, with a real Fluent Bit at both ends of mutual TLS, that they do what they say.
package conf

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/auditchain/auditchain/test/servers"
)

// properties are those of one section of a Fluent Bit configuration, by their lower-case names.
type properties map[string]string

// config is a Fluent Bit configuration.
type config struct {
	Service  properties
	Plugins  []string
	Parsers  []properties
	Pipeline struct{ Inputs, Outputs []properties }
}

// output is the only one there is.
func (c config) output(t *testing.T) properties {
	t.Helper()
	if len(c.Pipeline.Outputs) != 1 {
		t.Fatalf("%d outputs, not one", len(c.Pipeline.Outputs))
	}
	return c.Pipeline.Outputs[0]
}

// input is the only one there is.
func (c config) input(t *testing.T) properties {
	t.Helper()
	if len(c.Pipeline.Inputs) != 1 {
		t.Fatalf("%d inputs, not one", len(c.Pipeline.Inputs))
	}
	return c.Pipeline.Inputs[0]
}

func parseYAML(t *testing.T, text string) config {
	t.Helper()
	var c config
	decodeYAML(t, text, &c)
	return c
}

// parseClassic reads a configuration of conf/dir in the classic format; the files of plugins and parsers it names are looked up
// beside it.
func parseClassic(t *testing.T, dir, text string) config {
	t.Helper()
	c := config{Service: properties{}}
	var current properties
	for n, line := range strings.Split(text, "\n") {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || strings.HasPrefix(fields[0], "#"):
		case fields[0] == "[SERVICE]":
			current = c.Service
		case fields[0] == "[PLUGINS]":
			current = nil
		case fields[0] == "[INPUT]":
			current = properties{}
			c.Pipeline.Inputs = append(c.Pipeline.Inputs, current)
		case fields[0] == "[OUTPUT]":
			current = properties{}
			c.Pipeline.Outputs = append(c.Pipeline.Outputs, current)
		case fields[0] == "[PARSER]":
			current = properties{}
			c.Parsers = append(c.Parsers, current)
		case len(fields) != 2:
			t.Fatalf("line %d: %q is not a key and a value", n+1, line)
		case fields[0] == "plugins_file":
			c.Plugins = parseClassic(t, dir, read(t, dir+filepath.Base(fields[1]))).Plugins
		case fields[0] == "parsers_file":
			c.Parsers = parseClassic(t, dir, read(t, dir+filepath.Base(fields[1]))).Parsers
		case current == nil:
			c.Plugins = append(c.Plugins, fields[1])
		default:
			current[fields[0]] = fields[1]
		}
	}
	return c
}

// decodeYAML fails on keys that into does not have.
func decodeYAML(t *testing.T, text string, into any) {
	t.Helper()
	d := yaml.NewDecoder(strings.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		t.Fatal(err)
	}
}

// shipped is a configuration that we ship.
type shipped struct {
	name   string
	text   string
	suffix string // of a file that holds it: Fluent Bit chooses the format by it
	config config
}

// all returns every configuration of an aggregator.
func all(t *testing.T) []shipped {
	t.Helper()
	return parsed(t, "conf/aggregator/", []shipped{
		{name: "yaml", text: read(t, "conf/aggregator/fluent-bit.yaml")},
		{name: "classic", text: read(t, "conf/aggregator/fluent-bit.conf"), suffix: ".conf"},
		{name: "compose", text: readCompose(t).Configs["fluent-bit"].Content},
		{name: "kubernetes", text: readValues(t).Config.ExtraFiles["fluent-bit.yaml"]},
	})
}

// onGPU returns every configuration of a GPU server.
func onGPU(t *testing.T) []shipped {
	t.Helper()
	return parsed(t, "conf/gpu-node/", []shipped{
		{name: "yaml", text: read(t, "conf/gpu-node/fluent-bit.yaml")},
		{name: "classic", text: read(t, "conf/gpu-node/fluent-bit.conf"), suffix: ".conf"},
	})
}

func parsed(t *testing.T, dir string, s []shipped) []shipped {
	t.Helper()
	for i := range s {
		if s[i].suffix == "" {
			s[i].suffix = ".yaml"
			s[i].config = parseYAML(t, s[i].text)
		} else {
			s[i].config = parseClassic(t, dir, s[i].text)
		}
	}
	return s
}

// read returns a file of the repository.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(servers.Root(), path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fluentBit is the path of Fluent Bit, 5.0 or later.
func fluentBit(t *testing.T) string {
	t.Helper()
	name := os.Getenv("FLUENT_BIT")
	if name == "" {
		name = "fluent-bit"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip("there is no Fluent Bit: install it, or set FLUENT_BIT to its path")
	}
	return path
}

// write writes a file and makes its directory.
func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
