package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
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
	var flags verifyFlags
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check a log: signatures, numbers, hashes, tree, frames, locks",
		Long: `Check a whole log: that every manifest is there, signed with the trusted key or one that it led on to, and continues the one
before; that every segment, in the version that its manifest names, is what was written, down to the last hash; that
everything is locked as promised; what else lies where only the log should; and whether the writer was ever silent.

Keep the head that a verification proves (--save-head) where the log's operator cannot reach it. With --expect-head a
later verification finds out whether the log was cut off or written anew since; with --since-head it also reads
only what came after it. If it is interrupted, the head up to which it came is kept, to go on from.

Exit code 0: intact. 1: tampered with, every finding is listed. 2: something could not be checked.`,
		Example: `  auditchain verify --endpoint https://minio:9000 --bucket audit --chain audit.example.com/prod --key audit.pub.pem
  auditchain verify -c /etc/fluent-bit/fluent-bit.yaml --key audit.pub.pem --json
  auditchain verify --bucket audit --chain audit.example.com/prod --key 6b1f...e0 --since-head prod.head --save-head prod.head
  auditchain verify --bucket dir:/mnt/copy --chain audit.example.com/prod --key audit.pub.pem --from 2026-03-01 --to 2026-03-31`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sections, err := target.sections()
			if err != nil {
				return err
			}
			opts, err := flags.options(len(sections))
			if err != nil {
				return err
			}
			// Each chain is verified, whatever becomes of the others. A definite no outweighs not knowing.
			code, failed := exitYes, error(nil)
			for i, s := range sections {
				report, err := verifyOne(cmd, &target, s, opts)
				if err != nil {
					failed = errors.Join(failed, err)
					continue
				}
				if flags.asJSON {
					err = writeJSON(cmd.OutOrStdout(), report)
				} else {
					if i > 0 {
						fmt.Fprintln(cmd.OutOrStdout())
					}
					err = printReport(cmd.OutOrStdout(), report)
				}
				if err == nil && flags.saveHead != "" {
					err = saveHead(cmd.ErrOrStderr(), flags.saveHead, report)
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
			return conclude(cmd, code, failed)
		},
	}
	target.add(cmd)
	target.addKey(cmd)
	flags.add(cmd)
	return cmd
}

// verifyOne verifies one chain.
func verifyOne(cmd *cobra.Command, target *targetFlags, s section, opts query.VerifyOptions) (*query.Report, error) {
	log, err := target.log(cmd.Context(), s)
	if other, ok := errors.AsType[otherKeyError](err); ok {
		return other.report, nil
	}
	if err != nil {
		return nil, err
	}
	var clear func()
	opts.Progress, clear = newProgress(cmd.ErrOrStderr(), "verifying")
	defer clear()
	opts.Now = time.Now()
	report, err := log.Verify(cmd.Context(), opts)
	if err != nil {
		return nil, readHint(err)
	}
	return report, nil
}

// verifyFlags say how much is verified, and what a report goes into.
type verifyFlags struct {
	asJSON              bool
	sinceHead, saveHead string
	expectHeads         []string
	from, to            string
	sample              int
}

func (v *verifyFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&v.asJSON, "json", false, "print a JSON report, one line per chain")
	f.StringArrayVar(&v.expectHeads, "expect-head", nil, "head that was kept elsewhere and must be in the log: a file (of --save-head, a manifest, a checkpoint), or a hash of 64 hex digits (of an entry, a manifest's payload, a tree's root); may be repeated")
	f.StringVar(&v.sinceHead, "since-head", "", "file of --save-head: what lies before it is not read again")
	f.StringVar(&v.saveHead, "save-head", "", "file to keep the head in up to which all was proven")
	f.StringVar(&v.from, "from", "", "read only the contents from this entry number, date (2026-03-01) or time (RFC 3339) on")
	f.StringVar(&v.to, "to", "", "read only the contents up to this entry number, date or time, included")
	f.IntVar(&v.sample, "sample", 0, "read only the contents of so many segments, chosen at random")
}

func (v *verifyFlags) options(chains int) (query.VerifyOptions, error) {
	opts := query.VerifyOptions{Sample: v.sample}
	heads := len(v.expectHeads) > 0 || v.sinceHead != "" || v.saveHead != ""
	partial := v.from != "" || v.to != "" || v.sample != 0
	switch {
	case v.sample < 0:
		return opts, fmt.Errorf("--sample %d is not a number of segments", v.sample)
	case heads && chains > 1:
		return opts, hint(errors.New("a head is one chain's, and the configuration has several"), "choose one with --chain")
	case v.saveHead != "" && partial:
		return opts, errors.New("--save-head does not go with --from, --to or --sample: a head is kept of what was proven whole")
	}
	var err error
	if opts.Range, err = parseRange(v.from, v.to); err != nil {
		return opts, err
	}
	if v.sinceHead != "" {
		kept, head, err := readHead(v.sinceHead)
		if err != nil {
			return opts, fmt.Errorf("--since-head: %w", err)
		}
		if head == nil {
			return opts, hint(fmt.Errorf("--since-head: %s cannot be gone on from", kept.Name), "name a file that --save-head wrote; --expect-head takes others")
		}
		opts.Since = head
	}
	for _, name := range v.expectHeads {
		kept, _, err := readHead(name)
		if err != nil {
			return opts, fmt.Errorf("--expect-head: %w", err)
		}
		opts.Expect = append(opts.Expect, kept)
	}
	return opts, nil
}

