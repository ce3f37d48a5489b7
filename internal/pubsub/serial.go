package pubsub

import (
	"fmt"
	"strconv"
	"strings"
)

// Serial is a position in a channel's log: "<14-digit ms>-<6-digit counter>@<epoch>".
// Serials of one channel grow strictly and sort as strings. Clients never parse them; an
// epoch names one incarnation of the store, so that a serial of a lost log is recognised.
type Serial string

const (
	serialMillisDigits  = 14
	serialCounterDigits = 6

	// EpochLength is the fixed length of an epoch, so that serials of different epochs
	// still sort by time.
	EpochLength = 8

	serialLength = serialMillisDigits + 1 + serialCounterDigits + 1 + EpochLength

	// MaxSerialCounter is the largest counter within one millisecond; the next serial
	// after it belongs to the next millisecond.
	MaxSerialCounter = 999_999
)

// MakeSerial returns the serial of the given millisecond, counter and epoch.
func MakeSerial(ms int64, counter int, epoch string) Serial {
	var b [serialLength]byte
	putDigits(b[:serialMillisDigits], uint64(ms))
	b[serialMillisDigits] = '-'
	putDigits(b[serialMillisDigits+1:serialMillisDigits+1+serialCounterDigits], uint64(counter))
	b[serialMillisDigits+1+serialCounterDigits] = '@'
	copy(b[serialLength-EpochLength:], epoch)
	return Serial(b[:])
}

func putDigits(b []byte, n uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}

// ParseSerial takes s apart. It fails on anything that MakeSerial could not have made.
func ParseSerial(s string) (ms int64, counter int, epoch string, err error) {
	if len(s) != serialLength || s[serialMillisDigits] != '-' || s[serialLength-EpochLength-1] != '@' {
		return 0, 0, "", fmt.Errorf("invalid serial: %q", s)
	}
	ms, ok1 := parseDigits(s[:serialMillisDigits])
	n, ok2 := parseDigits(s[serialMillisDigits+1 : serialLength-EpochLength-1])
	epoch = s[serialLength-EpochLength:]
	if !ok1 || !ok2 || !isAlphanumeric(epoch) {
		return 0, 0, "", fmt.Errorf("invalid serial: %q", s)
	}
	return ms, int(n), epoch, nil
}

func parseDigits(s string) (n int64, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

func isAlphanumeric(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') {
			return false
		}
	}
	return true
}

// Epoch returns the epoch of s, or "" when s is no serial.
func (s Serial) Epoch() string {
	if len(s) != serialLength {
		return ""
	}
	return string(s[serialLength-EpochLength:])
}

// Item is the serial of the index-th item of the entry at s: "<serial>:<3-digit index>".
func (s Serial) Item(index int) string {
	if index < 10 {
		return string(s) + ":00" + string(rune('0'+index))
	}
	return fmt.Sprintf("%s:%03d", s, index)
}

// ParseItemSerial splits an item's serial into its entry's serial and its index.
func ParseItemSerial(s string) (entry Serial, index int, err error) {
	head, tail, found := strings.Cut(s, ":")
	if _, _, _, err := ParseSerial(head); !found || err != nil || len(tail) < 3 {
		return "", 0, fmt.Errorf("invalid serial: %q", s)
	}
	index, err = strconv.Atoi(tail)
	if err != nil || index < 0 || Serial(head).Item(index) != s {
		return "", 0, fmt.Errorf("invalid serial: %q", s)
	}
	return Serial(head), index, nil
}

// Clock gives the serials of one channel: strictly growing, whatever the wall clock does.
// The zero value is ready. It is not safe for concurrent use.
type Clock struct {
	ms      int64
	counter int32
}

// Next returns the millisecond and counter of the next serial, given the wall clock's
// milliseconds. A clock that ran backwards keeps the last millisecond and counts on.
func (c *Clock) Next(nowMillis int64) (ms int64, counter int) {
	switch {
	case nowMillis > c.ms:
		c.ms, c.counter = nowMillis, 0
	case c.counter >= MaxSerialCounter:
		c.ms, c.counter = c.ms+1, 0
	default:
		c.counter++
	}
	return c.ms, int(c.counter)
}

// Resume makes the next serial come after the given one, as read from a stored log.
func (c *Clock) Resume(ms int64, counter int) { c.ms, c.counter = ms, int32(counter) }
