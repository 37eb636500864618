package chain

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Retention is how long objects stay locked, in calendar years and days (UTC).
type Retention struct {
	Years, Days int
}

// After returns the end of the retention of what was sealed at t.
func (r Retention) After(t time.Time) time.Time { return t.AddDate(r.Years, 0, r.Days) }

// String returns the retention as [ParseRetention] reads it.
func (r Retention) String() string {
	switch {
	case r.Years > 0 && r.Days > 0:
		return fmt.Sprintf("%dy%dd", r.Years, r.Days)
	case r.Years > 0:
		return fmt.Sprintf("%dy", r.Years)
	}
	return fmt.Sprintf("%dd", r.Days)
}

// Less reports whether r is shorter than other: a year counts 365.25 days.
func (r Retention) Less(other Retention) bool { return r.days() < other.days() }

func (r Retention) days() float64 { return float64(r.Years)*365.25 + float64(r.Days) }

// ParseRetention reads a retention like 7y, 400d or 1y30d.
func ParseRetention(s string) (Retention, error) {
	var r Retention
	rest := strings.ToLower(s)
	bad := fmt.Errorf("%q is not like 7y, 400d or 1y30d", s)
	for rest != "" {
		i := strings.IndexAny(rest, "yd")
		if i < 1 {
			return r, bad
		}
		n, err := strconv.Atoi(rest[:i])
		if err != nil || n < 0 || n > 36500 {
			return r, bad
		}
		switch {
		case rest[i] == 'y' && r == Retention{} && n <= 100:
			r.Years = n
		case rest[i] == 'd' && r.Days == 0:
			r.Days = n
		default:
			return r, bad
		}
		rest = rest[i+1:]
	}
	if r.Years == 0 && r.Days == 0 {
		return r, bad
	}
	return r, nil
}
