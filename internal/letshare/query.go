package letshare

import "strings"

// param returns the first parameter of a URL's query with that name, or "".
//
// The front-end escapes nothing. Its users' names may hold percent signs and semicolons,
// which net/url takes for mistakes and drops with the whole parameter; here they stand for
// themselves.
func param(rawQuery, name string) string {
	for pair := range strings.SplitSeq(rawQuery, "&") {
		if key, value, _ := strings.Cut(pair, "="); pair != "" && unescape(key) == name {
			return unescape(value)
		}
	}
	return ""
}

// unescape decodes what is an escape and leaves the rest alone.
func unescape(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			c = unhex(s[i+1])<<4 | unhex(s[i+2])
			i += 2
		}
		b = append(b, c)
	}
	return string(b)
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
