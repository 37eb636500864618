package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/auditchain/auditchain/query"
)

func newShow() *cobra.Command {
	var target targetFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Find a record by its id and show it with its place in the chain",
		Long: `Find a record by its request_id, by the response_id that the client was told (gen_ai.response.id), or by the client's own
client_request_id, and show it with its place in the chain.

Every segment is read, and checked against its signed manifest while it is. Whether the manifests follow each other from
the genesis on is what "auditchain verify" tells.

Exit code 0: found. 1: not in the log. 2: not found, but not everything could be searched.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return hint(fmt.Errorf("show wants one id, not %d", len(args)), "%s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			sections, err := target.sections()
			if err != nil {
				return err
			}
			found, problems := 0, 0
			for _, s := range sections {
				log, err := target.log(cmd.Context(), s)
				if err != nil {
					return err
				}
				progress, clear := newProgress(cmd.ErrOrStderr(), "searching")
				result, err := log.Find(cmd.Context(), args[0], progress)
				clear()
				if err != nil {
					return readHint(err)
				}
				found += len(result.Matches)
				problems += len(result.Problems)
				if asJSON {
					err = writeJSON(cmd.OutOrStdout(), result)
				} else {
					err = printMatches(cmd, log, args[0], result)
				}
				if err != nil {
					return err
				}
			}
			switch {
			case found > 0:
				return nil
			case problems > 0:
				return verdict(exitUnknown)
			}
			return verdict(exitNo)
		},
	}
	target.add(cmd)
	target.addKey(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one line per chain")
	return cmd
}

func printMatches(cmd *cobra.Command, log *query.Log, id string, result *query.FindResult) error {
	p := printer{w: cmd.OutOrStdout()}
	for i, m := range result.Matches {
		if i > 0 {
			p.line("")
		}
		p.line("FOUND     entry %d of %s", m.Seq, log.Layout.Chain)
		p.line("  time        %s (received %s)", m.Time.Format(time.RFC3339Nano), m.Received.Format(time.RFC3339Nano))
		switch {
		case m.Conflict:
			p.line("  conflict: the chain has an earlier record of the same source and number that is another")
		case m.Redelivered:
			p.line("  redelivered: the chain has an earlier copy of this record")
		}
		p.line("  tag         %s", m.Tag)
		p.line("  entry hash  %s", m.EntryHash)
		p.line("  follows     %s", m.Prev)
		p.line("  segment     %s", m.Segment)
		if m.VersionID != "" {
			p.line("  version     %s", m.VersionID)
		}
		p.line("  lock        %s", m.Locked)
		p.line("  manifest    %d, sealed %s, signed by %s", m.Manifest, m.SealedAt.Format(time.RFC3339), m.SignedBy)
		p.line("  tree        size %d, root %s", m.TreeSize, m.Root)
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, m.Line, "", "  "); err != nil {
			return fmt.Errorf("entry %d: %w", m.Seq, err)
		}
		for line := range strings.Lines(pretty.String()) {
			p.line("  %s", strings.TrimSuffix(line, "\n"))
		}
	}
	if len(result.Matches) == 0 {
		p.line("NOT FOUND %s in %d entries of %s", id, result.Searched, log.Layout.Chain)
		p.line("  sealed      %s, the last manifest; what came since is not in the log yet", result.LastSealed.Format(time.RFC3339))
	}
	for _, problem := range result.Problems {
		p.line("not searched: %s", problem)
	}
	return p.err
}
