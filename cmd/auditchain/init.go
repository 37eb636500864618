package main

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/auditchain/auditchain/ingest"
	"github.com/auditchain/auditchain/storage"
)

func newInit() *cobra.Command {
	var target targetFlags
	more := make(map[string]*string)
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a bucket with Object Lock, or check an existing one, and print the Fluent Bit configuration",
		Long: `Make a bucket with Object Lock and versioning, or check that an existing one has them, and print the Fluent Bit output
to paste. Nothing is written into the bucket: the chain begins when Fluent Bit first starts with that output.

Exit code 0: the bucket is fit. 1: it is not, and why. 2: could not tell.`,
		Example: `  auditchain init --endpoint https://minio:9000 --bucket audit --chain audit.example.com/prod --signing-key /etc/auditchain/audit.pem --retention 7y`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sections, err := target.sections()
			if err != nil {
				return err
			}
			for _, s := range sections {
				for key, value := range more {
					if *value != "" {
						s[key] = *value
					}
				}
				if err := initialise(cmd, s); err != nil {
					return err
				}
			}
			return nil
		},
	}
	target.add(cmd)
	for _, k := range []struct{ name, help string }{
		{"signing_key", "PEM file of the signing key"},
		{"retention", "how long records are kept, like 7y or 400d"},
		{"framework", "frameworks whose retention holds, like fca,pci-dss"},
		{"store_dir", "directory of the journal on the log aggregation server"},
		{"lock_mode", "compliance, or governance for trying things out"},
	} {
		more[k.name] = cmd.Flags().String(strings.ReplaceAll(k.name, "_", "-"), "", k.help)
	}
	return cmd
}

func initialise(cmd *cobra.Command, s section) error {
	if s["signing_key"] != "" {
		if path, err := filepath.Abs(s["signing_key"]); err == nil {
			s["signing_key"] = path
		}
	}
	// The settings must be those that the plugin would take.
	if _, err := ingest.ParseConfig(func(key string) string { return s[key] }); err != nil {
		return hint(err, "each key is a flag, signing_key is --signing-key; or take them from a Fluent Bit configuration with -c")
	}
	cfg, err := s.storage()
	if err != nil {
		return err
	}
	bucket, err := storage.Open(cfg)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	err = bucket.Check(cmd.Context())
	made := false
	if errors.Is(err, storage.ErrNoBucket) {
		if err := storage.Make(cmd.Context(), cfg); err != nil {
			return storeHint(fmt.Errorf("making %s: %w", bucket, err))
		}
		made = true
		err = bucket.Check(cmd.Context())
	}
	if errors.Is(err, storage.ErrNoObjectLock) || errors.Is(err, storage.ErrNoVersioning) {
		fmt.Fprintf(out, "not fit for a log: %v\n", err)
		return verdict(exitNo)
	}
	if err != nil {
		return storeHint(err)
	}
	switch {
	case !bucket.Locks():
		fmt.Fprintf(out, "# %s is a directory: nothing in it is locked. For trying things out only.\n", bucket)
	case made:
		fmt.Fprintf(out, "# %s was made, with versioning and Object Lock.\n", bucket)
	default:
		fmt.Fprintf(out, "# %s is there, with versioning and Object Lock.\n", bucket)
	}
	return printOutput(cmd, s)
}

// printOutput prints the output section for fluent-bit.yaml.
func printOutput(cmd *cobra.Command, s section) error {
	p := printer{w: cmd.OutOrStdout()}
	p.line("# Fluent Bit, pipeline: outputs:")
	p.line("    - name: auditchain")
	p.line("      match: '*'")
	p.line("      workers: 1")
	p.line("      retry_limit: no_limits")
	rest := maps.Clone(s)
	for _, key := range []string{"name", "match", "workers", "retry_limit", "access_key", "secret_key"} {
		delete(rest, key)
	}
	for _, key := range []string{"chain", "signing_key", "retention", "framework", "lock_mode", "bucket", "endpoint", "region", "prefix", "profile", "role_arn", "tls_ca_file", "tls_verify", "store_dir"} {
		if rest[key] != "" {
			p.line("      %s: %s", key, rest[key])
		}
	}
	return p.err
}

// storeHint adds what usually helps to an error of the store.
func storeHint(err error) error {
	switch {
	case errors.Is(err, storage.ErrDenied):
		return hint(err, "credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the shared AWS files, or the machine's role")
	case errors.Is(err, storage.ErrCertificate):
		return hint(err, "name the CA's certificate with --tls-ca-file")
	case errors.Is(err, storage.ErrUnreachable):
		return hint(err, "check --endpoint, and that the server is up")
	case errors.Is(err, storage.ErrNoBucket):
		return hint(err, "check --bucket; `auditchain init` makes it")
	}
	return err
}
