package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/query"
)

func newVerify() *cobra.Command {
	var target targetFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check a whole log: signatures, numbers, hashes, tree, frames, locks",
		Long: `Check a whole log: that every manifest is there, signed by the trusted key, and continues the one before; that every
segment, in the version that its manifest names, is what was written, down to the last hash; that everything is locked as
promised; and what else lies where only the log should.

Exit code 0: intact. 1: tampered with, every finding is listed. 2: something could not be checked.`,
		Example: `  auditchain verify --endpoint https://minio:9000 --bucket audit --chain audit.example.com/prod --key audit.pub.pem
  auditchain verify -c /etc/fluent-bit/fluent-bit.yaml --key audit.pub.pem --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sections, err := target.sections()
			if err != nil {
				return err
			}
			code := exitYes
			for i, s := range sections {
				log, err := target.log(s)
				if err != nil {
					return err
				}
				progress, clear := newProgress(cmd.ErrOrStderr(), "verifying")
				report, err := log.Verify(cmd.Context(), time.Now(), progress)
				clear()
				if err != nil {
					return readHint(err)
				}
				if asJSON {
					err = writeJSON(cmd.OutOrStdout(), report)
				} else {
					if i > 0 {
						fmt.Fprintln(cmd.OutOrStdout())
					}
					err = printReport(cmd.OutOrStdout(), report)
				}
				if err != nil {
					return err
				}
				switch {
				case report.Verdict == "tampered":
					code = exitNo
				case report.Verdict != "intact" && code == exitYes:
					code = exitUnknown
				}
			}
			if code != exitYes {
				return verdict(code)
			}
			return nil
		},
	}
	target.add(cmd)
	target.addKey(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON report, one line per chain")
	return cmd
}

// readHint adds what usually helps to an error of reading a log.
func readHint(err error) error {
	if errors.Is(err, query.ErrNoChain) {
		return hint(err, "check --chain and --prefix; a chain begins when Fluent Bit first starts with the plugin")
	}
	return storeHint(err)
}

func writeJSON(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

func printReport(w io.Writer, r *query.Report) error {
	p := printer{w: w}
	switch r.Verdict {
	case "intact":
		p.line("INTACT    %s", r.Chain)
	case "tampered":
		p.line("TAMPERED  %s", r.Chain)
	default:
		p.line("UNCHECKED %s", r.Chain)
	}
	p.line("  in         %s", r.Bucket)
	p.line("  key        %s", r.Key)
	if r.Manifests == 0 {
		p.line("  manifests  none signed by the key")
	} else {
		p.line("  manifests  %d signed by the key; the last one sealed %s", r.Manifests, r.LastSealed.Format(time.RFC3339))
	}
	p.line("  segments   %d, %s (%s of entries)", r.Segments, bytesText(r.Bytes), bytesText(r.RawBytes))
	p.line("  entries    %d proven: %d records (%d complete, %d incomplete), %d others", r.Counts.Entries, r.Counts.Records, r.Counts.Complete, r.Counts.Incomplete, r.Counts.Events)
	for f := range chain.Field(chain.FieldCount) {
		if n := r.Counts.Missing[f.String()]; n > 0 {
			p.line("             %d without %s", n, f)
		}
	}
	if r.Head != nil {
		p.line("  head       %s", r.Head)
		p.line("  tree root  %s", r.Root)
	}
	p.line("  locks      %s", r.Locked)
	for _, f := range r.Findings {
		p.line("")
		p.line("%s: %s", f.Severity, f.Text)
		if f.Object != "" {
			p.line("  object   %s", f.Object)
		}
		if f.Version != "" {
			p.line("  version  %s", f.Version)
		}
		if f.FirstSeq != nil {
			p.line("  entries  %d to %d", *f.FirstSeq, *f.LastSeq)
		}
	}
	p.line("")
	p.line("not checked:")
	for _, s := range r.NotChecked {
		p.line("  - %s", s)
	}
	return p.err
}

// printer writes lines until the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	p.print(harmless(fmt.Sprintf(format, args...)) + "\n")
}

// print prints text that may have several lines.
func (p *printer) print(text string) {
	if p.err == nil {
		_, p.err = io.WriteString(p.w, text)
	}
}

// harmless shows characters that control a terminal, or the direction of text, by their numbers: names in a bucket and
// records are whatever someone wrote.
func harmless(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.Is(unicode.C, r) || r == utf8.RuneError || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) {
			fmt.Fprintf(&b, "\\u%04x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
