package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/auditchain/auditchain/record"
)

// series makes a point every second.
func series(n int, value func(at float64) float64) []point {
	points := make([]point, n)
	for i := range points {
		points[i] = point{float64(i), value(float64(i))}
	}
	return points
}

func constant(v float64) func(float64) float64 { return func(float64) float64 { return v } }

// sawtooth rises to high in period seconds and falls at once.
func sawtooth(high, period float64) func(float64) float64 {
	return func(at float64) float64 { return high * math.Mod(at, period) / period }
}

func TestSlope(t *testing.T) {
	for _, c := range []struct {
		name   string
		points []point
		want   float64
	}{
		{"none", nil, 0},
		{"one", []point{{3, 7}}, 0},
		{"at the same time", []point{{3, 7}, {3, 9}}, 0},
		{"two", []point{{1, 1}, {3, 5}}, 2},
		{"constant", series(100, constant(42)), 0},
		{"rising", series(100, func(at float64) float64 { return 5 + at/4 }), 0.25},
		{"falling", series(100, func(at float64) float64 { return 5 - at }), -1},
		{"far from zero", series(1800, func(at float64) float64 { return 1e9 + 3*at }), 3},
		// By hand: means 1.5 and 1.25, sum of products 2.5, sum of squares 5.
		{"scattered", []point{{0, 0}, {1, 2}, {2, 1}, {3, 2}}, 0.5},
		{"unevenly spaced", []point{{0, 0}, {1, 1}, {10, 10}}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := slope(c.points); math.Abs(got-c.want) > 1e-9 {
				t.Errorf("%g, want %g", got, c.want)
			}
		})
	}
}

