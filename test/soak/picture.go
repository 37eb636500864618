package main

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"strings"
)

// The picture's measures, in pixels.
const (
	width       = 900
	left, right = 62, 884 // of the plots
	top         = 84      // of the first plot
	plotHeight  = 82
	plotGap     = 38
	maxColumns  = 275 // points of a line: one for every third pixel
)

// colours of a page: what is drawn, on light and on dark. The picture brings its own background, since what the page has is
// not always what the browser prefers. No CSS variables: not every program that shows SVG knows them.
var colours = []struct{ rule, light, dark string }{
	{".paper{fill:%s}", "#ffffff", "#0d1117"},
	{"text{fill:%s}", "#1f2328", "#e6edf3"},
	{"text.faint{fill:%s}", "#59636e", "#9198a1"},
	{".grid{stroke:%s}", "#d8dee4", "#2b3138"},
	{".axis{stroke:%s}", "#59636e", "#9198a1"},
	{".away{fill:%s}", "#ffd8d3", "#5a1e1b"},
	{".late{fill:%s}", "#fff1d6", "#3f3112"},
	{".line.a{stroke:%s}", "#0969da", "#58a6ff"},
	{".line.b{stroke:%s}", "#bc4c00", "#f0883e"},
	{".line.c{stroke:%s}", "#1a7f37", "#3fb950"},
	{".band.a,text.a{fill:%s}", "#0969da", "#58a6ff"},
	{".band.b,text.b{fill:%s}", "#bc4c00", "#f0883e"},
	{".band.c,text.c{fill:%s}", "#1a7f37", "#3fb950"},
}

// style is the picture's style sheet.
func style() string {
	var light, dark strings.Builder
	for _, c := range colours {
		fmt.Fprintf(&light, c.rule+"\n", c.light)
		fmt.Fprintf(&dark, c.rule+"\n", c.dark)
	}
	return `
text{font:12px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
.title{font-size:15px;font-weight:600}
.name{font-weight:600}
.faint{font-size:11px}
.line{fill:none;stroke-width:1.4;stroke-linejoin:round}
.band{fill-opacity:.28}
` + light.String() + "@media(prefers-color-scheme:dark){\n" + dark.String() + "}\n"
}

// line is one number in a plot.
type line struct {
	label string
	of    func(s, before *sample) float64
}

// plots are drawn below each other.
var plots = []struct {
	name  string
	unit  float64 // the axis counts these
	log   bool
	lines []line // three at most
}{
	{"records acknowledged per second", 1, false, []line{{"", func(s, before *sample) float64 { return (s.records - before.records) / (s.at - before.at) }}}},
	{"time for a chunk of 1000 records, ms", 1e-3, true, []line{
		{"median", func(s, _ *sample) float64 { return s.flushMedian }}, {"longest", func(s, _ *sample) float64 { return s.flushMax }}}},
	{"memory, MB", 1e6, false, []line{
		{"resident", func(s, _ *sample) float64 { return s.rss }}, {"Go heap, live", func(s, _ *sample) float64 { return s.heap }}}},
	{"store_dir, MB", 1e6, false, []line{
		{"journals", func(s, _ *sample) float64 { return s.journal }}, {"all files, reserve included", func(s, _ *sample) float64 { return s.storeDir }}}},
	{"age of the oldest record that is not in the bucket, s", 1, false, []line{{"", func(s, _ *sample) float64 { return s.unsealed }}}},
	{"count", 1, false, []line{
		{"open files", func(s, _ *sample) float64 { return s.fds }}, {"threads", func(s, _ *sample) float64 { return s.threads }},
		{"goroutines", func(s, _ *sample) float64 { return s.goroutines }}}},
}

