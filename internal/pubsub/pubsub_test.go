package pubsub_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"letshare-server/internal/pubsub"
)

const epoch = "abcd1234"

func TestSerialsOfOneChannelGrowWhateverTheClockDoes(t *testing.T) {
	var clock pubsub.Clock
	var last pubsub.Serial
	for i, now := range []int64{5, 5, 6, 3, 3, 1_000_000_000_000, 7, 1_000_000_000_001} {
		ms, counter := clock.Next(now)
		s := pubsub.MakeSerial(ms, counter, epoch)
		if s <= last {
			t.Errorf("serial %d is %s, after %s", i, s, last)
		}
		last = s
	}
	clock.Resume(9, pubsub.MaxSerialCounter)
	if ms, counter := clock.Next(9); ms != 10 || counter != 0 {
		t.Errorf("after the last counter of millisecond 9 comes %d-%d", ms, counter)
	}
}

func TestASerialIsReadBackAndNothingElseIsOne(t *testing.T) {
	s := pubsub.MakeSerial(1726585978590, 42, epoch)
	if s != "01726585978590-000042@abcd1234" {
		t.Errorf("got %s", s)
	}
	ms, counter, e, err := pubsub.ParseSerial(string(s))
	if ms != 1726585978590 || counter != 42 || e != epoch || err != nil || s.Epoch() != epoch {
		t.Errorf("read back: %d %d %s %v", ms, counter, e, err)
	}
	for _, bad := range []string{"", "x", string(s) + "0", string(s)[1:], strings.Replace(string(s), "-", "_", 1),
		strings.Replace(string(s), "@", "-", 1), strings.Replace(string(s), "0", "O", 1), strings.Replace(string(s), "abcd", "ab/d", 1)} {
		if _, _, _, err := pubsub.ParseSerial(bad); err == nil {
			t.Errorf("%q is taken for a serial", bad)
		}
	}
}

func TestItemSerialsSortAndAreReadBack(t *testing.T) {
	s := pubsub.MakeSerial(7, 0, epoch)
	var items []string
	for i := range 1000 {
		items = append(items, s.Item(i))
		entry, index, err := pubsub.ParseItemSerial(items[i])
		if entry != s || index != i || err != nil {
			t.Fatalf("%s: %s %d %v", items[i], entry, index, err)
		}
	}
	if !slices.IsSorted(items) {
		t.Error("the serials of items do not sort in their order")
	}
	for _, bad := range []string{"", string(s), string(s) + ":", string(s) + ":1", string(s) + ":-01", string(s) + ":00x", "x:000"} {
		if _, _, err := pubsub.ParseItemSerial(bad); err == nil {
			t.Errorf("%q is taken for an item's serial", bad)
		}
	}
}

func TestChannelNamesAreTakenApart(t *testing.T) {
	for _, c := range []struct{ name, base, qualifier, resource, id, param string }{
		{"foo", "foo", "", "foo", "foo", ""},
		{"ns:a/b?c#d", "ns:a/b?c#d", "", "ns:a/b?c#d", "ns:a/b?c#d", ""},
		{"测试 room-1", "测试 room-1", "", "测试 room-1", "测试 room-1", ""},
		{"[?rewind=1]foo", "foo", "", "foo", "foo", "1"},
		{"[meta]log", "log", "meta", "[meta]log", "[meta]log", ""},
		{"[meta?rewind=2]log", "log", "meta", "[meta]log", "[meta]log", "2"},
		{"[filter=bmFtZQ==]foo", "foo", "filter", "[filter]foo", "foo", ""},
		{"[filter=a/b+c=?rewind=3]foo", "foo", "filter", "[filter]foo", "foo", "3"},
	} {
		n, err := pubsub.ParseChannelName(c.name)
		if err != nil || n.Attached != c.name || n.Base != c.base || n.Qualifier != c.qualifier ||
			n.Resource() != c.resource || n.ID("app") != (pubsub.ChannelID{App: "app", Name: c.id}) || n.Params.Get("rewind") != c.param {
			t.Errorf("%s: %+v %v", c.name, n, err)
		}
	}
}