func TestFlatness(t *testing.T) {
	for _, c := range []struct {
		name    string
		points  []point
		allowed tolerance
		flat    bool
	}{
		{"constant", series(100, constant(100)), tolerance{}, true},
		{"falling", series(100, func(at float64) float64 { return 100 - at/2 }), tolerance{}, true},
		{"growing within the part", series(101, func(at float64) float64 { return 100 + 4*at/100 }), tolerance{0.05, 0}, true},
		{"growing beyond the part", series(101, func(at float64) float64 { return 100 + 6*at/100 }), tolerance{0.05, 0}, false},
		{"growing within the constant", series(101, func(at float64) float64 { return 10 + 2*at/100 }), tolerance{0, 2.1}, true},
		{"growing beyond the constant", series(101, func(at float64) float64 { return 10 + 2*at/100 }), tolerance{0, 1.9}, false},
		{"part and constant add up", series(101, func(at float64) float64 { return 100 + 6*at/100 }), tolerance{0.05, 2}, true},
		{"from nothing", series(101, func(at float64) float64 { return at }), tolerance{0.05, 10}, false},
		{"a sawtooth", series(1000, sawtooth(64, 7)), tolerance{0.05, 0}, true},
		{"a sawtooth that rises", series(1000, func(at float64) float64 { return sawtooth(64, 7)(at) + at/50 }), tolerance{0.05, 0}, false},
		{"one peak in the last half", series(1000, func(at float64) float64 {
			if at == 900 {
				return 200
			}
			return 100
		}), tolerance{0.05, 8}, false},
		{"one peak in the first half", series(1000, func(at float64) float64 {
			if at == 100 {
				return 200
			}
			return 100
		}), tolerance{0.05, 8}, true},
		{"a leak below the peaks", series(1000, func(at float64) float64 { // shows in the slope alone
			if at == 100 || at == 900 {
				return 500
			}
			return 100 + at/20
		}), tolerance{0.05, 8}, false},
		{"nothing", nil, tolerance{1, 1000}, false},
		{"nearly nothing", series(4, constant(1)), tolerance{1, 1000}, false},
		{"nothing in the first half", append([]point{{0, 1}}, series(1000, constant(1))[900:]...), tolerance{1, 1000}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := flatness(c.points, c.allowed); got.flat != c.flat {
				t.Errorf("%+v, want flat: %v", got, c.flat)
			}
		})
	}
	got := flatness(series(11, func(at float64) float64 { return 10 + at }), tolerance{0.5, 3})
	// First half: 10 to 14, mean 12; last half: up to 20.
	if want := (trend{firstMax: 14, lastMax: 20, slope: 1, growth: 10, allowedMax: 10, allowed: 9}); math.Abs(got.slope-1) > 1e-9 || math.Abs(got.growth-10) > 1e-9 ||
		got.firstMax != want.firstMax || got.lastMax != want.lastMax || got.allowedMax != want.allowedMax || got.allowed != want.allowed || got.flat {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// samplesOf makes a sample for each second from megabytes that wait for the bucket; "k" and "h" before a number: the server is
// killed, or hangs.
func samplesOf(text string) []sample {
	var samples []sample
	for i, word := range strings.Fields(text) {
		s := sample{at: float64(i + 1)}
		switch word[0] {
		case 'k':
			s.outage = "killed"
		case 'h':
			s.outage = "hanging"
		}
		if _, err := fmt.Sscanf(strings.TrimLeft(word, "kh"), "%g", &s.journal); err != nil {
			s.journal = math.NaN() // "-"
		}
		s.journal *= 1e6
		samples = append(samples, s)
	}
	return samples
}

func TestFindOutages(t *testing.T) {
	for _, c := range []struct {
		name, samples string
		want          []outage
	}{
		{"none", "10 20 10", nil},
		{"one", "80 10 k100 k200 210 100 70 10", []outage{{kind: "killed", from: 3, to: 5, peak: 210e6, caughtUp: true, calm: 7}}},
		{"a segment is normal always", "1 1 k100 90 66 1", []outage{{kind: "killed", from: 3, to: 4, peak: 100e6, caughtUp: true, calm: 5}}},
		{"nothing piled up", "1 1 k50 50 1", []outage{{kind: "killed", from: 3, to: 4, peak: 50e6, caughtUp: true, calm: 4}}},
		{"two", "90 k100 95 80 h100 h200 90 70 1", []outage{
			{kind: "killed", from: 2, to: 3, peak: 100e6, caughtUp: true, calm: 4},
			// What was normal before the first outage is not asked for any more.
			{kind: "hanging", from: 5, to: 7, peak: 200e6, caughtUp: true, calm: 9}}},
		{"not over before the next", "1 k100 200 h300 300 1", []outage{
			{kind: "killed", from: 2, to: 3, peak: 200e6, calm: 3}, {kind: "hanging", from: 4, to: 5, peak: 300e6, caughtUp: true, calm: 6}}},
		{"not over at the end", "1 k100 200 200", []outage{{kind: "killed", from: 2, to: 3, peak: 200e6, calm: 4}}},
		{"away at the end", "1 k100 k200", []outage{{kind: "killed", from: 2, to: 3, peak: 200e6, calm: 3}}},
		{"a moment without metrics is no calm", "1 k100 - 200 1", []outage{{kind: "killed", from: 2, to: 3, peak: 200e6, caughtUp: true, calm: 5}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := findOutages(samplesOf(c.samples)); !slices.Equal(got, c.want) {
				t.Errorf("\n got %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// A leak of each number that is watched is found, and of no other; journals are looked at between outages only.
func TestFindTrends(t *testing.T) {
	healthy := func() []sample {
		samples := make([]sample, 1800)
		for i := range samples {
			s := &samples[i]
			*s = sample{at: float64(i), rss: 50e6 + float64(i%7)*1e6, threads: 12, fds: 14, goroutines: 16, journal: float64(i%5) * 14e6}
			if i < 115 { // warming up
				s.rss, s.threads = float64(i)*4e5, 2
			}
			if i%300 >= 250 && i%300 < 280 {
				s.outage = "killed"
				s.journal = float64(i%300-250)*14e6 + float64(i)*5e5 // higher each time
			}
		}
		return samples
	}
	for _, c := range []struct {
		name string
		leak func(s *sample)
		bad  []string
	}{
		{"none", func(*sample) {}, nil},
		{"memory", func(s *sample) { s.rss += s.at * 1e4 }, []string{"resident memory, MB"}},
		{"threads", func(s *sample) { s.threads += math.Floor(s.at / 300) }, []string{"threads"}},
		{"files", func(s *sample) { s.fds += math.Floor(s.at / 200) }, []string{"open files"}},
		{"goroutines", func(s *sample) { s.goroutines += math.Floor(s.at / 100) }, []string{"goroutines"}},
		{"journals", func(s *sample) { s.journal += s.at * 1e5 }, []string{"journals between outages, MB"}},
		{"no goroutines known", func(s *sample) { s.goroutines = math.NaN() }, nil},
		{"no memory known", func(s *sample) { s.rss = math.NaN() }, []string{"resident memory, MB"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			samples := healthy()
			for i := range samples {
				c.leak(&samples[i])
			}
			var bad []string
			for _, trend := range findTrends(samples, findOutages(samples)) {
				if !trend.flat {
					bad = append(bad, trend.name)
				}
			}
			if !slices.Equal(bad, c.bad) {
				t.Errorf("not flat: %q, want %q", bad, c.bad)
			}
		})
	}
}

func TestTally(t *testing.T) {
	for _, c := range []struct {
		name      string
		delivered uint64
		segments  [][]uint64
		want      string
	}{
		{"all", 5, [][]uint64{{0, 1}, {4, 3, 2}}, ""},
		{"none", 0, nil, ""},
		{"one is missing", 5, [][]uint64{{0, 1}, {4, 2}}, "of 5 records 1 are missing, 0 are there twice, 0 were never delivered; the first that is missing has number 3"},
		{"one is there twice", 3, [][]uint64{{0, 1}, {1, 2}}, "of 3 records 0 are missing, 1 are there twice, 0 were never delivered; the first that does not belong has number 1"},
		{"one is missing, another there twice", 130, [][]uint64{seq(0, 129), {128}}, "of 130 records 1 are missing, 1 are there twice, 0 were never delivered; the first that is missing has number 129; the first that does not belong has number 128"},
		{"too many", 2, [][]uint64{{0, 1, 2, 1 << 40}}, "of 2 records 0 are missing, 0 are there twice, 2 were never delivered; the first that does not belong has number 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tally := tally{delivered: c.delivered, seen: make([]uint64, (c.delivered+63)/64)}
			for _, s := range c.segments {
				tally.add(s)
			}
			got := ""
			if err := tally.judge(); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func seq(from, to uint64) (all []uint64) {
	for n := from; n < to; n++ {
		all = append(all, n)
	}
	return all
}

// Chunks can be numbered again and again, and the numbers are found again in what the writer makes of them.
func TestNumbers(t *testing.T) {
	chunk := makeChunk(3)
	for _, first := range []uint64{0, 1000, 1<<32 - 500, 35_999_000} {
		renumber(chunk, first)
		var b record.Batch
		b.Decode(chunk)
		if len(b.Entries) != chunkRecords || b.Reasons() != "" {
			t.Fatalf("%d entries, %s", len(b.Entries), b.Reasons())
		}
		from := 0
		for i, e := range b.Entries {
			got, err := recordNumber(b.Bodies[from:e.End])
			if want := first + uint64(i); err != nil || got != want || e.SourceSeq != want || e.Missing != 0 {
				t.Fatalf("record %d has number %d, source %d, lacks %b, %v; want %d", i, got, e.SourceSeq, e.Missing, err, want)
			}
			from = e.End
		}
	}
	if bytes.Equal(makeChunk(1), makeChunk(2)) {
		t.Error("the chunks are equal")
	}
	for _, bad := range []string{`{"a":1}`, `{"source":{"seq":}}`, `{"source":{"seq":-1}}`, ``} {
		if n, err := recordNumber([]byte(bad)); err == nil {
			t.Errorf("%s has number %d", bad, n)
		}
	}
}

func TestCSV(t *testing.T) {
	want := samplesOf("10 k20 - h0.5")
	want[1].heap, want[2].flushMax = 12<<20, 0.000815
	var file bytes.Buffer
	if err := writeCSV(&file, want); err != nil {
		t.Fatal(err)
	}
	got, err := readCSV(bytes.NewReader(file.Bytes()))
	if err != nil || len(got) != len(want) {
		t.Fatal(len(got), err)
	}
	for i := range want {
		for _, c := range columns {
			if g, w := *c.of(&got[i]), *c.of(&want[i]); g != w && !(math.IsNaN(g) && math.IsNaN(w)) {
				t.Errorf("sample %d, %s: %g, want %g", i, c.name, g, w)
			}
		}
		if got[i].outage != want[i].outage {
			t.Errorf("sample %d: %q, want %q", i, got[i].outage, want[i].outage)
		}
	}
	// Every number of a sample has a column, and no two have the same.
	var s sample
	for i, c := range columns {
		*c.of(&s) = float64(i)
	}
	for i, c := range columns {
		if *c.of(&s) != float64(i) {
			t.Errorf("%s has another column too", c.name)
		}
	}
	if fields := reflect.TypeFor[sample]().NumField(); fields != len(columns)+1 {
		t.Errorf("%d columns and the outage for %d fields", len(columns), fields)
	}
	for _, bad := range []string{"seconds\n1\n", strings.Replace(file.String(), "cpu_seconds", "cpu", 1), strings.Replace(file.String(), "10000000", "x", 1)} {
		if _, err := readCSV(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestTraces(t *testing.T) {
	const (
		gc    = "gc 32 @4.649s 0%: 0.75+1.0+0.002 ms clock, 1.5+0.014/0.59/0.032+0.004 ms cpu, 6->7->4 MB, 6 MB goal, 0 MB stacks, 0 MB globals, 2 P\n"
		sched = "SCHED 1000ms: gomaxprocs=2 idleprocs=0 threads=8\n  P0: status=0\n  M7: p=nil\n"
		goes  = "  G21: status=4(GC worker (idle)) m=nil lockedm=nil\n"
		dead  = "  G24: status=6() m=nil lockedm=nil\n"
		extra = "  G34: status=11() m=6 lockedm=6\n"
		other = "[2026/11/24 12:18:54.045] [ info] [output:auditchain:a] began\n"
	)
	for _, c := range []struct {
		name       string
		parts      []string // of the log, each read by itself
		heap       float64  // bytes, at the end; 0: not known
		goroutines []float64
	}{
		{"nothing yet", []string{other}, 0, []float64{0}},
		{"heap", []string{gc, strings.Replace(gc, "->4 MB", "->9 MB", 1)}, 9 << 20, []float64{0, 0}},
		{"goroutines", []string{sched + goes + goes + dead + extra, other}, 0, []float64{0, 2}},
		{"cut", []string{sched + goes, goes + goes[:9], goes[9:] + other, other}, 0, []float64{0, 0, 0, 3}},
		{"the next list", []string{sched + goes + goes + goes, gc, sched + goes, other}, 4 << 20, []float64{0, 3, 3, 1}},
		{"between other lines", []string{other + sched + goes + other + gc + goes, ""}, 4 << 20, []float64{0, 2}},
		{"garbled", []string{"gc \ngc 1->2\ngc 1->2->x MB\nSCHED \n", ""}, 0, []float64{0, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			r := newTraceReader(&log)
			for i, part := range c.parts {
				log.WriteString(part)
				if err := r.read(); err != nil {
					t.Fatal(err)
				}
				if got := number(r.goroutines); got != c.goroutines[i] {
					t.Errorf("after part %d: %g goroutines, want %g", i, got, c.goroutines[i])
				}
			}
			if number(r.heap) != c.heap {
				t.Errorf("heap %g, want %g", r.heap, c.heap)
			}
		})
	}
}

// The test looks at itself.
func TestLook(t *testing.T) {
	var before, after sample
	if err := look(os.Getpid(), &before); err != nil {
		t.Fatal(err)
	}
	files := make([]*os.File, 10)
	for i := range files {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	ballast, err := syscall.Mmap(-1, 0, 64<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE) // Go reuses its own
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(ballast)
	for i := range ballast {
		ballast[i] = 1
	}
	if err := look(os.Getpid(), &after); err != nil {
		t.Fatal(err)
	}
	if after.fds < before.fds+10 || after.rss < before.rss+32e6 || after.anon < before.anon+32e6 || after.cpu < before.cpu || after.threads < 2 {
		t.Errorf("%+v, with 64 MB and 10 files more %+v", before, after)
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	if used := time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds(); math.Abs(used-after.cpu) > 0.1 || used == 0 {
		t.Errorf("%g s of processor time, the system says %g", after.cpu, used)
	}
	if err := look(math.MaxInt32, &after); err == nil {
		t.Error("it sees a process that is not there")
	}
}

func TestAxis(t *testing.T) {
	for _, c := range []struct {
		low, high float64
		log       bool
		want      []float64
	}{
		{0, 20031, false, []float64{0, 10000, 20000, 30000}},
		{40, 54, false, []float64{0, 20, 40, 60}},
		{0, 0.5, false, []float64{0, 0.2, 0.4, 0.6}},
		{11, 11, false, []float64{0, 5, 10, 15}},
		{0, 0, false, []float64{0, 1}},
		{math.Inf(1), math.Inf(-1), false, []float64{0, 1}},
		{3, 507, true, []float64{1, 10, 100, 1000}},
		{5, 6, true, []float64{1, 10}},
		{10, 10, true, []float64{10, 100}},
		{0.02, 40000, true, []float64{0.01, 1, 100, 10000}},
	} {
		t.Run(fmt.Sprint(c.low, " to ", c.high), func(t *testing.T) {
			a := newAxis(c.low, c.high, c.log)
			if !slices.EqualFunc(a.ticks, c.want, func(x, y float64) bool { return math.Abs(x-y) <= 1e-9*y }) {
				t.Errorf("ticks %g, want %g", a.ticks, c.want)
			}
			if !math.IsInf(c.high, 0) && (a.place(c.low) < 0 || a.place(c.high) > 1 || a.place(a.ticks[0]) != 0) {
				t.Errorf("%g is at %g, %g at %g", c.low, a.place(c.low), c.high, a.place(c.high))
			}
		})
	}
}

// The picture is well-formed, has no numbers that are none, and stays small however long the run was.
func TestDraw(t *testing.T) {
	for _, n := range []int{2, 60, 1800, 36000} {
		samples := make([]sample, n)
		for i := range samples {
			samples[i] = sample{at: float64(i + 1), records: float64(i) * 20000, rss: 50e6 + float64(i%10)*1e6, journal: float64(i%5) * 14e6,
				heap: math.NaN(), goroutines: math.NaN(), flushMedian: 0.004, flushMax: 0.05 + float64(i%9)/10, threads: 11, fds: 12}
			if i%300 > 250 {
				samples[i].outage = "killed"
			}
		}
		var out bytes.Buffer
		if err := draw(&out, samples, findOutages(samples)); err != nil {
			t.Fatal(err)
		}
		if text := out.String(); strings.Contains(text, "NaN") || strings.Contains(text, "Inf") || len(text) > 300<<10 {
			t.Errorf("%d samples: %d bytes, or a number that is none", n, len(text))
		}
		for d := xml.NewDecoder(&out); ; {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestPrint(t *testing.T) {
	samples := samplesOf("10 10 80 k100 k200 210 100 70 10 10 10")
	for i := range samples {
		s := &samples[i]
		s.records, s.cpu, s.rss, s.flushMedian, s.flushMax, s.heap = s.at*20000, s.at/4, 50e6+s.at*1e6, 0.004, s.at/100, math.NaN()
	}
	var out bytes.Buffer
	printTable(&out, samples, findOutages(samples), 5)
	for row, want := range map[int]string{
		3: "0:00-0:05 20000 51 53 54 - 0 0 0 100 0 4.0 40 0.25 killed 2 s: 2 s",
		4: "0:05-0:10 20000 55 57 59 - 0 0 0 210 0 4.0 90 0.25",
	} {
		lines := strings.Split(out.String(), "\n")
		if len(lines) < row+1 || strings.Join(strings.Fields(lines[row]), " ") != want {
			t.Errorf("row %d is not %q:\n%s", row, want, out.String())
		}
	}
}
