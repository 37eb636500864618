package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/auditchain/auditchain/chain"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of the command and of the format",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "auditchain %s, format %d, %s\n", version, chain.Version, runtime.Version())
			return err
		},
	}
}
