package main

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"
	"time"
)

// segment is the size at which a journal is sealed, bytes: the default of total_file_size. Where everything is well, a
// journal of any size up to it waits for its end.
const segment = 64 << 20

// outage is a time in which the S3 server was away, and what became of it.
type outage struct {
	kind     string
	from, to float64 // seconds; to is when the server answers again
	peak     float64 // the most bytes that waited for the bucket
	caughtUp bool    // before the next outage, or the end
	calm     float64 // when no more waited than before the outage, seconds; if not caughtUp, until when that was waited for
}

// findOutages finds the outages in the samples. What is normal is the most that waited in the time before, from the outage
// before it on; a segment at least.
func findOutages(samples []sample) []outage {
	var all []outage
	normal, now := float64(segment), -1 // now: the outage that is not over, or not caught up with
	for _, s := range samples {
		if s.outage != "" && (now < 0 || all[now].to > 0) {
			now = len(all)
			all = append(all, outage{kind: s.outage, from: s.at})
		}
		if now < 0 {
			normal = max(normal, number(s.journal))
			continue
		}
		o := &all[now]
		o.peak = max(o.peak, number(s.journal))
		if s.outage != "" {
			continue
		}
		if o.to == 0 {
			o.to = s.at
		}
		o.calm = s.at
		if s.journal <= normal {
			o.caughtUp = true
			normal, now = segment, -1
		}
	}
	if now >= 0 && all[now].to == 0 {
		all[now].to, all[now].calm = samples[len(samples)-1].at, samples[len(samples)-1].at
	}
	return all
}

// number is v, or 0 if it is not known.
func number(v float64) float64 {
	if math.IsNaN(v) {
		return 0
	}
	return v
}

// isCalm reports whether there is no outage at that time, and nothing left of one.
func isCalm(at float64, outages []outage) bool {
	for _, o := range outages {
		if at >= o.from && at < o.calm {
			return false
		}
	}
	return true
}

// point is a number at a time in seconds.
type point struct{ at, value float64 }

// slope is that of the straight line through the points by least squares, per second; 0 if they have no extent.
func slope(points []point) float64 {
	var at, value float64
	for _, p := range points {
		at += p.at / float64(len(points))
		value += p.value / float64(len(points))
	}
	var both, square float64
	for _, p := range points {
		both += (p.at - at) * (p.value - value)
		square += (p.at - at) * (p.at - at)
	}
	if square == 0 {
		return 0
	}
	return both / square
}

// tolerance is how much a number may grow and still be flat: a part of what it was, and a constant.
type tolerance struct{ part, constant float64 }

func (t tolerance) of(base float64) float64 { return t.part*base + t.constant }

// trend is how a number went over a run.
type trend struct {
	name                string
	unit                float64 // what it is printed in
	firstMax, lastMax   float64 // in the first and in the last half
	slope               float64 // per second
	growth              float64 // along the slope, from the first point to the last
	allowedMax, allowed float64 // how much lastMax may be above firstMax, and the growth
	flat                bool
}

// flatness is flat if neither the slope nor the maxima say that the number grows. Too few points say nothing: not flat.
func flatness(points []point, allowed tolerance) (t trend) {
	if len(points) == 0 {
		return t
	}
	first, last := points[0].at, points[len(points)-1].at
	middle := (first + last) / 2
	t.firstMax, t.lastMax = math.Inf(-1), math.Inf(-1)
	var sum float64
	var before, after int // the middle
	for _, p := range points {
		if p.at < middle {
			t.firstMax = max(t.firstMax, p.value)
			sum += p.value
			before++
		} else {
			t.lastMax = max(t.lastMax, p.value)
			after++
		}
	}
	t.slope = slope(points)
	t.growth = t.slope * (last - first)
	if before < enough || after < enough {
		return t
	}
	t.allowedMax, t.allowed = allowed.of(t.firstMax), allowed.of(sum/float64(before))
	t.flat = t.growth <= t.allowed && t.lastMax-t.firstMax <= t.allowedMax
	return t
}

// enough is how many points each half must have.
const enough = 5

// warmUp is how long the process may take to get everything that it needs; of a short run, a fifth.
const warmUp = 2 * time.Minute

// watched are the numbers that must not grow. The constants are what comes and goes by chance: a garbage collection that is
// late, a thread or connection more when several things happen at once, an unsealed journal.
var watched = []struct {
	name     string
	unit     float64
	of       func(*sample) float64
	constant float64
	calm     bool // it grows in an outage, and has to come down afterwards: look at the times between
	optional bool // it is not known of every host
}{
	{"resident memory, MB", 1e6, func(s *sample) float64 { return s.rss }, 5e6, false, false},
	{"threads", 1, func(s *sample) float64 { return s.threads }, 2, false, false},
	{"open files", 1, func(s *sample) float64 { return s.fds }, 4, false, false},
	{"goroutines", 1, func(s *sample) float64 { return s.goroutines }, 6, false, true},
	{"journals between outages, MB", 1e6, func(s *sample) float64 { return s.journal }, segment, true, false},
}

// findTrends says how each number that is watched went, after the process has warmed up.
func findTrends(samples []sample, outages []outage) []trend {
	start := min(warmUp.Seconds(), samples[len(samples)-1].at/5)
	var all []trend
	for _, w := range watched {
		var points []point
		for i := range samples {
			s := &samples[i]
			if v := w.of(s); !math.IsNaN(v) && s.at >= start && (!w.calm || isCalm(s.at, outages)) {
				points = append(points, point{s.at, v})
			}
		}
		if len(points) == 0 && w.optional {
			continue
		}
		t := flatness(points, tolerance{0.05, w.constant})
		t.name, t.unit = w.name, w.unit
		all = append(all, t)
	}
	return all
}

func printTrends(out io.Writer, trends []trend) {
	fmt.Fprintf(out, "\nAfter warming up, the last half against the first, and the straight line through all (least squares):\n\n")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tmax, first half\tmax, last half\tmay be\tslope per hour\tgrowth\tmay be\t\t")
	for _, t := range trends {
		verdict := "flat"
		if !t.flat {
			verdict = "NOT FLAT"
		}
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%+.1f\t%+.1f\t%.1f\t%s\t\n", t.name, t.firstMax/t.unit, t.lastMax/t.unit,
			(t.firstMax+t.allowedMax)/t.unit, t.slope*3600/t.unit, t.growth/t.unit, t.allowed/t.unit, verdict)
	}
	w.Flush()
}
