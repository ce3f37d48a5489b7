package stats

import (
	"fmt"
	"time"
)

// Unit is the length of an interval.
type Unit uint8

// The units, each a part of the next.
const (
	Minute Unit = iota
	Hour
	Day
	Month
	units
)

func (u Unit) String() string { return [...]string{"minute", "hour", "day", "month"}[u] }

// ParseUnit is the inverse of String.
func ParseUnit(s string) (u Unit, ok bool) {
	for u := range units {
		if u.String() == s {
			return u, true
		}
	}
	return 0, false
}

// layouts are the forms of interval ids (TS12a).
var layouts = [units]string{"2006-01-02:15:04", "2006-01-02:15", "2006-01-02", "2006-01"}

// Interval is a minute, hour, day or month of UTC, between the years 1970 and 9999.
type Interval struct {
	Unit  Unit
	start int64 // in minutes since the epoch
}

// At is the interval of a unit that t is in.
func At(u Unit, t time.Time) Interval {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute := t.Hour(), t.Minute()
	switch u {
	case Month:
		day = 1
		fallthrough
	case Day:
		hour = 0
		fallthrough
	case Hour:
		minute = 0
	}
	return Interval{u, time.Date(year, month, day, hour, minute, 0, 0, time.UTC).Unix() / 60}
}

// ParseInterval reads an interval id, whose form tells the unit.
func ParseInterval(id string) (Interval, error) {
	for u, layout := range layouts {
		if t, err := time.Parse(layout, id); err == nil && len(id) == len(layout) && t.Year() >= 1970 {
			return At(Unit(u), t), nil
		}
	}
	return Interval{}, fmt.Errorf("%.40q is no interval id: it must have the form yyyy-mm-dd:hh:mm, yyyy-mm-dd:hh, yyyy-mm-dd or yyyy-mm", id)
}

// Start is the moment when the interval begins.
func (i Interval) Start() time.Time { return time.Unix(i.start*60, 0).UTC() }

// End is the moment when the next interval begins.
func (i Interval) End() time.Time {
	switch i.Unit {
	case Minute:
		return i.Start().Add(time.Minute)
	case Hour:
		return i.Start().Add(time.Hour)
	case Day:
		return i.Start().Add(24 * time.Hour)
	}
	return i.Start().AddDate(0, 1, 0)
}

// String is the interval's id (TS12a).
func (i Interval) String() string { return i.Start().Format(layouts[i.Unit]) }

// In is the interval of a larger unit that i is in.
func (i Interval) In(u Unit) Interval { return At(u, i.Start()) }

// end is End in minutes since the epoch.
func (i Interval) end() int64 { return i.End().Unix() / 60 }
