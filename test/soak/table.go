package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// printTable prints a row for every so many seconds of the samples.
func printTable(out io.Writer, samples []sample, outages []outage, every float64) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\n\t\tresident, MB\t\t\tGo heap\topen\t\tgo-\tjournals\tunsealed\tchunk, ms\t\t\tnot back to\t")
	fmt.Fprintln(w, "minutes\trecords/s\tmin\tmedian\tmax\tMB\tfiles\tthreads\troutines\tMB\ts\tmedian\tmax\tCPUs\tnormal after\t")
	for start := 0; start < len(samples)-1; {
		from := samples[start].at
		row := math.Floor(from / every) // its number
		end := start + 1
		for end < len(samples) && math.Floor(samples[end].at/every) == row {
			end++
		}
		// Up to the first sample of the next row, so that no second is left out of the rates.
		upTo := &samples[min(end, len(samples)-1)]
		of := func(f func(*sample) float64) stat { return statOf(samples[start:end], f) }
		rss := of(func(s *sample) float64 { return s.rss })
		seconds := upTo.at - from
		fmt.Fprintf(w, "%s-%s\t%.0f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.2f\t%s\t\n", clock(row*every), clock(math.Min((row+1)*every, upTo.at)),
			(upTo.records-samples[start].records)/seconds,
			show(rss.min/1e6, 0), show(rss.median/1e6, 0), show(rss.max/1e6, 0),
			show(of(func(s *sample) float64 { return s.heap }).max/1e6, 0),
			show(of(func(s *sample) float64 { return s.fds }).max, 0),
			show(of(func(s *sample) float64 { return s.threads }).max, 0),
			show(of(func(s *sample) float64 { return s.goroutines }).max, 0),
			show(of(func(s *sample) float64 { return s.journal }).max/1e6, 0),
			show(of(func(s *sample) float64 { return s.unsealed }).max, 0),
			show(of(func(s *sample) float64 { return s.flushMedian }).median*1e3, 1),
			show(of(func(s *sample) float64 { return s.flushMax }).max*1e3, 0),
			(upTo.cpu-samples[start].cpu)/seconds, outagesIn(outages, from, upTo.at))
		start = end
	}
	w.Flush()
}

// outagesIn says how long it took after each outage that began in that time until the journals were back to normal.
func outagesIn(outages []outage, from, to float64) string {
	text := ""
	for _, o := range outages {
		if o.from < from || o.from >= to {
			continue
		}
		if text != "" {
			text += ", "
		}
		after := "never"
		if o.caughtUp {
			after = fmt.Sprintf("%.0f s", o.calm-o.to)
		}
		text += fmt.Sprintf("%s %.0f s: %s", o.kind, o.to-o.from, after)
	}
	return text
}

// stat is what a number was over some samples; NaN if it was not known.
type stat struct{ min, median, max float64 }

func statOf(samples []sample, of func(*sample) float64) stat {
	var values []float64
	for i := range samples {
		if v := of(&samples[i]); !math.IsNaN(v) {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return stat{math.NaN(), math.NaN(), math.NaN()}
	}
	slices.Sort(values)
	return stat{values[0], values[len(values)/2], values[len(values)-1]}
}

func show(v float64, digits int) string {
	if math.IsNaN(v) {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, v)
}

// clock writes seconds as minutes and seconds.
func clock(seconds float64) string {
	s := int(math.Round(seconds))
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}
