package letshare

import "unicode/utf8"

// The length of a room's name, in code points.
const (
	minRoomName = 2
	maxRoomName = 12
)

// checkRoomName enforces the rule for names: 2 to 12 of [\u4e00-\u9fa5a-zA-Z0-9 _-].
func checkRoomName(name string) *failure {
	switch n := utf8.RuneCountInString(name); {
	case n < minRoomName:
		return fail("room_name_too_short", "房间名太短啦，至少两个字符")
	case n > maxRoomName:
		return fail("room_name_too_long", "房间名最多 12 个字符")
	}
	for _, r := range name {
		if !isRoomRune(r) {
			return fail("room_name_invalid", "房间名只能包含中文、字母、数字、空格、下划线和中划线")
		}
	}
	return nil
}

func isRoomRune(r rune) bool {
	switch {
	case r >= 0x4e00 && r <= 0x9fa5, r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		return true
	}
	return r == ' ' || r == '_' || r == '-'
}
