package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/auditchain/auditchain/chain"
	"github.com/auditchain/auditchain/query"
	"github.com/auditchain/auditchain/query/page"
)

func newVerifyEvidence() *cobra.Command {
	var key string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify-evidence FILE|DIRECTORY",
		Short: "Check evidence of one record, offline",
		Long: `Check what "auditchain evidence" made, step by step, without the log and without a network.

It prints the entry that it verified: rely on that, not on what a page shows that is not ours.

Exit code 0: verified. 1: something in it is not what was written. 2: could not tell, or the page is not the one that this
program makes of its evidence, or no --key was given: then all is checked but whether the key is the log's.`,
		Example: `  auditchain verify-evidence case.html --key 6b1f2c...e0`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return hint(fmt.Errorf("verify-evidence wants one file or directory, not %d", len(args)), "%s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			trusted, err := parseFingerprint(key)
			if err != nil && key != "" {
				public, err := readKey(key)
				if err != nil {
					return err
				}
				trusted = public.Fingerprint()
			}
			e, strange, err := readEvidence(args[0])
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			r := e.Verify(trusted)
			code := exitYes
			switch {
			case key == "" && onlyTrustFails(r):
				code = exitUnknown
			case !r.OK:
				code = exitNo
			case strange:
				code = exitUnknown // about the page: what it shows is not what was verified
			}
			if key == "" {
				for i, c := range r.Checks {
					if c.Code == "trust" && code == exitUnknown {
						r.Checks[i].Text = noKey
					}
				}
			}
			if asJSON {
				err = writeJSON(cmd.OutOrStdout(), struct {
					*chain.EvidenceReport
					Page  string          `json:"page"` // ours, or other: not the one that this program makes of the evidence
					Entry json.RawMessage `json:"entry,omitempty"`
				}{r, map[bool]string{false: "ours", true: "other"}[strange], entryOf(e, r)})
			} else {
				err = printEvidence(cmd, e, r, code, strange)
			}
			if err == nil && code != exitYes {
				err = verdict(code)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "the key of the log's genesis that is trusted: PEM file, or its fingerprint, 64 hex digits")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// maxPage is the largest page that is read, in bytes: evidence, and what shows it.
const maxPage = chain.MaxEvidence + 1<<20

// readEvidence reads a page or a directory. strange says that the page is not the one that this program makes of its evidence.
func readEvidence(path string) (e *chain.Evidence, strange bool, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, false, errors.Unwrap(err)
	}
	if info.IsDir() {
		e, err = query.ReadEvidence(path)
		return e, false, err
	}
	html, err := readFile(path, maxPage)
	if err != nil {
		return nil, false, err
	}
	e, same, err := page.Extract(html)
	return e, !same, err
}

// noKey is what is said of the key where none was given.
const noKey = "no key was given to compare with"

func onlyTrustFails(r *chain.EvidenceReport) bool {
	for _, c := range r.Checks {
		if !c.OK && c.Code != "trust" {
			return false
		}
	}
	return true
}

func printEvidence(cmd *cobra.Command, e *chain.Evidence, r *chain.EvidenceReport, code int, strange bool) error {
	p := printer{w: cmd.OutOrStdout()}
	switch code {
	case exitYes:
		p.line("VERIFIED  entry %d of %s", r.Seq, e.Chain)
	case exitUnknown:
		if r.OK {
			p.line("VERIFIED  entry %d of %s, as it stands below; NOT the page around it, which is another than this program makes of it", r.Seq, e.Chain)
			break
		}
		p.line("GENUINE   entry %d of %s, if the log's first key has the fingerprint", r.Seq, e.Chain)
		p.line("          %s", r.Fingerprint)
		p.line("          compare it with one that you have by another way, or name that one with --key")
	case exitNo:
		p.line("NOT VERIFIED")
	}
	if strange && !r.OK {
		p.line("  the page around it is another than this program makes of it: do not rely on what it shows")
	}
	for _, c := range r.Checks {
		switch {
		case c.OK:
			p.line("  yes  %-11s %s", c.Code, c.Text)
		case c.Code == "trust" && code == exitUnknown:
			p.line("  ?    %-11s %s", c.Code, c.Text)
		default:
			p.line("  NO   %-11s %s", c.Code, c.Text)
		}
	}
	p.line("not proven by this:")
	for _, o := range e.Objects {
		lock := "not locked"
		if o.LockMode != "" {
			lock = o.LockMode + " until " + o.RetainUntil
		}
		p.line("  - what the store said of the %s when this was made: %s", o.What, lock)
	}
	p.line("  - when and by what it was made: %s, by %s, from %s", e.Made.At.Format(time.RFC3339), e.Made.By, e.Made.From)
	p.line("  - that the log was not cut off or written anew since; and whoever had the manifest's key, even after it was replaced, could make")
	p.line("    evidence that never was in the log: ask the log, with auditchain verify --expect-head %s", r.Payload)
	if entry := entryOf(e, r); entry != nil {
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, entry, "", "  "); err != nil {
			return err
		}
		for line := range strings.Lines(pretty.String()) {
			p.line("  %s", strings.TrimSuffix(line, "\n"))
		}
	}
	return p.err
}

// entryOf returns the entry if it has been proven but for whose key it is.
func entryOf(e *chain.Evidence, r *chain.EvidenceReport) json.RawMessage {
	if !onlyTrustFails(r) {
		return nil
	}
	return e.Entry
}
