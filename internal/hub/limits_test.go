package hub_test

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"letshare-server/internal/auth"
	"letshare-server/internal/engine"
	"letshare-server/internal/hub"
	"letshare-server/internal/limit"
	"letshare-server/internal/pubsub"
)

// excesses counts what exceeded a limit.
type excesses struct {
	mu sync.Mutex
	of map[limit.Name]int
}

func (e *excesses) LimitExceeded(n limit.Name) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.of[n]++
}

func (e *excesses) expect(t *testing.T, n limit.Name, want int) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.of[n] != want {
		t.Errorf("%v was exceeded %d times, want %d; all: %v", n, e.of[n], want, e.of)
	}
}

// limited returns a hub with limits that can be changed, and what exceeded them. The app
// "test" has no rates.
func limited(t *testing.T, l limit.Limits, options ...func(*hub.Options)) (*hub.Hub, *limit.Set, *excesses) {
	t.Helper()
	e := &excesses{of: make(map[limit.Name]int)}
	set := limit.NewSet(l, limit.Options{Metrics: e, WithoutRates: func(app string) bool { return app == "test" }})
	h := newHub(t, append(options, func(o *hub.Options) { o.Limits = set })...)
	return h, set, e
}

// tryPublish publishes messages of given sizes and returns the code of the refusal, or 0.
func tryPublish(h *hub.Hub, app, channel string, sizes ...int) pubsub.Code {
	p := &hub.Publish{
		Grant:   &auth.Grant{App: app, ClientRule: auth.ClientAny, Capability: auth.FullCapability},
		Channel: name(channel),
	}
	for _, n := range sizes {
		p.Messages = append(p.Messages, &pubsub.Message{Data: pubsub.Text(strings.Repeat("x", n))})
	}
	var turn hub.Turn
	defer turn.End()
	var out hub.Published
	err := h.Publish(&turn, p, func(p hub.Published) { out = p })
	if err == nil && out.Err != nil {
		err = out.Err
	}
	return code(err)
}

// code is that of an error, or 0.
func code(err error) pubsub.Code {
	if e := pubsub.ErrorFor(err); e != nil {
		return e.Code
	}
	return 0
}

func TestTheSizeOfAPublishIsBoundedExactly(t *testing.T) {
	h, set, e := limited(t, limit.Limits{MessageBytes: 100})
	for i, test := range []struct {
		sizes []int
		want  pubsub.Code
	}{
		{[]int{100}, 0}, {[]int{101}, pubsub.CodeMessageTooLarge},
		{[]int{50, 50}, 0}, {[]int{50, 51}, pubsub.CodeMessageTooLarge},
		{make([]int, hub.MaxMessagesPerPublish), 0}, {make([]int, hub.MaxMessagesPerPublish+1), pubsub.CodeTooManyMessages},
	} {
		if got := tryPublish(h, "app", "room", test.sizes...); got != test.want {
			t.Errorf("%d: got %d, want %d", i, got, test.want)
		}
	}
	e.expect(t, limit.MessageBytes, 2)
	e.expect(t, limit.PublishMessages, 1)
	set.Replace(limit.Limits{MessageBytes: 200})
	if got := tryPublish(h, "app", "room", 200); got != 0 {
		t.Errorf("after a change: got %d", got)
	}
	if got := tryPublish(h, "app", "room", 201); got != pubsub.CodeMessageTooLarge {
		t.Errorf("after a change: got %d", got)
	}
}

func TestTheRateOfPublishesToAChannelIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, set, e := limited(t, limit.Limits{Burst: time.Second, Rates: limit.Rates{ChannelMessages: 4}})
		expect := func(what string, got, want pubsub.Code) {
			t.Helper()
			if got != want {
				t.Errorf("%s: got %d, want %d", what, got, want)
			}
		}
		expect("3 of 4", tryPublish(h, "app", "room", 1, 1, 1), 0)
		expect("5 of 4", tryPublish(h, "app", "room", 1, 1), pubsub.CodeChannelMessageRate)
		expect("4 of 4", tryPublish(h, "app", "room", 1), 0)
		expect("one more", tryPublish(h, "app", "room", 1), pubsub.CodeChannelMessageRate)
		expect("a presence message", code(try(t, h, request("conn", 0, enter("a", "")))), pubsub.CodeChannelMessageRate)
		expect("another channel", tryPublish(h, "app", "other", 1, 1, 1, 1), 0)
		expect("that of another app", tryPublish(h, "app2", "room", 1, 1, 1, 1), 0)
		for range 10 {
			expect("an app without rates", tryPublish(h, "test", "room", 1, 1, 1, 1), 0)
		}
		time.Sleep(250 * time.Millisecond)
		expect("a presence message, later", code(try(t, h, request("conn", 1, enter("a", "")))), 0)
		expect("one more, too early", tryPublish(h, "app", "room", 1), pubsub.CodeChannelMessageRate)
		e.expect(t, limit.ChannelMessages, 4)
		set.Replace(limit.Limits{})
		expect("without the limit", tryPublish(h, "app", "room", make([]int, 1000)...), 0)
	})
}

func TestTheBandwidthOfAChannelIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _, e := limited(t, limit.Limits{Burst: time.Second, Rates: limit.Rates{ChannelBytes: 1000}})
		for i, test := range []struct {
			wait time.Duration
			size int
			want pubsub.Code
		}{
			{0, 999, 0}, {0, 2, pubsub.CodeChannelByteRate}, {0, 1, 0}, {0, 1, pubsub.CodeChannelByteRate},
			{time.Millisecond, 1, 0}, {500 * time.Millisecond, 501, pubsub.CodeChannelByteRate}, {0, 500, 0},
		} {
			time.Sleep(test.wait)
			if got := tryPublish(h, "app", "room", test.size); got != test.want {
				t.Errorf("%d: got %d, want %d", i, got, test.want)
			}
		}
		e.expect(t, limit.ChannelBytes, 3)
		if got := code(try(t, h, request("conn", 0, enter("a", strings.Repeat("x", 900))))); got != pubsub.CodeChannelByteRate {
			t.Errorf("presence: got %d", got)
		}
	})
}

func TestAnAppHasABoundedNumberOfChannels(t *testing.T) {
	h, set, e := limited(t, limit.Limits{AppChannels: 2})
	try := func(app, channel string) (*hub.Attachment, pubsub.Code) {
		a := complete(&hub.Attach{Channel: name(channel)})
		a.Grant = &auth.Grant{App: app, ClientRule: auth.ClientAny, Capability: auth.FullCapability}
		at, err := h.Attach(t.Context(), a)
		return at, code(err)
	}
	one, got := try("app", "one")
	if got != 0 {
		t.Fatal(got)
	}
	for _, test := range []struct {
		app, channel string
		want         pubsub.Code
	}{
		{"app", "two", 0}, {"app", "three", pubsub.CodeChannelLimit}, {"app", "two", 0}, {"app", "one", 0},
		{"app2", "three", 0}, {"test", "one", 0}, {"test", "two", 0}, {"test", "three", pubsub.CodeChannelLimit},
	} {
		at, got := try(test.app, test.channel)
		if got != test.want {
			t.Errorf("%s %s: got %d, want %d", test.app, test.channel, got, test.want)
		}
		if at != nil && test.channel == "one" && test.app == "app" {
			at.Detach()
		}
	}
	e.expect(t, limit.AppChannels, 2)
	if got := tryPublish(h, "app", "three", 1); got != 0 {
		t.Errorf("a publish without attachment: got %d", got)
	}
	one.Detach()
	if _, got := try("app", "three"); got != 0 {
		t.Errorf("when one is gone: got %d", got)
	}
	set.Replace(limit.Limits{AppChannels: 3})
	if _, got := try("app", "four"); got != 0 {
		t.Errorf("after a change: got %d", got)
	}
}

func TestAFullStoreIsCounted(t *testing.T) {
	h, _, e := limited(t, limit.Limits{}, func(o *hub.Options) { o.Engine = &spied{Engine: o.Engine, appendErr: engine.ErrFull} })
	if got := tryPublish(h, "app", "room", 1); got != pubsub.CodeBusy {
		t.Errorf("got %d", got)
	}
	e.expect(t, limit.LogBytes, 1)
	var full *pubsub.Error
	if err := try(t, h, request("conn", 0, enter("a", ""))); !errors.As(err, &full) || full.Code != pubsub.CodeBusy {
		t.Errorf("got %v", err)
	}
	e.expect(t, limit.LogBytes, 2)
}

// choosy is an inbox that does not want everything.
type choosy struct {
	*inbox
	allow func(items int) bool
}

