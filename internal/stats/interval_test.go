package stats_test

import (
	"testing"
	"time"

	"letshare-server/internal/stats"
)

func TestIntervalIDsTellUnitAndTime(t *testing.T) {
	for _, c := range []struct {
		id         string
		unit       stats.Unit
		start, end string
	}{
		{"2024-02-03:15:05", stats.Minute, "2024-02-03T15:05:00Z", "2024-02-03T15:06:00Z"},
		{"2024-02-03:23", stats.Hour, "2024-02-03T23:00:00Z", "2024-02-04T00:00:00Z"},
		{"2024-02-29", stats.Day, "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"},
		{"2024-02", stats.Month, "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"},
		{"2023-12", stats.Month, "2023-12-01T00:00:00Z", "2024-01-01T00:00:00Z"},
		{"1970-01-01:00:00", stats.Minute, "1970-01-01T00:00:00Z", "1970-01-01T00:01:00Z"},
		{"9999-12", stats.Month, "9999-12-01T00:00:00Z", "10000-01-01T00:00:00Z"},
	} {
		i, err := stats.ParseInterval(c.id)
		if err != nil {
			t.Error(err)
			continue
		}
		start, end := i.Start().Format(time.RFC3339), i.End().Format(time.RFC3339)
		if i.Unit != c.unit || i.String() != c.id || start != c.start || end != c.end {
			t.Errorf("%s: %s %s from %s to %s", c.id, i.Unit, i, start, end)
		}
		if last := i.End().Add(-time.Nanosecond); stats.At(i.Unit, last) != i || stats.At(i.Unit, i.Start()) != i {
			t.Errorf("%s does not hold its own beginning and end", c.id)
		}
	}
}

func TestWhatIsNoIntervalIDIsRefused(t *testing.T) {
	for _, id := range []string{
		"", "2024", "2024-2", "2024-13", "2024-02-30", "2024-02-03:24", "2024-02-03:15:60", "2024-02-03:15:05:00", "2024-02-03 15:05",
		"2024-02-03T15:05", "1969-12-31:23:59", "-2024-02", " 2024-02", "2024-02-03:5", "２０２４-02",
	} {
		if i, err := stats.ParseInterval(id); err == nil {
			t.Errorf("%q is %s", id, i)
		}
	}
}

func TestIntervalsOfAnyTimeZoneAreThoseOfUTC(t *testing.T) {
	at := time.Date(2024, 3, 1, 1, 30, 0, 0, time.FixedZone("", 5400+60))
	if i := stats.At(stats.Month, at); i.String() != "2024-02" {
		t.Error(i)
	}
	if i := stats.At(stats.Minute, at); i.String() != "2024-02-29:23:59" {
		t.Error(i)
	}
}
