// Command auditchain verifies the log that the Fluent Bit plugin writes, finds records in it, and sets it up.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
)

// version is set by the build.
var version = "dev"

// Exit codes, the same for every verb.
const (
	exitYes     = 0 // intact, found, done
	exitNo      = 1 // a definite no: tampered, not found
	exitUnknown = 2 // could not tell
)

// verdict is an error that has been said already and only decides the exit code.
type verdict int

func (v verdict) Error() string { return fmt.Sprintf("exit code %d", int(v)) }

// hinted is an error with something the user can do about it.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

func hint(err error, format string, args ...any) error {
	return hinted{err, fmt.Sprintf(format, args...)}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole command, for tests too.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitYes
	}
	if v, ok := errors.AsType[verdict](err); ok {
		return int(v)
	}
	printError(stderr, err)
	return exitUnknown
}

// printError says what went wrong, and what helps.
func printError(stderr io.Writer, err error) {
	fmt.Fprintf(stderr, "auditchain: %s\n", oneLine(err.Error()))
	if h, ok := errors.AsType[hinted](err); ok {
		fmt.Fprintf(stderr, "hint: %s\n", h.hint)
	}
}

// oneLine keeps an error, which may be several joined ones, on one line.
func oneLine(s string) string {
	var parts []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, harmless(line))
		}
	}
	return strings.Join(parts, "; ")
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "auditchain",
		Short: "Verify and search the tamper-evident log that Fluent Bit's auditchain output writes",
		Long: `Verify and search the tamper-evident log that Fluent Bit's auditchain output writes.

Where the log is, is said by flags, or by the Fluent Bit configuration that writes it (-c fluent-bit.yaml).
Credentials come from the environment or the shared files, as for every AWS client.

Exit codes: 0 yes; 1 a definite no (tampered, not found); 2 could not tell.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return hint(err, "`%s --help` lists the flags", cmd.CommandPath())
	})
	root.AddCommand(newKeygen(), newInit(), newVerify(), newCompleteness(), newShow(), newEvidence(), newVerifyEvidence(), newProve(), newVerifyProof(), newModelChecksum(), newVersion())
	return root
}