func (l choosy) Allow(items int) bool { return l.allow(items) }

func TestWhatAReceiverDoesNotAllowIsNotHandedOver(t *testing.T) {
	h := newHub(t)
	var asked []int
	allowed := true
	var all, filtered inbox
	attach(t, h, hub.Attach{Receiver: choosy{&all, func(items int) bool {
		asked = append(asked, items)
		return allowed
	}}, ConnectionID: "me", Limited: true})
	var askedOfFiltered []int
	attach(t, h, hub.Attach{Receiver: choosy{&filtered, func(items int) bool {
		askedOfFiltered = append(askedOfFiltered, items)
		return true
	}}, Names: []string{"b"}, Limited: true})
	say := func(data string, names ...string) {
		var turn hub.Turn
		for i, n := range names {
			publish(t, h, &turn, hub.Publish{Messages: message(n, data+strconv.Itoa(i))})
		}
		turn.End()
	}
	say("x", "a", "b", "b")
	allowed = false
	say("y", "a", "a")
	allowed = true
	say("z", "a")
	if got := all.data(); got != "x0 x1 x2 z0" {
		t.Errorf("got %s", got)
	}
	if got := filtered.data(); got != "x1 x2" {
		t.Errorf("with a filter: got %s", got)
	}
	if len(asked) != 3 || asked[0] != 3 || asked[1] != 2 || asked[2] != 1 || len(askedOfFiltered) != 1 || askedOfFiltered[0] != 2 {
		t.Errorf("asked %v and %v", asked, askedOfFiltered)
	}
}

