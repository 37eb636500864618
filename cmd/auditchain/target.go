package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/storage"
)

// targetFlags say which log a verb is about: by flags named as the plugin's keys, or by a Fluent Bit configuration.
type targetFlags struct {
	config string
	key    string
	values map[string]*string // by the plugin's key
}

// targetKeys are the plugin's keys that say where a log is, with what the flags' help says of them.
var targetKeys = []struct{ name, help string }{
	{"bucket", "bucket's name, or dir:/absolute/path"},
	{"endpoint", "URL of the S3 server; none for AWS"},
	{"region", "the bucket's region"},
	{"prefix", "what all keys in the bucket begin with"},
	{"chain", "the chain's name"},
	{"profile", "profile in the AWS credentials file"},
	{"role_arn", "role to assume"},
	{"tls_ca_file", "PEM file of the CAs to trust instead of the system's"},
	{"tls_verify", "off: take any certificate"},
}

func (t *targetFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&t.config, "config", "c", "", "Fluent Bit configuration (yaml or classic) to take all of this from")
	t.values = make(map[string]*string)
	for _, k := range targetKeys {
		t.values[k.name] = flags.String(strings.ReplaceAll(k.name, "_", "-"), "", k.help)
	}
	t.values["access_key"], t.values["secret_key"] = new(string), new(string) // from the configuration only
}

func (t *targetFlags) addKey(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.key, "key", "", "the key that is trusted, the one of the chain's genesis: PEM file, or its fingerprint, 64 hex digits")
}

// sections returns the settings of each log that the flags name: one, or those of the configuration, with what is said
// by flags going before what the configuration says.
func (t *targetFlags) sections() ([]section, error) {
	if t.config == "" {
		return []section{t.overlay(nil)}, nil
	}
	all, err := readFluentBit(t.config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.config, err)
	}
	if len(all) == 0 {
		return nil, hint(fmt.Errorf("%s: no output named auditchain", t.config), "an included file is not followed; name the one with the output")
	}
	var chosen []section
	for _, s := range all {
		if *t.values["chain"] == "" || s["chain"] == *t.values["chain"] {
			chosen = append(chosen, t.overlay(s))
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("%s: no output writes the chain %q", t.config, *t.values["chain"])
	}
	return chosen, nil
}

func (t *targetFlags) overlay(s section) section {
	merged := make(section)
	for key, value := range s {
		merged[key] = value
	}
	for key, value := range t.values {
		if *value != "" {
			merged[key] = *value
		}
	}
	return merged
}

// missing says that a key which is needed has no value.
func (s section) missing(key string) error {
	if name := s[unset+key]; name != "" {
		return hint(fmt.Errorf("%s: the configuration takes it from ${%s}, which is not set here", key, name),
			"set what Fluent Bit's environment file sets, or name it with --%s", key)
	}
	return hint(fmt.Errorf("no %s given", key), "name it with --%s, or the Fluent Bit configuration with -c", key)
}

// storage returns where the section's objects are.
func (s section) storage() (storage.Config, error) {
	cfg := storage.Config{
		Bucket: s["bucket"], Endpoint: s["endpoint"], Region: s["region"],
		AccessKey: s["access_key"], SecretKey: s["secret_key"], Profile: s["profile"], RoleARN: s["role_arn"],
		CAFile: s["tls_ca_file"],
	}
	if cfg.Endpoint != "" && !strings.Contains(cfg.Endpoint, "://") {
		cfg.Endpoint = "https://" + cfg.Endpoint
	}
	switch strings.ToLower(s["tls_verify"]) {
	case "", "on", "true", "yes":
	case "off", "false", "no":
		cfg.InsecureSkipVerify = true
	default:
		return cfg, fmt.Errorf("tls_verify: %q is neither on nor off", s["tls_verify"])
	}
	if cfg.Bucket == "" {
		return cfg, s.missing("bucket")
	}
	return cfg, nil
}

// log opens the section's log for reading.
func (t *targetFlags) log(ctx context.Context, s section) (*query.Log, error) {
	cfg, err := s.storage()
	if err != nil {
		return nil, err
	}
	if s["chain"] == "" {
		return nil, s.missing("chain")
	}
	if err := chain.CheckName(s["chain"]); err != nil {
		return nil, err
	}
	bucket, err := storage.Open(cfg)
	if err != nil {
		return nil, err
	}
	log := &query.Log{Bucket: bucket, Layout: chain.Layout{Prefix: strings.Trim(s["prefix"], "/"), Chain: s["chain"]}}
	if log.Key, err = t.trusted(ctx, s, log); err != nil {
		return nil, err
	}
	return log, nil
}

// trusted returns the public key that is trusted for the genesis: the one of --key, or, for an operator who checks his own
// log, that of the configuration's own signing key, or of the one before it.
func (t *targetFlags) trusted(ctx context.Context, s section, log *query.Log) (chain.PublicKey, error) {
	if fingerprint, err := parseFingerprint(t.key); err == nil {
		key, err := log.GenesisKey(ctx)
		switch {
		case errors.Is(err, storage.ErrNotFound):
			return key, hint(errors.New("the genesis is not there: its key cannot be found by a fingerprint"), "name the public key's PEM file with --key")
		case err != nil:
			return key, readHint(err)
		case key.Fingerprint() != fingerprint:
			return key, otherKeyError{log.OtherKey(fingerprint, key.Fingerprint())}
		}
		return key, nil
	}
	if t.key != "" {
		return readKey(t.key)
	}
	if s["signing_key"] == "" {
		return chain.PublicKey{}, hint(errors.New("no key given"), "name the public key that you trust with --key; `auditchain keygen` made it, beside the signing key")
	}
	key, err := readKey(s["signing_key"])
	if err != nil {
		return key, err
	}
	first, err := log.GenesisKey(ctx)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return key, nil // it will be said that there is no chain, or no genesis
	case err != nil:
		return key, readHint(err)
	case first.Equal(key):
		return key, nil
	}
	if s["previous_signing_key"] != "" {
		if previous, err := readKey(s["previous_signing_key"]); err == nil && first.Equal(previous) {
			return previous, nil
		}
	}
	return key, hint(fmt.Errorf("the chain's genesis is of the key %s, and the configuration does not have it", first.Fingerprint()),
		"after a rotation name the chain's first key with --key: its PEM file, or the fingerprint that you were told")
}

// otherKeyError says that the genesis names another key than the one whose fingerprint is trusted: a definite no.
type otherKeyError struct{ report *query.Report }

func (e otherKeyError) Error() string { return e.report.Findings[0].Text }

// parseFingerprint reads 64 hex digits, however people group them.
func parseFingerprint(s string) (chain.Hash, error) {
	digits := strings.Map(func(r rune) rune {
		if r == ':' || r == ' ' {
			return -1
		}
		return unicode.ToLower(r)
	}, s)
	return chain.ParseHash([]byte(digits))
}

// maxKeyFile is the largest file of a key that is read, in bytes.
const maxKeyFile = 64 << 10

// readKey reads a public key, or a signing key's public one.
func readKey(path string) (chain.PublicKey, error) {
	text, err := readFile(path, maxKeyFile)
	if err != nil {
		return chain.PublicKey{}, fmt.Errorf("reading the trusted key: %w", err)
	}
	if signing, err := chain.ParseSigningKey(text); err == nil {
		return signing.Public(), nil
	}
	key, err := chain.ParsePublicKey(text)
	if err != nil {
		return chain.PublicKey{}, fmt.Errorf("reading the trusted key: %s: %w", path, err)
	}
	return key, nil
}
