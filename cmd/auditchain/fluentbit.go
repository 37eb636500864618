package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// section is one auditchain output of a Fluent Bit configuration: its properties by their lower-case names.
type section map[string]string

// unset before a property's name is where the section holds the name of a variable that the property needs, and that is not set.
const unset = "\x00"

func (s section) set(key, value string, env map[string]string) {
	value, missing := expand(value, env)
	if s[key] = value; missing != "" {
		s[unset+key] = missing
	}
}

// maxConfig is the largest configuration that is read, in bytes.
const maxConfig = 4 << 20

// readFluentBit returns the auditchain outputs of a Fluent Bit configuration, yaml or classic.
func readFluentBit(path string) ([]section, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(text) > maxConfig {
		return nil, fmt.Errorf("it has %d bytes, more than the %d allowed", len(text), maxConfig)
	}
	var outputs []section
	if strings.HasSuffix(path, ".yaml") || strings.HasSuffix(path, ".yml") {
		outputs, err = readYAML(text)
	} else {
		outputs, err = readClassic(text)
	}
	if err != nil {
		return nil, err
	}
	var ours []section
	for _, s := range outputs {
		if strings.EqualFold(s["name"], "auditchain") {
			ours = append(ours, s)
		}
	}
	return ours, nil
}

func readYAML(text []byte) ([]section, error) {
	var doc struct {
		Env      map[string]string `yaml:"env"`
		Pipeline struct {
			Outputs []map[string]yaml.Node `yaml:"outputs"`
		} `yaml:"pipeline"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	var all []section
	for _, output := range doc.Pipeline.Outputs {
		s := make(section)
		for key, value := range output {
			if value.Kind == yaml.ScalarNode {
				s.set(strings.ToLower(key), value.Value, doc.Env)
			}
		}
		all = append(all, s)
	}
	return all, nil
}

func readClassic(text []byte) ([]section, error) {
	env := make(map[string]string)
	var all []section
	var current section // nil outside of an [OUTPUT]
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxConfig)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || line[0] == '#':
		case strings.HasPrefix(strings.ToUpper(line), "@SET "):
			if name, value, ok := strings.Cut(strings.TrimSpace(line[len("@SET "):]), "="); ok {
				env[strings.TrimSpace(name)] = strings.TrimSpace(value)
			}
		case line[0] == '@':
		case line[0] == '[':
			current = nil
			if strings.EqualFold(line, "[OUTPUT]") {
				current = make(section)
				all = append(all, current)
			}
		case current != nil:
			key, value, ok := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
			if !ok {
				return nil, fmt.Errorf("line %d: %q has no value", n, key)
			}
			current.set(strings.ToLower(key), strings.TrimSpace(value), env)
		}
	}
	return all, lines.Err()
}

// expand puts in what ${NAME} stands for: the configuration's own variable, or the environment's. missing is one that is in neither.
func expand(s string, env map[string]string) (expanded, missing string) {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(s, "${")
		name, after, closed := strings.Cut(rest, "}")
		if !ok || !closed {
			b.WriteString(s)
			return b.String(), missing
		}
		b.WriteString(before)
		value, known := env[name]
		if !known {
			value, known = os.LookupEnv(name)
		}
		if b.WriteString(value); !known {
			missing = name
		}
		s = after
	}
}