func TestBadChannelNamesAreRefused(t *testing.T) {
	for _, name := range []string{"", ":", ":hell", "::", "a\nb", "a\rb", "[", "[]foo", "[foo", "[foo]bar", "[meta]", "[?a=%zz]foo",
		"[queue]x", "[meta][meta]x", "\xff", strings.Repeat("x", pubsub.MaxChannelNameBytes+1)} {
		_, err := pubsub.ParseChannelName(name)
		var e *pubsub.Error
		if !errors.As(err, &e) || e.Code != pubsub.CodeInvalidChannelName || e.StatusCode != 400 {
			t.Errorf("%.20q: %v", name, err)
		}
	}
	if _, err := pubsub.ParseChannelName(strings.Repeat("x", pubsub.MaxChannelNameBytes)); err != nil {
		t.Errorf("the longest name: %v", err)
	}
}

func FuzzParseChannelName(f *testing.F) {
	for _, s := range []string{"foo", "[?rewind=1]foo", "[meta]x", "[filter=abc?x=y]z", ":", "[", "a]b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := pubsub.ParseChannelName(s)
		if err != nil {
			return
		}
		if n.Attached != s || !strings.HasSuffix(s, n.Base) || n.Base == "" {
			t.Errorf("%q: %+v", s, n)
		}
		// The resource names the same channel, so that a right on it is a right on that.
		again, err := pubsub.ParseChannelName(n.Resource())
		if n.Qualifier != "filter" && (err != nil || again.ID("a") != n.ID("a")) {
			t.Errorf("%q is %v, its resource %q is %v (%v)", s, n.ID("a"), n.Resource(), again.ID("a"), err)
		}
	})
}

func TestErrorsTellClientsTheirMessageOnly(t *testing.T) {
	inner := errors.New("disk on fire")
	e := pubsub.Errorf(pubsub.CodeCapabilityDenied, "may not %s", "publish").Because(inner)
	if e.Message != "may not publish" || !errors.Is(e, inner) || e.StatusCode != 401 {
		t.Errorf("%+v", e)
	}
	if got := pubsub.ErrorFor(fmt.Errorf("attach: %w", e)); got != e {
		t.Errorf("wrapped: %v", got)
	}
	if got := pubsub.ErrorFor(inner); got.Code != pubsub.CodeInternalError || strings.Contains(got.Message, "fire") {
		t.Errorf("foreign: %v", got)
	}
	if pubsub.ErrorFor(nil) != nil {
		t.Error("nil is an error")
	}
}

func TestStatusesBelongToCodes(t *testing.T) {
	for code, status := range map[pubsub.Code]int{
		pubsub.CodeBadRequest: 400, pubsub.CodeMessageTooLarge: 413, pubsub.CodeInvalidCredentials: 401, pubsub.CodeTokenExpired: 401,
		pubsub.CodeForbidden: 403, pubsub.CodeNotFound: 404, pubsub.CodeMethodNotAllowed: 405, pubsub.CodeRateLimited: 429,
		pubsub.CodeInternalError: 500, pubsub.CodeTimeout: 503, pubsub.CodeBusy: 503, pubsub.CodeInvalidConnectionKey: 400,
		pubsub.CodeConnectionNotFound: 410, pubsub.CodeNotAttached: 404, pubsub.CodeMessagesExpired: 404, pubsub.CodePresenceLost: 500,
		pubsub.CodeMutableRuleMissing: 400, pubsub.CodeConnectionLimit: 403, pubsub.CodeChannelLimit: 403, pubsub.CodeChannelMessageRate: 429,
		pubsub.CodeChannelByteRate: 429, pubsub.CodeRequestRate: 429, pubsub.CodeConnectionFlood: 429, pubsub.CodeAddressRate: 429,
		pubsub.CodeNewConnectionRate: 429, pubsub.CodeContinuityLostByRate: 400, pubsub.CodeTooManyChannels: 400, pubsub.CodeTooManyMembers: 400,
	} {
		if got := code.StatusCode(); got != status {
			t.Errorf("%d: %d, want %d", code, got, status)
		}
	}
	for code := pubsub.Code(40100); code < 40200; code++ {
		if want := code >= 40140 && code <= 40149; code.IsTokenError() != want {
			t.Errorf("%d: token error is %v", code, !want)
		}
	}
}

func TestModesAreReadFromTheirNames(t *testing.T) {
	if got := pubsub.ParseModes("publish, SUBSCRIBE,unknown,,object_publish"); got != pubsub.ModePublish|pubsub.ModeSubscribe|pubsub.ModeObjectPublish {
		t.Errorf("got %b", got)
	}
}