// draw writes the picture of a run as SVG.
func draw(w io.Writer, samples []sample, outages []outage) error {
	out := bufio.NewWriter(w)
	last := samples[len(samples)-1]
	end := last.at
	x := func(at float64) float64 { return left + (right-left)*at/end }
	bottom := top + len(plots)*(plotHeight+plotGap) - plotGap
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">`, width, bottom+44, width, bottom+44)
	fmt.Fprintf(out, "\n<style>%s</style>\n<rect class=\"paper\" width=\"%d\" height=\"%d\" rx=\"6\"/>\n", style(), width, bottom+44)
	rate := statOf(samples[1:], func(s *sample) float64 { return s.records / s.at }).median
	fmt.Fprintf(out, `<text class="title" x="16" y="26">%s minutes, %s records at %s per second; the S3 server taken away %s</text>`+"\n",
		thousands(math.Round(end/6)/10), thousands(last.records), thousands(math.Round(rate/100)*100), times(len(outages)))
	fmt.Fprint(out, `<rect class="away" x="16" y="38" width="12" height="12"/><text class="faint" x="33" y="48">the server is away</text>`,
		`<rect class="late" x="142" y="38" width="12" height="12"/><text class="faint" x="159" y="48">what piled up meanwhile is being uploaded</text>`+"\n")

	for _, o := range outages {
		shade(out, "away", x(o.from), x(o.to), bottom)
		shade(out, "late", x(o.to), x(o.calm), bottom)
		fmt.Fprintf(out, `<text class="faint" x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x((o.from+o.to)/2), top-22, o.kind)
	}
	var grid strings.Builder // across each plot
	step := niceStep(end/60, 10)
	for minute := 0.0; minute <= end/60; minute += step {
		fmt.Fprintf(&grid, "M%.1f 0V%d", x(minute*60), plotHeight)
		fmt.Fprintf(out, `<text class="faint" x="%.1f" y="%d" text-anchor="middle">%g</text>`+"\n", x(minute*60), bottom+16, minute)
	}
	fmt.Fprintf(out, `<text class="faint" x="%d" y="%d" text-anchor="end">minutes</text>`+"\n", right, bottom+32)

	for n, p := range plots {
		y0 := float64(top + n*(plotHeight+plotGap))
		fmt.Fprintf(out, `<path class="grid" transform="translate(0 %.0f)" d="%s"/>`+"\n", y0, grid.String())
		drawings := make([][]span, len(p.lines))
		low, high := math.Inf(1), math.Inf(-1)
		for i, l := range p.lines {
			var points []point
			for k := 1; k < len(samples); k++ {
				if v := l.of(&samples[k], &samples[k-1]); !math.IsNaN(v) {
					points = append(points, point{samples[k].at, v / p.unit})
				}
			}
			drawings[i] = gather(points, end)
			for _, s := range drawings[i] {
				low, high = min(low, s.low), max(high, s.high)
			}
		}
		axis := newAxis(low, high, p.log)
		y := func(v float64) float64 { return y0 + plotHeight*(1-axis.place(v)) }
		for _, tick := range axis.ticks {
			class := "grid"
			if axis.place(tick) == 0 {
				class = "axis"
			}
			fmt.Fprintf(out, `<line class="%s" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text class="faint" x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
				class, left, right, y(tick), y(tick), left-6, y(tick)+4, thousands(tick))
		}
		fmt.Fprintf(out, `<text class="name" x="%d" y="%.1f">%s</text>`+"\n", left, y0-8, p.name)
		at := right
		for i := len(p.lines) - 1; i >= 0; i-- {
			if len(drawings[i]) == 0 {
				continue
			}
			class := string(rune('a' + i))
			if label := p.lines[i].label; label != "" {
				fmt.Fprintf(out, `<text class="%s" x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", class, at, y0-8, label)
				at -= 7*len(label) + 14
			}
			drawLine(out, class, drawings[i], x, y)
		}
	}
	fmt.Fprintln(out, "</svg>")
	return out.Flush()
}

func shade(out io.Writer, class string, from, to float64, bottom int) {
	if to > from {
		fmt.Fprintf(out, `<rect class="%s" x="%.1f" y="%d" width="%.1f" height="%d"/>`+"\n", class, from, top-18, to-from, bottom-top+18)
	}
}

// span is what a number was while one column of the picture passed.
type span struct{ at, low, mean, high float64 }

// gather puts the points into columns.
func gather(points []point, end float64) []span {
	var spans []span
	column, n := -1, 0.0
	for _, p := range points {
		c := int(p.at / end * (maxColumns - 1))
		if c != column {
			spans = append(spans, span{low: p.value, high: p.value})
			column, n = c, 0
		}
		s := &spans[len(spans)-1]
		n++
		s.at += (p.at - s.at) / n
		s.mean += (p.value - s.mean) / n
		s.low, s.high = min(s.low, p.value), max(s.high, p.value)
	}
	return spans
}

// drawLine draws the means, and a band from the least to the most if there is more than one point in a column.
func drawLine(out io.Writer, class string, spans []span, x, y func(float64) float64) {
	var mean, over, under strings.Builder
	banded := false
	for i, s := range spans {
		verb := "L"
		if i == 0 {
			verb = "M"
		}
		fmt.Fprintf(&mean, "%s%.0f %.1f", verb, x(s.at), y(s.mean))
		fmt.Fprintf(&over, "%s%.0f %.1f", verb, x(s.at), y(s.high))
		back := spans[len(spans)-1-i]
		fmt.Fprintf(&under, "L%.0f %.1f", x(back.at), y(back.low))
		banded = banded || s.low < s.high
	}
	if banded {
		fmt.Fprintf(out, `<path class="band %s" d="%s%sZ"/>`+"\n", class, over.String(), under.String())
	}
	fmt.Fprintf(out, `<path class="line %s" d="%s"/>`+"\n", class, mean.String())
}

// axis places numbers between 0, at the bottom, and 1.
type axis struct {
	log       bool
	low, high float64
	ticks     []float64
}

// newAxis begins at 0, or at a power of ten if it is logarithmic, and ends at a round number.
func newAxis(low, high float64, log bool) axis {
	a := axis{log: log}
	if math.IsInf(high, 0) || high <= 0 || log && low <= 0 {
		a.high, a.ticks, a.log = 1, []float64{0, 1}, false // nothing to see
		return a
	}
	if log {
		from, to := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
		to = max(to, from+1)
		a.low, a.high = math.Pow(10, from), math.Pow(10, to)
		for e := from; e <= to; e += math.Ceil((to - from) / 4) {
			a.ticks = append(a.ticks, math.Pow(10, e))
		}
		return a
	}
	step := niceStep(high, 3)
	a.high = math.Ceil(high/step) * step
	for i := 0.0; i*step <= a.high; i++ {
		a.ticks = append(a.ticks, i*step)
	}
	return a
}

func (a *axis) place(v float64) float64 {
	if a.log {
		return math.Log10(max(v, a.low)/a.low) / math.Log10(a.high/a.low)
	}
	return (v - a.low) / (a.high - a.low)
}

// niceStep is 1, 2 or 5 times a power of ten, and goes into extent n times at most.
func niceStep(extent float64, n int) float64 {
	least := extent / float64(n)
	power := math.Pow(10, math.Floor(math.Log10(least)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= least {
			return m * power
		}
	}
	return 10 * power
}

// thousands writes a number with commas.
func thousands(v float64) string {
	text := fmt.Sprintf("%.4g", v)
	if math.Abs(v) >= 1000 {
		text = fmt.Sprintf("%.0f", v)
		for at := len(text) - 3; at > 0; at -= 3 {
			text = text[:at] + "," + text[at:]
		}
	}
	return text
}

func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}