// bearer is the grant of a JWT with the given claims.
func bearer(t *testing.T, claims jwt.MapClaims) *auth.Grant {
	t.Helper()
	app, err := auth.NewApp("app", []auth.Key{{ID: "key", Secret: "secret"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	claims["iat"], claims["exp"] = time.Now().Unix(), time.Now().Add(time.Hour).Unix()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	token.Header["kid"] = "app.key"
	text, err := token.SignedString([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	g, err := auth.NewAuthenticator(auth.NewRegistry(app), nil).RealtimeToken(text, "")
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestATokenBoundsTheRateOfItsClientOnEachChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _, e := limited(t, limit.Limits{Burst: 5 * time.Second})
		const claim = "ably.limits.publish.perAttachment.maxRate."
		g := bearer(t, jwt.MapClaims{claim + "*": 10, claim + "slow": 0.1, claim + "closed": 0})
		serial := int64(0)
		try := func(connection, channel string, messages int) pubsub.Code {
			p := &hub.Publish{Grant: g, Channel: name(channel), ConnectionID: connection, MsgSerial: serial}
			for range messages {
				p.Messages = append(p.Messages, &pubsub.Message{Data: pubsub.Text("x")})
			}
			serial++
			var turn hub.Turn
			defer turn.End()
			return codeOf(h.Publish(&turn, p, func(hub.Published) {}))
		}
		expect := func(what string, got, want pubsub.Code) {
			t.Helper()
			if got != want {
				t.Errorf("%s: code %d, want %d", what, got, want)
			}
		}
		const refused = pubsub.CodeConnectionRateExceeded
		expect("50 of a burst", try("c1", "a", 50), 0)
		expect("one more", try("c1", "a", 1), refused)
		expect("on another channel", try("c1", "b", 50), 0)
		expect("on another connection", try("c2", "a", 50), 0)
		expect("over REST", try("", "a", 50), 0)
		expect("more over REST", try("", "a", 1), refused)
		time.Sleep(100 * time.Millisecond)
		expect("after a tenth of a second", try("c1", "a", 1), 0)
		expect("and another", try("c1", "a", 1), refused)
		expect("no message", try("c1", "a", 0), 0)

		expect("one of a slow channel", try("c1", "slow", 1), 0)
		time.Sleep(5*time.Second - 1)
		expect("another too soon", try("c1", "slow", 1), refused)
		time.Sleep(5*time.Second + 1)
		expect("another", try("c1", "slow", 1), 0)
		expect("a closed channel", try("c1", "closed", 1), refused)
		time.Sleep(time.Hour)
		expect("a closed channel later", try("c1", "closed", 1), refused)
		e.expect(t, limit.TokenMessages, 6)
		if n := e.of[limit.ChannelMessages]; n != 0 {
			t.Errorf("%d against the channel", n)
		}
	})
}

func TestANamespaceHasLimitsOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := limit.Limits{MessageBytes: 100, PresenceMembers: 2, PresenceBytes: 1000, Burst: time.Second, Rates: limit.Rates{ChannelMessages: 4, ChannelBytes: 400}}
		rules := make(map[string]auth.NamespaceLimits)
		h, _, e := limited(t, all, func(o *hub.Options) {
			o.Namespace = func(_, channel string) auth.Namespace {
				return auth.Namespace{Limits: rules[pubsub.Namespace(channel)]}
			}
		})
		expect := func(what string, got, want pubsub.Code) {
			t.Helper()
			if got != want {
				t.Errorf("%s: got %d, want %d", what, got, want)
			}
		}
		present := func(channel, client, data string) pubsub.Code {
			t.Helper()
			r := request("conn-"+client, 0, enter(client, data))
			r.Channel = name(channel)
			return code(try(t, h, r))
		}
		check := func(when string, own auth.NamespaceLimits, messageBytes, messages, bytes, members, presenceBytes int) {
			t.Helper()
			rules["own"] = own
			channel := func(what string) string { return "own:" + when + what }
			expect(when+": just the largest", tryPublish(h, "app", channel("size"), messageBytes), 0)
			expect(when+": too large", tryPublish(h, "app", channel("size"), messageBytes+1), pubsub.CodeMessageTooLarge)
			for range messages {
				expect(when+": within the rate", tryPublish(h, "app", channel("rate"), 1), 0)
			}
			if got, want := tryPublish(h, "app", channel("rate"), 1), pubsub.CodeChannelMessageRate; messages > 0 {
				expect(when+": above the rate", got, want)
			}
			for range bytes / 50 {
				expect(when+": within the bandwidth", tryPublish(h, "app", channel("bytes"), 50), 0)
			}
			if bytes > 0 {
				expect(when+": above the bandwidth", tryPublish(h, "app", channel("bytes"), 1), pubsub.CodeChannelByteRate)
			}
			for i := range members {
				expect(when+": a member", present(channel("members"), "m"+strconv.Itoa(i), ""), 0)
			}
			expect(when+": one member too many", present(channel("members"), "last", ""), pubsub.CodeTooManyMembers)
			large := strings.Repeat("x", min(messageBytes, presenceBytes)-10)
			if presenceBytes < messageBytes {
				expect(when+": too much data", present(channel("data"), "a", large+strings.Repeat("x", 10)), pubsub.CodePresenceTooLarge)
			} else {
				expect(when+": as much data as may be", present(channel("data"), "a", large), 0)
			}
		}
		check("as all", auth.NamespaceLimits{}, 100, 4, 0, 2, 1000)
		check("more", auth.NamespaceLimits{MessageBytes: 150, Messages: 8, Bytes: -1, PresenceMembers: 3, PresenceBytes: 2000}, 150, 8, 0, 3, 2000)
		check("less", auth.NamespaceLimits{MessageBytes: 60, Messages: 2, PresenceMembers: 1, PresenceBytes: 50}, 60, 2, 0, 1, 50)
		check("other rates", auth.NamespaceLimits{Messages: -1, Bytes: 200}, 100, 0, 200, 2, 1000)
		e.expect(t, limit.MessageBytes, 4)
		e.expect(t, limit.ChannelMessages, 3)
		e.expect(t, limit.ChannelBytes, 1)
		e.expect(t, limit.PresenceMembers, 4)
		e.expect(t, limit.PresenceBytes, 1)

		// The size counts for doors with a bound of their own, too.
		p := &hub.Publish{Grant: anyone, Channel: name("own:door"), Messages: message("", strings.Repeat("x", 101)), MaxBytes: 1000}
		expect("a door's own size", code(h.Publish(new(hub.Turn), p, func(hub.Published) {})), 0)
		rules["own"] = auth.NamespaceLimits{MessageBytes: 100}
		p = &hub.Publish{Grant: anyone, Channel: name("own:door"), Messages: message("", strings.Repeat("x", 101)), MaxBytes: 1000}
		expect("a door's own size where the namespace has one", code(h.Publish(new(hub.Turn), p, func(hub.Published) {})), pubsub.CodeMessageTooLarge)
	})
}
