package letshare

import (
	"strings"
	"testing"
)

func TestRoomNames(t *testing.T) {
	const (
		good    = ""
		short   = "room_name_too_short"
		long    = "room_name_too_long"
		invalid = "room_name_invalid"
	)
	for _, test := range []struct{ name, reason string }{
		{"ab", good}, {"AZ", good}, {"az", good}, {"09", good}, {"a1_- B", good}, {"  ", good}, {"--", good}, {"__", good},
		{"王小", good}, {"房间 1", good}, {"abcdefghijkl", good}, {strings.Repeat("王", 12), good}, {" a", good}, {"a ", good},

		{"", short}, {"a", short}, {"王", short}, {"😀", short}, {" ", short}, {"\xff", short},
		{"abcdefghijklm", long}, {strings.Repeat("王", 13), long}, {strings.Repeat("😀", 13), long}, {strings.Repeat(" ", 13), long},

		// The ends of the range of Chinese characters, and their neighbours.
		{"\u4e00\u4e00", good}, {"\u9fa5\u9fa5", good}, {"\u4dff\u4dff", invalid}, {"\u9fa6\u9fa6", invalid},
		{"\u3400\u3400", invalid}, {"\u4dbf\u4dbf", invalid}, {"\uf900\uf900", invalid}, {"\U00020000\U00020000", invalid},

		// The neighbours of the other ranges.
		{"a/", invalid}, {"a:", invalid}, {"a@", invalid}, {"a[", invalid}, {"a`", invalid}, {"a{", invalid}, {"a,", invalid},
		{"a.", invalid}, {"a^", invalid}, {"a!", invalid}, {"a\x1f", invalid}, {"a\x7f", invalid},

		// What looks alike.
		{"e\u0301e", invalid}, {"\u00e9e", invalid}, {"\uff41\uff42", invalid}, {"\uff11\uff12", invalid}, {"a\u3000b", invalid},
		{"a\u00a0b", invalid}, {"a\u200db", invalid}, {"a\u2010b", invalid}, {"a\u2014b", invalid}, {"\u0430\u0431", invalid},
		{"\ufeffab", invalid}, {"a\u0000", invalid}, {"ab\n", invalid}, {"ab\t", invalid}, {"\u3007\u3007", invalid},

		// Not text: halves of surrogate pairs arrive as U+FFFD, broken bytes as they are.
		{"ab\ufffd", invalid}, {"ab\xff", invalid}, {"ab\xed\xa0\x80", invalid}, {"\xe7\x8e", invalid},
		{"😀😀", invalid}, {"a😀", invalid}, {"👨‍👩‍👧", invalid}, {"あい", invalid}, {"한국", invalid},
	} {
		reason := ""
		if failed := checkRoomName(test.name); failed != nil {
			reason = failed.Reason
			if failed.Code != 400 {
				t.Errorf("%q: code %d", test.name, failed.Code)
			}
		}
		if reason != test.reason {
			t.Errorf("%q: %q, want %q", test.name, reason, test.reason)
		}
	}
}

func TestEachCharacterIsAllowedExactlyIfTheRuleSaysSo(t *testing.T) {
	for r := rune(0); r <= 0x10ffff; r++ {
		want := r >= 0x4e00 && r <= 0x9fa5 || r < 0x80 && strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-", r)
		if isRoomRune(r) != want {
			t.Errorf("U+%04X: allowed is %v", r, !want)
		}
	}
}