// readHead reads a kept head: a file, or a hash.
func readHead(name string) (query.KeptHead, *chain.Head, error) {
	if _, err := chain.ParseHash([]byte(name)); err == nil {
		return query.ParseKeptHead(name, []byte(name))
	}
	data, err := readFile(name, query.MaxHeadFile)
	if err != nil {
		return query.KeptHead{}, nil, err
	}
	return query.ParseKeptHead(name, data)
}

// parseRange reads --from and --to, each an entry's number, a day (UTC) or a time. Both ends are included.
func parseRange(from, to string) (r query.Range, err error) {
	bound := func(flag, s string, seq *uint64, at *time.Time, last bool) {
		if s == "" || err != nil {
			return
		}
		if n, numErr := strconv.ParseUint(s, 10, 63); numErr == nil {
			if *seq = n; last {
				*seq = n + 1
			}
			return
		}
		if day, dayErr := time.Parse(time.DateOnly, s); dayErr == nil {
			if last {
				day = day.AddDate(0, 0, 1)
			}
			*at = day
			return
		}
		t, timeErr := time.Parse(time.RFC3339Nano, s)
		if timeErr != nil {
			err = fmt.Errorf("--%s: %q is not an entry's number, a date like 2026-03-01 or a time like 2026-03-01T12:00:00Z", flag, s)
		}
		if *at = t.UTC(); last {
			*at = at.Add(1)
		}
	}
	bound("from", from, &r.FirstSeq, &r.From, false)
	bound("to", to, &r.NextSeq, &r.To, true)
	if err == nil && (!r.To.IsZero() && !r.From.Before(r.To) || r.NextSeq > 0 && r.FirstSeq >= r.NextSeq) {
		err = fmt.Errorf("--from %s is after --to %s", from, to)
	}
	return r, err
}

// saveHead keeps the head up to which all was proven, if nothing speaks against it.
func saveHead(stderr io.Writer, path string, r *query.Report) error {
	if r.Proven == nil {
		_, err := fmt.Fprintf(stderr, "no head is kept in %s: not all that was read is proven\n", path)
		return err
	}
	text, err := json.Marshal(r.Proven)
	if err != nil {
		return err
	}
	return writeOutput(path, append(text, '\n'))
}

// readHint adds what usually helps to an error of reading a log.
func readHint(err error) error {
	if errors.Is(err, query.ErrNoChain) {
		return hint(err, "check --chain and --prefix; a chain begins when Fluent Bit first starts with the plugin")
	}
	return storeHint(err)
}

func writeJSON(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

// maxAlike is how many findings of one kind people are shown; --json has them all.
const maxAlike = 20

func printReport(w io.Writer, r *query.Report) error {
	p := printer{w: w}
	count := make(map[query.Severity]int)
	for _, f := range r.Findings {
		count[f.Severity]++
	}
	verdict := map[string]string{"intact": "INTACT   ", "tampered": "TAMPERED "}[r.Verdict]
	if verdict == "" {
		verdict = "UNCHECKED"
	}
	warnings := ""
	if n := count[query.Warning]; n == 1 {
		warnings = ", with a warning"
	} else if n > 1 {
		warnings = fmt.Sprintf(", with %d warnings", n)
	}
	p.line("%s %s%s", verdict, r.Chain, warnings)
	p.line("  in         %s", r.Bucket)
	p.line("  key        %s", r.Key)
	for _, k := range r.Rotations {
		p.line("             from manifest %d on %s, announced %s", k.Manifest+1, k.Fingerprint, k.SealedAt.Format(time.RFC3339))
	}
	switch {
	case r.Manifests == 0 && r.Head != nil:
		p.line("  manifests  none after that of the kept head, sealed %s", r.LastSealed.Format(time.RFC3339))
	case r.Manifests == 0:
		p.line("  manifests  none signed by the key")
	default:
		p.line("  manifests  %d signed by the key; the last one sealed %s", r.Manifests, r.LastSealed.Format(time.RFC3339))
	}
	p.line("  segments   %d, %s (%s of entries)", r.Segments, bytesText(r.Bytes), bytesText(r.RawBytes))
	p.line("  entries    %d proven: %d records (%d complete, %d incomplete), %d others", r.Counts.Entries, r.Counts.Records, r.Counts.Complete, r.Counts.Incomplete, r.Counts.Events)
	for f := range chain.Field(chain.FieldCount) {
		if n := r.Counts.Missing[f.String()]; n > 0 {
			p.line("             %d without %s", n, f)
		}
	}
	if n := r.Counts.SourceEvents; n > 0 {
		p.line("             %d source events", n)
	}
	if n := r.Counts.Redelivered; n > 0 {
		p.line("             %d marked as delivered again", n)
	}
	if n := r.Counts.Conflicts; n > 0 {
		p.line("             %d of them marked as another record than the one before", n)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Events)) {
		p.line("             %d %s", r.Events[name], name)
	}
	if r.Head != nil {
		p.line("  head       %s", r.Head)
		p.line("  tree       %d entries, root %s", r.TreeSize, r.Root)
	}
	for _, s := range r.Found {
		p.line("  kept head  %s", s)
	}
	p.line("  locks      %s", r.Locked)
	shown := make(map[query.Code]int)
	for _, f := range r.Findings {
		if shown[f.Code]++; shown[f.Code] > maxAlike {
			continue
		}
		p.line("")
		p.line("%s: %s", f.Severity, f.Text)
		p.line("  meaning  %s", f.Meaning)
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
	for _, code := range slices.Sorted(maps.Keys(shown)) {
		if more := shown[code] - maxAlike; more > 0 {
			p.line("")
			p.line("... and %d more findings %q (--json lists them)", more, code)
		}
		if n := r.Omitted[code]; n > 0 {
			p.line("")
			p.line("... and %d more findings %q, only counted", n, code)
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
