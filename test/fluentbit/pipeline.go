package fluentbit

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Section is one input or output: its keys and their values. The key "name" says which plugin it is.
type Section map[string]string

// With returns a copy of the section with the key set, or left out if the value is "".
func (s Section) With(key, value string) Section {
	with := maps.Clone(s)
	if with[key] = value; value == "" {
		delete(with, key)
	}
	return with
}

// Pipeline is a configuration with what the plugin needs to run well.
type Pipeline struct {
	Plugin    string        // path of out_auditchain.so; "": none is loaded
	Dir       string        // chunks of inputs with storage.type filesystem are kept in storage below it
	HTTPPort  int           // of metrics and health, on 127.0.0.1; 0: none
	Flush     time.Duration // how often chunks go to the outputs; 0: 200 ms
	Grace     time.Duration // how long chunks on their way may take when Fluent Bit stops; 0: 5 s
	HotReload bool          // SIGHUP reads the configuration again
	LogLevel  string        // "": info
	Parsers   []Section
	Inputs    []Section
	Outputs   []Section
}

// YAML writes the configuration.
func (p *Pipeline) YAML() string {
	flush, grace, level := p.Flush, p.Grace, p.LogLevel
	if flush == 0 {
		flush = 200 * time.Millisecond
	}
	if grace == 0 {
		grace = 5 * time.Second
	}
	if level == "" {
		level = "info"
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("service:")
	line("  flush: %g", flush.Seconds())
	line("  grace: %d", int(grace.Seconds()))
	line("  log_level: %s", level)
	line("  coro_stack_size: 65536")
	line("  storage.path: %s", quote(filepath.Join(p.Dir, "storage")))
	line("  storage.sync: full")
	if p.HotReload {
		line("  hot_reload: on")
	}
	if p.HTTPPort > 0 {
		line("  http_server: on")
		line("  http_listen: 127.0.0.1")
		line("  http_port: %d", p.HTTPPort)
		line("  health_check: on")
	}
	if p.Plugin != "" {
		line("plugins:")
		line("  - %s", quote(p.Plugin))
	}
	list := func(name, indent string, sections []Section) {
		if len(sections) > 0 {
			line("%s%s:", indent, name)
		}
		for _, s := range sections {
			line("%s  - name: %s", indent, quote(s["name"]))
			for _, key := range slices.Sorted(maps.Keys(s)) {
				if key != "name" {
					line("%s    %s: %s", indent, key, quote(s[key]))
				}
			}
		}
	}
	list("parsers", "", p.Parsers)
	line("pipeline:")
	list("inputs", "  ", p.Inputs)
	list("outputs", "  ", p.Outputs)
	return b.String()
}

// quote writes s as a YAML string: JSON's are.
func quote(s string) string {
	text, _ := json.Marshal(s) // a string can always be written
	return string(text)
}
