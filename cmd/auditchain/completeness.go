package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/auditchain/auditchain/query"
)

func newCompleteness() *cobra.Command {
	var target targetFlags
	var flags completenessFlags
	cmd := &cobra.Command{
		Use:   "completeness",
		Short: "Count how many of the requests served in a period have a record, and say which have none",
		Long: `Count how many of the requests that the model servers say they served in a period have a record, and say which have none.

Each model server numbers its requests in the order of their arrival, so that a number without record is a request without
record, and arrived between its neighbours. What it says of itself (source events: how many it served, that it stopped or
died) tells of its last requests. Numbers are read off all signed manifests, those after the period too, since late records
close gaps; segments are read, and checked against their manifests, as far as the period needs it. What "auditchain verify"
tells besides is not looked for here: segments that the period does not need, locks, and what lies over objects.

Requests that had not ended at the last word of a server that lives are open, and not counted as served, for a day at most. What may have
arrived in the period or beside it, or may be on its way to the log, is counted as possible, and percentages are given with and
without it. A server that went silent in the period, neither stopped nor found dead, is against completeness: nobody can know what
it served after its last word. One that went silent in the 7 days before it leaves the period unknown, and so does one
that never spoke; --ended says of which servers you know that they ended then, such as a machine that was taken away.

The period is [from, to): a time given with --to is not in it, a date is, to its last moment (UTC). Without --from and --to it is the
last 24 hours.

With --counters-before and --counters-after, a model server's /metrics as they were at the period's two ends, its own
count of requests (http_requests_total, POST) is compared with the records of those that ended in the period: it finds
what was served without the middleware. Give the period by the times at which they were read.

Exit code 0: as complete as --min and --min-complete ask, and nothing against it. 1: less for certain, a conflict, a server that went
silent in the period or has records of more than it had served when it stopped, or more counted than recorded. 2: it could not be
told, or nothing at all is known of the period. How it is counted is in docs/RECORDS.md, section 6.`,
		Example: `  auditchain completeness -c /etc/fluent-bit/fluent-bit.yaml --key audit.pub.pem --from 2026-03-01 --to 2026-03-31
  auditchain completeness --bucket audit --chain audit.example.com/prod --key audit.pub.pem --by model --min 99.9
  curl -s http://gpu-1:8000/metrics >before; date -u +%FT%TZ   # and so again at the period's end
  auditchain completeness -c fluent-bit.yaml --from 2026-03-01T08:00:00Z --to 2026-03-01T18:00:00Z \
      --counters-before before --counters-after after --host gpu-1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := flags.options(time.Now())
			if err != nil {
				return err
			}
			sections, err := target.sections()
			if err != nil {
				return err
			}
			// Each chain is counted, whatever becomes of the others. A definite no outweighs not knowing.
			code, failed := exitYes, error(nil)
			for i, s := range sections {
				report, err := completenessOf(cmd, &target, s, opts)
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
					err = printCompleteness(cmd.OutOrStdout(), report, flags.by)
				}
				if err != nil {
					return err
				}
				switch {
				case report.Verdict == query.VerdictNotMet:
					code = exitNo
				case report.Verdict != query.VerdictMet && code == exitYes:
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

// completenessOf counts one chain.
func completenessOf(cmd *cobra.Command, target *targetFlags, s section, opts query.CompletenessOptions) (*query.Completeness, error) {
	log, err := target.log(cmd.Context(), s)
	if err != nil {
		return nil, err
	}
	var clear func()
	opts.Progress, clear = newProgress(cmd.ErrOrStderr(), "counting")
	defer clear()
	report, err := log.Completeness(cmd.Context(), opts)
	if err != nil {
		return nil, readHint(err)
	}
	return report, nil
}

// completenessFlags say of which period completeness is asked, and what is wanted of it.
type completenessFlags struct {
	from, to             string
	by                   string
	ended                []string
	least, leastComplete string
	asJSON               bool
	before, after, host  string
	endpoints            []string
}

func (c *completenessFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.from, "from", "", "the period's begin: a date (2026-03-01) or a time (RFC 3339); without it, 24 hours before its end")
	f.StringVar(&c.to, "to", "", "the period's end: a date, included, or a time, not included; without it, now")
	f.StringArrayVar(&c.ended, "ended", nil, "pattern of ids, * for any characters: these sources ended with their last word; may be repeated")
	f.StringVar(&c.by, "by", "", "print a table by source, model or hour")
	f.StringVar(&c.least, "min", "100", "percentage of the requests served that must have a record")
	f.StringVar(&c.leastComplete, "min-complete", "0", "percentage of the requests served that must have a record with every audit field")
	f.BoolVar(&c.asJSON, "json", false, "print a JSON report, one line per chain")
	f.StringVar(&c.before, "counters-before", "", "file with a model server's metrics at the period's begin")
	f.StringVar(&c.after, "counters-after", "", "file with the same server's metrics at the period's end")
	f.StringVar(&c.host, "host", "", "the host whose counters these are, as its sources' ids begin")
	f.StringSliceVar(&c.endpoints, "endpoints", query.DefaultEndpoints, "patterns of the endpoints that are compared, * for any characters")
}

func (c *completenessFlags) options(now time.Time) (opts query.CompletenessOptions, err error) {
	opts = query.CompletenessOptions{Now: now, By: c.by, Ended: c.ended}
	if opts.From, opts.To, err = parsePeriod(c.from, c.to, now); err != nil {
		return opts, err
	}
	if !slices.Contains([]string{"", "source", "model", "hour"}, c.by) {
		return opts, fmt.Errorf("--by: %q is not source, model or hour", c.by)
	}
	if opts.Min, err = query.ParsePercent(c.least); err != nil {
		return opts, fmt.Errorf("--min: %w", err)
	}
	if opts.MinComplete, err = query.ParsePercent(c.leastComplete); err != nil {
		return opts, fmt.Errorf("--min-complete: %w", err)
	}
	switch {
	case c.before == "" && c.after == "" && c.host == "":
		return opts, nil
	case c.before == "" || c.after == "":
		return opts, errors.New("--counters-before and --counters-after go together, and --host goes with them")
	case c.from == "" || c.to == "":
		return opts, errors.New("counters want --from and --to: the times at which they were read")
	}
	check := &query.CounterCheck{Host: c.host, Endpoints: c.endpoints}
	if check.Before, err = readCounters(c.before); err == nil {
		check.After, err = readCounters(c.after)
	}
	opts.Counters = check
	return opts, err
}

func readCounters(name string) (*query.Counters, error) {
	data, err := readFile(name, query.MaxCounterFile)
	if err != nil {
		return nil, err
	}
	counters, err := query.ReadCounters(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return counters, nil
}

// parsePeriod reads --from and --to, each a day (UTC) or a time. The period's end is not in it.
func parsePeriod(from, to string, now time.Time) (begin, end time.Time, err error) {
	parse := func(flag, s string, days int) time.Time {
		if day, dayErr := time.Parse(time.DateOnly, s); dayErr == nil {
			return day.AddDate(0, 0, days)
		}
		t, timeErr := time.Parse(time.RFC3339Nano, s)
		if timeErr != nil && err == nil {
			err = fmt.Errorf("--%s: %q is not a date like 2026-03-01 or a time like 2026-03-01T12:00:00Z", flag, s)
		}
		return t.UTC()
	}
	if end = now.UTC().Truncate(time.Second); to != "" {
		end = parse("to", to, 1)
	}
	if begin = end.Add(-24 * time.Hour); from != "" {
		begin = parse("from", from, 0)
	}
	switch {
	case err != nil:
	case !begin.Before(end):
		err = fmt.Errorf("the period from %s to %s is empty", begin.Format(time.RFC3339Nano), end.Format(time.RFC3339Nano))
	case begin.Year() < 1970 || end.Year() > 2261:
		err = errors.New("the period is not in the years 1970 to 2261")
	}
	return begin, end, err
}
