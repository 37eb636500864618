package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/auditchain/auditchain/chain"
)

func newKeygen() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Make a signing key and its public key",
		Long: `Make an Ed25519 signing key (PKCS #8 PEM, readable by its owner only) and, beside it, its public key.

The signing key stays on the log aggregation server. The public key, or its fingerprint, goes to whoever verifies the log,
by a way that the server's operator does not control.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := chain.GenerateKey()
			if err != nil {
				return err
			}
			key, err := chain.ParseSigningKey(text)
			if err != nil {
				return err
			}
			public := strings.TrimSuffix(out, ".pem") + ".pub.pem"
			if err := createFile(public, key.Public().PEM(), 0o644); err != nil {
				return err
			}
			if err := createFile(out, text, 0o600); err != nil {
				return errors.Join(err, os.Remove(public))
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "signing key  %s\npublic key   %s\nfingerprint  %s\n", out, public, key.Public().Fingerprint())
			return err
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "auditchain.pem", "file of the signing key; the public key goes into .pub.pem beside it")
	return cmd
}

// createFile writes a file that must not be there yet.
func createFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return hint(err, "a key that has signed something must not be lost: choose another name with --output")
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
