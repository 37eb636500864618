package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/query/page"
)

func newEvidence() *cobra.Command {
	var target targetFlags
	var entry entryFlags
	var file, format string
	cmd := &cobra.Command{
		Use:   "evidence REQUEST_ID",
		Short: "Make a file that shows one record and proves it, offline and in a browser",
		Long: `Make evidence of one record: the record, the proof that it is in the log, the signed manifest and checkpoint, the public keys
and what the store says of the lock. As an HTML page, which verifies itself in any browser, without a network; or as a
directory of separate files, for openssl and other tools. "auditchain verify-evidence" checks both.

Whoever gets it needs the fingerprint of the log's first key besides, by another way, and nothing else.

Exit code 0: made. 1: not in the log. 2: not found, but not everything could be searched.`,
		Example: `  auditchain evidence 3f2c9a -o case.html -c /etc/fluent-bit/fluent-bit.yaml --key audit.pub.pem
  auditchain evidence --seq 4711 --format dir -o case --bucket audit --chain audit.example.com/prod --key audit.pub.pem`,
		Args: entry.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case format != "html" && format != "dir":
				return fmt.Errorf("--format %q is neither html nor dir", format)
			case file == "":
				return hint(errors.New("no output given"), "name the file or, with --format dir, the directory with -o")
			}
			log, place, keys, err := entry.find(cmd, &target, args)
			if err != nil {
				return err
			}
			made := chain.Made{At: chain.Time{Time: time.Now().UTC()}, By: "auditchain " + version, From: log.Bucket.String()}
			e, err := log.Evidence(cmd.Context(), place, keys, made)
			if err != nil {
				return readHint(err)
			}
			said := cmd.OutOrStdout()
			if format == "dir" {
				err = query.WriteEvidence(file, e)
			} else {
				var html bytes.Buffer
				if err = page.Render(&html, e); err == nil {
					said, err = output(cmd, file, html.Bytes())
				}
			}
			if err != nil {
				return err
			}
			p := printer{w: said}
			p.line("EVIDENCE  entry %d of %s is in %s", place.Seq, log.Layout.Chain, file)
			p.line("  key     %s", log.Key.Fingerprint())
			p.line("          tell this fingerprint to whoever gets it, by another way")
			return p.err
		},
	}
	target.add(cmd)
	target.addKey(cmd)
	entry.add(cmd)
	cmd.Flags().StringVarP(&file, "output", "o", "", "file, or directory, to write")
	cmd.Flags().StringVar(&format, "format", "html", "html: one page that verifies itself; dir: separate files for other tools")
	return cmd
}

// entryFlags say which entry a verb is about: a request id, or the entry's number.
type entryFlags struct{ seq string }

func (f *entryFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.seq, "seq", "", "the entry's number, instead of a request id or, where several records have it, besides it")
}

func (f *entryFlags) args(cmd *cobra.Command, args []string) error {
	if len(args) > 1 || len(args) == 0 && f.seq == "" {
		return hint(fmt.Errorf("%s wants one request id, or --seq, not %d", cmd.Name(), len(args)), "%s", cmd.UseLine())
	}
	return nil
}

// find looks for the entry in all chains of the target.
func (f *entryFlags) find(cmd *cobra.Command, target *targetFlags, args []string) (*query.Log, query.Place, [][]byte, error) {
	none := query.Place{}
	sections, err := target.sections()
	if err != nil {
		return nil, none, nil, err
	}
	if len(args) == 0 {
		return f.bySeq(cmd, target, sections)
	}
	var (
		found    []query.Match
		in       *query.Log
		keys     [][]byte
		problems []string
	)
	for _, s := range sections {
		log, err := target.log(cmd.Context(), s)
		if err != nil {
			return nil, none, nil, err
		}
		progress, clear := newProgress(cmd.ErrOrStderr(), "searching")
		result, err := log.Find(cmd.Context(), args[0], progress)
		clear()
		if err != nil {
			return nil, none, nil, readHint(err)
		}
		problems = append(problems, result.Problems...)
		for _, m := range result.Matches {
			if f.seq != "" && f.seq != strconv.FormatUint(m.Seq, 10) {
				continue
			}
			found, in, keys = append(found, m), log, result.Keys
		}
	}
	switch {
	case len(found) == 1:
		return in, query.Place{Seq: found[0].Seq, Manifest: found[0].Manifest}, keys, nil
	case len(found) > 1:
		var seqs []string
		for _, m := range found {
			seqs = append(seqs, strconv.FormatUint(m.Seq, 10))
		}
		return nil, none, nil, hint(fmt.Errorf("%d records have the id %s: entries %s", len(found), args[0], strings.Join(seqs, ", ")), "choose one with --seq, and its chain with --chain")
	}
	p := printer{w: cmd.OutOrStdout()}
	p.line("NOT FOUND %s", args[0])
	for _, problem := range problems {
		p.line("not searched: %s", problem)
	}
	if p.err != nil {
		return nil, none, nil, p.err
	}
	if len(problems) > 0 {
		return nil, none, nil, verdict(exitUnknown)
	}
	return nil, none, nil, verdict(exitNo)
}

func (f *entryFlags) bySeq(cmd *cobra.Command, target *targetFlags, sections []section) (*query.Log, query.Place, [][]byte, error) {
	none := query.Place{}
	seq, err := strconv.ParseUint(f.seq, 10, 64)
	if err != nil {
		return nil, none, nil, fmt.Errorf("--seq %q is not an entry's number", f.seq)
	}
	if len(sections) > 1 {
		return nil, none, nil, hint(errors.New("an entry's number is one chain's, and the configuration has several"), "choose one with --chain")
	}
	log, err := target.log(cmd.Context(), sections[0])
	if err != nil {
		return nil, none, nil, err
	}
	prover, err := log.NewProver(cmd.Context())
	if err != nil {
		return nil, none, nil, readHint(err)
	}
	place, ok := prover.Place(seq)
	if !ok {
		p := printer{w: cmd.OutOrStdout()}
		p.line("NOT FOUND entry %d in %s", seq, log.Layout.Chain)
		return nil, none, nil, errors.Join(p.err, verdict(exitNo))
	}
	return log, place, prover.Keys, nil
}
